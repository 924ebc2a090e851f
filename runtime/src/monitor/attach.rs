//! Clients that are attached to containers: what a container writes goes to each of them, what they write goes to
//! its standard input.
//!
//! Nobody is waited for. A client whose pipe is full is dropped; input is moved from pipe to pipe by splice(2) as
//! far as there is room, and what a container does not read stays in its client's pipe.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::{Errno, retry_on_intr};
use rustix::pipe::SpliceFlags;

use super::Monitor;
use super::connection::Ticket;
use super::container::{Container, Phase};
use super::log::Stream;
use super::poll::{Interest, Key, Source};
use super::wire::{Answer, AttachOrder, Descriptors, Refusal};
use crate::{Detachment, Failure, Stdin};

/// What is moved at once; a pipe holds no more unless it was made larger.
const SPLICE_BYTES: usize = 64 << 10;

/// How often something is moved before others have their turn.
const ROUNDS: usize = 16;

/// Someone who is attached, with the daemon's pipes.
#[derive(Debug)]
pub(super) struct Client {
    container: Key,
    ticket: Ticket,
    stdin: Option<OwnedFd>,
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
}

// === impl Client ===

impl Client {
    fn output(&mut self, stream: Stream) -> &mut Option<OwnedFd> {
        match stream {
            Stream::Stdout => &mut self.stdout,
            Stream::Stderr => &mut self.stderr,
        }
    }

    fn has_left(&self) -> bool {
        self.stdin.is_none() && self.stdout.is_none() && self.stderr.is_none()
    }
}

impl Monitor {
    /// Attaches a client; the answer comes when that is over.
    pub(super) fn attach(
        &mut self,
        ticket: Ticket,
        order: &AttachOrder,
        mut fds: Descriptors,
    ) -> Result<(), Refusal> {
        let container = self.find(&order.container)?;
        self.running(container)?;
        let stdin = fds.take_if(order.stdin)?;
        let (stdout, stderr) = (fds.take_if(order.stdout)?, fds.take_if(order.stderr)?);
        let failed = |error: std::io::Error| Refusal::Failed(Failure::io("watch a client's pipe", &error));
        let source = Source::Client(self.clients.next_key());
        for output in stdout.iter().chain(&stderr) {
            rustix::io::ioctl_fionbio(output, true).map_err(|errno| failed(errno.into()))?;
            // Only whether its reader is gone.
            self.poll.add_for(output, source, Interest::Hangup).map_err(failed)?;
        }
        if let Some(stdin) = &stdin {
            self.poll.add(stdin, source).map_err(failed)?;
        }
        let key = self.clients.insert(Client { container, ticket, stdin, stdout, stderr });
        self.serve_client(key);
        Ok(())
    }

    /// Gives a copy of a container's terminal away.
    pub(super) fn share_terminal(&mut self, ticket: Ticket, id: &str) -> Result<(), Refusal> {
        let key = self.find(id)?;
        let container = self.running(key)?;
        let output = container.outputs.first().filter(|_| container.has_terminal);
        let master =
            output.and_then(|output| self.outputs.get(*output)).and_then(|output| output.fd.as_ref());
        let master = master.ok_or_else(|| Refusal::WrongState { state: "without a terminal".into() })?;
        let copy = master.try_clone();
        let copy = copy.map_err(|error| Refusal::Failed(Failure::io("copy the terminal", &error)))?;
        self.answer_with(ticket, Ok(Answer::Terminal), Some(copy));
        Ok(())
    }

