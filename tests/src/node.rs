//! A node: a daemon on scratch directories, with a registry and a network of its own.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Error, bail, ensure};
use k8s_cri::v1::{self as wire, CgroupDriver};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::cri::Cri;
use crate::network::{Network, PLUGINS};
use crate::registry::Registry;
use crate::wait::slowness;
use crate::{Result, census, cgroup, host, slice};

/// The node of a test or of several; stopped and counted when it is dropped.
#[derive(Debug)]
pub struct Node {
    scratch: TempDir,
    socket: PathBuf,
    network: Network,
    driver: CgroupDriver,
    /// None with a foreign CRI runtime.
    own: Option<Own>,
}

/// What a node has when the daemon is ours.
#[derive(Debug)]
struct Own {
    registry: Registry,
    /// The drop-in beside the configuration file.
    config: String,
    /// None while the daemon is down.
    daemon: Mutex<Option<Child>>,
    /// How often it was started.
    starts: AtomicU32,
}

impl Own {
    fn daemon(&self) -> MutexGuard<'_, Option<Child>> {
        // A test that panicked holding it leaves a whole value.
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Node {
    /// A node whose daemon runs with `config` as a drop-in beside its configuration file.
    pub fn start(config: &str) -> Result<Self> {
        host::require_root()?;
        let (scratch, network) = scratch()?;
        let dir = scratch.path();
        for name in ["logs", "config.toml.d"] {
            fs::create_dir(dir.join(name)).with_context(|| format!("make {name} in {}", dir.display()))?;
        }
        let registry = Registry::start(dir)?;
        let socket = dir.join("run/corten.sock");
        let own =
            Own { registry, config: config.to_owned(), daemon: Mutex::new(None), starts: AtomicU32::new(0) };
        let mut node = Self { scratch, socket, network, driver: CgroupDriver::Cgroupfs, own: Some(own) };
        node.write_config()?;
        node.start_daemon()?;
        node.ask_driver();
        Ok(node)
    }

    /// A node whose CRI runtime somebody else runs.
    pub fn foreign(socket: &Path) -> Result<Self> {
        host::require_root()?;
        let (scratch, network) = scratch()?;
        fs::create_dir(scratch.path().join("logs")).context("make the log directory")?;
        let (socket, driver) = (socket.to_owned(), CgroupDriver::Cgroupfs);
        let mut node = Self { scratch, socket, network, driver, own: None };
        node.ask_driver();
        Ok(node)
    }

    /// Whether the daemon is one that the test may stop, kill and configure.
    pub fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// The scratch directory.
    pub fn dir(&self) -> &Path {
        self.scratch.path()
    }

    /// The CRI socket.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Where Corten keeps what lasts.
    pub fn root(&self) -> PathBuf {
        self.dir().join("root")
    }

    /// Where Corten keeps what a restart of the machine ends.
    pub fn state(&self) -> PathBuf {
        self.dir().join("run")
    }

    /// The node's CNI network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// A runtime too old to say does what its tests were set up with: cgroupfs.
    fn ask_driver(&mut self) {
        self.driver = call(&self.socket, driver).unwrap_or(CgroupDriver::Cgroupfs);
    }

    /// Its slice, with the systemd driver.
    fn slice(&self) -> String {
        format!("corten-test-{}.slice", self.network.number())
    }

    /// Who makes cgroups, as the runtime reports it.
    pub fn driver(&self) -> CgroupDriver {
        self.driver
    }

    /// A name for the cgroup of the pod with this uid, in the driver's form.
    pub fn pod_cgroup(&self, uid: &str) -> String {
        match self.driver {
            CgroupDriver::Cgroupfs => format!("{}/{uid}", self.cgroup()),
            CgroupDriver::Systemd => slice::path(&self.pod_slice(uid)),
        }
    }

    /// As the kubelet escapes it: a dash would be a level of its own.
    fn pod_slice(&self, uid: &str) -> String {
        let uid = uid.replace(['-', '/'], "_");
        format!("corten-test-{}-pod{uid}.slice", self.network.number())
    }

    /// Makes the cgroup of a pod, as the kubelet does before it asks for the sandbox.
    pub fn make_pod_cgroup(&self, uid: &str) -> Result<String> {
        let path = self.pod_cgroup(uid);
        match self.driver {
            CgroupDriver::Cgroupfs => cgroup::make(&path)?,
            CgroupDriver::Systemd => slice::make(&self.pod_slice(uid))?,
        }
        Ok(path)
    }

    /// Removes the node's cgroup with those of the pods; what still holds something is named.
    pub fn remove_cgroup(&self) -> Result<Vec<String>> {
        match self.driver {
            CgroupDriver::Cgroupfs => cgroup::remove(&self.cgroup()),
            CgroupDriver::Systemd => slice::remove(&self.slice()),
        }
    }

    /// The cgroup that the pods of this node go below, in the form of the runtime's driver.
    pub fn cgroup(&self) -> String {
        match self.driver {
            CgroupDriver::Cgroupfs => format!("/corten-test-{}", self.network.number()),
            CgroupDriver::Systemd => slice::path(&self.slice()),
        }
    }

    /// Port of the registry with the stand-in images.
    pub fn registry_port(&self) -> Option<u16> {
        self.own.as_ref().map(|own| own.registry.port())
    }

    /// The configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.dir().join("config.toml")
    }

