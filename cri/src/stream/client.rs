//! The client's side of the transports, for the command line.

use std::sync::Arc;

use tokio_tungstenite::tungstenite::protocol::Role;
use tracing::debug;

use super::channel::{Credit, inbound, queue};
pub(crate) use super::channel::{Inbound, Outbound};
pub(crate) use super::line::{Io, Line};
use super::negotiate::Codec;
use super::spdy::{self, Side};
pub(crate) use super::spdy::{Headers, Streams};
use super::tunnel::Tunnel;
use super::websocket;

/// The channels of a command over WebSocket.
#[derive(Debug)]
pub(crate) struct Channels {
    /// Standard input, and the terminal's size.
    pub(crate) outbound: [Outbound; 2],
    /// Standard output, standard error, and the outcome.
    pub(crate) inbound: [Inbound; 3],
}

/// The channels over a connection that was upgraded to `v5.channel.k8s.io`; its bytes move in the background.
pub(crate) async fn over_websocket(io: Box<dyn Io>, line: Arc<Line>) -> Channels {
    let socket = websocket::open(io, Role::Client).await;
    let (sender, frames) = queue();
    let write = |number: u32| Outbound::new(number, sender.clone(), Credit::new(0, false));
    let read = || inbound(Credit::new(0, false));
    let [(stdout_feeder, stdout), (stderr_feeder, stderr), (error_feeder, error)] = [read(), read(), read()];
    let feeders = vec![None, Some(stdout_feeder), Some(stderr_feeder), Some(error_feeder)];
    let outbound = [write(0), write(4)];
    // As long as the program runs: the server says when all is over.
    let (keep, codec) = (sender.clone(), Codec { is_base64: false, closes: true });
    tokio::spawn(async move {
        let ended = websocket::run(socket, (&line, codec, Role::Client), feeders, frames).await;
        drop(keep);
        if let Err(error) = ended {
            debug!("a WebSocket was cut: {error}");
        }
    });
    Channels { outbound, inbound: [stdout, stderr, error] }
}

/// The streams over a connection that was upgraded to SPDY/3.1; its bytes move in the background.
pub(crate) fn over_spdy(io: Box<dyn Io>, line: Arc<Line>) -> Streams {
    let (connection, streams) = spdy::connection(io, line, Side::Client);
    tokio::spawn(async move {
        if let Err(error) = connection.run().await {
            debug!("a SPDY connection was cut: {error}");
        }
    });
    streams
}

/// A connection's bytes within WebSocket's messages.
pub(crate) async fn tunnel(io: Box<dyn Io>) -> Box<dyn Io> {
    Box::new(Tunnel::new(websocket::open(io, Role::Client).await))
}
