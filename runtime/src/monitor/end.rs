//! Ends: of a container, with its output, its record and its news; and of the pod.

use std::time::{Duration, Instant};

use super::Monitor;
use super::child::Role;
use super::clock::now_ns;
use super::connection::Ticket;
use super::container::Phase;
use super::kill::kill_cgroup;
use super::poll::Key;
use super::record;
use super::wire::{Answer, Refusal, Word};
use crate::{Exit, Failure};

/// The exit code of a container whose command could not be executed, as containerd has it.
const NOT_STARTED: i32 = 128;

/// How long an exit is held back for a log that does not move.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a monitor that is done waits for a disk and for daemons.
const GOODBYE: Duration = Duration::from_secs(1);

impl Monitor {
    /// The container's init was reaped.
    pub(super) fn init_ended(&mut self, key: Key, code: i32) {
        let Some(container) = self.containers.get_mut(key) else { return };
        container.init = None;
        if let Some(link) = container.link.take() {
            self.remove_link(link);
        }
        let Some(container) = self.containers.get_mut(key) else { return };
        // With a PID namespace of its own nothing is left, but who was on the way into it is.
        if let Err(error) = kill_cgroup(&container.cgroup) {
            let text = format!("kill what container {} left: {error}", container.id);
            self.warn(text);
        }
        // Whatever the code: an init container that lost a process to it has failed for the kubelet.
        let oom_killed = self.was_oom_killed(key, code);
        let Some(container) = self.containers.get_mut(key) else { return };
        let silent =
            |doing: &str| Failure::setup(format!("the container's init ended with code {code} {doing}"), 0);
        match container.phase {
            Phase::Preparing { ticket } => {
                let failure = container.failure.take().unwrap_or_else(|| silent("while it was created"));
                let stop = container.stop.take();
                let exit = Exit { code, at_ns: now_ns(), oom_killed };
                self.forget(key);
                self.answer(ticket, Err(Refusal::Failed(failure)));
                for ticket in stop.into_iter().flat_map(|stop| stop.waiting) {
                    self.answer(ticket, Ok(Answer::Exited(exit)));
                }
            }
            Phase::Starting { ticket, .. } => {
                let failure =
                    container.failure.take().unwrap_or_else(|| silent("before its command was executed"));
                self.begin_ending(key, Exit { code: NOT_STARTED, at_ns: now_ns(), oom_killed });
                self.answer(ticket, Err(Refusal::Failed(failure)));
            }
            Phase::Created | Phase::Running => {
                self.begin_ending(key, Exit { code, at_ns: now_ns(), oom_killed });
            }
            Phase::Ending { .. } | Phase::Exited(_) => {}
        }
        self.enclosure_ended(key);
    }

    /// All that it wrote first, then its exit.
    fn begin_ending(&mut self, key: Key, exit: Exit) {
        let Some(container) = self.containers.get_mut(key) else { return };
        if let Some(stdin) = container.stdin.take() {
            self.poll.remove(&stdin);
        }
        container.phase = Phase::Ending { exit, deadline: Instant::now() + LAST_WORDS, is_flushed: false };
        self.drain_outputs(key);
    }

    /// The log moves, so those whose last words it is to take have more time.
    pub(super) fn hold_exits_back(&mut self) {
        for (_, container) in self.containers.iter_mut() {
            if let Phase::Ending { deadline, .. } = &mut container.phase {
                *deadline = Instant::now() + LAST_WORDS;
            }
        }
    }

    /// Records the exit, then announces it.
    pub(super) fn finish(&mut self, key: Key) {
        let Some(container) = self.containers.get_mut(key) else { return };
        let Phase::Ending { exit, .. } = container.phase else { return };
        container.phase = Phase::Exited(exit);
        let id = container.id.clone();
        let waiting = container.stop.take().map(|stop| stop.waiting).unwrap_or_default();
        self.detach_all(key);
        if let Err(error) = record::write(&self.dir, &id, &exit) {
            self.warn(format!("record the exit of container {id}: {error}"));
        }
        self.announce(&Word::Exited { id, exit });
        for ticket in waiting {
            self.answer(ticket, Ok(Answer::Exited(exit)));
        }
        self.continue_end();
    }

