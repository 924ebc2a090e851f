//! The pod's namespaces and the pause process that holds them.

use std::os::fd::{AsRawFd, OwnedFd};

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::connection::Ticket;
use super::link::Owner;
use super::poll::Key;
use super::wire::{Answer, Descriptors, Refusal, SandboxOrder};
use crate::{Failure, pause};

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
        let network = fds.take_if(order.own_network)?;
        let failed = |error| Refusal::Failed(Failure::io("clone pause", &error));
        let (link, stage_end) = self.add_link(Owner::Pause).map_err(failed)?;
        let birthplace = Birthplace { namespaces: pause::namespaces(&order), ..Birthplace::default() };
        let stage = pause::Stage { program, network, link: stage_end, order };
        let fds = [&stage.program, &stage.link].into_iter().chain(&stage.network).map(AsRawFd::as_raw_fd);
        let work = Work { fds: fds.collect(), with: stage, run: pause::stage };
        let child = self.clone_child(Role::Pause, &birthplace, work).map_err(failed)?;
        let pid = self.children.get(child).map_or(0, |child| child.pid);
        self.sandbox =
            Sandbox { child: Some(child), pid, link: Some(link), failure: None, ticket: Some(ticket) };
        Ok(())
    }

    /// It runs, or it is about to end.
    pub(super) fn pause_link_ended(&mut self) {
        self.sandbox.link = None;
        if self.sandbox.failure.is_none()
            && let Some(ticket) = self.sandbox.ticket.take()
        {
            self.answer(ticket, Ok(Answer::Process { pid: self.sandbox.pid }));
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
