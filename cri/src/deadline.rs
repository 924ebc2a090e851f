//! Deadlines of calls, as their clients give them in `grpc-timeout` (gRPC over HTTP/2, "Requests").
//!
//! tonic keeps them too, but answers Cancelled, where clients expect DeadlineExceeded; which of the two a client sees
//! would depend on whose clock is quicker.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tonic::Status;
use tonic::codegen::http::{HeaderMap, Request, Response};
use tower::{Layer, Service};

/// As long before the deadline the answer is given, so that it comes before tonic's.
const AHEAD: Duration = Duration::from_millis(1);

/// Wraps a service so that it answers within its calls' deadlines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Deadlines;

/// A service that answers within its calls' deadlines.
#[derive(Debug, Clone)]
pub(crate) struct Punctual<S>(S);

impl<S> Layer<S> for Deadlines {
    type Service = Punctual<S>;

    fn layer(&self, inner: S) -> Punctual<S> {
        Punctual(inner)
    }
}

impl<S, B, A> Service<Request<B>> for Punctual<S>
where
    S: Service<Request<B>, Response = Response<A>, Error = Infallible>,
    S::Future: Send + 'static,
    A: Default,
{
    type Response = Response<A>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let limit = limit(request.headers());
        let answer = self.0.call(request);
        let Some(limit) = limit else { return Box::pin(answer) };
        Box::pin(async move {
            let answer = tokio::time::timeout(limit.saturating_sub(AHEAD), answer).await;
            answer.unwrap_or_else(|_| {
                Ok(Status::deadline_exceeded("the call's deadline has passed").into_http())
            })
        })
    }
}

/// The time that the client gives; none when it gives none, or nothing that means one.
fn limit(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let number: u64 = number.parse().ok()?;
    match unit {
        "H" => number.checked_mul(3600).map(Duration::from_secs),
        "M" => number.checked_mul(60).map(Duration::from_secs),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_limit_is_a_number_and_a_unit() {
        let check = |text: &str, limit: Option<Duration>| {
            let mut headers = HeaderMap::new();
            headers.insert("grpc-timeout", text.parse().unwrap());
            assert_eq!(super::limit(&headers), limit, "{text}");
        };
        check("1H", Some(Duration::from_secs(3600)));
        check("2M", Some(Duration::from_secs(120)));
        check("3S", Some(Duration::from_secs(3)));
        check("4m", Some(Duration::from_millis(4)));
        check("5u", Some(Duration::from_micros(5)));
        check("6n", Some(Duration::from_nanos(6)));
        for wrong in ["", "S", "1", "1s", "-1S", "99999999999999999999S", "18446744073709551615H"] {
            check(wrong, None);
        }
        assert_eq!(super::limit(&HeaderMap::new()), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_over_its_time_is_answered_as_such() {
        let slow = tower::service_fn(async |_: Request<()>| {
            tokio::time::sleep(Duration::from_secs(5)).await;
            Ok::<_, Infallible>(Response::new(()))
        });
        let mut service = Deadlines.layer(slow);
        for (timeout, code) in
            [("4S", Some(Code::DeadlineExceeded)), ("1m", Some(Code::DeadlineExceeded)), ("6S", None)]
        {
            let request = Request::builder().header("grpc-timeout", timeout).body(()).unwrap();
            let response = service.call(request).await.unwrap();
            assert_eq!(response.extensions().get::<Status>().map(Status::code), code, "{timeout}");
        }
    }
}
