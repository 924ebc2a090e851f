//! Port-forward: connections to a pod's ports, each by a pair of streams, one for the bytes and one for an error.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::TcpStream;
use tokio::time::Instant;
use tracing::debug;

use super::channel::{Gone, Inbound, Outbound};
use super::command::STREAM_CREATION;
use super::node::Node;
use super::spdy::{Opened, Streams};

/// How long a client may go on sending after the pod has said its last byte.
const HALF_OPEN: Duration = Duration::from_secs(60);

/// The streams of one connection.
#[derive(Debug)]
pub(super) struct Pair {
    /// The port in the pod.
    pub(super) port: u16,
    /// From the client.
    pub(super) from: Inbound,
    /// To the client.
    pub(super) to: Outbound,
    /// Where an error is told.
    pub(super) error: Outbound,
}

/// A stream whose other one has not come yet.
#[derive(Debug)]
struct Half {
    opened: Opened,
    until: Instant,
}

/// What a stream is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Data,
    Error,
}

/// Serves the connections that a SPDY client asks for, until it has no more.
pub(super) async fn serve(node: &dyn Node, pod: &str, mut streams: Streams) {
    let mut waiting: HashMap<String, Half> = HashMap::new();
    let mut connections = FuturesUnordered::new();
    loop {
        let oldest = waiting.values().map(|half| half.until).min();
        tokio::select! {
            opened = streams.next() => match opened {
                Some(opened) => connections.extend(pair(&mut waiting, opened).await.map(|pair| forward(node, pod, pair))),
                None => break,
            },
            Some(()) = connections.next() => {}
            () = expire(oldest) => {
                let now = Instant::now();
                let late = waiting.extract_if(|_, half| half.until <= now);
                for (id, half) in late.collect::<Vec<_>>() {
                    debug!("a client opens one of two streams for request {id:?}");
                    drop(half.opened.outbound.reset(false).await);
                }
            }
        }
    }
    while connections.next().await.is_some() {}
}

async fn expire(oldest: Option<Instant>) {
    match oldest {
        Some(oldest) => tokio::time::sleep_until(oldest).await,
        None => std::future::pending().await,
    }
}

/// Accepts a stream, and joins it with its other one if that is here.
async fn pair(waiting: &mut HashMap<String, Half>, opened: Opened) -> Option<Pair> {
    let Some((id, kind, port)) = purpose(&opened) else {
        debug!("a client opens a stream that says no port or no type");
        drop(opened.outbound.reset(true).await);
        return None;
    };
    let fits = waiting.get(&id).is_none_or(|half| {
        purpose(&half.opened).is_some_and(|(_, other, known)| other != kind && known == port)
    });
    if !fits {
        drop(opened.outbound.reset(true).await);
        return None;
    }
    opened.outbound.accept().await.ok()?;
    let Some(half) = waiting.remove(&id) else {
        waiting.insert(id, Half { opened, until: Instant::now() + STREAM_CREATION });
        return None;
    };
    let (data, error) = match kind {
        Kind::Data => (opened, half.opened),
        Kind::Error => (half.opened, opened),
    };
    Some(Pair { port, from: data.inbound, to: data.outbound, error: error.outbound })
}

/// The request that a stream belongs to, which of its two streams it is, and the port.
fn purpose(opened: &Opened) -> Option<(String, Kind, u16)> {
    let headers = &opened.headers;
    let port = headers.value("port")?.parse().ok().filter(|port| *port > 0)?;
    let kind = match headers.value("streamtype")? {
        "data" => Kind::Data,
        "error" => Kind::Error,
        _ => return None,
    };
    let id = match (headers.value("requestid"), kind) {
        (Some(id), _) => id.to_owned(),
        // Old clients say none; they open the stream for the error right before the other.
        (None, Kind::Error) => opened.number.to_string(),
        (None, Kind::Data) => opened.number.checked_sub(2)?.to_string(),
    };
    Some((id, kind, port))
}

/// Carries one connection to its end.
pub(super) async fn forward(node: &dyn Node, pod: &str, pair: Pair) {
    let Pair { port, from, to, error } = pair;
    let connection = match node.dial(pod, port).await {
        Ok(connection) => connection,
        Err(e) => {
            let text = format!("error forwarding port {port} to pod {pod}: {}", pod::chain(&e));
            debug!("{text}");
            // Who is gone hears nothing.
            drop(error.text(text.as_bytes()).await);
            drop(error.end().await);
            drop(to.end().await);
            return;
        }
    };
    carry(connection, from, to, error).await;
}

/// Moves bytes both ways. Each direction ends by itself; what breaks one breaks both.
async fn carry(mut connection: TcpStream, from: Inbound, to: Outbound, error: Outbound) {
    let (mut receive, mut send) = connection.split();
    let mut up = std::pin::pin!(from.copy_to(&mut send));
    let (sent, received) = {
        let mut down = std::pin::pin!(to.copy_from(&mut receive));
        tokio::select! {
            received = &mut down => (false, received),
            sent = &mut up => match sent {
                Ok(()) => (true, down.await),
                Err(_) => (true, Err(Gone)),
            },
        }
    };
    // From here on nothing can go wrong: clients wait for this before they close their side.
    drop(error.end().await);
    if let Err(Gone) = received {
        drop(to.reset(false).await);
        return;
    }
    drop(to.end().await);
    if !sent {
        // How the rest arrives, or that it does not, interests nobody.
        drop(tokio::time::timeout(HALF_OPEN, up).await);
    }
}
