//! A client's session: what it asked for, over the transport that was agreed on, from its first byte to its last.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::debug;

use super::Request;
use super::channel::{self, Credit, Feeder, Frame, Inbound, Outbound};
use super::command::{Channels, Command, STREAM_CREATION};
use super::forward::{self, Pair};
use super::line::{Io, Line};
use super::negotiate::{Codec, Transport, Version};
use super::node::Node;
use super::spdy::{self, Side};
use super::tunnel::Tunnel;
use super::websocket;

/// How long a client may take for the last bytes without taking any.
const FAREWELL: Duration = Duration::from_secs(60);

/// A request whose client has come.
#[derive(Debug)]
pub(super) struct Session {
    /// What it wants.
    pub(super) request: Request,
    /// What it speaks.
    pub(super) transport: Transport,
    /// What is known of its connection.
    pub(super) line: Arc<Line>,
    /// How long it may be silent.
    pub(super) idle: Duration,
}

impl Session {
    /// Serves it. When this future is dropped, everything of the session is gone.
    pub(super) async fn run(self, node: &dyn Node, io: Box<dyn Io>) {
        let (line, idle) = (self.line.clone(), self.idle);
        let served = async {
            match self.transport {
                Transport::Spdy(version) => self.over_spdy(node, io, version).await,
                Transport::Tunnel(version) => {
                    let tunnel = Tunnel::new(websocket::open(io, Role::Server).await);
                    self.over_spdy(node, Box::new(tunnel), version).await;
                }
                Transport::WebSocket(version, codec) => {
                    self.over_websocket(node, io, (version, codec)).await;
                }
            }
        };
        tokio::select! {
            () = served => {}
            () = line.idle(idle) => debug!("a streaming session was idle for too long"),
        }
    }

    async fn over_spdy(self, node: &dyn Node, io: Box<dyn Io>, version: Version) {
        let Self { request, line, .. } = self;
        let (connection, streams) = spdy::connection(io, line.clone(), Side::Server);
        let work = async {
            match request {
                Request::Command(command) => {
                    match timeout(STREAM_CREATION, command.gather(streams, version)).await {
                        Ok(Some(channels)) => command.carry_out(node, channels, version).await,
                        Ok(None) | Err(_) => debug!("a client does not open its streams"),
                    }
                }
                Request::PortForward { pod, .. } => forward::serve(node, &pod, streams).await,
            }
        };
        together(connection.run(), work, &line).await;
    }

    async fn over_websocket(self, node: &dyn Node, io: Box<dyn Io>, (version, codec): (Version, Codec)) {
        let Self { request, line, .. } = self;
        let socket = websocket::open(io, Role::Server).await;
        let (queue, frames) = channel::queue();
        match request {
            Request::Command(command) => {
                let (feeders, channels) = command_channels(&command, queue);
                let work = async {
                    // Clients wait for a first message to know that all is well.
                    let first =
                        channels.stdout.as_ref().or(channels.stderr.as_ref()).unwrap_or(&channels.error);
                    drop(first.nothing().await);
                    command.carry_out(node, channels, version).await;
                };
                together(websocket::run(socket, (&line, codec, Role::Server), feeders, frames), work, &line)
                    .await;
            }
            Request::PortForward { pod, ports } => {
                let (feeders, pairs) = forward_channels(&ports, queue);
                let work = forward_pairs(node, &pod, pairs);
                together(websocket::run(socket, (&line, codec, Role::Server), feeders, frames), work, &line)
                    .await;
            }
        }
    }
}

/// Runs a connection and what is done over it. Without the one the other has no sense; when the work is done, the
/// connection says the rest.
async fn together<E: Display>(
    connection: impl Future<Output = Result<(), E>>,
    work: impl Future<Output = ()>,
    line: &Line,
) {
    let mut connection = std::pin::pin!(connection);
    let ended = tokio::select! {
        ended = &mut connection => Some(ended),
        () = work => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => tokio::select! {
            ended = connection => ended,
            () = line.idle(FAREWELL) => Ok(()),
        },
    };
    if let Err(error) = ended {
        debug!("a streaming session was cut: {error}");
    }
}

/// A command's channels over WebSocket: their numbers are the descriptors', then the error and the terminal's size.
fn command_channels(command: &Command, queue: mpsc::Sender<Frame>) -> (Vec<Option<Feeder>>, Channels) {
    let stdio = &command.stdio;
    let read = |wanted: bool| wanted.then(|| channel::inbound(Credit::new(0, false))).unzip();
    let write = |number: u32| Outbound::new(number, queue.clone(), Credit::new(0, false));
    let (stdin_feeder, stdin) = read(stdio.stdin);
    let (resize_feeder, resize) = read(stdio.tty);
    let channels = Channels {
        stdin,
        stdout: stdio.stdout.then(|| write(1)),
        stderr: stdio.stderr.then(|| write(2)),
        resize,
        error: write(3),
        unused: Vec::new(),
    };
    (vec![stdin_feeder, None, None, None, resize_feeder], channels)
}

/// The channels of the ports of a request: two a port, for the bytes and for an error.
fn forward_channels(ports: &[u16], queue: mpsc::Sender<Frame>) -> (Vec<Option<Feeder>>, Vec<Pair>) {
    let mut feeders = Vec::new();
    let mut pairs = Vec::new();
    for (port, number) in ports.iter().zip((0..).step_by(2)) {
        let (feeder, from): (Feeder, Inbound) = channel::inbound(Credit::new(0, false));
        let write = |number: u32| Outbound::new(number, queue.clone(), Credit::new(0, false));
        feeders.extend([Some(feeder), None]);
        pairs.push(Pair { port: *port, from, to: write(number), error: write(number + 1) });
    }
    (feeders, pairs)
}

/// Forwards to all ports of a request. Each channel begins with its port.
async fn forward_pairs(node: &dyn Node, pod: &str, pairs: Vec<Pair>) {
    let forwards: FuturesUnordered<_> = pairs
        .into_iter()
        .map(|pair| async move {
            let port = pair.port.to_le_bytes();
            drop(pair.to.text(&port).await);
            drop(pair.error.text(&port).await);
            forward::forward(node, pod, pair).await;
        })
        .collect();
    forwards.collect().await
}
