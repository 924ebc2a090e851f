//! The HTTP server behind the URLs that Exec, Attach and PortForward answer.
//!
//! Each connection is one task that has everything of it: when it ends, by whatever end, nothing is left. There is one
//! request on a connection, it names a token, and it is upgraded or refused; nothing is ever redirected.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::body::Incoming;
use hyper::header::{ALLOW, CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper::{Method, Request as HttpRequest, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use rustix::net::sockopt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tracing::{debug, warn};

use super::line::{Io, Line};
use super::negotiate::{self, Choice, Refusal, SPDY, Transport};
use super::node::Node;
use super::options::Streaming;
use super::session::Session;
use super::tls::{self, Tls};
use super::token::Tokens;
use super::{Request, Urls};

/// Connections at a time.
const CONNECTIONS: usize = 1024;
/// The head of a request.
const HEAD_BYTES: usize = 16 << 10;
/// How long a client may take for TLS, and then for the head of its request.
const HEAD: Duration = Duration::from_secs(10);
/// How long the accept loop rests when there are no descriptors left.
const REST: Duration = Duration::from_millis(100);
/// How long a silent client's kernel is left alone, and then asked, before it counts as gone.
const KEEPALIVE: Duration = Duration::from_secs(30);

/// Why there is no streaming server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The address.
    #[error("listen at {address} for streaming")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The certificate.
    #[error("set up TLS for streaming")]
    Tls(#[source] tls::Error),
}

/// The server, before it serves.
#[derive(Debug)]
pub(crate) struct Server {
    listener: TcpListener,
    urls: Urls,
    tls: Option<Arc<Tls>>,
    idle: Duration,
}

/// The answer after which a session begins on its connection.
struct Upgrade {
    response: Response<String>,
    session: Session,
    connection: OnUpgrade,
}

/// What each connection needs.
#[derive(Clone)]
struct Shared {
    node: Arc<dyn Node>,
    tokens: Arc<Tokens>,
    idle: Duration,
    tls: Option<Arc<Tls>>,
}

impl Server {
    /// Takes the address; to be called within a tokio runtime.
    pub(crate) async fn bind(options: &Streaming) -> Result<Self, Error> {
        let failed = |source| Error::Listen { address: options.listen, source };
        let listener = TcpListener::bind(options.listen).await.map_err(failed)?;
        let address = public(listener.local_addr().map_err(failed)?);
        let tls = Tls::of(options).map_err(Error::Tls)?.map(Arc::new);
        let scheme = if tls.is_some() { "https" } else { "http" };
        let urls = Urls { base: format!("{scheme}://{address}"), tokens: Arc::default() };
        Ok(Self { listener, urls, tls, idle: options.idle_timeout.0 })
    }

    /// Where its URLs are made.
    pub(crate) fn urls(&self) -> Urls {
        self.urls.clone()
    }

    /// Serves for ever; when this future is dropped, all sessions end.
    pub(crate) async fn serve(self, node: Arc<dyn Node>) {
        let Self { listener, urls, tls, idle } = self;
        let shared = Shared { node, tokens: urls.tokens, idle, tls };
        let room = Arc::new(Semaphore::new(CONNECTIONS));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match (accepted, room.clone().try_acquire_owned()) {
                (Ok((socket, _)), Ok(permit)) => {
                    let shared = shared.clone();
                    connections.spawn(async move {
                        if let Err(error) = connection(&shared, socket).await {
                            debug!("a streaming client's connection: {error}");
                        }
                        drop(permit);
                    });
                }
                (Ok(_), Err(_)) => {
                    warn!("{CONNECTIONS} streaming clients are there: one more is turned away")
                }
                (Err(error), _) => {
                    debug!("accept a streaming client: {error}");
                    tokio::time::sleep(REST).await;
                }
            }
        }
    }
}

/// An address that others can connect to, when the server listens at all of this node's.
fn public(address: SocketAddr) -> SocketAddr {
    if !address.ip().is_unspecified() {
        return address;
    }
    // Connecting a datagram socket sends nothing, and says by which address this node would go out.
    let (any, other) = match address {
        SocketAddr::V4(_) => ("0.0.0.0:0", "192.0.2.1:9"),
        SocketAddr::V6(_) => ("[::]:0", "[2001:db8::1]:9"),
    };
    let own = || {
        let socket = std::net::UdpSocket::bind(any)?;
        socket.connect(other)?;
        socket.local_addr()
    };
    let loopback =
        if address.is_ipv4() { [127, 0, 0, 1].into() } else { std::net::Ipv6Addr::LOCALHOST.into() };
    let ip = own().map_or(loopback, |own: SocketAddr| own.ip());
    SocketAddr::new(ip, address.port())
}

/// One client, from its first byte to its last.
async fn connection(shared: &Shared, socket: TcpStream) -> io::Result<()> {
    socket.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&socket, true)?;
    sockopt::set_tcp_keepidle(&socket, KEEPALIVE)?;
    sockopt::set_tcp_keepintvl(&socket, KEEPALIVE / 3)?;
    let line = Line::watch(&socket)?;
    let socket = line.meter(socket);
    let io: Box<dyn Io> = match &shared.tls {
        Some(tls) => Box::new(tokio::time::timeout(HEAD, tls.acceptor().accept(socket)).await??),
        None => Box::new(socket),
    };
    let accepted = Mutex::new(None);
    let service = service_fn(|request| {
        let answer = answer(shared, request, &line);
        let response = match answer {
            Ok(Upgrade { response, session, connection }) => {
                // Nothing is left half done under this lock.
                *accepted.lock().unwrap_or_else(PoisonError::into_inner) = Some((session, connection));
                response
            }
            Err(response) => *response,
        };
        async { Ok::<_, Infallible>(response) }
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(io), service)
        .with_upgrades()
        .await
        .map_err(io::Error::other)?;
    let accepted = accepted.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some((session, upgrade)) = accepted {
        let upgraded = upgrade.await.map_err(io::Error::other)?;
        session.run(shared.node.as_ref(), Box::new(TokioIo::new(upgraded))).await;
    }
    Ok(())
}

/// What a request gets: an upgrade and a session, or a refusal.
fn answer(
    shared: &Shared,
    mut request: HttpRequest<Incoming>,
    line: &Arc<Line>,
) -> Result<Upgrade, Box<Response<String>>> {
    if ![Method::GET, Method::POST].contains(request.method()) {
        let mut response = refuse(StatusCode::METHOD_NOT_ALLOWED, "GET or POST".to_owned());
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, POST"));
        return Err(response);
    }
    let wanted = find(&shared.tokens, request.uri().path()).ok_or_else(|| {
        refuse(StatusCode::NOT_FOUND, "no such request: it was used or is too old".to_owned())
    })?;
    let forwards = matches!(wanted, Request::PortForward { .. });
    let choice =
        Choice::find(request.method(), request.headers(), forwards).map_err(|refusal| refused(&refusal))?;
    if let (Request::PortForward { ports, .. }, Transport::WebSocket(..)) = (&wanted, choice.transport)
        && ports.is_empty()
    {
        return Err(refuse(StatusCode::BAD_REQUEST, "the request names no port".to_owned()));
    }
    let response = switch(&request, &choice);
    let session =
        Session { request: wanted, transport: choice.transport, line: line.clone(), idle: shared.idle };
    Ok(Upgrade { response, session, connection: hyper::upgrade::on(&mut request) })
}

/// The request that a path names, which is then used up, whatever becomes of it.
fn find(tokens: &Tokens, path: &str) -> Option<Request> {
    let (kind, token) = path.strip_prefix('/')?.split_once('/')?;
    let request = tokens.take(token, Instant::now())?;
    (request.kind() == kind).then_some(request)
}

fn refuse(status: StatusCode, text: String) -> Box<Response<String>> {
    let mut response = Response::new(text + "\n");
    *response.status_mut() = status;
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    Box::new(response)
}

fn refused(refusal: &Refusal) -> Box<Response<String>> {
    let mut response = refuse(refusal.status(), refusal.to_string());
    for (name, value) in refusal.headers() {
        response.headers_mut().append(name, value);
    }
    response
}

/// The answer after which the connection speaks another protocol.
fn switch(request: &HttpRequest<Incoming>, choice: &Choice) -> Response<String> {
    let mut response = Response::new(String::new());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    let name = choice.name.map(HeaderValue::from_static);
    if let Transport::Spdy(_) = choice.transport {
        headers.insert(UPGRADE, HeaderValue::from_static(SPDY));
        headers.extend(name.map(|name| (negotiate::VERSION.clone(), name)));
        return response;
    }
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    let key = request.headers().get("sec-websocket-key").map(HeaderValue::as_bytes).unwrap_or_default();
    // Base64 is always a header's value.
    headers.extend(HeaderValue::try_from(derive_accept_key(key)).ok().map(|key| (SEC_WEBSOCKET_ACCEPT, key)));
    headers.extend(name.map(|name| (SEC_WEBSOCKET_PROTOCOL, name)));
    response
}
