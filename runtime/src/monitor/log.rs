//! Containers' logs: what the event loop puts into the ring, and what the writer thread takes from it.
//!
//! The event loop never touches a log's disk. While the ring is full, containers wait; when the writer has not
//! moved for [`PATIENCE`], their output is dropped, counted, and the count is written once there is room again.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::thread::Thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};

use self::line::Tag;
use self::writer::Notice;
use super::clock::{Stamp, now_ns};
use crate::sys::ring::{self, Producer};

pub(super) mod line;
mod writer;

/// Room for what the writer has not got to. Only what was ever used of it is memory.
const RING_BYTES: usize = 256 << 10;

/// So many containers with a log a pod can have at a time.
const SLOTS: u16 = 256;

/// How long a container waits for a disk that does not move at all; what is slow is waited for.
const PATIENCE: Duration = Duration::from_secs(5);

/// A log's place in the writer's table.
pub(super) type Slot = u16;

/// Which of a container's outputs it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stream {
    Stdout,
    Stderr,
}

/// All logs of a pod. `T` is what is to be done when the writer has come to a certain point.
#[derive(Debug)]
pub(super) struct Logs<T> {
    /// None until the first log.
    writer: Option<Writer>,
    used: Vec<bool>,
    /// What found no room in the ring; nothing else may pass it.
    controls: VecDeque<Control<T>>,
    /// To be done when the writer has taken what lies before these positions.
    waits: Vec<(u64, T)>,
    stamp: Stamp,
    state: State,
}

#[derive(Debug)]
struct Writer {
    ring: Producer,
    thread: Thread,
    notice: std::sync::Arc<Notice>,
}

#[derive(Debug)]
enum Control<T> {
    File { slot: Slot, file: OwnedFd, then: Option<T> },
    Close { slot: Slot },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Flowing,
    /// There was no room.
    Full {
        since: Instant,
    },
    /// There was none for too long.
    Dropping,
}

// === impl Logs ===

impl<T> Logs<T> {
    pub(super) fn new() -> Self {
        Self {
            writer: None,
            used: Vec::new(),
            controls: VecDeque::new(),
            waits: Vec::new(),
            stamp: Stamp::new(),
            state: State::Flowing,
        }
    }

    /// Waits for the writer's next step; for the end of the process, when nothing else is waited for.
    pub(super) fn wait(&mut self, time: Duration) {
        let Some(writer) = &self.writer else { return };
        let timeout = Timespec::try_from(time).ok();
        writer.notice.want();
        if !writer.ring.is_taken() {
            rustix::event::poll(&mut [PollFd::new(&*writer.notice, PollFlags::IN)], timeout.as_ref()).ok();
        }
    }

    /// Takes a file on. The descriptor that the first one gives back tells of the writer's progress.
    pub(super) fn open(&mut self, file: OwnedFd) -> io::Result<(Slot, Option<BorrowedFd<'_>>)> {
        let free = self.used.iter().position(|used| !used).unwrap_or(self.used.len());
        let slot = u16::try_from(free).ok().filter(|slot| *slot < SLOTS);
        let slot = slot.ok_or_else(|| io::Error::from_raw_os_error(libc::EMFILE))?;
        let is_first = self.writer.is_none();
        if is_first {
            self.writer = Some(Writer::start()?);
        }
        if free == self.used.len() {
            self.used.push(false);
        }
        self.used[free] = true;
        self.controls.push_back(Control::File { slot, file, then: None });
        let notice = self.writer.as_ref().filter(|_| is_first).map(|writer| writer.notice.as_fd());
        Ok((slot, notice))
    }

    /// Replaces a log's file; `then` is done when the old one is closed.
    pub(super) fn reopen(&mut self, slot: Slot, file: OwnedFd, then: T) {
        self.controls.push_back(Control::File { slot, file, then: Some(then) });
    }

    /// Closes a log after what was written to it.
    pub(super) fn close(&mut self, slot: Slot) {
        self.controls.push_back(Control::Close { slot });
        if let Some(used) = self.used.get_mut(usize::from(slot)) {
            *used = false;
        }
    }

    /// Has it done when all that was written until now is in the files.
    pub(super) fn when_written(&mut self, then: T) {
        let position = self.writer.as_mut().map_or(0, |writer| writer.ring.position());
        self.waits.push((position, then));
    }

