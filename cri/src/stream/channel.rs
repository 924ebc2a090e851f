//! One direction of one of a session's streams, the same for every transport.
//!
//! What a client sends is an [`Inbound`]: it holds a bounded number of bytes, and when it is full, its connection is
//! not read. What a client gets goes by an [`Outbound`] to the connection's writer, which puts the transport's head
//! into the room before the bytes: they are not copied.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Notify, Semaphore, mpsc};

use super::spdy::Headers;

/// The room before a chunk's bytes, for the longest head.
pub(super) const HEAD_ROOM: usize = 8;
/// The bytes of a chunk.
pub(super) const CHUNK_BYTES: usize = 32 << 10;
/// Chunks of all streams that wait for the connection.
const QUEUE: usize = 8;
/// What a stream holds of what came and was not taken yet.
const INBOUND_BYTES: usize = 256 << 10;
/// What the smallest chunk counts for, since it costs more than its bytes.
const SMALL_BYTES: usize = 256;
/// Smaller ones are copied, so that they do not keep the connection's whole buffer.
const COPIED_BYTES: usize = 4 << 10;

/// The other side does not read any longer.
#[derive(Debug)]
pub(crate) struct Gone;

// === what a client sends ===

/// The bytes that a client sends on a stream.
#[derive(Debug)]
pub(crate) struct Inbound {
    queue: mpsc::UnboundedReceiver<Bytes>,
    room: Arc<Semaphore>,
    credit: Arc<Credit>,
}

/// Where a connection puts these bytes; dropping it is their end.
#[derive(Debug)]
pub(super) struct Feeder {
    queue: mpsc::UnboundedSender<Bytes>,
    room: Arc<Semaphore>,
}

/// Both ends of a client's bytes; `credit` says whether the stream was reset.
pub(super) fn inbound(credit: Arc<Credit>) -> (Feeder, Inbound) {
    let (sender, queue) = mpsc::unbounded_channel();
    let room = Arc::new(Semaphore::new(INBOUND_BYTES));
    (Feeder { queue: sender, room: room.clone() }, Inbound { queue, room, credit })
}

impl Feeder {
    /// Waits for room and puts a chunk there.
    pub(super) async fn feed(&self, chunk: Bytes) -> Result<(), Gone> {
        let chunk = if chunk.len() < COPIED_BYTES { Bytes::copy_from_slice(&chunk) } else { chunk };
        for part in parts(chunk) {
            let permit = self.room.acquire_many(cost(&part)).await.map_err(|_| Gone)?;
            permit.forget();
            self.queue.send(part).map_err(|_| Gone)?;
        }
        Ok(())
    }
}

/// The chunk in parts that each fit.
fn parts(mut chunk: Bytes) -> impl Iterator<Item = Bytes> {
    std::iter::from_fn(move || {
        let length = chunk.len().min(CHUNK_BYTES);
        (length > 0).then(|| chunk.split_to(length))
    })
}

fn cost(chunk: &Bytes) -> u32 {
    // At most CHUNK_BYTES.
    u32::try_from(chunk.len().max(SMALL_BYTES)).unwrap_or(u32::MAX)
}

impl Inbound {
    /// The next bytes, or none after the last.
    pub(crate) async fn next(&mut self) -> Option<Bytes> {
        let chunk = self.queue.recv().await?;
        self.room.add_permits(cost(&chunk) as usize);
        Some(chunk)
    }

    /// Whether it ended because the client wants no more of the stream.
    pub(super) fn was_reset(&self) -> bool {
        self.credit.lock().is_reset
    }

    /// Writes all that comes to `to`, and shuts that down after the last.
    pub(crate) async fn copy_to(mut self, to: &mut (impl AsyncWrite + Unpin)) -> std::io::Result<()> {
        while let Some(chunk) = self.next().await {
            to.write_all(&chunk).await?;
            to.flush().await?;
        }
        match self.was_reset() {
            true => Err(std::io::ErrorKind::ConnectionReset.into()),
            false => to.shutdown().await,
        }
    }
}

impl Drop for Inbound {
    fn drop(&mut self) {
        self.room.close();
    }
}

// === what a client gets ===

/// Where bytes go that a client reads.
#[derive(Debug)]
pub(crate) struct Outbound {
    channel: u32,
    queue: mpsc::Sender<Frame>,
    credit: Arc<Credit>,
}

