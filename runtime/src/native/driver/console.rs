//! The socket at which a runtime leaves the master of a terminal that it made (runc's `--console-socket`).

use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::io::retry_on_intr;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketAddrUnix, SocketFlags,
    SocketType,
};

use super::super::failure::{Context, Failure};
use super::super::link::{self, FromStage};
use super::files::Files;

/// A socket in the bundle that one runtime connects to.
#[derive(Debug)]
pub(super) struct Console(OwnedFd);

impl Console {
    pub(super) fn listen(files: &Files) -> Result<Self, Failure> {
        let what = || "listen for the terminal".to_owned();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None).during(what)?;
        let address = SocketAddrUnix::new(files.console.as_c_str()).during(what)?;
        rustix::net::bind(&socket, &address).during(what)?;
        rustix::net::listen(&socket, 1).during(what)?;
        Ok(Self(socket))
    }

    /// Gives the terminal to the monitor. The runtime has ended: what it had to send is there.
    pub(super) fn pass_on(&self, link: &OwnedFd) -> Result<(), Failure> {
        let what = || "take the terminal from the runtime".to_owned();
        let socket = rustix::net::accept_with(&self.0, SocketFlags::CLOEXEC).during(what)?;
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        retry_on_intr(|| {
            rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut name)], &mut control, flags).map(drop)
        })
        .during(what)?;
        let master = control.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let master = master.ok_or_else(|| Failure::new(what()))?;
        link::send(link, &FromStage::Console, Some(master.as_fd())).during(|| "hand over the terminal".into())
    }
}
