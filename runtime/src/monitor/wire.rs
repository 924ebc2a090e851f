//! The words between the daemon and a monitor: one postcard-encoded packet of a seqpacket socket each.
//!
//! A packet of the daemon is a serial number and an [`Order`]; the monitor answers each with the same number,
//! in any order, and tells events in between. Descriptors travel with their packet in the order that the
//! variant's description says. What is long travels as a memfd: plans and reports.
//!
//! A daemon talks to monitors of the release before. Variants and fields are therefore only added at the end,
//! and [`VERSION`] rises when a newer daemon must know; what follows the known fields of a packet is ignored.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags,
};
use serde::{Deserialize, Serialize};

use crate::selinux::Labels;
use crate::{
    Detachment, ExecExit, Executor, Exit, Failure, IdMap, NamespaceMode, PidNamespace, Report, Stdin,
};

/// The protocol's number.
pub(crate) const VERSION: u16 = 1;

/// No packet is longer.
const PACKET_BYTES: usize = 128 << 10;

/// As many descriptors as a packet ever carries, with room for v1 hierarchies.
const MAX_FDS: usize = 32;

/// What the daemon wants.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Order {
    /// The first of all: make the pod's namespaces. Descriptors: the pause program, the network namespace.
    Sandbox(SandboxOrder),
    /// What is there?
    Report,
    /// Prepare a container. Descriptors: plan, log, then those of its cgroup.
    Create(CreateOrder),
    /// Execute its command.
    Start { id: String },
    /// Signal it, kill it after the grace, answer when it ended.
    Stop { id: String, signal: i32, grace_ms: u64 },
    /// Signal its init.
    Kill { id: String, signal: i32 },
    /// Run a process in it. Descriptors: plan, stdin, stdout, stderr, then those of its cgroup.
    Exec(ExecOrder),
    /// Log into another file. Descriptor: the file.
    ReopenLog { id: String },
    /// Forget an exited container.
    Remove { id: String },
    /// Kill all, and exit.
    End,
    /// Run a process with a terminal of its own. Descriptors: plan, the socket by which the terminal is handed
    /// over, then those of its cgroup.
    ExecTerminal(ExecOrder),
    /// Pass its output on and its input in, answer when that is over. Descriptors: stdin, stdout, stderr.
    Attach(AttachOrder),
    /// Give a copy of the master of its terminal.
    Terminal { id: String },
}

/// See [`crate::Sandbox`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct SandboxOrder {
    pub(crate) hostname: String,
    pub(crate) own_network: bool,
    pub(crate) ipc: NamespaceMode,
    pub(crate) pid: NamespaceMode,
    pub(crate) sysctls: Vec<(String, String)>,
    /// With it, no network namespace comes along: one is made.
    pub(crate) users: Option<IdMap>,
    pub(crate) labels: Option<Labels>,
}

/// See [`crate::ContainerOrder`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CreateOrder {
    pub(crate) id: String,
    pub(crate) pid_namespace: PidNamespace,
    pub(crate) cgroup: CgroupParts,
    pub(crate) has_log: bool,
    pub(crate) log_line_bytes: u32,
    pub(crate) stdin: Stdin,
    pub(crate) tty: bool,
    pub(crate) executor: Executor,
}

/// See [`crate::ExecOrder`].
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ExecOrder {
    pub(crate) container: String,
    pub(crate) cgroup: CgroupParts,
    pub(crate) timeout_ms: Option<u64>,
}

/// See [`crate::AttachOrder`]: which descriptors come along.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct AttachOrder {
    pub(crate) container: String,
    pub(crate) stdin: bool,
    pub(crate) stdout: bool,
    pub(crate) stderr: bool,
}

/// Which descriptors of [`crate::cgroup::Handles`] come along, in this order.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct CgroupParts {
    pub(crate) unified: bool,
    pub(crate) oom: bool,
    pub(crate) v1_tasks: u8,
}

/// What the monitor says.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Word {
    /// To the order of this number.
    Answer { serial: u64, answer: Result<Answer, Refusal> },
    /// A container ended, and its exit is recorded.
    Exited { id: String, exit: Exit },
    /// Something went wrong that no order is waiting for.
    Warning { text: String },
}

/// What an order led to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// It is done.
    Done,
    /// The process that was made. Descriptor, of a pod with a user namespace: its network namespace, if it has one.
    Process { pid: i32 },
    /// When the command was executed.
    Started { at_ns: i64 },
    /// How the container ended.
    Exited(Exit),
    /// How the process ended.
    Exec(ExecExit),
    /// What is there: descriptor of a memfd with a [`Report`].
    Report { version: u16 },
    /// Why the client is not attached any more.
    Detached(Detachment),
    /// The terminal: descriptor of its master.
    Terminal,
}

