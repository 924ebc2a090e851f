//! Further processes in a container, with deadlines that hold whether a daemon runs or not.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use super::Monitor;
use super::child::{Birthplace, Role, Work};
use super::connection::Ticket;
use super::container::{Phase, stage_fds};
use super::family::{self, Family};
use super::link::Owner;
use super::poll::Key;
use super::wire::{self, Answer, Descriptors, Refusal};
use crate::cgroup::Handles;
use crate::native::{self, Stage};
use crate::{ExecExit, Failure};

/// How long after a kill one looks whether someone was missed.
const REPEAT: Duration = Duration::from_millis(10);

/// After this the answer is given though processes that cannot be killed are left, in a dead disk's queue.
const KILLING: Duration = Duration::from_secs(10);

/// A process that was ordered.
#[derive(Debug)]
pub(super) struct Exec {
    ticket: Ticket,
    container: Key,
    /// The process until it is reaped; before its command runs, the stage that prepares it.
    child: Option<Key>,
    pid: i32,
    pub(super) link: Option<Key>,
    pub(super) failure: Option<Failure>,
    cgroup: Handles,
    deadline: Option<Instant>,
    /// Once the deadline has passed.
    killing: Option<Killing>,
}

#[derive(Debug)]
struct Killing {
    family: Family,
    since: Instant,
    next: Instant,
}

// === impl Exec ===

impl Exec {
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.killing.as_ref().map(|killing| killing.next).or(self.deadline)
    }
}

impl Monitor {
    /// Clones the stage that enters the container; the answer comes when its process is reaped.
    pub(super) fn exec(
        &mut self,
        ticket: Ticket,
        order: &wire::ExecOrder,
        with_terminal: bool,
        mut fds: Descriptors,
    ) -> Result<(), Refusal> {
        let container = self.find(&order.container)?;
        let plan = fds.take()?;
        let handover = fds.take_if(with_terminal)?;
        let mut streams = || fds.take_if(!with_terminal);
        let stdio = [streams()?, streams()?, streams()?];
        let mut cgroup = fds.take_cgroup(&order.cgroup)?;
        let (init, target) = self.target(container)?;
        let failed = |what: &'static str| move |error| Refusal::Failed(Failure::io(what, &error));
        let key = self.execs.next_key();
        let (link, stage_end) = self.add_link(Owner::Exec(key)).map_err(failed("make a link"))?;
        let v1_tasks = family::take_tasks(&mut cgroup).map_err(failed("copy a descriptor"))?;
        let stage = Stage {
            plan,
            link: stage_end,
            stdio,
            pod: None,
            users: None,
            pid_namespace: None,
            handover,
            enclosure: None,
            v1_tasks,
        };
        let cloned = if self.is_external(container) {
            self.clone_exec_driver(container, key, stage)
        } else {
            let unified = cgroup.unified.as_ref().map(AsFd::as_fd);
            let birthplace = Birthplace { namespaces: 0, cgroup: unified, beside: Some(init) };
            let mut fds = stage_fds(&stage);
            fds.push(target.as_raw_fd());
            let work =
                Work { run: |(stage, target)| native::exec(stage, target), with: (stage, target), fds };
            self.clone_child(Role::Exec(key), &birthplace, work)
        };
        let child = match cloned {
            Ok(child) => child,
            Err(error) => {
                self.remove_link(link);
                return Err(failed("clone the process")(error));
            }
        };
        let timeout = order.timeout_ms.map(|time| Duration::from_millis(time.min(u64::from(u32::MAX))));
        self.execs.insert(Exec {
            ticket,
            container,
            child: Some(child),
            pid: self.children.get(child).map_or(0, |child| child.pid),
            link: Some(link),
            failure: None,
            cgroup,
            deadline: timeout.map(|timeout| Instant::now() + timeout),
            killing: None,
        });
        Ok(())
    }

    /// The stage made the process that goes on.
    pub(super) fn exec_is(&mut self, key: Key, child: Key, pid: i32) {
        if let Some(exec) = self.execs.get_mut(key) {
            exec.child = Some(child);
            exec.pid = pid;
        }
    }

