//! What containers write: read from their pipes and terminals, put into their logs.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::container::Phase;
use super::log::line::{Lines, Tag};
use super::log::{Slot, Stream};
use super::poll::{Key, Source};
use super::{After, Monitor};

/// What is read at once; a pipe holds four times as much.
const READ_BYTES: usize = 16 << 10;

/// Reads from one output before the others have their turn.
const ROUNDS: usize = 16;

/// What is read of an output after its container's end; more than that is of someone who goes on writing.
const LAST_BYTES: usize = 1 << 20;

/// Bounds of a log line: it must fit into the ring with room to spare.
const LINE_BYTES: std::ops::RangeInclusive<usize> = 64..=64 << 10;

/// One end that the monitor reads from.
#[derive(Debug)]
pub(super) struct Output {
    container: Key,
    stream: Stream,
    /// None at its end.
    pub(super) fd: Option<OwnedFd>,
    log: Option<Slot>,
    lines: Lines,
    /// What was read and found no room in the log.
    backlog: Vec<u8>,
    /// It is not read from until there is room.
    is_paused: bool,
    /// What could not be kept since the last that could.
    lost: u64,
    /// What is still read before the container's exit is announced.
    left: Option<usize>,
}

// === impl Output ===

impl Output {
    /// Whether all that was there at the container's end has been read.
    fn is_drained(&self) -> bool {
        self.backlog.is_empty() && self.lost == 0 && (self.fd.is_none() || self.left == Some(0))
    }
}

impl Monitor {
    /// Takes on a log.
    pub(super) fn open_log(&mut self, file: OwnedFd) -> io::Result<Slot> {
        let (slot, notice) = self.logs.open(file)?;
        if let Some(notice) = notice {
            self.poll.add(notice, Source::Writer)?;
        }
        Ok(slot)
    }

    /// Takes on a container's terminal.
    pub(super) fn add_console(&mut self, container: Key, master: OwnedFd) {
        let added = rustix::io::ioctl_fionbio(&master, true)
            .map_err(io::Error::from)
            .and_then(|()| self.add_output(container, Stream::Stdout, master));
        if let Err(error) = added {
            self.warn(format!("watch a container's terminal: {error}"));
        }
    }

    pub(super) fn add_output(&mut self, container: Key, stream: Stream, fd: OwnedFd) -> io::Result<()> {
        self.poll.add(&fd, Source::Output(self.outputs.next_key()))?;
        let Some(owner) = self.containers.get_mut(container) else { return Ok(()) };
        let limit = owner.log_line_bytes.clamp(*LINE_BYTES.start(), *LINE_BYTES.end());
        let key = self.outputs.insert(Output {
            container,
            stream,
            fd: Some(fd),
            log: owner.log,
            lines: Lines::new(limit),
            backlog: Vec::new(),
            is_paused: false,
            lost: 0,
            left: None,
        });
        owner.outputs.push(key);
        Ok(())
    }

    pub(super) fn remove_output(&mut self, key: Key) {
        if let Some(fd) = self.outputs.remove(key).and_then(|output| output.fd) {
            self.poll.remove(&fd);
        }
    }

    /// Reads what there is.
    pub(super) fn read_output(&mut self, key: Key) {
        for _ in 0..ROUNDS {
            if !self.read_some(key) {
                break;
            }
        }
    }

    /// There is room again, or waiting for it is over.
    pub(super) fn resume_outputs(&mut self) {
        for key in self.outputs.keys() {
            let Some(output) = self.outputs.get_mut(key) else { continue };
            let was_paused = std::mem::take(&mut output.is_paused);
            if !was_paused && (output.lost == 0 || self.logs.is_dropping()) {
                continue;
            }
            let backlog = std::mem::take(&mut output.backlog);
            if let Some(fd) = output.fd.as_ref().filter(|_| was_paused)
                && let Err(error) = self.poll.add(fd, Source::Output(key))
            {
                self.warn(format!("watch a container's output again: {error}"));
            }
            self.put(key, &backlog);
            self.drain(key);
        }
    }

    /// Whether all that was read is in the logs, and nothing is to be told of what is not.
    pub(super) fn outputs_are_written(&self) -> bool {
        let has_more = |output: &Output| output.lost > 0 || !output.backlog.is_empty();
        self.logs.is_settled() && !self.outputs.iter().any(|(_, output)| has_more(output))
    }