/// Why an order led to nothing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Refusal {
    NoContainer,
    ContainerExists,
    WrongState {
        state: String,
    },
    Failed(Failure),
    /// The packet makes no sense to this monitor: it is of an older release.
    NotUnderstood,
}

/// Descriptors that came with a packet, taken in the order agreed on.
#[derive(Debug, Default)]
pub(crate) struct Descriptors(VecDeque<OwnedFd>);

// === impl Descriptors ===

impl Descriptors {
    /// The next one; none is an error of the sender's.
    pub(crate) fn take(&mut self) -> Result<OwnedFd, Refusal> {
        self.0.pop_front().ok_or(Refusal::NotUnderstood)
    }

    /// The next one if it was announced.
    pub(crate) fn take_if(&mut self, announced: bool) -> Result<Option<OwnedFd>, Refusal> {
        if announced { self.take().map(Some) } else { Ok(None) }
    }

    /// The next ones, as announced, as the handles of a cgroup.
    pub(crate) fn take_cgroup(&mut self, parts: &CgroupParts) -> Result<crate::cgroup::Handles, Refusal> {
        let unified = self.take_if(parts.unified)?;
        let oom = self.take_if(parts.oom)?;
        let v1_tasks = (0..parts.v1_tasks).map(|_| self.take()).collect::<Result<_, _>>()?;
        Ok(crate::cgroup::Handles { unified, v1_tasks, oom })
    }
}

// === impl CgroupParts ===

impl CgroupParts {
    /// Describes `handles` and appends its descriptors.
    pub(crate) fn describe<'a>(handles: &'a crate::cgroup::Handles, fds: &mut Vec<BorrowedFd<'a>>) -> Self {
        fds.extend(handles.unified.iter().chain(&handles.oom).chain(&handles.v1_tasks).map(AsFd::as_fd));
        Self {
            unified: handles.unified.is_some(),
            oom: handles.oom.is_some(),
            // More hierarchies than controllers do not exist; sending fails on too many descriptors.
            v1_tasks: u8::try_from(handles.v1_tasks.len()).unwrap_or(u8::MAX),
        }
    }
}

// === packets ===

/// An order as it is sent.
pub(crate) fn encode_order(serial: u64, order: &Order) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(&(serial, order))
}

/// The serial number is read even when the order is not understood, so that it can be answered.
pub(crate) fn decode_order(packet: &[u8]) -> Result<(u64, Result<Order, postcard::Error>), postcard::Error> {
    let (serial, rest) = postcard::take_from_bytes(packet)?;
    Ok((serial, postcard::take_from_bytes(rest).map(|(order, _)| order)))
}

/// What a monitor says, as it is sent.
pub(crate) fn encode_word(word: &Word) -> Result<Vec<u8>, postcard::Error> {
    postcard::to_stdvec(word)
}

/// What a monitor said.
pub(crate) fn decode_word(packet: &[u8]) -> Result<Word, postcard::Error> {
    postcard::take_from_bytes(packet).map(|(word, _)| word)
}

/// A memfd that nobody can change any more.
pub(crate) fn sealed(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    use rustix::fs::{MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know the flag, and later ones would rather have it.
    let memfd = rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut file = std::fs::File::from(memfd);
    io::Write::write_all(&mut file, bytes)?;
    rustix::fs::fcntl_add_seals(
        &file,
        SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE,
    )?;
    Ok(file.into())
}

/// Reads the report that came as a memfd.
pub(crate) fn read_report(memfd: OwnedFd) -> io::Result<Report> {
    let mut file = std::fs::File::from(memfd);
    let mut bytes = Vec::new();
    io::Seek::rewind(&mut file)?;
    io::Read::read_to_end(&mut io::Read::take(file, 16 << 20), &mut bytes)?;
    let (report, _) = postcard::take_from_bytes(&bytes).map_err(io::Error::other)?;
    Ok(report)
}

/// Sends one packet without waiting.
pub(crate) fn send(socket: impl AsFd, packet: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    if packet.len() > PACKET_BYTES || fds.len() > MAX_FDS {
        return Err(Errno::MSGSIZE);
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(fds)) {
        return Err(Errno::NOBUFS);
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    retry_on_intr(|| rustix::net::sendmsg(&socket, &[IoSlice::new(packet)], &mut control, flags).map(drop))
}

/// Receives one packet without waiting; none at the end of the connection.
pub(crate) fn receive(socket: impl AsFd) -> Result<Option<(Vec<u8>, Descriptors)>, Errno> {
    // Packets are mostly short, so the next one's length is asked for instead of keeping room for the longest.
    let look = RecvFlags::PEEK | RecvFlags::TRUNC | RecvFlags::DONTWAIT;
    let (_, bytes) = retry_on_intr(|| rustix::net::recv(&socket, &mut [0_u8; 0], look))?;
    if bytes > PACKET_BYTES {
        return Err(Errno::MSGSIZE);
    }
    let mut packet = vec![0; bytes];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    let received = retry_on_intr(|| {
        rustix::net::recvmsg(&socket, &mut [IoSliceMut::new(&mut packet)], &mut control, flags)
    })?;
    let mut fds = VecDeque::new();
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            fds.extend(rights);
        }
    }
    packet.truncate(received.bytes);
    // Nobody sends empty packets: this is the end.
    Ok((!packet.is_empty()).then_some((packet, Descriptors(fds))))
}