/// What a connection's writer is given.
#[derive(Debug)]
pub(super) enum Frame {
    /// Bytes of a stream, after [`HEAD_ROOM`].
    Data {
        /// Whose.
        channel: u32,
        /// The room and the bytes.
        chunk: BytesMut,
    },
    /// A stream's last.
    End {
        /// Whose.
        channel: u32,
    },
    /// A stream of the peer's is accepted.
    Accept {
        /// Which.
        channel: u32,
    },
    /// A stream of our own begins.
    Open {
        /// Its number.
        channel: u32,
        /// What it is.
        headers: Headers,
    },
    /// A stream is not wanted any longer, or never was.
    Reset {
        /// Which.
        channel: u32,
        /// Whether it was never accepted.
        refused: bool,
    },
}

/// How much may be sent on a stream.
#[derive(Debug, Default)]
pub(super) struct Credit {
    state: Mutex<CreditState>,
    changed: Notify,
}

#[derive(Debug, Default)]
pub(super) struct CreditState {
    /// What the peer allows; without it, as much as it takes.
    pub(super) window: i64,
    /// Whether the window counts.
    pub(super) is_kept: bool,
    /// Whether the stream was reset by the peer.
    pub(super) is_reset: bool,
    /// Whether nothing more will be sent.
    pub(super) is_ended: bool,
    /// Whether the peer has accepted the stream; asked only of streams that this side opened.
    pub(super) is_accepted: bool,
}

/// The queue of a connection: senders for streams, the receiver for the writer.
pub(super) fn queue() -> (mpsc::Sender<Frame>, mpsc::Receiver<Frame>) {
    mpsc::channel(QUEUE)
}

impl Credit {
    /// A stream whose peer has this window, if it turns out to keep one.
    pub(super) fn new(window: u32, is_kept: bool) -> Arc<Self> {
        let state = CreditState { window: window.into(), is_kept, ..CreditState::default() };
        Arc::new(Self { state: Mutex::new(state), changed: Notify::new() })
    }

    /// Nothing is left half done under this lock.
    pub(super) fn lock(&self) -> MutexGuard<'_, CreditState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes it and wakes who waits for it.
    pub(super) fn change(&self, change: impl FnOnce(&mut CreditState)) {
        change(&mut self.lock());
        self.changed.notify_waiters();
    }

    /// Waits until something may be sent, and says how much at most.
    async fn available(&self) -> Result<usize, Gone> {
        self.until(|state| match usize::try_from(state.window) {
            _ if state.is_reset => Some(Err(Gone)),
            _ if !state.is_kept => Some(Ok(CHUNK_BYTES)),
            Ok(window @ 1..) => Some(Ok(window.min(CHUNK_BYTES))),
            _ => None,
        })
        .await
    }

    /// Waits until `look` has an answer.
    async fn until<T>(&self, look: impl Fn(&CreditState) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change is missed.
            changed.as_mut().enable();
            if let Some(answer) = look(&self.lock()) {
                return answer;
            }
            changed.await;
        }
    }
}

impl Outbound {
    /// A stream's way to the client.
    pub(super) fn new(channel: u32, queue: mpsc::Sender<Frame>, credit: Arc<Credit>) -> Self {
        Self { channel, queue, credit }
    }

    /// Sends what `from` has until its end.
    pub(crate) async fn copy_from(&self, from: &mut (impl AsyncRead + Unpin)) -> Result<(), Gone> {
        loop {
            let room = self.credit.available().await?;
            let mut chunk = BytesMut::with_capacity(HEAD_ROOM + room);
            chunk.put_bytes(0, HEAD_ROOM);
            let mut limited = (&mut *from).take(room as u64);
            let count = tokio::select! {
                biased;
                count = limited.read_buf(&mut chunk) => count,
                () = self.queue.closed() => return Err(Gone),
            };
            // A connection that broke has nothing more either.
            let Ok(1..) = count else { return Ok(()) };
            self.push(chunk).await?;
        }
    }

    /// Sends a text.
    pub(crate) async fn text(&self, mut text: &[u8]) -> Result<(), Gone> {
        while !text.is_empty() {
            let room = self.credit.available().await?;
            let (part, rest) = text.split_at(room.min(text.len()));
            self.push(chunk(part)).await?;
            text = rest;
        }
        Ok(())
    }

    /// Sends nothing, in a frame of its own.
    pub(super) async fn nothing(&self) -> Result<(), Gone> {
        self.push(chunk(&[])).await
    }

