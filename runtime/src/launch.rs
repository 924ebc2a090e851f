//! Starts monitors, and finds those that a daemon before this one started.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FileType, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::pipe::PipeFlags;
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::client::{Connection, Events, Monitor};
use crate::monitor::wire::{self, Answer, Order, Refusal, SandboxOrder};
use crate::sys::watch::watch;
use crate::{Error, Network, Report, Sandbox, cgroup, host, pause, seal};
use spawner::Spawner;

mod spawner;

/// How long a new or an adopted monitor may take for its first answer.
const FIRST_ANSWER: Duration = Duration::from_secs(10);

/// Where the runtime's program and state are.
#[derive(Debug, Clone)]
pub struct Config {
    /// `corten-runtime`.
    pub program: PathBuf,
    /// `/run/corten`.
    pub state: PathBuf,
    /// `/var/lib/corten`: what its file system can do is probed.
    pub data: PathBuf,
    /// Who makes cgroups.
    pub cgroup_driver: cgroup::DriverChoice,
}

/// A process that does nothing but to hold a scope of systemd's until a container is in it; it ends when this is
/// dropped, or with the daemon.
#[derive(Debug)]
pub struct Placeholder {
    pid: u32,
    /// Its standard input.
    _end: OwnedFd,
}

/// The daemon's side of all monitors; cheap to clone.
#[derive(Debug, Clone)]
pub struct Runtime {
    inner: Arc<Inner>,
}

/// A pod that is up.
#[derive(Debug)]
pub struct Launched {
    /// Its monitor.
    pub monitor: Monitor,
    /// What the monitor tells.
    pub events: Events,
    /// The network namespace that was made with it.
    pub network: Option<OwnedFd>,
}

#[derive(Debug)]
struct Inner {
    host: host::Host,
    cgroups: cgroup::Cgroups,
    /// The sealed pause program, shared by all pods.
    pause: OwnedFd,
    null: OwnedFd,
    /// None after [`Runtime::close`]; the lock is held for a clone of the sender only.
    spawner: Mutex<Option<Arc<Spawner>>>,
}

/// Kills a monitor whose launch does not come to its end.
struct Launching(Option<Arc<AsyncFd<OwnedFd>>>);

// === impl Runtime ===

impl Runtime {
    /// Probes the host, seals the program and starts the thread that monitors are cloned from.
    pub fn open(config: Config) -> Result<Self, Error> {
        let cgroups = cgroup::Cgroups::detect(config.cgroup_driver)
            .map_err(|source| Error::Cgroup { operation: "find the place of", source })?;
        let program = seal::program(&config.program)?;
        let made = |operation| move |source| Error::Spawn { operation, source };
        let pause = pause::program().map_err(made("make the pause program"))?;
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .map_err(io::Error::from)
            .map_err(made("open /dev/null"))?;
        let spawner = Spawner::start(program, cgroups.clone())?;
        let spawner = Mutex::new(Some(Arc::new(spawner)));
        let host = host::Host::probe(pause.as_fd(), &config.data);
        Ok(Self { inner: Arc::new(Inner { host, cgroups, pause, null, spawner }) })
    }

    /// What this host offers.
    pub fn host(&self) -> &host::Host {
        &self.inner.host
    }

    /// The host's control groups.
    pub fn cgroups(&self) -> &cgroup::Cgroups {
        &self.inner.cgroups
    }

