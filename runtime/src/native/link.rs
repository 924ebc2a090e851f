//! The words between a stage and its monitor: one postcard-encoded packet of a seqpacket socket each.
//!
//! The stage's end is close-on-exec. The monitor learns from its end of file, when no
//! [`FromStage::Failed`] came before, that execve(2) went through.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

/// Longest packet; a longer text is cut to fit.
pub(crate) const PACKET_BYTES: usize = 4096;

/// What a stage says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FromStage {
    /// The process that goes on is this one; its pidfd comes with the packet.
    ///
    /// It is said before that process does anything, and the sender exits after it. The process has the
    /// v1 cgroups that the stage had at that moment, so one that was still on its way must be moved too.
    Process {
        /// Its number in the monitor's PID namespace.
        pid: i32,
    },
    /// The terminal is made; the pty's master comes with the packet.
    Console,
    /// The container is built; `Go` is waited for.
    Ready,
    /// Nothing comes of it, the process exits.
    Failed {
        /// Operation and object, for people.
        what: String,
        /// The error number; 0 when there is none or `what` says it all.
        errno: i32,
        /// Whose fault it is.
        kind: FailureKind,
    },
}

/// Kinds of failures that callers tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum FailureKind {
    /// The command is there, but cannot be executed: permissions, a directory, no known format.
    NotExecutable,
    /// The command, or the interpreter that it names, is not in the container.
    NotFound,
    /// Something before that.
    Setup,
    /// The process whose namespaces are to be joined is gone.
    TargetGone,
}

/// What the monitor says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ToStage {
    /// Execute the command. Every cgroup has been joined by now.
    Go,
}

/// Sends one packet, with a descriptor if there is one.
pub(crate) fn send<T: Serialize>(
    link: impl AsFd,
    message: &T,
    fd: Option<BorrowedFd<'_>>,
) -> Result<(), Errno> {
    let mut bytes = [0; PACKET_BYTES];
    let packet = postcard::to_slice(message, &mut bytes).map_err(|_| Errno::MSGSIZE)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fds = fd.map(|fd| [fd]);
    if let Some(fds) = &fds
        && !control.push(SendAncillaryMessage::ScmRights(fds))
    {
        return Err(Errno::NOBUFS);
    }
    retry_on_intr(|| {
        rustix::net::sendmsg(&link, &[IoSlice::new(packet)], &mut control, SendFlags::NOSIGNAL).map(drop)
    })
}

/// Receives one packet and the descriptor that came with it; none at the end of the connection.
pub(crate) fn receive<T: for<'a> Deserialize<'a>>(
    link: impl AsFd,
) -> Result<Option<(T, Option<OwnedFd>)>, Errno> {
    let mut bytes = [0; PACKET_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(&link, &mut [IoSliceMut::new(&mut bytes)], &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let fd = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let packet = bytes.get(..received.bytes).unwrap_or_default();
    if packet.is_empty() {
        return Ok(None);
    }
    let message = postcard::from_bytes(packet).map_err(|_| Errno::BADMSG)?;
    Ok(Some((message, fd)))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn packets_arrive_whole_and_in_order() {
        let (stage, monitor) = pair();
        let failed =
            FromStage::Failed { what: "mount /proc".into(), errno: libc::EPERM, kind: FailureKind::Setup };
        send(&stage, &FromStage::Ready, None).unwrap();
        send(&stage, &failed, None).unwrap();
        drop(stage);
        assert!(matches!(receive(&monitor).unwrap(), Some((FromStage::Ready, None))));
        assert_eq!(receive(&monitor).unwrap().map(|(message, _): (FromStage, _)| message), Some(failed));
        assert!(receive::<FromStage>(&monitor).unwrap().is_none());
    }

    #[test]
    fn a_descriptor_travels_with_its_packet() {
        let (stage, monitor) = pair();
        let null = std::fs::File::open("/dev/null").unwrap();
        send(&stage, &FromStage::Process { pid: 7 }, Some(null.as_fd())).unwrap();
        let (message, fd) = receive::<FromStage>(&monitor).unwrap().unwrap();
        assert_eq!(message, FromStage::Process { pid: 7 });
        let (sent, got) = (rustix::fs::fstat(&null).unwrap(), rustix::fs::fstat(fd.unwrap()).unwrap());
        assert_eq!((sent.st_ino, sent.st_dev), (got.st_ino, got.st_dev));
    }

    #[test]
    fn an_oversized_packet_is_refused() {
        let (stage, _monitor) = pair();
        let long = FromStage::Failed { what: "x".repeat(PACKET_BYTES), errno: 0, kind: FailureKind::Setup };
        assert_eq!(send(&stage, &long, None), Err(Errno::MSGSIZE));
    }
}