    /// Reads all that is there at the container's end, of each of its outputs.
    pub(super) fn drain_outputs(&mut self, container: Key) {
        let Some(owner) = self.containers.get(container) else { return };
        for key in owner.outputs.clone() {
            if let Some(output) = self.outputs.get_mut(key) {
                output.left = Some(LAST_BYTES);
            }
            self.drain(key);
        }
        self.flush_if_drained(container);
    }

    fn drain(&mut self, key: Key) {
        while self.outputs.get(key).is_some_and(|output| output.left.is_some_and(|left| left > 0)) {
            if !self.read_some(key) {
                break;
            }
        }
        if let Some(container) = self.outputs.get(key).map(|output| output.container) {
            self.flush_if_drained(container);
        }
    }

    /// Reads once; false when there is nothing more to read now.
    fn read_some(&mut self, key: Key) -> bool {
        let Some(output) = self.outputs.get_mut(key) else { return false };
        let Some(fd) = output.fd.as_ref().filter(|_| !output.is_paused) else { return false };
        let mut chunk = std::mem::take(&mut self.scratch);
        chunk.clear();
        // Asked for once; how much of it becomes memory is up to the longest read.
        chunk.reserve(READ_BYTES);
        let read = rustix::io::read(fd, rustix::buffer::spare_capacity(&mut chunk));
        let goes_on = match read {
            Ok(count) if count > 0 => {
                output.left = output.left.map(|left| left.saturating_sub(count));
                let (container, stream) = (output.container, output.stream);
                self.broadcast(container, stream, &chunk);
                self.put(key, &chunk);
                true
            }
            Err(Errno::AGAIN) => {
                // Nothing is on its way to the reader of a pipe or terminal that has nothing to read.
                output.left = output.left.map(|_| 0);
                false
            }
            Err(Errno::INTR) => true,
            // A terminal that nobody has open any more says EIO.
            Ok(_) | Err(_) => {
                if let Some(fd) = output.fd.take() {
                    self.poll.remove(&fd);
                }
                self.put(key, &[]);
                false
            }
        };
        self.scratch = chunk;
        goes_on
    }

    /// Puts bytes into the log; what finds no room waits, and so does who wrote it.
    fn put(&mut self, key: Key, chunk: &[u8]) {
        let Some(output) = self.outputs.get_mut(key) else { return };
        let Some(slot) = output.log else { return };
        let (logs, stream) = (&mut self.logs, output.stream);
        // One for all lines that are read at once.
        logs.take_time();
        if logs.is_dropping() {
            output.lost += (chunk.len() + output.lines.forget()) as u64;
        } else {
            if output.lost > 0 {
                let note = format!("corten: {} bytes were not kept, the log was too slow", output.lost);
                if logs.write(slot, Stream::Stderr, Tag::Full, [note.as_bytes(), b""]) {
                    output.lost = 0;
                }
            }
            let mut emit = |tag, text: [&[u8]; 2]| logs.write(slot, stream, tag, text);
            let used = if output.lost == 0 { output.lines.push(chunk, &mut emit) } else { 0 };
            let is_flushed = output.fd.is_some() || output.lines.flush(&mut emit);
            if used == chunk.len() && is_flushed && output.lost == 0 {
                return;
            }
            output.backlog.extend_from_slice(&chunk[used..]);
            output.is_paused = true;
            if let Some(fd) = &output.fd {
                // Its hang-up would be reported over and over.
                self.poll.remove(fd);
            }
        }
    }

    /// When all outputs of an ended container are read: their last words, then its exit.
    fn flush_if_drained(&mut self, container: Key) {
        let Some(owner) = self.containers.get_mut(container) else { return };
        let Phase::Ending { is_flushed, .. } = &mut owner.phase else { return };
        let outputs = &mut self.outputs;
        self.logs.take_time();
        if *is_flushed || !owner.outputs.iter().all(|key| outputs.get(*key).is_none_or(Output::is_drained)) {
            return;
        }
        for key in &owner.outputs {
            let Some(output) = outputs.get_mut(*key) else { continue };
            if let Some(slot) = output.log {
                let stream = output.stream;
                // What finds no room stays, and is tried again when there is some.
                if !output.lines.flush(&mut |tag, text| self.logs.write(slot, stream, tag, text)) {
                    output.is_paused = true;
                    if let Some(fd) = &output.fd {
                        self.poll.remove(fd);
                    }
                    return;
                }
            }
            output.left = None;
        }
        *is_flushed = true;
        self.logs.when_written(After::Exit(container));
        self.detach_all(container);
    }
}
