//! `corten serve`: puts the parts together, in the order in which they need each other, and runs them.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, bail};
use image::Images;
use network::Network;
use pod::Pods;
use runtime::Runtime;
use rustix::fs::FlockOperation;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing::{info, warn};

use crate::config::{Config, Endpoint, Level};
use crate::metrics::{self, Calls};
use crate::notify::{State, notify};
use crate::reload::Reload;
use crate::server::Listener;
use crate::telemetry::Telemetry;
use crate::{service, stream, telemetry, watchdog};

/// Heaps of the allocator; by its own measure there would be eight times as many as processors.
const ARENAS: i32 = 2;

/// The server; flags go before the configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct Serve {
    /// The configuration file; drop-ins are in FILE.d
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where images, records and writable layers are
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// Where sockets, exit files and mounts of running pods are
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// The socket to serve
    #[arg(long, value_name = "unix:///PATH")]
    listen: Option<Endpoint>,
    /// What is logged
    #[arg(long, value_enum, value_name = "LEVEL")]
    log: Option<Level>,
}

impl Serve {
    /// Runs the server until it is told to stop.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = self.configuration()?;
        let volume = telemetry::start(config.log.into());
        // Passwords of registries pass through here: no core file has them.
        rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)
            .context("forbid core files")?;
        runtime::sys::memory::limit_arenas(ARENAS);
        // More threads than processors, or than a few, would cost memory and bring nothing.
        let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(4));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .enable_all()
            .build()
            .context("start the event loop")?;
        let served = runtime.block_on(serve(Reload::new(self, config, volume)));
        // What still waits for a disk or a plugin is finished by the next start.
        runtime.shutdown_background();
        served
    }

    /// What the files say, and over it the flags.
    pub(crate) fn configuration(&self) -> anyhow::Result<Config> {
        let mut config = Config::load(self.config.as_deref())?;
        let absolute =
            |path: &Path| std::path::absolute(path).with_context(|| format!("find {}", path.display()));
        if let Some(root) = &self.root {
            config.root = absolute(root)?;
        }
        if let Some(state) = &self.state {
            config.state = absolute(state)?;
        }
        config.listen = self.listen.clone().unwrap_or(config.listen);
        config.log = self.log.unwrap_or(config.log);
        Ok(config)
    }
}

async fn serve(reload: Reload) -> anyhow::Result<()> {
    let current = reload.current();
    let config = current.get();
    // First, so that a signal during the start is not lost and not fatal.
    let terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let hangup = signal(SignalKind::hangup()).context("listen for SIGHUP")?;
    // The locks live as long as the process: whoever has them may touch what is in these directories.
    let _state = own_directory(&config.state, 0o711)?;
    let _root = own_directory(&config.root, 0o700)?;
    let listener = Listener::bind(config.listen.path())?;
    let pods = open(&config).await?;
    let streaming = stream::Server::bind(&config.streaming).await?;
    let urls = streaming.urls();
    info!(version = env!("CARGO_PKG_VERSION"), listen = %config.listen, "ready");
    tell(State::Ready);
    if let Some(interval) = watchdog::interval() {
        tokio::spawn(watchdog::feed(interval, config.listen.clone()));
    }
    tokio::spawn(reload.on_hangup(hangup, pods.clone()));
    let stop = async {
        stop(terminate, interrupt).await;
        pods.end_listening();
    };
    let streaming = tokio::spawn(streaming.serve(Arc::new(pods.clone())));
    let calls = Calls::default();
    let metrics = config.metrics.listen.open(metrics::registry(&pods, &calls)).await?;
    let metrics = metrics.map(tokio::spawn);
    let routes = service::routes(&pods, &current, urls);
    let served = listener.serve(routes, Telemetry::counting(calls), stop).await;
    // Their clients learn it by the end of their connections, and commands by the end of their input.
    streaming.abort();
    if let Some(metrics) = metrics {
        // Its socket goes with it.
        metrics.abort();
        drop(metrics.await);
    }
    served?;
    pods.runtime().close().context("end the runtime")?;
    info!("stopped; what runs in pods goes on");
    Ok(())
}

/// Opens what is below, side by side where one does not need the other.
async fn open(config: &Config) -> anyhow::Result<Pods> {
    // The link leads to this program also when a newer one has taken its name.
    let mut args = vec!["unpack-layer".into()];
    let cgroup = &config.image.pull_cgroup;
    if !cgroup.is_empty() {
        // A mistake is told now, and not by each pull.
        let _: runtime::cgroup::CgroupPath = cgroup.parse().context("read image.pull_cgroup")?;
        args.extend(["--cgroup".into(), cgroup.into()]);
    }
    let unpacker = image::Unpacker { program: "/proc/self/exe".into(), args };
    let images =
        async { Images::open(config.image.clone(), &config.root, unpacker).await.context("open the images") };
    let program = runtime_program(config)?;
    let (state, data) = (config.state.clone(), config.root.clone());
    let cgroup_driver = config.cgroup.driver.into();
    let runtime = async {
        let config = runtime::Config { program, state, data, cgroup_driver };
        tokio::task::spawn_blocking(move || Runtime::open(config)).await?.context("open the runtime")
    };
    let (images, runtime) = tokio::try_join!(images, runtime)?;
    if let Some(reason) = runtime.host().unfit() {
        bail!("containers cannot run here: {reason}");
    }
    for missing in runtime.host().missing() {
        info!("{missing}");
    }
    let network = Network::open(config.cni.clone()).context("open the network")?;
    Pods::open(config.pod(), runtime, images, network).await.context("open the pods")
}

/// `corten-runtime`: as configured, or beside this program.
fn runtime_program(config: &Config) -> anyhow::Result<PathBuf> {
    if let Some(path) = &config.runtimes.corten.path {
        return Ok(path.clone());
    }
    let own = std::env::current_exe().context("find this program")?;
    let path = own.with_file_name("corten-runtime");
    if !path.exists() {
        bail!("{} is not there: put it beside corten, or set `path` under [runtimes.corten]", path.display());
    }
    Ok(path)
}

/// Makes a directory, if it is not there, and locks it for this server.
fn own_directory(path: &Path, mode: u32) -> anyhow::Result<fs::File> {
    let make = || {
        if !path.is_dir() {
            fs::DirBuilder::new().recursive(true).mode(mode).create(path)?;
            // The umask may have taken bits away.
            fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        }
        fs::OpenOptions::new().create(true).truncate(false).write(true).open(path.join("lock"))
    };
    let file = make().with_context(|| format!("make directory {}", path.display()))?;
    // A record lock is this process's alone. One of flock(2) would be its children's too until they execute their
    // programs, and the next server would be kept out by the plugin that a killed one was about to start.
    match rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::AGAIN | rustix::io::Errno::ACCESS) => {
            bail!("another server uses {}: stop it first, or give this one another directory", path.display())
        }
        Err(errno) => Err(io::Error::from(errno)).with_context(|| format!("lock {}", path.display())),
    }
}

async fn stop(mut terminate: Signal, mut interrupt: Signal) {
    tokio::select! {
        _ = terminate.recv() => info!("stopping on SIGTERM"),
        _ = interrupt.recv() => info!("stopping on SIGINT"),
    }
    tell(State::Stopping);
}

/// A service manager that cannot be told is no reason to fail.
fn tell(state: State) {
    if let Err(error) = notify(state) {
        warn!("tell the service manager {state:?}: {error}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_made_for_its_server() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let _lock = own_directory(&path, 0o711).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o711);
    }
}
