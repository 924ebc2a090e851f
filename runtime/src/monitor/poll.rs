//! What the monitor waits for: epoll(7) and the keys by which its answers are told apart.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;

/// A number that is never used again.
pub(super) type Key = u64;

/// As much of a key as epoll's data has room for beside the kind; no monitor lives long enough for more.
const KEY_BITS: u32 = 56;

/// Events that are taken from the kernel at once.
const BATCH: usize = 32;

/// Who has something to say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// A process of ours ended.
    Child(Key),
    /// An attached client wrote something, or is gone.
    Client(Key),
    /// A daemon's packet, or room for ours.
    Connection(Key),
    /// The OOM killer was at work in a container, maybe.
    Kills(Key),
    /// A stage's packet, or its end.
    Link(Key),
    /// A new daemon.
    Listener,
    /// A container's output.
    Output(Key),
    /// An orphan was left to us.
    Signals,
    /// A container's standard input has room.
    Stdin(Key),
    /// The log's writer got on.
    Writer,
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Interest {
    /// Only errors and the end, which are always reported.
    Hangup,
    /// A file of the kernel's has changed since it was read, see poll(2).
    Priority,
    Readable,
    ReadableOrWritable,
    Writable,
}

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Poll {
    epoll: OwnedFd,
}

/// Things by key, in the order in which they came.
#[derive(Debug)]
pub(super) struct Keyed<T> {
    entries: Vec<(Key, T)>,
    next: Key,
}

// === impl Poll ===

impl Poll {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(CreateFlags::CLOEXEC)? })
    }

    pub(super) fn add(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        self.add_for(fd, source, Interest::Readable)
    }

    pub(super) fn add_for(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, source.data(), interest.flags())?)
    }

    pub(super) fn change(&self, fd: impl AsFd, source: Source, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, source.data(), interest.flags())?)
    }

    /// To be called before the descriptor is closed: a child may have a copy of it for a moment, and as long
    /// as there is one it would go on to be reported.
    pub(super) fn remove(&self, fd: impl AsFd) {
        // It may not have been added, which is as good.
        epoll::delete(&self.epoll, fd).ok();
    }

    /// Waits until something happens or the time is over.
    pub(super) fn wait(&self, time: Option<Duration>) -> io::Result<Vec<Source>> {
        // Rounded up to what epoll counts in, so that a deadline has passed when this returns.
        let milliseconds =
            time.map(|time| i64::try_from(time.as_micros().div_ceil(1000)).unwrap_or(i64::MAX));
        let timeout = milliseconds.map(|time| {
            // Shorter than the 2^31 ms that old kernels can count.
            let time = time.min(24 * 3600 * 1000);
            Timespec { tv_sec: time / 1000, tv_nsec: (time % 1000) * 1_000_000 }
        });
        let mut events: Vec<epoll::Event> = Vec::with_capacity(BATCH);
        match epoll::wait(&self.epoll, rustix::buffer::spare_capacity(&mut events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        Ok(events.iter().filter_map(|event| Source::from_data(event.data)).collect())
    }
}

// === impl Source ===

impl Source {
    fn data(self) -> EventData {
        let (kind, key) = match self {
            Self::Child(key) => (0, key),
            Self::Connection(key) => (1, key),
            Self::Link(key) => (2, key),
            Self::Listener => (3, 0),
            Self::Output(key) => (4, key),
            Self::Signals => (5, 0),
            Self::Writer => (6, 0),
            Self::Client(key) => (7, key),
            Self::Stdin(key) => (8, key),
            Self::Kills(key) => (9, key),
        };
        EventData::new_u64(kind << KEY_BITS | key)
    }

    fn from_data(data: EventData) -> Option<Self> {
        let data = data.u64();
        let key = data & ((1 << KEY_BITS) - 1);
        Some(match data >> KEY_BITS {
            0 => Self::Child(key),
            1 => Self::Connection(key),
            2 => Self::Link(key),
            3 => Self::Listener,
            4 => Self::Output(key),
            5 => Self::Signals,
            6 => Self::Writer,
            7 => Self::Client(key),
            8 => Self::Stdin(key),
            9 => Self::Kills(key),
            _ => return None,
        })
    }
}

impl Interest {
    fn flags(self) -> EventFlags {
        match self {
            Self::Hangup => EventFlags::empty(),
            Self::Priority => EventFlags::PRI,
            Self::Readable => EventFlags::IN,
            Self::ReadableOrWritable => EventFlags::IN | EventFlags::OUT,
            Self::Writable => EventFlags::OUT,
        }
    }
}

// === impl Keyed ===

impl<T> Default for Keyed<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), next: 0 }
    }
}

impl<T> Keyed<T> {
    /// The key that the next thing will get.
    pub(super) fn next_key(&self) -> Key {
        self.next
    }

    pub(super) fn insert(&mut self, thing: T) -> Key {
        let key = self.next;
        self.next += 1;
        self.entries.push((key, thing));
        key
    }

    pub(super) fn get(&self, key: Key) -> Option<&T> {
        self.place(key).map(|place| &self.entries[place].1)
    }

    pub(super) fn get_mut(&mut self, key: Key) -> Option<&mut T> {
        self.place(key).map(|place| &mut self.entries[place].1)
    }

    pub(super) fn remove(&mut self, key: Key) -> Option<T> {
        self.place(key).map(|place| self.entries.remove(place).1)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Key, &T)> {
        self.entries.iter().map(|(key, thing)| (*key, thing))
    }

    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (Key, &mut T)> {
        self.entries.iter_mut().map(|(key, thing)| (*key, thing))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    pub(super) fn keys(&self) -> Vec<Key> {
        self.entries.iter().map(|(key, _)| *key).collect()
    }

    fn place(&self, key: Key) -> Option<usize> {
        // Keys only grow and nothing is moved.
        self.entries.binary_search_by_key(&key, |(key, _)| *key).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_survive_the_kernel() {
        for source in [
            Source::Child(7),
            Source::Client(9),
            Source::Connection((1 << KEY_BITS) - 1),
            Source::Kills(5),
            Source::Link(0),
            Source::Listener,
            Source::Output(3),
            Source::Signals,
            Source::Stdin(4),
            Source::Writer,
        ] {
            assert_eq!(Source::from_data(source.data()), Some(source));
        }
    }

    #[test]
    fn keys_are_never_used_again() {
        let mut things = Keyed::default();
        let (a, b) = (things.insert('a'), things.insert('b'));
        assert_eq!(things.remove(a), Some('a'));
        assert_eq!(things.get(a), None);
        let c = things.insert('c');
        assert!(c > b);
        assert_eq!(things.get_mut(c), Some(&mut 'c'));
        assert_eq!(things.keys(), [b, c]);
    }

    #[test]
    fn a_deadline_has_passed_when_waiting_ends() {
        let poll = Poll::new().unwrap();
        let begin = std::time::Instant::now();
        assert!(poll.wait(Some(Duration::from_micros(1500))).unwrap().is_empty());
        assert!(begin.elapsed() >= Duration::from_micros(1500));
    }
}
