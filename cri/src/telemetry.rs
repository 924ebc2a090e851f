//! What is told of every call, in one place: its number, its method, how long it took and how it ended.
//!
//! A failed call is told here once, with the whole chain of causes; nobody below logs an error that it also
//! returns. Requests and answers are never printed: they may hold secrets. What asks all the time (lists,
//! statuses, probes) is told at debug, what changes something at info.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use tonic::codegen::http::{HeaderName, HeaderValue, Request, Response};
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::level_filters::LevelFilter;
use tracing::{Instrument, Span, debug, debug_span, field, info, info_span, warn};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Registry, reload};

use crate::metrics::Calls;

/// The answer's header with the call's number, for looking it up in the log.
static CALL_ID: HeaderName = HeaderName::from_static("corten-call-id");

/// Wraps a service so that its calls are told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Telemetry {
    last: Arc<AtomicU64>,
    calls: Calls,
}

impl Telemetry {
    /// Counts the calls too.
    pub(crate) fn counting(calls: Calls) -> Self {
        Self { calls, ..Self::default() }
    }
}

/// A service whose calls are told.
#[derive(Debug, Clone)]
pub(crate) struct Told<S> {
    inner: S,
    last: Arc<AtomicU64>,
    calls: Calls,
}

/// One call; when it is dropped before its end, the client has left.
struct Call {
    calls: Calls,
    method: String,
    polled: bool,
    began: Instant,
    ended: bool,
}

/// Says which pod, container or image the running call is about.
pub(crate) fn about(object: &str) {
    Span::current().record("about", object);
}

/// Changes what is logged while the server runs.
#[derive(Debug, Clone)]
pub(crate) struct Volume(reload::Handle<Targets, Registry>);

impl Volume {
    /// Logs this level from now on.
    pub(crate) fn set(&self, level: LevelFilter) {
        if let Err(error) = self.0.reload(targets(level)) {
            warn!("change the log's level: {error}");
        }
    }
}

/// Starts the log on standard error: `level` for Corten itself, warnings of what it is built from.
pub(crate) fn start(level: LevelFilter) -> Volume {
    use std::io::IsTerminal;
    let (targets, handle) = reload::Layer::new(targets(level));
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false);
    tracing_subscriber::registry().with(targets).with(lines).init();
    Volume(handle)
}

fn targets(level: LevelFilter) -> Targets {
    let own = ["corten", "image", "network", "pod", "runtime"].map(|name| (name, level));
    Targets::new().with_default(level.min(LevelFilter::WARN)).with_targets(own)
}

impl<S> Layer<S> for Telemetry {
    type Service = Told<S>;

    fn layer(&self, inner: S) -> Told<S> {
        Told { inner, last: self.last.clone(), calls: self.calls.clone() }
    }
}

impl<S, B, A> Service<Request<B>> for Told<S>
where
    S: Service<Request<B>, Response = Response<A>, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response<A>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<A>, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let method = request.uri().path().rsplit('/').next().unwrap_or_default();
        let polled = is_polled(method);
        let span = match polled {
            true => debug_span!("call", id, method, about = field::Empty),
            false => info_span!("call", id, method, about = field::Empty),
        };
        let (calls, method) = (self.calls.clone(), method.to_owned());
        let mut call = Call { calls, method, polled, began: Instant::now(), ended: false };
        let answer = self.inner.call(request);
        let told = async move {
            let mut response = answer.await?;
            // A status that came with the headers; one at the end of a stream is the stream's own affair.
            call.end(response.extensions().get::<Status>());
            response.headers_mut().insert(CALL_ID.clone(), HeaderValue::from(id));
            Ok(response)
        };
        Box::pin(told.instrument(span))
    }
}