    /// Forgets a container that has ended.
    pub(super) fn remove(&mut self, id: &str) -> Result<(), Refusal> {
        let key = self.find(id)?;
        match self.containers.get(key) {
            Some(container) if !matches!(container.phase, Phase::Exited(_)) => Err(container.wrong_state()),
            _ => {
                self.forget(key);
                record::remove(&self.dir, id);
                Ok(())
            }
        }
    }

    /// Drops all that belongs to a container.
    pub(super) fn forget(&mut self, key: Key) {
        let Some(container) = self.containers.remove(key) else { return };
        self.forget_kills(container.id, container.kills);
        self.detach_all(key);
        for output in container.outputs {
            self.remove_output(output);
        }
        if let Some(link) = container.link {
            self.remove_link(link);
        }
        if let Some(slot) = container.log {
            self.logs.close(slot);
        }
    }

    /// Kills all; the ticket is answered when nothing is left.
    pub(super) fn begin_end(&mut self, ticket: Option<Ticket>) {
        let is_first = self.ending.is_none();
        self.ending.get_or_insert_default().extend(ticket);
        if is_first {
            for key in self.containers.keys() {
                self.container_deadline_now(key);
            }
            for key in self.execs.keys() {
                self.kill_exec(key, Instant::now());
            }
        }
        self.continue_end();
    }

    /// Goes on with the end, if it has begun: pause goes last, and then the monitor.
    pub(super) fn continue_end(&mut self) {
        if self.ending.is_none() {
            return;
        }
        let is_alive = |phase: Phase| !matches!(phase, Phase::Exited(_));
        let containers_live = self.containers.iter().any(|(_, container)| is_alive(container.phase));
        // Stages on their way out are in cgroups that are going to be removed.
        let others_live = self.children.iter().any(|(_, child)| child.role != Role::Pause);
        if self.is_over || containers_live || others_live || !self.execs.is_empty() {
            return;
        }
        if let Some(pause) = self.sandbox.child {
            if let Err(error) = self.kill_child(Some(pause), libc::SIGKILL) {
                self.warn(format!("kill pause: {error}"));
            }
            return;
        }
        self.is_over = true;
    }

    /// Has the logs written and the last answers taken, if that does not take long.
    pub(super) fn say_goodbye(&mut self) {
        let end = Instant::now() + GOODBYE;
        loop {
            for after in self.logs.settle() {
                self.log_is_written(after);
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.outputs_are_written() || left.is_zero() {
                break;
            }
            self.logs.wait(left);
            self.log_got_on();
        }
        rustix::fs::unlinkat(&self.dir, "monitor.sock", rustix::fs::AtFlags::empty()).ok();
        for ticket in self.ending.take().unwrap_or_default() {
            self.answer(ticket, Ok(Answer::Done));
        }
        self.flush_connections(end);
    }

    /// A monitor that no daemon will find is of no use: it ends when its directory is gone.
    pub(super) fn end_if_forgotten(&mut self) {
        let is_gone = || rustix::fs::fstat(&self.dir).is_ok_and(|dir| dir.st_nlink == 0);
        if self.connections.is_empty() && (self.sandbox.pid == 0 || is_gone()) {
            self.begin_end(None);
        }
    }

    /// Kills a container as at the deadline of a stop.
    fn container_deadline_now(&mut self, key: Key) {
        let has_ended = |phase| matches!(phase, Phase::Ending { .. } | Phase::Exited(_));
        if self.containers.get(key).is_some_and(|container| !has_ended(container.phase)) {
            self.kill_container(key);
        }
    }
}