    /// A client wrote something, or closed a pipe.
    pub(super) fn serve_client(&mut self, key: Key) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            let Some(client) = self.clients.get_mut(key) else { return };
            if client.output(stream).as_ref().is_some_and(|output| has(output, PollFlags::ERR)) {
                self.close_output(key, stream);
            }
        }
        self.feed(key);
        self.end_if_left(key);
    }

    /// The container reads its input again: everyone who waits for that has a turn.
    pub(super) fn resume_stdin(&mut self, container: Key) {
        let Some(stdin) = self.containers.get(container).and_then(|container| container.stdin.as_ref())
        else {
            return;
        };
        self.poll.remove(stdin);
        for key in self.clients_of(container) {
            let Some(stdin) = self.clients.get(key).and_then(|client| client.stdin.as_ref()) else {
                continue;
            };
            // One that did not wait is watched already.
            self.poll.add(stdin, Source::Client(key)).ok();
            self.serve_client(key);
        }
    }

    /// Passes on what a container wrote.
    pub(super) fn broadcast(&mut self, container: Key, stream: Stream, bytes: &[u8]) {
        if self.clients.is_empty() {
            return;
        }
        for key in self.clients_of(container) {
            let Some(client) = self.clients.get_mut(key) else { continue };
            let Some(output) = client.output(stream) else { continue };
            match retry_on_intr(|| rustix::io::write(&*output, bytes)) {
                Ok(count) if count == bytes.len() => {}
                Err(Errno::PIPE) => {
                    self.close_output(key, stream);
                    self.end_if_left(key);
                }
                Ok(_) | Err(_) => self.drop_client(key, container),
            }
        }
    }

    /// Lets all of a container's clients go.
    pub(super) fn detach_all(&mut self, container: Key) {
        for key in self.clients_of(container) {
            self.detach(key, Detachment::Ended);
        }
    }

    /// Lets go of a client that does not read. Its input ends with it.
    fn drop_client(&mut self, key: Key, container: Key) {
        let had_stdin = self.clients.get(key).is_some_and(|client| client.stdin.is_some());
        self.detach(key, Detachment::TooSlow);
        let mode = self.containers.get(container).map(|container| container.stdin_mode);
        if had_stdin && mode == Some(Stdin::Once) {
            self.close_stdin(container);
        }
    }

    /// Moves what a client wrote to the container's standard input.
    fn feed(&mut self, key: Key) {
        for _ in 0..ROUNDS {
            let Some(Client { container, stdin: Some(from), .. }) = self.clients.get(key) else { return };
            let container = *container;
            let Some(to) = self.containers.get(container).and_then(|container| container.stdin.as_ref())
            else {
                return self.close_stdin_of(key);
            };
            match rustix::pipe::splice(from, None, to, None, SPLICE_BYTES, SpliceFlags::NONBLOCK) {
                Ok(0) => return self.input_ended(key, container),
                Ok(_) | Err(Errno::INTR) => {}
                Err(Errno::AGAIN) if has(from, PollFlags::IN | PollFlags::HUP) => {
                    // It is the container's pipe that has no room, even for the end of the client's.
                    self.poll.remove(from);
                    // Others may be waiting for it already.
                    self.poll.add_for(to, Source::Stdin(container), Interest::Writable).ok();
                    return;
                }
                Err(Errno::AGAIN) => return,
                // The container closed its end.
                Err(_) => return self.close_stdin(container),
            }
        }
    }

    /// A client closed its input: that is the container's end of file, or, where others may write, its farewell.
    fn input_ended(&mut self, key: Key, container: Key) {
        match self.containers.get(container).map(|container| container.stdin_mode) {
            Some(Stdin::Once) => self.close_stdin(container),
            _ => self.detach(key, Detachment::Left),
        }
    }

    /// Closes a container's standard input for good.
    fn close_stdin(&mut self, container: Key) {
        if let Some(stdin) = self.containers.get_mut(container).and_then(|container| container.stdin.take()) {
            self.poll.remove(&stdin);
        }
        for key in self.clients_of(container) {
            self.close_stdin_of(key);
            self.end_if_left(key);
        }
    }

    fn close_stdin_of(&mut self, key: Key) {
        if let Some(stdin) = self.clients.get_mut(key).and_then(|client| client.stdin.take()) {
            self.poll.remove(&stdin);
        }
    }

    fn close_output(&mut self, key: Key, stream: Stream) {
        if let Some(output) = self.clients.get_mut(key).and_then(|client| client.output(stream).take()) {
            self.poll.remove(&output);
        }
    }

    fn end_if_left(&mut self, key: Key) {
        if self.clients.get(key).is_some_and(Client::has_left) {
            self.detach(key, Detachment::Left);
        }
    }

    fn detach(&mut self, key: Key, why: Detachment) {
        let Some(client) = self.clients.remove(key) else { return };
        for fd in client.stdin.iter().chain(&client.stdout).chain(&client.stderr) {
            self.poll.remove(fd);
        }
        let ticket = client.ticket;
        // All is closed when the daemon hears of it.
        drop(client);
        self.answer(ticket, Ok(Answer::Detached(why)));
    }

    fn clients_of(&self, container: Key) -> Vec<Key> {
        let clients = self.clients.iter().filter(|(_, client)| client.container == container);
        clients.map(|(key, _)| key).collect()
    }

    fn running(&self, key: Key) -> Result<&Container, Refusal> {
        let container = self.containers.get(key).ok_or(Refusal::NoContainer)?;
        match container.phase {
            Phase::Running => Ok(container),
            _ => Err(container.wrong_state()),
        }
    }
}

/// Whether poll(2) says one of these of a descriptor right now.
fn has(fd: &OwnedFd, flags: PollFlags) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(fd.as_fd(), flags)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut fds, Some(&now)).is_ok() && fds[0].revents().intersects(flags)
}