impl Call {
    fn end(&mut self, failure: Option<&Status>) {
        self.ended = true;
        let took = self.began.elapsed();
        self.calls.ended(&self.method, failure.map_or(Code::Ok, Status::code), took);
        let took = millis(took);
        let Some(failure) = failure.filter(|status| status.code() != Code::Ok) else {
            match self.polled {
                true => debug!(took, "done"),
                false => info!(took, "done"),
            }
            return;
        };
        let (code, text) = (failure.code(), failure.message());
        // Kubelets ask for what is gone, and try what they may do without.
        match self.polled && matches!(code, Code::NotFound | Code::Unimplemented) {
            true => debug!(took, ?code, "{text}"),
            false => warn!(took, ?code, "{text}"),
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.ended {
            let took = self.began.elapsed();
            self.calls.ended(&self.method, Code::Cancelled, took);
            let took = millis(took);
            match self.polled {
                true => debug!(took, "the client left before the answer"),
                false => info!(took, "the client left before the answer"),
            }
        }
    }
}

/// Milliseconds with three places.
fn millis(time: Duration) -> String {
    format!("{:.3}ms", time.as_secs_f64() * 1000.0)
}

/// Whether a method is called all the time, by kubelets and probes, and changes nothing.
fn is_polled(method: &str) -> bool {
    const WORDS: [&str; 7] = [
        "Version",
        "RuntimeConfig",
        "ImageFsInfo",
        "ExecSync",
        "GetContainerEvents",
        "Watch",
        "UpdateRuntimeConfig",
    ];
    method.starts_with("List")
        || method.starts_with("Stream")
        || method.ends_with("Status")
        || method.ends_with("Stats")
        || WORDS.contains(&method)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    /// What is logged of a call of `method` whose answer is `answer`; none leaves before the answer.
    fn log(method: &str, level: tracing::Level, answer: Option<Result<(), Status>>) -> String {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_writer(move || writer.clone())
            .with_max_level(level)
            .with_ansi(false)
            .without_time()
            .finish();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let leaves = answer.is_none();
        let service = tower::service_fn(move |_: Request<()>| {
            let answer = answer.clone();
            async move {
                about("web");
                match answer {
                    Some(Ok(())) => Ok(Response::new(())),
                    Some(Err(status)) => Ok(status.into_http()),
                    None => std::future::pending().await,
                }
            }
        });
        let request =
            Request::builder().uri(format!("/runtime.v1.RuntimeService/{method}")).body(()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            let mut call = Telemetry::default().layer(service).call(request);
            if leaves {
                let mut context = Context::from_waker(std::task::Waker::noop());
                assert!(call.as_mut().poll(&mut context).is_pending());
            } else {
                let response = runtime.block_on(call).unwrap();
                assert_eq!(response.headers()[&CALL_ID], "1");
            }
        });
        String::from_utf8(lines.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn changes_are_told_at_info_and_polls_at_debug() {
        let check = |method: &str, level: tracing::Level, expected: bool| {
            let log = log(method, level, Some(Ok(())));
            assert_eq!(!log.is_empty(), expected, "{method} at {level}: {log:?}");
            assert_eq!(log.contains(method), expected, "{log:?}");
        };
        check("RunPodSandbox", tracing::Level::INFO, true);
        check("UpdateContainerResources", tracing::Level::INFO, true);
        check("ListContainers", tracing::Level::INFO, false);
        check("ListContainers", tracing::Level::DEBUG, true);
        check("PodSandboxStatus", tracing::Level::INFO, false);
        check("ExecSync", tracing::Level::INFO, false);
    }

    #[test]
    fn a_failure_is_told_once_with_its_cause() {
        let log = log("PullImage", tracing::Level::INFO, Some(Err(Status::unknown("pull x: no route"))));
        assert_eq!(log.lines().count(), 1, "{log}");
        for part in ["WARN", "id=1", "about=\"web\"", "code=Unknown", "pull x: no route"] {
            assert!(log.contains(part), "{part} is not in {log:?}");
        }
        let log =
            super::tests::log("ContainerStatus", tracing::Level::INFO, Some(Err(Status::not_found("gone"))));
        assert_eq!(log, "");
    }

    #[test]
    fn a_client_that_leaves_is_told() {
        let log = log("RunPodSandbox", tracing::Level::INFO, None);
        assert!(log.contains("the client left"), "{log:?}");
    }
}
