//! The thread that writes logs: it takes from the ring, calls write(2), and nothing else.
//!
//! It neither allocates nor locks once it runs, since the event loop forks beside it. A disk may hold it up
//! for as long as it likes.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::Thread;

use rustix::event::EventfdFlags;
use rustix::io::retry_on_intr;

use crate::monitor::clock::{Stamp, now_ns};
use crate::sys::ring::{Consumer, Record};

/// What it needs beside the C library's own.
const STACK_BYTES: usize = 64 << 10;

/// How the thread tells the event loop that it got on.
#[derive(Debug)]
pub(super) struct Notice {
    eventfd: OwnedFd,
    wanted: AtomicBool,
}

/// A log as the writer knows it.
#[derive(Debug, Default)]
struct Log {
    file: Option<OwnedFd>,
    /// Bytes that could not be written since the last that could.
    lost: u64,
    /// The file ends within a line.
    is_torn: bool,
}

/// Starts the thread; it has done all that it ever allocates when this returns.
pub(super) fn start(consumer: Consumer, notice: Arc<Notice>, slots: u16) -> io::Result<Thread> {
    let logs: Vec<Log> = (0..slots).map(|_| Log::default()).collect();
    let (event_loop, runs) = (std::thread::current(), Arc::new(AtomicBool::new(false)));
    let begun = runs.clone();
    let thread =
        std::thread::Builder::new().name("log-writer".into()).stack_size(STACK_BYTES).spawn(move || {
            // What is dropped at the end of a thread is never reached.
            runs.store(true, Ordering::Release);
            event_loop.unpark();
            write_all(consumer, logs, &notice)
        })?;
    while !begun.load(Ordering::Acquire) {
        std::thread::park();
    }
    Ok(thread.thread().clone())
}

fn write_all(mut consumer: Consumer, mut logs: Vec<Log>, notice: &Notice) {
    let mut stamp = Stamp::new();
    loop {
        while consumer.take(|record| match record {
            Record::Bytes { slot, bytes } => {
                if let Some(log) = logs.get_mut(usize::from(slot)) {
                    log.append(bytes, &mut stamp);
                }
            }
            Record::Close { slot } => {
                if let Some(log) = logs.get_mut(usize::from(slot)) {
                    *log = Log::default();
                }
            }
            Record::File { slot, file } => {
                if let Some(log) = logs.get_mut(usize::from(slot)) {
                    // The line that the old file ends within has nothing to do with the new one.
                    *log = Log { file: Some(file), lost: log.lost, is_torn: false };
                }
            }
        }) {
            notice.raise_if_wanted();
        }
        std::thread::park();
    }
}

// === impl Notice ===

impl Notice {
    pub(super) fn new() -> io::Result<Self> {
        let eventfd = rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { eventfd, wanted: AtomicBool::new(false) })
    }

    /// Asks to be told of the next step.
    pub(super) fn want(&self) {
        self.wanted.store(true, Ordering::SeqCst);
    }

    pub(super) fn raise(&self) {
        // It fails only when it is raised far beyond need.
        rustix::io::write(&self.eventfd, &1_u64.to_ne_bytes()).ok();
    }

    pub(super) fn clear(&self) {
        rustix::io::read(&self.eventfd, &mut [0_u8; 8]).ok();
    }

    fn raise_if_wanted(&self) {
        if self.wanted.swap(false, Ordering::SeqCst) {
            self.raise();
        }
    }
}

impl AsFd for Notice {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.eventfd.as_fd()
    }
}

// === impl Log ===

impl Log {
    fn append(&mut self, bytes: &[u8], stamp: &mut Stamp) {
        if self.lost > 0 && !self.confess(stamp) {
            self.lost += bytes.len() as u64;
            return;
        }
        self.lost += (bytes.len() - self.write(bytes)) as u64;
    }

    /// Says in the log how much is missing there; false when that cannot be written either.
    fn confess(&mut self, stamp: &mut Stamp) -> bool {
        if self.is_torn && self.write(b"\n") == 0 {
            return false;
        }
        let mut note = [0; NOTE_BYTES];
        let note = note_of_loss(self.lost, stamp.at(now_ns()), &mut note);
        if self.write(note) < note.len() {
            return false;
        }
        self.lost = 0;
        true
    }

    /// Writes as much as goes.
    fn write(&mut self, bytes: &[u8]) -> usize {
        let Some(file) = &self.file else { return bytes.len() };
        let mut written = 0;
        while written < bytes.len() {
            match retry_on_intr(|| rustix::io::write(file, &bytes[written..])) {
                Ok(0) | Err(_) => break,
                Ok(count) => written += count,
            }
        }
        if let Some(last) = written.checked_sub(1) {
            self.is_torn = bytes[last] != b'\n';
        }
        written
    }
}

/// Longest note of a loss.
const NOTE_BYTES: usize = 160;

/// A line that says how many bytes are missing, formatted into `note`.
fn note_of_loss<'a>(bytes: u64, stamp: &[u8], note: &'a mut [u8; NOTE_BYTES]) -> &'a [u8] {
    let mut rest = note.as_mut_slice();
    // It is long enough for every number.
    let fits = rest.write_all(stamp).and_then(|()| {
        writeln!(rest, " stderr F corten: {bytes} bytes of this log could not be written and are lost")
    });
    let length = if fits.is_ok() { NOTE_BYTES - rest.len() } else { 0 };
    &note[..length]
}
