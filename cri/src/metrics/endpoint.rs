//! The page with the metrics, by HTTP/1.1 on a unix socket or a loopback address. Nothing else is served there.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::server::{self, Listener};

const PATH: &str = "/metrics";
/// What Prometheus asks for first.
const FORMAT: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Clients at a time; more wait.
const CLIENTS: usize = 8;
/// How long a client may keep its connection.
const PATIENCE: Duration = Duration::from_secs(10);

/// Where the metrics are served.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) enum Endpoint {
    /// Nowhere.
    #[default]
    Off,
    /// On a unix socket.
    Unix(PathBuf),
    /// On a loopback address.
    Tcp(SocketAddr),
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither unix:///PATH nor a loopback address with a port such as 127.0.0.1:9090")]
pub(crate) struct InvalidEndpoint(String);

/// Why the metrics are not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The unix socket.
    #[error("serve the metrics on a unix socket")]
    Unix(#[source] server::Error),
    /// The address.
    #[error("serve the metrics at {address}")]
    Tcp {
        /// The address.
        address: SocketAddr,
        /// The kernel's answer.
        source: std::io::Error,
    },
}

impl Endpoint {
    /// Serves for as long as the future is polled; at once an error when it cannot. To be called within a tokio
    /// runtime. None when it is off.
    pub(crate) async fn open(
        &self,
        registry: Arc<Registry>,
    ) -> Result<Option<impl Future<Output = ()> + use<>>, Error> {
        let listening = match self {
            Self::Off => return Ok(None),
            Self::Unix(path) => Listening::Unix(Listener::bind(path).map_err(Error::Unix)?),
            Self::Tcp(address) => {
                let failed = |source| Error::Tcp { address: *address, source };
                Listening::Tcp(TcpListener::bind(address).await.map_err(failed)?)
            }
        };
        Ok(Some(listening.serve(registry)))
    }
}

enum Listening {
    Unix(Listener),
    Tcp(TcpListener),
}

impl Listening {
    async fn serve(self, registry: Arc<Registry>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            // The semaphore is never closed.
            let Ok(place) = places.clone().acquire_owned().await else { return };
            let registry = registry.clone();
            let answering = async |stream: Stream| {
                tokio::spawn(async move {
                    answer(stream, registry).await;
                    drop(place);
                });
            };
            let accepted = match &self {
                Self::Unix(listener) => listener.accept().await.map(|stream| Box::pin(stream) as Stream),
                Self::Tcp(listener) => listener.accept().await.map(|(stream, _)| Box::pin(stream) as Stream),
            };
            match accepted {
                Ok(stream) => answering(stream).await,
                Err(error) => {
                    debug!(%error, "accept a client of the metrics");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

type Stream = std::pin::Pin<Box<dyn Duplex>>;

trait Duplex: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Duplex for T {}

async fn answer(stream: Stream, registry: Arc<Registry>) {
    let service = service_fn(move |request| {
        let response = respond(&request, &registry);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .max_buf_size(16 << 10)
        .serve_connection(TokioIo::new(stream), service);
    // One that asks for longer connects anew.
    if let Ok(Err(error)) = tokio::time::timeout(PATIENCE, pin!(connection)).await {
        debug!(%error, "answer a client of the metrics");
    }
}

fn respond(request: &Request<Incoming>, registry: &Registry) -> Response<String> {
    page(request.method(), request.uri().path(), registry)
}

fn page(method: &Method, path: &str, registry: &Registry) -> Response<String> {
    let plain = |status: StatusCode, text: &str| {
        let mut response = Response::new(format!("{text}\n"));
        *response.status_mut() = status;
        response
    };
    if path != PATH {
        return plain(StatusCode::NOT_FOUND, "the metrics are at /metrics");
    }
    if method != Method::GET && method != Method::HEAD {
        return plain(StatusCode::METHOD_NOT_ALLOWED, "the metrics can only be read");
    }
    let mut text = String::new();
    if prometheus_client::encoding::text::encode(&mut text, registry).is_err() {
        return plain(StatusCode::INTERNAL_SERVER_ERROR, "the metrics cannot be written down");
    }
    let mut response = Response::new(text);
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(FORMAT));
    response
}

impl FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let invalid = || InvalidEndpoint(text.to_owned());
        if text.is_empty() {
            return Ok(Self::Off);
        }
        if text.starts_with("unix://") || text.starts_with('/') {
            let socket: crate::config::Endpoint = text.parse().map_err(|_| invalid())?;
            return Ok(Self::Unix(socket.path().to_owned()));
        }
        let address: SocketAddr = text.parse().map_err(|_| invalid())?;
        if address.ip().is_loopback() { Ok(Self::Tcp(address)) } else { Err(invalid()) }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => Ok(()),
            Self::Unix(path) => write!(f, "unix://{}", path.display()),
            Self::Tcp(address) => write!(f, "{address}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_is_told() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<Endpoint>().ok().map(|endpoint| endpoint.to_string());
            assert_eq!(parsed.as_deref(), expected, "{text:?}");
        };
        check("", Some(""));
        check("unix:///run/m.sock", Some("unix:///run/m.sock"));
        check("/run/m.sock", Some("unix:///run/m.sock"));
        check("127.0.0.1:9090", Some("127.0.0.1:9090"));
        check("[::1]:9090", Some("[::1]:9090"));
        check("0.0.0.0:9090", None);
        check("10.0.0.1:9090", None);
        check("localhost:9090", None);
        check("unix://run/m.sock", None);
    }

    #[test]
    fn there_is_one_page_and_it_is_read_only() {
        let registry = Registry::default();
        let status = |method, path| page(&method, path, &registry).status();
        assert_eq!(status(Method::GET, "/metrics"), StatusCode::OK);
        assert_eq!(status(Method::GET, "/"), StatusCode::NOT_FOUND);
        assert_eq!(status(Method::POST, "/metrics"), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(page(&Method::GET, PATH, &registry).body(), "# EOF\n");
    }
}
