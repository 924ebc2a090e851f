//! Serial numbers, answers and events over one socket.

use std::collections::HashMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::io::Errno;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use crate::client::{Events, Monitor};
use crate::monitor::wire::{self, Answer, Descriptors, Order, Refusal, Word};
use crate::sys::watch::watch;
use crate::{Error, Event};

/// How long after the end of its connection a monitor may take to be gone; it is a matter of microseconds.
const LAST_BREATH: Duration = Duration::from_secs(1);

/// What a monitor made of an order.
pub(crate) type Outcome = Result<(Answer, Descriptors), Refusal>;

/// One connection to a monitor; ends with its drop.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Arc<AsyncFd<OwnedFd>>,
    monitor: i32,
    serial: AtomicU64,
    waiting: Arc<Waiting>,
    /// Taken by the one who gets the events.
    events: Mutex<Option<Events>>,
    reader: JoinHandle<()>,
}

/// An answer on its way.
#[derive(Debug)]
pub(crate) struct Pending {
    monitor: i32,
    answer: oneshot::Receiver<Outcome>,
}

/// Who waits for which answer; none once the connection has ended. Never held across an await.
#[derive(Debug)]
struct Waiting(Mutex<Option<HashMap<u64, oneshot::Sender<Outcome>>>>);

// === impl Connection ===

impl Connection {
    /// Starts to read. `process` is the monitor's pidfd.
    pub(crate) fn new(socket: OwnedFd, monitor: i32, process: Arc<AsyncFd<OwnedFd>>) -> Result<Self, Error> {
        let failed = |source| Error::Connection { operation: "watch", monitor, source };
        rustix::io::ioctl_fionbio(&socket, true).map_err(|errno| failed(errno.into()))?;
        let socket = watch(socket, Interest::READABLE | Interest::WRITABLE).map_err(failed)?;
        let socket = Arc::new(socket);
        let waiting = Arc::new(Waiting(Mutex::new(Some(HashMap::new()))));
        let (sender, events) = mpsc::unbounded_channel();
        let reader = tokio::spawn({
            let (socket, waiting) = (socket.clone(), waiting.clone());
            async move {
                read(&socket, monitor, &waiting, &sender).await;
                waiting.end();
                wait_for_end(&process).await;
                // Nobody may be listening any more.
                sender.send(Event::Lost).ok();
            }
        });
        let events = Mutex::new(Some(events));
        Ok(Self { socket, monitor, serial: AtomicU64::new(1), waiting, events, reader })
    }

    /// The monitor's process.
    pub(crate) fn monitor(&self) -> i32 {
        self.monitor
    }

    /// The public handle of this connection, and its events.
    pub(crate) fn monitor_of(self, pause_pid: i32, version: u16) -> (Monitor, Events) {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Taken once, by the one call of this function; a channel without a sender is at its end.
        let events = events.unwrap_or_else(|| mpsc::unbounded_channel().1);
        (Monitor::new(self, pause_pid, version), events)
    }

    /// Sends an order and waits for what comes of it.
    pub(crate) async fn ask(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Outcome, Error> {
        self.send(order, fds).await?.receive().await
    }

    /// Sends an order.
    pub(crate) async fn send(&self, order: &Order, fds: &[BorrowedFd<'_>]) -> Result<Pending, Error> {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let packet = wire::encode_order(serial, order)
            .map_err(|source| Error::Protocol { monitor: self.monitor, source })?;
        let answer = self.waiting.add(serial).ok_or(Error::Lost { monitor: self.monitor })?;
        let sent =
            self.socket.async_io(Interest::WRITABLE, |socket| Ok(wire::send(socket, &packet, fds)?)).await;
        match sent {
            Ok(()) => Ok(Pending { monitor: self.monitor, answer }),
            Err(source) => {
                self.waiting.remove(serial);
                Err(match source.raw_os_error() {
                    Some(libc::EPIPE | libc::ECONNRESET) => Error::Lost { monitor: self.monitor },
                    _ => Error::Connection { operation: "send an order to", monitor: self.monitor, source },
                })
            }
        }
    }

    /// An answer that does not belong to its order.
    pub(crate) fn nonsense(&self) -> Error {
        Error::Release { monitor: self.monitor }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

// === impl Pending ===

impl Pending {
    pub(crate) async fn receive(self) -> Result<Outcome, Error> {
        self.answer.await.map_err(|_| Error::Lost { monitor: self.monitor })
    }
}

// === impl Waiting ===

impl Waiting {
    /// None when the connection has ended.
    fn add(&self, serial: u64) -> Option<oneshot::Receiver<Outcome>> {
        let (sender, receiver) = oneshot::channel();
        self.with(|waiting| waiting.insert(serial, sender)).map(|_| receiver)
    }

    fn remove(&self, serial: u64) -> Option<oneshot::Sender<Outcome>> {
        self.with(|waiting| waiting.remove(&serial)).flatten()
    }

    fn end(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
    }

    fn with<T>(&self, use_it: impl FnOnce(&mut HashMap<u64, oneshot::Sender<Outcome>>) -> T) -> Option<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(use_it)
    }
}

/// Hands out what the monitor says until the connection ends.
async fn read(
    socket: &AsyncFd<OwnedFd>,
    monitor: i32,
    waiting: &Waiting,
    events: &mpsc::UnboundedSender<Event>,
) {
    loop {
        let packet = socket.async_io(Interest::READABLE, |socket| Ok(wire::receive(socket)?)).await;
        let (packet, fds) = match packet {
            Ok(Some(packet)) => packet,
            Ok(None) => return,
            Err(error) => {
                if error.raw_os_error() != Some(Errno::CONNRESET.raw_os_error()) {
                    tracing::warn!(monitor, %error, "the connection to a monitor broke");
                }
                return;
            }
        };
        match wire::decode_word(&packet) {
            Ok(Word::Answer { serial, answer }) => {
                if let Some(sender) = waiting.remove(serial) {
                    // Who asked may not be waiting any more.
                    sender.send(answer.map(|answer| (answer, fds))).ok();
                }
            }
            Ok(Word::Exited { id, exit }) => drop(events.send(Event::Exited { id, exit })),
            Ok(Word::Warning { text }) => tracing::warn!(monitor, "{text}"),
            Err(error) => tracing::warn!(monitor, %error, "a monitor said something that is not understood"),
        }
    }
}

/// Its connection ends a little before the monitor itself.
async fn wait_for_end(process: &AsyncFd<OwnedFd>) {
    if tokio::time::timeout(LAST_BREATH, process.readable()).await.is_err() {
        tracing::warn!("a monitor's connection ended, but it lives");
    }
}
