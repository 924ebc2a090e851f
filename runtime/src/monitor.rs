//! The process beside each pod: parent of all that runs in it, and keeper of its logs, exits and deadlines.
//!
//! One thread and epoll(7); a second thread only writes logs. It outlives the daemon that started it and serves
//! whatever daemon connects next. It stays in the host's namespaces, holds nothing of a container's tree, and
//! leaves everything that may block on a file system to children ([`crate::native`], [`crate::pause`]).

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::Instant;

use nix::sys::signal::{SigSet, Signal as NamedSignal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::fs::Mode;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::process::DumpableBehavior;

use self::attach::Client;
use self::child::Child;
use self::connection::{Connection, Ticket};
use self::container::Container;
use self::exec::Exec;
use self::link::Link;
use self::log::Logs;
use self::oom::PodKills;
use self::output::Output;
use self::poll::{Key, Keyed, Poll, Source};
use self::sandbox::Sandbox;
use crate::sys::{fd, memory, signal};

mod attach;
mod child;
mod clock;
mod connection;
mod container;
mod driver;
mod enclosed;
mod end;
mod exec;
mod family;
mod kill;
mod link;
mod log;
mod oom;
mod order;
mod output;
mod poll;
mod record;
mod sandbox;
pub(crate) mod wire;

/// The connection to the daemon that starts a monitor, and the pod's directory.
const CONNECTION: i32 = 3;
const DIRECTORY: i32 = 4;

/// Connections that wait to be taken on.
const BACKLOG: i32 = 64;

/// What would end the monitor, and with it the pod, by mistake; its children get them back.
const IGNORED: [i32; 5] = [libc::SIGHUP, libc::SIGINT, libc::SIGPIPE, libc::SIGQUIT, libc::SIGTERM];

/// All that the monitor knows.
#[derive(Debug)]
struct Monitor {
    pid: i32,
    /// The pod's state directory.
    dir: OwnedFd,
    poll: Poll,
    listener: OwnedFd,
    deaf_until: Option<Instant>,
    signals: SignalFd,
    connections: Keyed<Connection>,
    children: Keyed<Child>,
    links: Keyed<Link>,
    outputs: Keyed<Output>,
    containers: Keyed<Container>,
    execs: Keyed<Exec>,
    clients: Keyed<Client>,
    logs: Logs<After>,
    kills: PodKills,
    sandbox: Sandbox,
    /// Who waits for the end, once it has begun.
    ending: Option<Vec<Ticket>>,
    is_over: bool,
    /// Where output is read into.
    scratch: Vec<u8>,
}

/// What is done when a log has been written so far.
#[derive(Debug)]
enum After {
    /// The log is another file now.
    Answer(Ticket),
    /// A container's output is complete.
    Exit(Key),
}

/// Runs the monitor of one pod; for the `corten-runtime` program, started by the daemon.
pub fn run() -> io::Result<()> {
    let connection = fd::take_inherited(CONNECTION)?;
    let dir = fd::take_inherited(DIRECTORY)?;
    settle_in()?;
    let mut monitor = Monitor::new(dir)?;
    monitor.add_connection(connection);
    monitor.serve()
}

/// The process' own attributes.
fn settle_in() -> io::Result<()> {
    // Nobody else's memory or descriptors are worth more than those here.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    rustix::thread::set_name(c"corten-monitor")?;
    // It has one thread that allocates.
    memory::limit_arenas(1);
    signal::reset();
    for number in IGNORED {
        signal::ignore(number)?;
    }
    // Without CAP_SYS_RESOURCE it cannot be lowered, and the monitor is as likely a victim as others.
    std::fs::write("/proc/self/oom_score_adj", "-999").ok();
    Ok(())
}

// === impl Monitor ===

impl Monitor {
    fn new(dir: OwnedFd) -> io::Result<Self> {
        let listener = listen(&dir)?;
        let mut mask = SigSet::empty();
        mask.add(NamedSignal::SIGCHLD);
        mask.thread_block()?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;
        let poll = Poll::new()?;
        poll.add(&listener, Source::Listener)?;
        poll.add(&signals, Source::Signals)?;
        Ok(Self {
            pid: rustix::process::getpid().as_raw_pid(),
            dir,
            poll,
            listener,
            deaf_until: None,
            signals,
            connections: Keyed::default(),
            children: Keyed::default(),
            links: Keyed::default(),
            outputs: Keyed::default(),
            containers: Keyed::default(),
            execs: Keyed::default(),
            clients: Keyed::default(),
            logs: Logs::new(),
            kills: PodKills::default(),
            sandbox: Sandbox::default(),
            ending: None,
            is_over: false,
            scratch: Vec::new(),
        })
    }

    fn serve(&mut self) -> io::Result<()> {
        while !self.is_over {
            for after in self.logs.settle() {
                self.log_is_written(after);
            }
            let time = self.deadline().map(|deadline| deadline.saturating_duration_since(Instant::now()));
            for source in self.poll.wait(time)? {
                self.handle(source);
            }
            self.keep_deadlines(Instant::now());
        }
        self.say_goodbye();
        Ok(())
    }

    fn handle(&mut self, source: Source) {
        match source {
            Source::Child(key) => self.child_ended(key),
            Source::Client(key) => self.serve_client(key),
            Source::Connection(key) => self.serve_connection(key),
            Source::Kills(key) => self.count_kills(key),
            Source::Link(key) => self.read_link(key),
            Source::Listener => self.accept(),
            Source::Output(key) => self.read_output(key),
            Source::Signals => self.reap_orphans(),
            Source::Stdin(key) => self.resume_stdin(key),
            Source::Writer => self.log_got_on(),
        }
    }

    /// The next moment at which something is to be done though nothing happened.
    fn deadline(&self) -> Option<Instant> {
        let containers = self.containers.iter().filter_map(|(_, container)| container.deadline());
        let execs = self.execs.iter().filter_map(|(_, exec)| exec.deadline());
        containers.chain(execs).chain(self.logs.deadline()).chain(self.deaf_until).min()
    }

    fn keep_deadlines(&mut self, now: Instant) {
        self.listen_again(now);
        if self.logs.lose_patience(now) {
            self.resume_outputs();
        }
        for key in self.containers.keys() {
            if self.containers.get(key).and_then(Container::deadline).is_some_and(|deadline| deadline <= now)
            {
                self.container_deadline(key, now);
            }
        }
        for key in self.execs.keys() {
            if self.execs.get(key).and_then(Exec::deadline).is_some_and(|deadline| deadline <= now) {
                self.kill_exec(key, now);
            }
        }
    }

    fn log_is_written(&mut self, after: After) {
        match after {
            After::Answer(ticket) => self.answer(ticket, Ok(wire::Answer::Done)),
            After::Exit(container) => self.finish(container),
        }
    }

    fn log_got_on(&mut self) {
        self.logs.progress();
        self.hold_exits_back();
        self.resume_outputs();
    }
}

/// Binds the monitor's socket in its directory, however long that directory's name is.
fn listen(dir: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/monitor.sock", dir.as_fd().as_raw_fd()))?;
    let mask = rustix::process::umask(Mode::RWXG | Mode::RWXO | Mode::XUSR);
    let bound = rustix::net::bind(&socket, &address);
    rustix::process::umask(mask);
    bound?;
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}
