//! What the daemon orders, and who does it.

use std::time::{Duration, Instant};

use super::connection::Ticket;
use super::container::Phase;
use super::poll::Key;
use super::wire::{self, Answer, Descriptors, Order, Refusal};
use super::{After, Monitor};
use crate::{ContainerReport, ContainerState, Failure, Report};

impl Monitor {
    /// Does what was ordered, or says why not. Who is told later has kept the ticket.
    pub(super) fn obey(&mut self, ticket: Ticket, order: Option<Order>, mut fds: Descriptors) {
        let begun = match order {
            None => Err(Refusal::NotUnderstood),
            Some(_) if self.ending.is_some() => self.obey_at_the_end(ticket, order),
            Some(Order::Attach(order)) => self.attach(ticket, &order, fds),
            Some(Order::Create(order)) => self.create(ticket, order, fds),
            Some(Order::End) => {
                self.begin_end(Some(ticket));
                Ok(())
            }
            Some(Order::Exec(order)) => self.exec(ticket, &order, false, fds),
            Some(Order::ExecTerminal(order)) => self.exec(ticket, &order, true, fds),
            Some(Order::Kill { id, signal }) => {
                self.signal(&id, signal).map(|()| self.answer(ticket, Ok(Answer::Done)))
            }
            Some(Order::Remove { id }) => self.remove(&id).map(|()| self.answer(ticket, Ok(Answer::Done))),
            Some(Order::ReopenLog { id }) => self.reopen_log(ticket, &id, &mut fds),
            Some(Order::Report) => self.report(ticket),
            Some(Order::Sandbox(order)) => self.make_sandbox(ticket, order, fds),
            Some(Order::Start { id }) => self.start(ticket, &id),
            Some(Order::Terminal { id }) => self.share_terminal(ticket, &id),
            Some(Order::Stop { id, signal, grace_ms }) => {
                // Longer than anyone will wait, and never beyond what can be counted.
                let grace = Duration::from_millis(grace_ms.min(u64::from(u32::MAX)));
                self.stop(ticket, &id, signal, Instant::now() + grace)
            }
        };
        if let Err(refusal) = begun {
            self.answer(ticket, Err(refusal));
        }
    }

    /// Nothing new is begun, but one may ask and wait.
    fn obey_at_the_end(&mut self, ticket: Ticket, order: Option<Order>) -> Result<(), Refusal> {
        match order {
            Some(Order::End) => {
                self.begin_end(Some(ticket));
                Ok(())
            }
            Some(Order::Report) => self.report(ticket),
            Some(Order::Stop { id, .. }) => self.stop(ticket, &id, 0, Instant::now()),
            _ => Err(Refusal::WrongState { state: "ending".into() }),
        }
    }

    /// The container of this id.
    pub(super) fn find(&self, id: &str) -> Result<Key, Refusal> {
        let found = self.containers.iter().find(|(_, container)| container.id == id);
        found.map(|(key, _)| key).ok_or(Refusal::NoContainer)
    }

    fn signal(&mut self, id: &str, number: i32) -> Result<(), Refusal> {
        let key = self.find(id)?;
        let Some(container) = self.containers.get(key) else { return Err(Refusal::NoContainer) };
        match container.phase {
            Phase::Running => {
                let failed = |error| Refusal::Failed(Failure::io(format!("send signal {number}"), &error));
                self.signal_init(key, number).map_err(failed)
            }
            // The stage would not know what to make of it.
            Phase::Preparing { .. } | Phase::Created | Phase::Starting { .. } if number == libc::SIGKILL => {
                let failed = |error| Refusal::Failed(Failure::io(format!("send signal {number}"), &error));
                self.kill_child(container.init, number).map_err(failed)
            }
            _ => Err(container.wrong_state()),
        }
    }

    fn reopen_log(&mut self, ticket: Ticket, id: &str, fds: &mut Descriptors) -> Result<(), Refusal> {
        let key = self.find(id)?;
        let file = fds.take()?;
        let slot = self.containers.get(key).and_then(|container| container.log);
        let slot = slot.ok_or_else(|| Refusal::Failed(Failure::setup("the container has no log", 0)))?;
        self.logs.reopen(slot, file, After::Answer(ticket));
        Ok(())
    }

    fn report(&mut self, ticket: Ticket) -> Result<(), Refusal> {
        let containers = self.containers.iter().map(|(_, container)| {
            let state = match container.phase {
                Phase::Preparing { .. } | Phase::Created | Phase::Starting { .. } => ContainerState::Created,
                // Until its exit is recorded nobody is told of it.
                Phase::Running | Phase::Ending { .. } => ContainerState::Running,
                Phase::Exited(exit) => ContainerState::Exited(exit),
            };
            let (id, pid) = (container.id.clone(), container.pid);
            ContainerReport { id, pid, state, started_at_ns: container.started_at_ns }
        });
        let report = Report { pid: self.pid, pause_pid: self.sandbox.pid, containers: containers.collect() };
        let failed = |error| Refusal::Failed(Failure::io("write a report", &error));
        let bytes = postcard::to_stdvec(&report).map_err(|error| failed(std::io::Error::other(error)))?;
        let memfd = wire::sealed("report", &bytes).map_err(failed)?;
        self.answer_with(ticket, Ok(Answer::Report { version: wire::VERSION }), Some(memfd));
        Ok(())
    }
}