    pub(super) fn exec_link_ended(&mut self, key: Key) {
        if let Some(exec) = self.execs.get_mut(key) {
            exec.link = None;
        }
    }

    /// The process was reaped.
    pub(super) fn exec_ended(&mut self, key: Key, code: i32) {
        let Some(exec) = self.execs.remove(key) else { return };
        if let Some(link) = exec.link {
            self.remove_link(link);
        }
        let answer = match exec.failure {
            Some(failure) => Err(Refusal::Failed(failure)),
            None => Ok(Answer::Exec(ExecExit::Exited(code))),
        };
        self.answer(exec.ticket, answer);
    }

    /// Whether its end is left alone until all of its family are gone.
    pub(super) fn is_being_killed(&self, key: Key) -> bool {
        self.execs.get(key).is_some_and(|exec| exec.killing.is_some())
    }

    /// The deadline has passed: kills the process and its family, until none is left.
    pub(super) fn kill_exec(&mut self, key: Key, now: Instant) {
        let Some(exec) = self.execs.get_mut(key) else { return };
        let pid = exec.pid;
        let is_first = exec.killing.is_none();
        let killing =
            exec.killing.get_or_insert_with(|| Killing { family: Family::of(pid), since: now, next: now });
        killing.next = now + REPEAT;
        let is_over = now.duration_since(killing.since) >= KILLING;
        let (child, container) = (exec.child, exec.container);
        if is_first {
            self.kill_enclosed_exec(container, pid);
        }
        // What an enclosed command is called within is forgotten with the process that stands for it here.
        if !is_over && self.children.iter().any(|(_, child)| child.role == Role::Message(container)) {
            return;
        }
        let Some(exec) = self.execs.get_mut(key) else { return };
        let Some(killing) = &mut exec.killing else { return };
        let left = killing.family.kill(&exec.cgroup);
        let killed = self.kill_child(child, libc::SIGKILL);
        match left.and_then(|left| killed.map(|()| left)) {
            Ok(0) if self.has_ended(child) => self.time_out(key),
            Ok(_) if !is_over => {}
            Ok(left) => {
                self.warn(format!("{left} processes of a command that timed out cannot be killed"));
                self.time_out(key);
            }
            // Tried again until it is over.
            Err(_) if !is_over => {}
            Err(error) => {
                self.warn(format!("kill a command that timed out: {error}"));
                self.time_out(key);
            }
        }
    }

    fn time_out(&mut self, key: Key) {
        let Some(exec) = self.execs.remove(key) else { return };
        if let Some(link) = exec.link {
            self.remove_link(link);
        }
        if let Some(child) = exec.child
            && self.reap(child).is_none()
            && let Some(child) = self.children.get_mut(child)
        {
            // It will be noticed when it ends after all.
            child.role = Role::Stage;
        }
        self.answer(exec.ticket, Ok(Answer::Exec(ExecExit::TimedOut)));
        self.reap_orphans();
        self.continue_end();
    }

    /// Whether a child is a zombie, or reaped.
    fn has_ended(&self, key: Option<Key>) -> bool {
        use rustix::process::{WaitId, WaitIdOptions, waitid};
        let Some(child) = key.and_then(|key| self.children.get(key)) else { return true };
        let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        !matches!(waitid(WaitId::PidFd(child.pidfd.as_fd()), look), Ok(None))
    }

    /// The init of a running container: our own child, not reaped, so that its pidfd means no other.
    fn target(&self, key: Key) -> Result<(i32, OwnedFd), Refusal> {
        let Some(container) = self.containers.get(key) else { return Err(Refusal::NoContainer) };
        if !matches!(container.phase, Phase::Running) {
            return Err(container.wrong_state());
        }
        let init = container.init.and_then(|init| self.children.get(init));
        let copied = init.ok_or_else(|| container.wrong_state())?.pidfd.try_clone();
        let failed = |error| Refusal::Failed(Failure::io("copy a pidfd", &error));
        copied.map(|pidfd| (container.pid, pidfd)).map_err(failed)
    }
}