    /// What systemd needs to make a scope, and nobody else.
    pub async fn placeholder(&self) -> Result<Option<Placeholder>, Error> {
        if self.inner.cgroups.driver() == cgroup::Driver::Cgroupfs {
            return Ok(None);
        }
        let failed = |source| Error::Spawn { operation: "start a placeholder", source };
        let (theirs, end) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| failed(errno.into()))?;
        let null = || self.inner.null.try_clone().map_err(failed);
        let arguments = vec![c"corten-runtime".to_owned(), c"placeholder".to_owned()];
        let (pid, pidfd) = self.spawner()?.spawn(arguments, vec![theirs, null()?, null()?]).await?;
        tokio::spawn(reap(Arc::new(watch(pidfd, Interest::READABLE).map_err(failed)?)));
        Ok(Some(Placeholder { pid: pid.unsigned_abs(), _end: end }))
    }

    fn spawner(&self) -> Result<Arc<Spawner>, Error> {
        let spawner = self.inner.spawner.lock().unwrap_or_else(PoisonError::into_inner).clone();
        spawner.ok_or_else(|| Error::Spawn {
            operation: "start a process",
            source: io::ErrorKind::BrokenPipe.into(),
        })
    }

    /// Starts a pod's monitor; its namespaces and pause are up when this returns.
    pub async fn launch(&self, sandbox: Sandbox) -> Result<Launched, Error> {
        let (connection, process) = self.execute(&sandbox).await?;
        let mut launching = Launching(Some(process));
        let pid = connection.monitor();
        let order = Order::Sandbox(SandboxOrder {
            hostname: sandbox.hostname,
            own_network: !matches!(sandbox.network, Network::Node),
            ipc: sandbox.ipc,
            pid: sandbox.pid,
            sysctls: sandbox.sysctls,
            users: sandbox.users,
            labels: sandbox.labels,
        });
        let mut fds = vec![self.inner.pause.as_fd()];
        if let Network::Made(network) = &sandbox.network {
            fds.push(network.as_fd());
        }
        let answer = in_time(pid, connection.ask(&order, &fds)).await?;
        let (pause_pid, mut made) = match answer {
            Ok((Answer::Process { pid }, fds)) => (pid, fds),
            Ok(_) => return Err(connection.nonsense()),
            Err(Refusal::Failed(source)) => return Err(Error::Sandbox { id: sandbox.id, source }),
            Err(_) => return Err(connection.nonsense()),
        };
        let network = match sandbox.network {
            Network::New => Some(made.take().map_err(|_| connection.nonsense())?),
            Network::Made(_) | Network::Node => None,
        };
        launching.0 = None;
        let (monitor, events) = connection.monitor_of(pause_pid, wire::VERSION);
        Ok(Launched { monitor, events, network })
    }

    /// Connects to the living monitor of a pod's state directory.
    pub async fn adopt(&self, dir: &Path) -> Result<(Monitor, Events, Report), Error> {
        let failed = |source| Error::Adopt { dir: dir.to_owned(), source };
        let socket = connect(dir).map_err(failed)?;
        let peer = rustix::net::sockopt::socket_peercred(&socket).map_err(|errno| failed(errno.into()))?;
        if peer.uid != rustix::process::geteuid() {
            return Err(failed(io::ErrorKind::PermissionDenied.into()));
        }
        // For its end; that it lives and is who it was is proven by its first answer.
        let pidfd = rustix::process::pidfd_open(peer.pid, PidfdFlags::empty())
            .map_err(|errno| failed(errno.into()))?;
        let pid = peer.pid.as_raw_nonzero().get();
        let process = watch(pidfd, Interest::READABLE).map_err(failed)?;
        let connection = Connection::new(socket, pid, Arc::new(process))?;
        let answer = in_time(pid, connection.ask(&Order::Report, &[])).await?;
        let Ok((Answer::Report { version }, mut fds)) = answer else { return Err(connection.nonsense()) };
        let memfd = fds.take().map_err(|_| connection.nonsense())?;
        let report = wire::read_report(memfd).map_err(failed)?;
        let (monitor, events) = connection.monitor_of(report.pause_pid, version);
        Ok((monitor, events, report))
    }

    /// Ends the thread that starts monitors, and removes their cgroup when none is in it.
    ///
    /// For the end of the daemon; nothing can be launched after it.
    pub fn close(&self) -> Result<(), Error> {
        let spawner = self.inner.spawner.lock().unwrap_or_else(PoisonError::into_inner).take();
        match spawner.and_then(Arc::into_inner) {
            Some(spawner) => spawner.end(&self.inner.cgroups),
            // Closed before, or a launch is on its way and will have its answer.
            None => Ok(()),
        }
    }

    /// Executes a monitor, with one end of a connection as its 3 and the pod's directory as its 4.
    async fn execute(&self, sandbox: &Sandbox) -> Result<(Connection, Arc<AsyncFd<OwnedFd>>), Error> {
        let failed =
            |operation| move |errno: rustix::io::Errno| Error::Spawn { operation, source: errno.into() };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let dir = rustix::fs::open(&sandbox.dir, flags, Mode::empty())
            .map_err(failed("open the pod's directory"))?;
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
                .map_err(failed("make a connection for a monitor"))?;
        let null = || self.inner.null.try_clone();
        let closed = |source| Error::Spawn { operation: "start a monitor", source };
        let fds =
            vec![null().map_err(closed)?, null().map_err(closed)?, null().map_err(closed)?, theirs, dir];
        let id = CString::new(sandbox.id.as_str()).map_err(|error| closed(error.into()))?;
        let arguments = vec![c"corten-runtime".to_owned(), c"monitor".to_owned(), id];
        let (pid, pidfd) = self.spawner()?.spawn(arguments, fds).await?;
        let process = Arc::new(watch(pidfd, Interest::READABLE).map_err(closed)?);
        tokio::spawn(reap(process.clone()));
        Ok((Connection::new(ours, pid, process.clone())?, process))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let spawner = self.spawner.get_mut().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(spawner) = spawner.and_then(Arc::into_inner)
            && let Err(error) = spawner.end(&self.cgroups)
        {
            tracing::debug!(%error, "the monitors' cgroup stays");
        }
    }
}

// === impl Placeholder ===

impl Placeholder {
    /// Its number in the daemon's PID namespace.
    pub fn pid(&self) -> u32 {
        self.pid
    }
}

// === impl Launching ===

impl Drop for Launching {
    fn drop(&mut self) {
        if let Some(process) = &self.0 {
            // Its pause goes with it. An error means that it is gone.
            rustix::process::pidfd_send_signal(process.get_ref(), Signal::KILL).ok();
        }
    }
}

/// A monitor is a child of the daemon that started it, whoever talks to it.
async fn reap(process: Arc<AsyncFd<OwnedFd>>) {
    if process.readable().await.is_ok() {
        rustix::process::waitid(WaitId::PidFd(process.get_ref().as_fd()), WaitIdOptions::EXITED).ok();
    }
}

async fn in_time<T>(monitor: i32, answer: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match tokio::time::timeout(FIRST_ANSWER, answer).await {
        Ok(result) => result,
        Err(_) => Err(Error::Timeout { monitor, seconds: FIRST_ANSWER.as_secs() }),
    }
}

/// Connects to the socket itself, not to what a name may have become, wherever the directory is.
fn connect(dir: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let inode = rustix::fs::open(dir.join("monitor.sock"), flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&inode)?.st_mode) != FileType::Socket {
        return Err(io::Error::from_raw_os_error(libc::ENOTSOCK));
    }
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}", inode.as_raw_fd()))?;
    rustix::net::connect(&socket, &address)?;
    Ok(socket)
}
