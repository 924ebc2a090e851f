//! A CRI runtime that takes part: its daemon on scratch directories, or somebody's socket.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use corten_tests::cri::Cri;
use corten_tests::network::{Network, PLUGINS};
use corten_tests::registry::Registry;
use corten_tests::{Result, cgroup, host};
use k8s_cri::v1 as wire;
use nix::mount::{MntFlags, umount2};

use crate::{cpu, work};

/// How long a daemon may take to answer.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Room for the images of one contestant.
const DATA_BYTES: u64 = 6 << 30;

/// Names that the registry's mirror stands in for.
const HOSTS: [&str; 5] = ["registry.k8s.io", "k8s.gcr.io", "gcr.io", "docker.io", "quay.io"];

#[derive(Debug)]
pub(crate) struct Contestant {
    pub name: String,
    /// Its scratch directory; the data is below `data`, which may be a file system of its own.
    pub dir: PathBuf,
    /// The cgroup of its pods.
    pub cgroup: String,
    socket: PathBuf,
    kind: Kind,
    daemon: Option<Child>,
    network: Option<Network>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Corten,
    Containerd,
    Foreign,
}

impl Contestant {
    pub(crate) fn corten(dir: &Path, registry: &Registry) -> Result<Self> {
        let contestant = Self::own("corten", Kind::Corten, dir)?;
        let network = contestant.network()?;
        let at = dir.display();
        let mirrors: String = HOSTS
            .iter()
            .map(|name| {
                let port = registry.port();
                format!(
                    "[[registry]]\nprefix = \"{name}\"\nlocation = \"127.0.0.1:{port}\"\ninsecure = true\n\n"
                )
            })
            .collect();
        fs::write(dir.join("registries.conf"), mirrors).context("write registries.conf")?;
        let config = format!(
            "[cni]\nconf_dir = \"{}\"\nbin_dirs = [\"{PLUGINS}\"]\nnetns_dir = \"{at}/netns\"\n\
             cache_dir = \"{at}/cni/cache\"\n\n[image]\nregistries_conf = \"{at}/registries.conf\"\n",
            network.conf_dir().display()
        );
        fs::write(dir.join("config.toml"), config).context("write the configuration")?;
        Ok(Self { network: Some(network), ..contestant })
    }

    /// Debian's containerd with Debian's runc; tuned where a setting is known to help.
    pub(crate) fn containerd(dir: &Path, registry: &Registry) -> Result<Self> {
        let contestant = Self::own("containerd", Kind::Containerd, dir)?;
        let network = contestant.network()?;
        for name in HOSTS {
            let certs = dir.join("certs").join(name);
            fs::create_dir_all(&certs).context("make the hosts directory")?;
            let url = format!("http://127.0.0.1:{}", registry.port());
            let hosts =
                format!("server = \"{url}\"\n[host.\"{url}\"]\n  capabilities = [\"pull\", \"resolve\"]\n");
            fs::write(certs.join("hosts.toml"), hosts).context("write hosts.toml")?;
        }
        let at = dir.display();
        let config = format!(
            "version = 2\nroot = \"{at}/data\"\nstate = \"{at}/run\"\n[grpc]\n  address = \"{at}/run/socket\"\n\
             [plugins.\"io.containerd.internal.v1.opt\"]\n  path = \"{at}/opt\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\"]\n  restrict_oom_score_adj = true\n\
               sandbox_image = \"registry.k8s.io/pause:3.9\"\n  max_concurrent_downloads = 6\n\
               enable_unprivileged_ports = true\n  enable_unprivileged_icmp = true\n\
             [plugins.\"io.containerd.grpc.v1.cri\".cni]\n  bin_dir = \"{PLUGINS}\"\n  conf_dir = \"{}\"\n\
             [plugins.\"io.containerd.grpc.v1.cri\".registry]\n  config_path = \"{at}/certs\"\n",
            network.conf_dir().display()
        );
        fs::write(dir.join("config.toml"), config).context("write the configuration")?;
        Ok(Self { network: Some(network), ..contestant })
    }

    /// A server that somebody else runs.
    pub(crate) fn foreign(name: &str, socket: &Path) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("corten-bench-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).context("make a directory")?;
        Ok(Self {
            name: name.to_owned(),
            cgroup: format!("/corten-bench-{name}"),
            socket: socket.to_owned(),
            kind: Kind::Foreign,
            daemon: None,
            network: None,
            dir,
        })
    }

    fn own(name: &str, kind: Kind, dir: &Path) -> Result<Self> {
        for sub in ["", "data", "run", "logs", "netns"] {
            fs::create_dir(dir.join(sub)).with_context(|| format!("make {}", dir.join(sub).display()))?;
        }
        let cgroup = format!("/corten-bench-{name}-{}", std::process::id());
        cgroup::make(&cgroup)?;
        Ok(Self {
            name: name.to_owned(),
            dir: dir.to_owned(),
            cgroup,
            socket: dir.join("run/socket"),
            kind,
            daemon: None,
            network: None,
        })
    }

    fn network(&self) -> Result<Network> {
        Network::make(&self.dir.join("cni"))
    }

    /// Whether the daemon is one that may be stopped, traced and killed.
    pub(crate) fn is_own(&self) -> bool {
        self.kind != Kind::Foreign
    }

    /// The cgroups whose processor time is this contestant's.
    pub(crate) fn groups(&self) -> Vec<String> {
        let mut groups = vec![self.cgroup.clone(), self.daemon_group()];
        if self.kind == Kind::Corten {
            groups.push("/corten".to_owned());
        }
        groups
    }

