//! The pod's namespaces and the pause process that holds them.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{CWD, Mode, OFlags};

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::connection::Ticket;
use super::link::Owner;
use super::poll::Key;
use super::wire::{Answer, Descriptors, Refusal, SandboxOrder};
use crate::native::link::{self, ToStage};
use crate::{Failure, IdMap, pause};

/// What is known of them.
#[derive(Debug, Default)]
pub(super) struct Sandbox {
    /// Pause as long as it lives.
    pub(super) child: Option<Key>,
    pub(super) pid: i32,
    /// Until it has become its program.
    pub(super) link: Option<Key>,
    pub(super) failure: Option<Failure>,
    /// Who wants to know that it is up.
    ticket: Option<Ticket>,
    /// The pod's user namespace, if it has one of its own.
    pub(super) users: Option<OwnedFd>,
    /// The network namespace that was made in it, until the daemon has it.
    network: Option<OwnedFd>,
}

impl Monitor {
    pub(super) fn make_sandbox(
        &mut self,
        ticket: Ticket,
        order: SandboxOrder,
        mut fds: Descriptors,
    ) -> Result<(), Refusal> {
        if self.sandbox.pid != 0 {
            return Err(Refusal::WrongState { state: "started".into() });
        }
        let program = fds.take()?;
        let network = fds.take_if(order.own_network && order.users.is_none())?;
        let (users, own_network) = (order.users, order.own_network);
        let failed = |error| Refusal::Failed(Failure::io("clone pause", &error));
        let (link, stage_end) = self.add_link(Owner::Pause).map_err(failed)?;
        let birthplace = Birthplace { namespaces: pause::namespaces(&order), ..Birthplace::default() };
        let stage = pause::Stage { program, network, link: stage_end, order };
        let fds = [&stage.program, &stage.link].into_iter().chain(&stage.network).map(AsRawFd::as_raw_fd);
        let work = Work { fds: fds.collect(), with: stage, run: pause::stage };
        let child = self.clone_child(Role::Pause, &birthplace, work).map_err(failed)?;
        let pid = self.children.get(child).map_or(0, |child| child.pid);
        let ticket = Some(ticket);
        self.sandbox = Sandbox { child: Some(child), pid, link: Some(link), ticket, ..Sandbox::default() };
        if let Some(ids) = users
            && let Err(error) = self.open_users(ids, own_network)
        {
            self.sandbox.failure = Some(Failure::io("make the user namespace", &error));
            // Its end is the answer.
            self.kill_child(Some(child), libc::SIGKILL).ok();
        }
        Ok(())
    }

    /// Gives the user namespace that pause was cloned into its ids, and lets pause go on.
    fn open_users(&mut self, ids: IdMap, own_network: bool) -> io::Result<()> {
        let pid = self.sandbox.pid;
        let line = format!("0 {} {}\n", ids.host, ids.length);
        for file in ["uid_map", "gid_map"] {
            std::fs::write(format!("/proc/{pid}/{file}"), &line)?;
        }
        // Pause is not reaped before this returns, so that the number is its own.
        let namespace = |name| {
            let path = format!("/proc/{pid}/ns/{name}");
            rustix::fs::openat(CWD, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        };
        self.sandbox.users = Some(namespace("user")?);
        self.sandbox.network = own_network.then(|| namespace("net")).transpose()?;
        match self.sandbox.link.and_then(|link| self.links.get(link)) {
            Some(link) => Ok(link::send(link.socket.as_fd(), &ToStage::Go, None)?),
            None => Err(io::ErrorKind::NotConnected.into()),
        }
    }

    /// It runs, or it is about to end.
    pub(super) fn pause_link_ended(&mut self) {
        self.sandbox.link = None;
        if self.sandbox.failure.is_none()
            && let Some(ticket) = self.sandbox.ticket.take()
        {
            let network = self.sandbox.network.take();
            self.answer_with(ticket, Ok(Answer::Process { pid: self.sandbox.pid }), network);
            self.end_if_forgotten();
        }
    }

    /// Without it there is no pod: whatever it was that took it, all else goes too.
    pub(super) fn pause_ended(&mut self, code: i32) {
        self.sandbox.child = None;
        if let Some(ticket) = self.sandbox.ticket.take() {
            let silent = || Failure::setup(format!("pause ended with code {code}"), 0);
            let failure = self.sandbox.failure.take().unwrap_or_else(silent);
            self.answer(ticket, Err(Refusal::Failed(failure)));
        } else if self.ending.is_none() {
            self.warn(format!("pause, which held the pod's namespaces, ended with code {code}"));
        }
        self.begin_end(None);
    }

    /// A copy of pause's pidfd, to find the pod's namespaces by.
    pub(super) fn pause_pidfd(&self) -> Result<OwnedFd, Refusal> {
        let child = self.sandbox.child.and_then(|key| self.children.get(key));
        let child = child.ok_or_else(|| Refusal::WrongState { state: "without pause".into() })?;
        child.pidfd.try_clone().map_err(|error| Refusal::Failed(Failure::io("copy pause's pidfd", &error)))
    }
}
