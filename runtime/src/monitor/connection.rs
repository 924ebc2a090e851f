//! Daemons at the monitor's socket, one after the other or several at a time.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::Monitor;
use super::poll::{Interest, Key, Source};
use super::wire::{self, Answer, Refusal, Word};

/// How long nobody is listened to when there is no room for a connection.
const DEAFNESS: Duration = Duration::from_secs(1);

/// A daemon.
#[derive(Debug)]
pub(super) struct Connection {
    socket: OwnedFd,
    /// What the socket had no room for. While there is something, no further orders are read, so that it is
    /// never more than what the daemon itself has asked for.
    outbox: VecDeque<(Vec<u8>, Option<OwnedFd>)>,
}

/// Where an answer goes to; nowhere when that daemon is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) connection: Key,
    pub(super) serial: u64,
}

impl Connection {
    /// Sends what is left; an error means that nobody is there.
    fn flush(&mut self) -> Result<(), Errno> {
        while let Some((packet, fd)) = self.outbox.front() {
            let fds: Vec<_> = fd.iter().map(AsFd::as_fd).collect();
            match wire::send(&self.socket, packet, &fds) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(errno),
            }
        }
        Ok(())
    }
}

impl Monitor {
    /// Takes on a daemon at the socket, if it is one: root, or whoever the monitor runs as.
    pub(super) fn accept(&mut self) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            match rustix::net::accept_with(&self.listener, flags) {
                Ok(socket) => {
                    let peer = rustix::net::sockopt::socket_peercred(&socket);
                    if peer.is_ok_and(|peer| peer.uid == rustix::process::geteuid()) {
                        self.add_connection(socket);
                    }
                }
                // Whoever waits will go on to be reported, so for a while nobody is listened to.
                Err(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS) => {
                    self.poll.remove(&self.listener);
                    self.deaf_until = Some(Instant::now() + DEAFNESS);
                    return;
                }
                // Nobody is left, or gave up before.
                Err(Errno::AGAIN) => return,
                Err(_) => {}
            }
        }
    }

    pub(super) fn listen_again(&mut self, now: Instant) {
        if self.deaf_until.is_some_and(|until| until <= now) {
            let is_added = self.poll.add(&self.listener, Source::Listener).is_ok();
            self.deaf_until = if is_added { None } else { Some(now + DEAFNESS) };
        }
    }

    pub(super) fn add_connection(&mut self, socket: OwnedFd) {
        // If it cannot be watched, dropping it is how its daemon learns.
        if self.poll.add(&socket, Source::Connection(self.connections.next_key())).is_ok() {
            self.connections.insert(Connection { socket, outbox: VecDeque::new() });
        }
    }

    /// Reads orders, and sends what could not be sent before.
    pub(super) fn serve_connection(&mut self, key: Key) {
        while let Some(connection) = self.connections.get_mut(key) {
            if connection.flush().is_err() {
                return self.lose_connection(key);
            }
            if !connection.outbox.is_empty() {
                return;
            }
            match wire::receive(&connection.socket) {
                Ok(Some((packet, fds))) => match wire::decode_order(&packet) {
                    Ok((serial, order)) => self.obey(Ticket { connection: key, serial }, order.ok(), fds),
                    Err(_) => return self.lose_connection(key),
                },
                Err(Errno::AGAIN) => break,
                Ok(None) | Err(_) => return self.lose_connection(key),
            }
        }
        if let Some(connection) = self.connections.get(key) {
            // If it fails, the next packet is read all the same.
            self.poll.change(&connection.socket, Source::Connection(key), Interest::Readable).ok();
        }
    }

    /// Tells what came of an order.
    pub(super) fn answer(&mut self, ticket: Ticket, answer: Result<Answer, Refusal>) {
        self.answer_with(ticket, answer, None);
    }

    pub(super) fn answer_with(
        &mut self,
        ticket: Ticket,
        answer: Result<Answer, Refusal>,
        fd: Option<OwnedFd>,
    ) {
        self.say(ticket.connection, &Word::Answer { serial: ticket.serial, answer }, fd);
    }

    /// Tells every daemon.
    pub(super) fn announce(&mut self, word: &Word) {
        for key in self.connections.keys() {
            self.say(key, word, None);
        }
    }

    /// Tells every daemon of something that went wrong, for its log.
    pub(super) fn warn(&mut self, text: String) {
        self.announce(&Word::Warning { text });
    }

    /// Waits until all has been taken, or the time is over.
    pub(super) fn flush_connections(&mut self, end: Instant) {
        for key in self.connections.keys() {
            while let Some(connection) = self.connections.get_mut(key) {
                let left = end.saturating_duration_since(Instant::now());
                if connection.flush().is_err() || connection.outbox.is_empty() || left.is_zero() {
                    break;
                }
                let timeout = Timespec::try_from(left).ok();
                let mut fds = [PollFd::new(&connection.socket, PollFlags::OUT)];
                rustix::event::poll(&mut fds, timeout.as_ref()).ok();
            }
        }
    }

    fn say(&mut self, key: Key, word: &Word, fd: Option<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        // It does not fail for types like these.
        let Ok(packet) = wire::encode_word(word) else { return };
        connection.outbox.push_back((packet, fd));
        match connection.flush() {
            Ok(()) if connection.outbox.is_empty() => {}
            Ok(()) => {
                let interest = Interest::ReadableOrWritable;
                self.poll.change(&connection.socket, Source::Connection(key), interest).ok();
            }
            // Its end is noticed when it is read from.
            Err(_) => connection.outbox.clear(),
        }
    }

    fn lose_connection(&mut self, key: Key) {
        if let Some(connection) = self.connections.remove(key) {
            self.poll.remove(&connection.socket);
        }
        self.end_if_forgotten();
    }
}