    /// The cgroup of the daemon, and of what it starts that is not a pod's.
    pub(crate) fn daemon_group(&self) -> String {
        format!("{}-daemon", self.cgroup)
    }

    /// Whether a process is one that the contestant runs for its pods: monitor or shim, and pause.
    pub(crate) fn is_helper(&self, pid: u32) -> bool {
        let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).unwrap_or_default();
        match self.kind {
            Kind::Corten => read("cgroup").contains(":/corten/monitors"),
            Kind::Containerd => {
                ["containerd-shim", "pause"].iter().any(|name| read("comm").starts_with(name))
            }
            Kind::Foreign => false,
        }
    }

    pub(crate) fn cri(&self) -> Result<Cri> {
        Cri::lazy(&self.socket)
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.daemon.as_ref().map(Child::id)
    }

    pub(crate) async fn pull(&self, reference: &str) -> Result {
        let mut images = self.cri()?.images;
        let spec = wire::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = wire::PullImageRequest { image: Some(spec), ..Default::default() };
        images.pull_image(request).await.with_context(|| format!("{}: pull {reference}", self.name))?;
        Ok(())
    }

    pub(crate) async fn remove_image(&self, reference: &str) -> Result {
        let mut images = self.cri()?.images;
        let spec = wire::ImageSpec { image: reference.to_owned(), ..Default::default() };
        let request = wire::RemoveImageRequest { image: Some(spec) };
        images.remove_image(request).await.with_context(|| format!("{}: remove {reference}", self.name))?;
        Ok(())
    }

    /// Starts the daemon and waits until it is ready for pods.
    pub(crate) async fn start(&mut self) -> Result {
        if self.kind != Kind::Foreign {
            self.spawn()?;
        }
        let deadline = Instant::now() + START_LIMIT;
        loop {
            let mut runtime = self.cri()?.runtime;
            let answer = runtime.status(wire::StatusRequest::default()).await;
            let conditions =
                answer.ok().and_then(|answer| answer.into_inner().status).map(|status| status.conditions);
            if conditions.is_some_and(|conditions| conditions.iter().all(|condition| condition.status)) {
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "{} is not ready: see {}",
                self.name,
                self.dir.join("log").display()
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Starts the daemon.
    pub(crate) fn spawn(&mut self) -> Result {
        let mut command = match self.kind {
            Kind::Corten => {
                let mut command = Command::new(host::corten()?);
                command.arg("serve").arg("--config").arg(self.dir.join("config.toml"));
                command.arg("--root").arg(self.dir.join("data")).arg("--state").arg(self.dir.join("run"));
                command.arg("--listen").arg(format!("unix://{}", self.socket.display()));
                command
            }
            Kind::Containerd => {
                let mut command = Command::new("containerd");
                command.arg("--config").arg(self.dir.join("config.toml"));
                command
            }
            Kind::Foreign => bail!("{} is not ours to start", self.name),
        };
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join("log"))
            .context("open the log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let daemon = command.spawn().with_context(|| format!("start {}", self.name))?;
        let pid = daemon.id();
        self.daemon = Some(daemon);
        cpu::enter(&self.daemon_group(), pid)
    }

    /// Kills the daemon alone, as a crash does.
    pub(crate) async fn kill(&mut self) -> Result {
        if let Some(mut daemon) = self.daemon.take() {
            daemon.kill().context("kill the daemon")?;
            tokio::task::spawn_blocking(move || daemon.wait()).await?.context("wait for the daemon")?;
        }
        Ok(())
    }

    /// Removes all pods and ends the daemon.
    pub(crate) async fn stop(&mut self) -> Result {
        if self.daemon.is_none() {
            return Ok(());
        }
        work::remove_all(&self.cri()?).await?;
        if let Some(pid) = self.pid() {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(pid)?);
            nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).context("end the daemon")?;
        }
        if let Some(mut daemon) = self.daemon.take() {
            tokio::task::spawn_blocking(move || daemon.wait()).await?.context("wait for the daemon")?;
        }
        Ok(())
    }

    /// Gives the stopped daemon an empty data directory on a file system made for it.
    pub(crate) fn fresh_data(&self) -> Result {
        let (data, image) = (self.dir.join("data"), self.dir.join("data.ext4"));
        self.unmount_data();
        let file = fs::File::create(&image).context("make the file system's file")?;
        file.set_len(DATA_BYTES).context("size the file system's file")?;
        run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(&image))?;
        fs::create_dir_all(&data).context("make the data directory")?;
        run(Command::new("mount").args(["-o", "loop"]).arg(&image).arg(&data))?;
        rustix::fs::sync();
        Ok(())
    }

    fn unmount_data(&self) {
        // Not mounted the first time; what a daemon left mounted below goes with it.
        umount2(&self.dir.join("data"), MntFlags::MNT_DETACH).ok();
        fs::remove_file(self.dir.join("data.ext4")).ok();
    }

    /// Ends it and takes away what it needed.
    pub(crate) async fn close(&mut self) -> Result {
        if self.kind == Kind::Foreign {
            fs::remove_dir_all(&self.dir).ok();
            return Ok(());
        }
        self.stop().await?;
        self.unmount_data();
        // Corten's directory of network namespaces is a shared mount, as others need it; containerd has none here.
        umount2(&self.dir.join("netns"), MntFlags::MNT_DETACH).ok();
        if let Some(network) = &self.network {
            network.remove();
        }
        cpu::remove(&self.daemon_group());
        cgroup::remove(&self.cgroup)?;
        Ok(())
    }
}

fn run(command: &mut Command) -> Result {
    let output = command.output().with_context(|| format!("run {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}
