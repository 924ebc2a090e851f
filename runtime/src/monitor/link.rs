//! The links to stages: what they say on their way to becoming a command.

use std::io;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use super::Monitor;
use super::child::{Child, Role};
use super::poll::{Key, Source};
use crate::Failure;
use crate::native::link::{self, FromStage};

/// The monitor's end.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) socket: OwnedFd,
    owner: Owner,
    /// Its stage may yet tell of a process that is a stranger until then.
    pub(super) may_announce: bool,
}

/// Who the stage works for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Owner {
    Container(Key),
    Exec(Key),
    Pause,
}

impl Monitor {
    /// Makes a link; returns its key and the stage's end.
    pub(super) fn add_link(&mut self, owner: Owner) -> io::Result<(Key, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        self.poll.add(&ours, Source::Link(self.links.next_key()))?;
        Ok((self.links.insert(Link { socket: ours, owner, may_announce: true }), theirs))
    }

    pub(super) fn remove_link(&mut self, key: Key) {
        if let Some(link) = self.links.remove(key) {
            self.poll.remove(&link.socket);
        }
    }

    /// Takes all that there is, up to the end of the link.
    pub(super) fn read_link(&mut self, key: Key) {
        while let Some(link) = self.links.get(key) {
            let owner = link.owner;
            match link::receive(&link.socket) {
                Ok(Some((word, fd))) => self.hear(key, owner, word, fd),
                Err(Errno::AGAIN) => return,
                Ok(None) | Err(_) => {
                    self.remove_link(key);
                    match owner {
                        Owner::Container(container) => self.container_link_ended(container),
                        Owner::Exec(exec) => self.exec_link_ended(exec),
                        Owner::Pause => self.pause_link_ended(),
                    }
                    // Orphans were left alone as long as one of them could be announced.
                    self.reap_orphans();
                }
            }
        }
    }

    fn hear(&mut self, key: Key, owner: Owner, word: FromStage, fd: Option<OwnedFd>) {
        match word {
            FromStage::Console => {
                if let (Owner::Container(container), Some(master)) = (owner, fd) {
                    self.add_console(container, master);
                }
            }
            FromStage::Failed { what, errno, kind } => {
                let failure = Failure { what, errno, kind: kind.into() };
                let place = match owner {
                    Owner::Container(key) => self.containers.get_mut(key).map(|it| &mut it.failure),
                    Owner::Exec(key) => self.execs.get_mut(key).map(|it| &mut it.failure),
                    Owner::Pause => Some(&mut self.sandbox.failure),
                };
                if let Some(place) = place {
                    *place = Some(failure);
                }
            }
            FromStage::Process { pid } => {
                if let Some(pidfd) = fd {
                    self.hand_role_over(owner, pid, pidfd);
                }
            }
            FromStage::Ready => {
                // It may wait for its start for long, and who is left to us meanwhile is to be reaped.
                if let Some(link) = self.links.get_mut(key) {
                    link.may_announce = false;
                }
                self.reap_orphans();
                if let Owner::Container(container) = owner {
                    self.container_is_ready(container);
                }
            }
        }
    }

    /// The stage has made the process that goes on in its place.
    fn hand_role_over(&mut self, owner: Owner, pid: i32, pidfd: OwnedFd) {
        let role = match owner {
            Owner::Container(key) => Role::Init(key),
            Owner::Exec(key) => Role::Exec(key),
            Owner::Pause => return,
        };
        let before = self.children.iter_mut().find(|(_, child)| child.role == role);
        if let Some((_, Child { role, .. })) = before {
            *role = Role::Stage;
        }
        match (self.add_child(pid, pidfd, role), owner) {
            (Ok(child), Owner::Container(key)) => self.init_is(key, child, pid),
            (Ok(child), Owner::Exec(key)) => self.exec_is(key, child, pid),
            (Ok(_), Owner::Pause) => {}
            // It was killed and will be noticed as an orphan; its work is over with its link.
            (Err(error), _) => self.warn(format!("watch process {pid}: {error}")),
        }
    }
}