    fn write_config(&self) -> Result {
        let dir = self.dir().display();
        if let Some(own) = &self.own {
            fs::write(self.dir().join("config.toml.d/50-test.toml"), &own.config)
                .context("write a drop-in")?;
        }
        let text = format!(
            "[cni]\nconf_dir = \"{conf}\"\nbin_dirs = [\"{bin}\", \"{PLUGINS}\"]\nnetns_dir = \"{dir}/netns\"\n\
             cache_dir = \"{dir}/cni/cache\"\n\n[image]\nregistries_conf = \"{dir}/registries.conf\"\n",
            conf = self.network.conf_dir().display(),
            bin = self.network.bin_dir().display(),
        );
        let handler = match host::handler().as_str() {
            "" => String::new(),
            name => format!("\n[runtimes.{name}]\npath = \"{}\"\n", host::handler_program()?.display()),
        };
        fs::write(self.config_file(), text + &handler).context("write the configuration")
    }

    /// The command that runs this node's daemon.
    pub fn serve(&self) -> Result<Command> {
        let mut command = Command::new(host::corten()?);
        command.arg("serve").arg("--config").arg(self.config_file());
        command.arg("--root").arg(self.root()).arg("--state").arg(self.state());
        command.arg("--listen").arg(format!("unix://{}", self.socket.display())).args(["--log", "debug"]);
        command.stdin(Stdio::null());
        Ok(command)
    }

    /// The `corten` command line, pointed to this node.
    pub fn cli(&self, args: &[&str]) -> Result<Command> {
        let mut command = Command::new(host::corten()?);
        command.arg("-r").arg(format!("unix://{}", self.socket.display())).args(args);
        command.stdin(Stdio::null());
        Ok(command)
    }

    fn own(&self) -> Result<&Own> {
        self.own.as_ref().context("the daemon is not the test's own")
    }

    /// Starts the daemon and waits until it answers a call; returns how long that took.
    pub fn start_daemon(&self) -> Result<Duration> {
        self.start_daemon_with(&[])
    }