    async fn push(&self, chunk: BytesMut) -> Result<(), Gone> {
        self.credit.lock().window -= i64::try_from(chunk.len() - HEAD_ROOM).unwrap_or(i64::MAX);
        self.frame(Frame::Data { channel: self.channel, chunk }).await
    }

    /// The stream's last.
    pub(crate) async fn end(self) -> Result<(), Gone> {
        self.frame(Frame::End { channel: self.channel }).await
    }

    /// Opens a stream of this side's, and waits until the peer accepts it. What is sent before that, peers lose.
    pub(super) async fn open(&self, headers: Headers) -> Result<(), Gone> {
        self.frame(Frame::Open { channel: self.channel, headers }).await?;
        self.credit
            .until(|state| match state {
                // It may be over already again.
                CreditState { is_accepted: true, .. } => Some(Ok(())),
                CreditState { is_reset: true, .. } => Some(Err(Gone)),
                _ => None,
            })
            .await
    }

    /// Accepts a stream of the peer's.
    pub(super) async fn accept(&self) -> Result<(), Gone> {
        self.frame(Frame::Accept { channel: self.channel }).await
    }

    /// Refuses a stream of the peer's, or gives one up.
    pub(super) async fn reset(self, refused: bool) -> Result<(), Gone> {
        self.frame(Frame::Reset { channel: self.channel, refused }).await
    }

    async fn frame(&self, frame: Frame) -> Result<(), Gone> {
        self.queue.send(frame).await.map_err(|_| Gone)
    }
}

impl Drop for Outbound {
    fn drop(&mut self) {
        self.credit.lock().is_ended = true;
    }
}

fn chunk(bytes: &[u8]) -> BytesMut {
    let mut chunk = BytesMut::with_capacity(HEAD_ROOM + bytes.len());
    chunk.put_bytes(0, HEAD_ROOM);
    chunk.put_slice(bytes);
    chunk
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn pair(window: u32, is_kept: bool) -> (Outbound, mpsc::Receiver<Frame>, Arc<Credit>) {
        let (sender, receiver) = queue();
        let credit = Credit::new(window, is_kept);
        (Outbound::new(1, sender, credit.clone()), receiver, credit)
    }

    #[tokio::test]
    async fn a_stream_holds_a_bounded_number_of_bytes() {
        let (feeder, mut inbound) = inbound(Credit::new(0, false));
        let chunk = Bytes::from(vec![7; CHUNK_BYTES]);
        for _ in 0..INBOUND_BYTES / CHUNK_BYTES {
            feeder.feed(chunk.clone()).await.unwrap();
        }
        let blocked = tokio::time::timeout(Duration::from_millis(20), feeder.feed(chunk.clone())).await;
        assert!(blocked.is_err());
        assert_eq!(inbound.next().await.unwrap().len(), CHUNK_BYTES);
        feeder.feed(chunk).await.unwrap();
        drop(feeder);
        let mut rest = 0;
        while let Some(chunk) = inbound.next().await {
            rest += chunk.len();
        }
        assert_eq!(rest, INBOUND_BYTES);
    }

    #[tokio::test]
    async fn nobody_waits_for_who_does_not_read() {
        let (feeder, inbound) = inbound(Credit::new(0, false));
        feeder.feed(Bytes::from_static(b"a")).await.unwrap();
        drop(inbound);
        assert!(feeder.feed(Bytes::from_static(b"b")).await.is_err());
    }

    #[tokio::test]
    async fn a_kept_window_is_not_passed() {
        let (outbound, mut receiver, credit) = pair(10, true);
        let send = tokio::spawn(async move { outbound.text(b"0123456789abcdef").await.is_ok() });
        let Some(Frame::Data { chunk, .. }) = receiver.recv().await else { panic!("no data") };
        assert_eq!(&chunk[HEAD_ROOM..], b"0123456789");
        credit.change(|state| state.window += 100);
        let Some(Frame::Data { chunk, .. }) = receiver.recv().await else { panic!("no data") };
        assert_eq!(&chunk[HEAD_ROOM..], b"abcdef");
        assert!(send.await.unwrap());
    }

    #[tokio::test]
    async fn a_reset_wakes_who_waits_for_the_window() {
        let (outbound, _receiver, credit) = pair(0, true);
        let send = tokio::spawn(async move { outbound.text(b"x").await.is_ok() });
        tokio::task::yield_now().await;
        credit.change(|state| state.is_reset = true);
        assert!(!send.await.unwrap());
    }
}