    /// What is written from here on has the present time.
    pub(super) fn take_time(&mut self) {
        self.stamp.at(now_ns());
    }

    /// Writes a line or a part of one; false when there is no room.
    pub(super) fn write(&mut self, slot: Slot, stream: Stream, tag: Tag, text: [&[u8]; 2]) -> bool {
        if self.state == State::Dropping || !self.apply_controls() {
            return self.full();
        }
        let stream: &[u8] = match (stream, tag) {
            (Stream::Stdout, Tag::Full) => b" stdout F ",
            (Stream::Stdout, Tag::Partial) => b" stdout P ",
            (Stream::Stderr, Tag::Full) => b" stderr F ",
            (Stream::Stderr, Tag::Partial) => b" stderr P ",
        };
        let stamp = self.stamp.text();
        let Some(writer) = &mut self.writer else { return true };
        writer.ring.append(slot, &[stamp, stream, text[0], text[1], b"\n"]) || self.full()
    }

    /// Whether the writer is done with everything.
    pub(super) fn is_settled(&self) -> bool {
        self.controls.is_empty() && self.writer.as_ref().is_none_or(|writer| writer.ring.is_taken())
    }

    /// Whether output is to be thrown away instead of waiting for room.
    pub(super) fn is_dropping(&self) -> bool {
        self.state == State::Dropping
    }

    /// When waiting for room turns into dropping.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Full { since } => Some(since + PATIENCE),
            State::Flowing | State::Dropping => None,
        }
    }

    /// To be called when the deadline has passed: true when containers must not wait any longer.
    pub(super) fn lose_patience(&mut self, now: Instant) -> bool {
        let over = self.deadline().is_some_and(|deadline| deadline <= now);
        if over {
            self.state = State::Dropping;
        }
        over
    }

    /// To be called when the writer says that it got on: there is room again.
    pub(super) fn progress(&mut self) {
        if let Some(writer) = &self.writer {
            writer.notice.clear();
        }
        self.state = State::Flowing;
    }

    /// Gives the writer what there is for it, and returns what is to be done because it has come so far.
    ///
    /// To be called before the event loop waits.
    pub(super) fn settle(&mut self) -> Vec<T> {
        self.apply_controls();
        let Some(writer) = &mut self.writer else {
            return self.waits.drain(..).map(|(_, then)| then).collect();
        };
        if writer.ring.publish() {
            writer.thread.unpark();
        }
        if !self.waits.is_empty() || !self.controls.is_empty() || self.state != State::Flowing {
            // Before looking where it is, so that it cannot get there unnoticed.
            writer.notice.want();
        }
        let taken = writer.ring.taken();
        if self.state != State::Flowing && taken == writer.ring.position() {
            // It emptied the ring before it could be asked to say so.
            writer.notice.raise();
        }
        self.waits.extract_if(.., |(position, _)| *position <= taken).map(|(_, then)| then).collect()
    }

    fn full(&mut self) -> bool {
        if self.state == State::Flowing {
            self.state = State::Full { since: Instant::now() };
        }
        false
    }

    /// Puts files and ends into the ring; false when some found no room.
    fn apply_controls(&mut self) -> bool {
        let Some(writer) = &mut self.writer else { return true };
        while let Some(control) = self.controls.pop_front() {
            match control {
                Control::Close { slot } => {
                    if !writer.ring.finish(slot) {
                        self.controls.push_front(Control::Close { slot });
                        return false;
                    }
                }
                Control::File { slot, file, then } => match writer.ring.hand_over(slot, file) {
                    Ok(()) => self.waits.extend(then.map(|then| (writer.ring.position(), then))),
                    Err(file) => {
                        self.controls.push_front(Control::File { slot, file, then });
                        return false;
                    }
                },
            }
        }
        true
    }
}

impl Writer {
    fn start() -> io::Result<Self> {
        let (ring, consumer) = ring::ring(RING_BYTES);
        let notice = std::sync::Arc::new(Notice::new()?);
        let thread = writer::start(consumer, notice.clone(), SLOTS)?;
        Ok(Self { ring, thread, notice })
    }
}

#[cfg(test)]
mod tests;
