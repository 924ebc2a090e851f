//! The monitor's children: how they are cloned, and how their ends are noticed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus};

use super::poll::{Key, Source};
use super::{IGNORED, Monitor, family};
use crate::sys::{clone, fd, signal, wait};

/// A process that the monitor knows by name.
#[derive(Debug)]
pub(super) struct Child {
    pub(super) pid: i32,
    pub(super) pidfd: OwnedFd,
    pub(super) role: Role,
}

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// Runs a command in a container.
    Exec(Key),
    /// Is, or becomes, a container's init.
    Init(Key),
    /// Has another runtime signal what is in a container.
    Message(Key),
    /// Holds the pod's namespaces.
    Pause,
    /// Made the process that took over its role, and exits.
    Stage,
}

/// Where a child is born.
#[derive(Debug, Default)]
pub(super) struct Birthplace<'a> {
    /// `CLONE_NEW…`
    pub(super) namespaces: i32,
    /// A v2 cgroup other than the monitor's.
    pub(super) cgroup: Option<BorrowedFd<'a>>,
    /// When that takes no processes, because it was made the parent of others: where this process is, below it.
    pub(super) beside: Option<i32>,
}

/// What a child does.
#[derive(Debug)]
pub(super) struct Work<T> {
    /// It never returns into the monitor's code.
    pub(super) run: fn(T) -> !,
    pub(super) with: T,
    /// All that it keeps open beside 0, 1 and 2.
    pub(super) fds: Vec<RawFd>,
}

/// The exit code as shells have it: 128 and the number for a signal.
pub(super) fn exit_code(status: &WaitIdStatus) -> i32 {
    status.exit_status().or_else(|| status.terminating_signal().map(|signal| 128 + signal)).unwrap_or(255)
}

impl Birthplace<'_> {
    fn fork(&self) -> io::Result<clone::Cloned> {
        let error = match clone::fork(self.namespaces, self.cgroup) {
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => error,
            result => return result,
        };
        match (self.cgroup, self.beside) {
            (Some(cgroup), Some(process)) => {
                let below = family::cgroup_below(cgroup, process)?;
                clone::fork(self.namespaces, Some(below.as_fd()))
            }
            _ => Err(error),
        }
    }
}

impl Child {
    /// Sends a signal; a process that is gone is fine.
    pub(super) fn kill(&self, number: i32) -> io::Result<()> {
        match signal::send(self.pidfd.as_fd(), number) {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            result => result,
        }
    }
}

impl Monitor {
    /// Clones a child that does its work and dies with the monitor.
    pub(super) fn clone_child<T>(
        &mut self,
        role: Role,
        birthplace: &Birthplace<'_>,
        mut work: Work<T>,
    ) -> io::Result<Key> {
        match birthplace.fork()? {
            clone::Cloned::Child => {
                become_child(self.pid, birthplace.namespaces);
                fd::close_others(&mut work.fds);
                (work.run)(work.with)
            }
            clone::Cloned::Parent { pid, pidfd } => self.add_child(pid, pidfd, role),
        }
    }

    /// Takes on a child that a stage made for us.
    pub(super) fn add_child(&mut self, pid: i32, pidfd: OwnedFd, role: Role) -> io::Result<Key> {
        let watched = self.poll.add(&pidfd, Source::Child(self.children.next_key()));
        let child = Child { pid, pidfd, role };
        if let Err(error) = watched {
            // Nothing would ever be known of it.
            child.kill(libc::SIGKILL)?;
            return Err(error);
        }
        Ok(self.children.insert(child))
    }

    /// Sends a signal to a child by its key; one that is gone is fine.
    pub(super) fn kill_child(&self, key: Option<Key>, number: i32) -> io::Result<()> {
        key.and_then(|key| self.children.get(key)).map_or(Ok(()), |child| child.kill(number))
    }

    /// A child has ended: what it said before counts first, since it may say that another took over.
    pub(super) fn child_ended(&mut self, key: Key) {
        let link = match self.children.get(key).map(|child| child.role) {
            Some(Role::Exec(exec)) if self.is_being_killed(exec) => {
                // It stays a zombie until its family is gone, so that its number means nobody else.
                if let Some(child) = self.children.get(key) {
                    self.poll.remove(&child.pidfd);
                }
                return;
            }
            Some(Role::Exec(exec)) => self.execs.get(exec).and_then(|exec| exec.link),
            Some(Role::Init(container)) => {
                self.containers.get(container).and_then(|container| container.link)
            }
            Some(Role::Pause) => self.sandbox.link,
            Some(Role::Message(_) | Role::Stage) | None => None,
        };
        if let Some(link) = link {
            self.read_link(link);
        }
        if let Some(child) = self.children.get(key)
            && let Role::Init(container) = child.role
            && self.is_end_early(container)
        {
            self.poll.remove(&child.pidfd);
            return;
        }
        let Some((role, code)) = self.reap(key) else { return };
        match role {
            Role::Exec(exec) => self.exec_ended(exec, code),
            Role::Init(container) => self.init_ended(container, code),
            Role::Message(container) => self.message_ended(container, code),
            Role::Pause => self.pause_ended(code),
            Role::Stage => {}
        }
        self.continue_end();
    }

    /// Reaps a child if it has ended.
    pub(super) fn reap(&mut self, key: Key) -> Option<(Role, i32)> {
        let child = self.children.get(key)?;
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
        let status = rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), options);
        let code = match status {
            Ok(Some(status)) => exit_code(&status),
            Ok(None) => return None,
            // Somebody else's hands were quicker, which cannot be; its code is lost.
            Err(_) => 255,
        };
        self.poll.remove(&child.pidfd);
        self.children.remove(key).map(|child| (child.role, code))
    }

    /// Reaps those who came to us when their parents died, and no one that we know.
    pub(super) fn reap_orphans(&mut self) {
        while let Ok(Some(_)) = self.signals.read_signal() {}
        loop {
            let Ok(Some(pid)) = wait::next_zombie() else { return };
            if let Some(key) = self.child_with(pid) {
                let is_held = matches!(
                    self.children.get(key).map(|child| child.role),
                    Some(Role::Exec(exec)) if self.is_being_killed(exec)
                );
                if is_held {
                    // It hides who is behind it; the end of its family is the next occasion.
                    return;
                }
                self.child_ended(key);
            } else if !self.links.iter().any(|(_, link)| link.may_announce) {
                let Some(pid) = Pid::from_raw(pid) else { return };
                rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG).ok();
            } else {
                // It may be the process of a stage that has not yet told us of it.
                return;
            }
        }
    }

    fn child_with(&self, pid: i32) -> Option<Key> {
        self.children.iter().find(|(_, child)| child.pid == pid).map(|(key, _)| key)
    }
}

/// What is to be different in a child, before anything else.
fn become_child(monitor: i32, namespaces: i32) {
    signal::restore(&IGNORED);
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).ok();
    // In a PID namespace of its own a process sees no parent; it learns from its link if there is none.
    let parent = rustix::process::getppid().map_or(0, Pid::as_raw_pid);
    if namespaces & libc::CLONE_NEWPID == 0 && parent != monitor {
        clone::exit(1);
    }
}