    /// Like [`Self::start_daemon`], with these variables in its environment.
    pub fn start_daemon_with(&self, variables: &[(&str, &str)]) -> Result<Duration> {
        let log = OpenOptions::new().create(true).append(true).open(self.log_file())?;
        let began = Instant::now();
        let mut child = self
            .serve()?
            .envs(variables.iter().copied())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start corten serve")?;
        while !answers(&self.socket) {
            if let Some(status) = child.try_wait().context("wait for corten serve")? {
                bail!("corten serve ended at once, {status}:\n{}", self.log_since(0));
            }
            if began.elapsed() > Duration::from_secs(20) * slowness() {
                child.kill().ok();
                child.wait().ok();
                bail!("corten serve does not answer in time:\n{}", self.log_since(0));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let own = self.own()?;
        own.starts.fetch_add(1, Ordering::Relaxed);
        *own.daemon() = Some(child);
        Ok(began.elapsed())
    }

    /// How often the daemon was started: a client connects anew when this changes.
    pub fn starts(&self) -> u32 {
        self.own.as_ref().map_or(0, |own| own.starts.load(Ordering::Relaxed))
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> Result<i32> {
        let daemon = self.own()?.daemon();
        let child = daemon.as_ref().context("the daemon is down")?;
        Ok(i32::try_from(child.id())?)
    }

    /// Ends the daemon as a power cut would, from its own point of view.
    pub fn kill_daemon(&self) -> Result {
        let mut child = self.own()?.daemon().take().context("the daemon is down")?;
        child.kill().context("kill corten serve")?;
        child.wait().context("reap corten serve")?;
        Ok(())
    }

    /// Asks the daemon to end and waits for it.
    pub fn stop_daemon(&self) -> Result {
        let mut child = self.own()?.daemon().take().context("the daemon is down")?;
        kill(Pid::from_raw(i32::try_from(child.id())?), Signal::SIGTERM).context("signal corten serve")?;
        let deadline = Instant::now() + Duration::from_secs(15) * slowness();
        loop {
            if let Some(status) = child.try_wait().context("wait for corten serve")? {
                ensure!(status.success(), "corten serve ended with {status}");
                return Ok(());
            }
            if Instant::now() > deadline {
                child.kill().ok();
                child.wait().ok();
                bail!("corten serve did not end in time after SIGTERM");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn log_file(&self) -> PathBuf {
        self.dir().join("corten.log")
    }

    /// How long the daemon's log is now.
    pub fn log_position(&self) -> u64 {
        fs::metadata(self.log_file()).map_or(0, |data| data.len())
    }

    /// The daemon's log from `position` on, its last lines when it is long.
    pub fn log_since(&self, position: u64) -> String {
        let mut text = String::new();
        let read = File::open(self.log_file()).and_then(|mut file| {
            file.seek(SeekFrom::Start(position))?;
            file.read_to_string(&mut text)
        });
        if let Err(err) = read {
            return format!("(no log of the daemon: {err})");
        }
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(200)..].join("\n")
    }

    /// Stops the daemon and everything else, and fails when something of it is left.
    fn close(&mut self) -> Result {
        let mut left = Vec::new();
        if let Some(own) = &self.own {
            let running = own.daemon().is_some();
            if running {
                // Writable layers are deleted behind the answer.
                let deadline = Instant::now() + Duration::from_secs(5) * slowness();
                while !census::of_node_files(self).is_empty() && Instant::now() < deadline {
                    std::thread::sleep(Duration::from_millis(10));
                }
                self.stop_daemon().unwrap_or_else(|err| left.push(format!("{err:#}")));
            }
            left.extend(census::of_node(self)?);
            left.extend(self.network.leftovers());
            census::tear_down(self);
        }
        left.extend(self.remove_cgroup()?.into_iter().map(|path| format!("cgroup {path}")));
        self.network.remove();
        ensure!(left.is_empty(), "left behind by {}:\n  {}", self.cgroup(), left.join("\n  "));
        Ok(())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let closed = self.close();
        if !std::thread::panicking() {
            closed.map_err(|err: Error| format!("{err:#}")).unwrap_or_else(|err| panic!("{err}"));
        }
    }
}

/// Whether the server answers a call: its socket may be there before it is ready.
fn answers(socket: &Path) -> bool {
    if UnixStream::connect(socket).is_err() {
        return false;
    }
    call(socket, version).is_ok()
}

/// Asks the server something on a thread of its own, since the caller may be in the midst of another runtime.
fn call<T: Send>(socket: &Path, ask: impl AsyncFnOnce(Cri) -> Result<T> + Send) -> Result<T> {
    let answer = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { ask(Cri::lazy(socket)?).await })
    };
    std::thread::scope(|scope| scope.spawn(answer).join())
        .unwrap_or_else(|_| bail!("the thread that asks ended"))
}

async fn version(mut cri: Cri) -> Result {
    cri.runtime.version(wire::VersionRequest::default()).await?;
    Ok(())
}

async fn driver(mut cri: Cri) -> Result<CgroupDriver> {
    let config = cri.runtime.runtime_config(wire::RuntimeConfigRequest {}).await?.into_inner();
    Ok(config.linux.context("the Linux part")?.cgroup_driver())
}

fn scratch() -> Result<(TempDir, Network)> {
    let scratch =
        tempfile::Builder::new().prefix("corten-test-").tempdir().context("make a scratch directory")?;
    let network = Network::make(&scratch.path().join("cni"))?;
    Ok((scratch, network))
}
