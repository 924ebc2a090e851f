//! What a peer sends: frames are taken apart, and bytes go to their streams.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::mpsc;

use super::super::channel::{self, CHUNK_BYTES, Feeder, Frame, Gone, Outbound};
use super::super::line::Line;
use super::frame::{self, Broken, Control, HEAD_BYTES, Head, Reason};
use super::table::Table;
use super::{Error, Headers, Opened, Side, headers};

/// Streams at a time: a port-forward has two a connection.
const STREAMS: usize = 1024;
const BUFFER: usize = 64 << 10;

/// A connection's bytes as frames.
pub(super) struct Source<R> {
    pub(super) io: R,
    pub(super) buffer: BytesMut,
}

impl<R: AsyncRead + Unpin> Source<R> {
    /// Reads until there are `count` bytes; fewer only at the connection's end.
    async fn fill(&mut self, count: usize) -> Result<bool, Error> {
        while self.buffer.len() < count {
            self.buffer.reserve(BUFFER);
            if self.io.read_buf(&mut self.buffer).await.map_err(Error::Io)? == 0 {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn head(&mut self) -> Result<Option<Head>, Error> {
        if !self.fill(HEAD_BYTES).await? {
            return Ok(None);
        }
        let head = self.buffer.split_to(HEAD_BYTES);
        let Some(head) = head.first_chunk() else { return Ok(None) };
        Head::parse(*head).map(Some).map_err(Error::Broken)
    }
}

/// The half that reads.
pub(super) struct Reading<R> {
    pub(super) from: Source<R>,
    pub(super) headers: headers::Reader,
    pub(super) line: Arc<Line>,
    pub(super) side: Side,
    pub(super) table: Arc<Table>,
    pub(super) opened: mpsc::Sender<Opened>,
    pub(super) weak: mpsc::WeakSender<Frame>,
    pub(super) answers: mpsc::Sender<Bytes>,
}

impl<R: AsyncRead + Unpin> Reading<R> {
    /// Until the peer is done.
    pub(super) async fn run(&mut self) -> Result<(), Error> {
        while let Some(head) = self.from.head().await? {
            let goes_on = match head {
                Head::Data { stream, is_last, length } => self.data(stream, is_last, length).await?,
                Head::Control { kind, flags, length } => {
                    if !self.from.fill(length).await? {
                        return Ok(());
                    }
                    let payload = self.from.buffer.split_to(length);
                    let control = Control::parse(kind, flags, &payload).map_err(Error::Broken)?;
                    self.control(control).await?
                }
            };
            if !goes_on {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn data(&mut self, number: u32, is_last: bool, mut length: usize) -> Result<bool, Error> {
        let feeder = self.table.lock().streams.get(&number).and_then(|entry| entry.feeder.clone());
        while length > 0 {
            if !self.from.fill(1).await? {
                return Ok(false);
            }
            let count = length.min(self.from.buffer.len()).min(CHUNK_BYTES);
            let chunk = self.from.buffer.split_to(count).freeze();
            length -= count;
            if let Some(feeder) = &feeder
                && !self.feed(feeder, chunk).await
            {
                return Ok(false);
            }
            let more = self.table.lock().taken(number, count);
            if let Some(more) = more {
                self.answer(frame::window(number, more)).await;
            }
        }
        if is_last {
            self.end(number);
        }
        Ok(true)
    }

    /// Puts bytes where they belong. While there is no room, nothing is read, so the end is looked for elsewhere.
    async fn feed(&mut self, feeder: &Feeder, chunk: Bytes) -> bool {
        tokio::select! {
            biased;
            // Whose reader is gone gets nothing; the others go on.
            Ok(()) | Err(Gone) = feeder.feed(chunk) => true,
            () = self.line.hung_up() => false,
        }
    }

    fn end(&self, number: u32) {
        if let Some(entry) = self.table.lock().streams.get_mut(&number) {
            entry.feeder = None;
        }
    }

    async fn control(&mut self, control: Control<'_>) -> Result<bool, Error> {
        match control {
            Control::Open { stream, is_last, block } => {
                let headers = self.headers.read(block).map_err(Error::Broken)?;
                self.open(stream, headers).await?;
                if is_last {
                    self.end(stream);
                }
            }
            Control::Reply { stream, is_last, block } => {
                self.headers.read(block).map_err(Error::Broken)?;
                if let Some(entry) = self.table.lock().streams.get(&stream) {
                    entry.credit.change(|credit| credit.is_accepted = true);
                }
                if is_last {
                    self.end(stream);
                }
            }
            Control::Reset { stream } => {
                if let Some(entry) = self.table.lock().streams.remove(&stream) {
                    entry.credit.change(|credit| credit.is_reset = true);
                }
            }
            Control::InitialWindow(size) => self.table.lock().set_window(size),
            Control::Window { stream, more } => {
                let mut table = self.table.lock();
                table.keep_windows();
                if let Some(entry) = table.streams.get(&stream) {
                    entry.credit.change(|credit| credit.window += i64::from(more));
                }
            }
            // One of our own comes back; we send none.
            Control::Ping(id) if id % 2 == u32::from(self.side == Side::Client) => {}
            Control::Ping(id) => self.answer(frame::ping(id)).await,
            Control::GoAway => return Ok(false),
            Control::Nothing => {}
        }
        Ok(true)
    }

    async fn open(&mut self, number: u32, headers: Headers) -> Result<(), Error> {
        let queue = {
            let mut table = self.table.lock();
            if number.is_multiple_of(2) || number <= table.last || self.side == Side::Client {
                return Err(Error::Broken(Broken::Stream(number)));
            }
            table.last = number;
            // When nobody holds it, the session is over.
            self.weak.upgrade().filter(|_| table.live() < STREAMS)
        };
        let Some(queue) = queue else {
            self.answer(frame::reset(number, Reason::Refused)).await;
            return Ok(());
        };
        let opened = {
            let mut table = self.table.lock();
            let credit = table.credit();
            let (feeder, inbound) = channel::inbound(credit.clone());
            table.insert(number, feeder, credit.clone());
            Opened { number, headers, inbound, outbound: Outbound::new(number, queue, credit) }
        };
        if let Err(unwanted) = self.opened.send(opened).await {
            drop(unwanted);
            self.table.lock().streams.remove(&number);
            self.answer(frame::reset(number, Reason::Refused)).await;
        }
        Ok(())
    }

    /// Says something small. When all is said already, nobody hears it.
    async fn answer(&mut self, frame: Bytes) {
        drop(self.answers.send(frame).await);
    }
}