#[cfg(test)]
mod tests {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    use super::*;
    use crate::FailureKind;

    fn pair() -> (OwnedFd, OwnedFd) {
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap()
    }

    #[test]
    fn an_order_travels_with_its_descriptors() {
        let (daemon, monitor) = pair();
        let order = Order::Stop { id: "a".into(), signal: 15, grace_ms: u64::MAX };
        let memfd = sealed("plan", b"steps").unwrap();
        send(&daemon, &encode_order(7, &order).unwrap(), &[memfd.as_fd(), daemon.as_fd()]).unwrap();
        let (packet, mut fds) = receive(&monitor).unwrap().unwrap();
        let (serial, order) = decode_order(&packet).unwrap();
        assert!(serial == 7 && matches!(order.unwrap(), Order::Stop { signal: 15, grace_ms: u64::MAX, .. }));
        let mut bytes = [0; 8];
        assert_eq!(rustix::io::pread(fds.take().unwrap(), &mut bytes, 0).unwrap(), 5);
        assert_eq!(&bytes[..5], b"steps");
        assert!(fds.take_if(false).unwrap().is_none());
        assert!(fds.take_if(true).unwrap().is_some());
        assert!(matches!(fds.take(), Err(Refusal::NotUnderstood)));
    }

    #[test]
    fn the_end_and_the_lack_of_packets_are_told_apart() {
        let (daemon, monitor) = pair();
        assert_eq!(receive(&monitor).unwrap_err(), Errno::AGAIN);
        // Not by closing it: what another test forks may have it, too.
        rustix::net::shutdown(&daemon, rustix::net::Shutdown::Both).unwrap();
        assert!(receive(&monitor).unwrap().is_none());
    }

    #[test]
    fn too_long_a_packet_is_not_read() {
        let (daemon, monitor) = pair();
        assert_eq!(send(&daemon, &[0; PACKET_BYTES + 1], &[]), Err(Errno::MSGSIZE));
        rustix::net::send(&daemon, &[0; PACKET_BYTES + 1], SendFlags::empty()).unwrap();
        assert_eq!(receive(&monitor).unwrap_err(), Errno::MSGSIZE);
    }

    #[test]
    fn a_newer_release_can_be_talked_to() {
        // A field that we do not know is at the end.
        let mut packet = encode_order(3, &Order::Remove { id: "a".into() }).unwrap();
        packet.extend_from_slice(b"more");
        let (serial, order) = decode_order(&packet).unwrap();
        assert!(serial == 3 && matches!(order.unwrap(), Order::Remove { id } if id == "a"));
        // An order that we do not know can at least be refused.
        let (serial, order) = decode_order(&postcard::to_stdvec(&(9_u64, 200_u32)).unwrap()).unwrap();
        assert!(serial == 9 && order.is_err());
    }

    #[test]
    fn words_come_back_as_they_were() {
        let failure = Failure { what: "mount /x".into(), errno: 2, kind: FailureKind::Setup };
        let word = Word::Answer { serial: 1, answer: Err(Refusal::Failed(failure.clone())) };
        match decode_word(&encode_word(&word).unwrap()).unwrap() {
            Word::Answer { serial: 1, answer: Err(Refusal::Failed(found)) } => assert_eq!(found, failure),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn nobody_changes_what_is_sealed() {
        let report = Report { pid: 1, pause_pid: 2, containers: Vec::new() };
        let memfd = sealed("report", &postcard::to_stdvec(&report).unwrap()).unwrap();
        assert_eq!(rustix::io::write(&memfd, b"x"), Err(Errno::PERM));
        assert_eq!(read_report(memfd).unwrap(), report);
    }
}
