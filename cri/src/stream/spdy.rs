//! A SPDY/3.1 connection: streams by headers, flow control, and an orderly end.
//!
//! It follows the draft 3.1 of the protocol as far as Kubernetes uses it: no priorities, no pushing, no credentials.
//! Kubernetes' own implementation knows no flow control: it neither keeps windows nor widens them. So a peer's
//! window counts from when it says something about windows; ours is widened as bytes are taken over, and who passes
//! it is slowed down by TCP, since a connection is not read while one of its streams is full.

mod dictionary;
mod frame;
mod headers;
mod reading;
mod table;
mod writing;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use tokio::sync::mpsc;

pub(crate) use self::headers::Headers;
use self::reading::{Reading, Source};
use self::table::Table;
use self::writing::Writing;
use super::channel::{self, Frame, Gone, Inbound, Outbound};
use super::line::{Io, Line};

/// Streams that nobody has looked at yet.
const UNSEEN: usize = 16;
/// Small answers that wait for the connection.
const ANSWERS: usize = 64;
/// How long the peer may take to close after everything was said. Closing while it sends would destroy what it has
/// not read yet.
const LINGER: Duration = Duration::from_secs(5);

/// Which side of a connection this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Side {
    /// It opens streams.
    Client,
    /// It accepts them.
    Server,
}

/// A stream that the peer has opened: to be accepted or refused.
#[derive(Debug)]
pub(crate) struct Opened {
    /// Its number.
    pub(super) number: u32,
    /// What it is for.
    pub(super) headers: Headers,
    /// What comes.
    pub(super) inbound: Inbound,
    /// What goes.
    pub(super) outbound: Outbound,
}

/// The streams of a connection, for who uses them. When this and all streams are dropped, the connection says
/// goodbye.
#[derive(Debug)]
pub(crate) struct Streams {
    opened: mpsc::Receiver<Opened>,
    queue: mpsc::Sender<Frame>,
    table: Arc<Table>,
    next: AtomicU32,
}

/// A connection; [`Connection::run`] moves its bytes.
pub(crate) struct Connection {
    io: Box<dyn Io>,
    line: Arc<Line>,
    side: Side,
    table: Arc<Table>,
    opened: mpsc::Sender<Opened>,
    weak: mpsc::WeakSender<Frame>,
    queue: mpsc::Receiver<Frame>,
}

/// How a connection came to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The peer does not keep to the protocol.
    #[error("the peer breaks SPDY")]
    Broken(#[source] frame::Broken),
    /// The socket.
    #[error("move bytes of a SPDY connection")]
    Io(#[source] io::Error),
}

/// A connection over `io`, and its streams.
pub(crate) fn connection(io: Box<dyn Io>, line: Arc<Line>, side: Side) -> (Connection, Streams) {
    let (queue, frames) = channel::queue();
    let (opened, unseen) = mpsc::channel(UNSEEN);
    let table = Arc::new(Table::default());
    let weak = queue.downgrade();
    let streams = Streams { opened: unseen, queue, table: table.clone(), next: AtomicU32::new(1) };
    (Connection { io, line, side, table, opened, weak, queue: frames }, streams)
}

// === impl Streams ===

impl Streams {
    /// The next stream that the peer opens.
    pub(super) async fn next(&mut self) -> Option<Opened> {
        self.opened.recv().await
    }

    /// Opens a stream, and waits until it is accepted.
    pub(crate) async fn open(&self, headers: Headers) -> Result<(Inbound, Outbound), Gone> {
        let number = self.next.fetch_add(2, Ordering::Relaxed);
        let credit = self.table.lock().credit();
        let (feeder, inbound) = channel::inbound(credit.clone());
        self.table.lock().insert(number, feeder, credit.clone());
        let outbound = Outbound::new(number, self.queue.clone(), credit);
        outbound.open(headers).await?;
        Ok((inbound, outbound))
    }

    /// Comes to its end with the connection.
    pub(crate) async fn closed(&self) {
        self.queue.closed().await;
    }
}

// === impl Connection ===

impl Connection {
    /// Moves bytes until the streams' users are done and all is said, or the peer is gone.
    pub(crate) async fn run(self) -> Result<(), Error> {
        let (read, write) = tokio::io::split(self.io);
        let (answers, said) = mpsc::channel(ANSWERS);
        let mut reading = Reading {
            from: Source { io: read, buffer: BytesMut::new() },
            headers: headers::Reader::new(),
            line: self.line,
            side: self.side,
            table: self.table.clone(),
            opened: self.opened,
            weak: self.weak,
            answers,
        };
        let writing = Writing { to: write, headers: headers::Writer::new(), table: self.table.clone() };
        let mut read = std::pin::pin!(reading.run());
        let done = tokio::select! {
            done = &mut read => done,
            done = writing.run(self.queue, said) => match done {
                Ok(()) => match tokio::time::timeout(LINGER, read).await {
                    // What a peer does after the goodbye does not matter.
                    Ok(Ok(()) | Err(_)) | Err(_) => Ok(()),
                },
                Err(error) => Err(Error::Io(error)),
            }
        };
        self.table.lock().cut();
        done
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("side", &self.side).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
