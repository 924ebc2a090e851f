//! The one list of options: what `corten serve` reads from its file, its drop-ins and its flags.
//!
//! Each crate owns the options of its part; here they get the section they are written under. The doc
//! comment of an option is its manual: `corten config default` prints it ([`manual`]).

mod file;
mod manual;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use pod::{HandlerConfig, Program};
use runtime::cgroup::{Driver, DriverChoice};
use runtime::external::Kind;
use serde::{Deserialize, Serialize};

use crate::metrics;

pub(crate) use file::Error;
pub(crate) use manual::{default_file, manual_page};

use crate::stream::Streaming;

/// Where the configuration is when no flag says otherwise.
pub(crate) const DEFAULT_PATH: &str = "/etc/corten/config.toml";

/// Everything that can be configured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// The directory for images, records and writable layers; the flag --root goes before it.
    pub root: PathBuf,
    /// The directory for sockets, exit files and mounts of running pods, which need not outlive a restart of the
    /// node; the flag --state goes before it.
    pub state: PathBuf,
    /// The socket that the kubelet and crictl connect to; the flag --listen goes before it.
    pub listen: Endpoint,
    /// What is logged: error, warn, info, debug or trace; the flag --log goes before it.
    pub log: Level,
    /// The pods' network.
    pub cni: network::Config,
    /// Control groups.
    pub cgroup: Cgroup,
    /// Images.
    pub image: image::Config,
    /// The daemon's own metrics.
    pub metrics: Metrics,
    /// Pods.
    pub pod: pod::Config,
    /// Exec, attach and port-forward.
    pub streaming: Streaming,
    /// Runtime handlers, by the name that a RuntimeClass gives.
    pub runtimes: Runtimes,
}

/// Control groups.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Cgroup {
    /// Who makes and owns the pods' cgroups: auto, cgroupfs or systemd. With auto it is systemd where that is the
    /// service manager of a host with cgroup v2 alone, else cgroupfs. The kubelet asks for it and does the same.
    pub driver: CgroupDriver,
}

/// Who makes cgroups.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum CgroupDriver {
    /// systemd where it is the service manager of a host with cgroup v2 alone, else Corten itself.
    #[default]
    Auto,
    /// Corten itself, by mkdir and write.
    Cgroupfs,
    /// systemd, as scopes in slices.
    Systemd,
}

/// The daemon's own metrics for Prometheus. Those of pods and containers are asked for through the CRI.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Metrics {
    /// Where the page /metrics is served: unix:///PATH, or a loopback address with a port such as 127.0.0.1:9090.
    /// Not given: nowhere.
    pub listen: metrics::Endpoint,
}

/// The runtime handlers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Runtimes {
    /// Corten's own runtime, the default handler.
    pub corten: Native,
    /// All others.
    #[serde(flatten)]
    pub others: BTreeMap<String, Other>,
}

/// A handler of another name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Other {
    /// The program of an OCI runtime.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// What it is.
    pub r#type: HandlerType,
    /// Annotations of pods that the program is told: names, or beginnings of names with a `*` behind them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub annotations: Vec<String>,
}

/// What a handler is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum HandlerType {
    /// Corten's own runtime, by another name.
    Native,
    /// A program that takes runc's commands.
    #[default]
    Oci,
    /// A program that takes them, and makes containers in a sandbox of the pod's: runsc.
    Sandboxed,
}

/// Corten's own runtime, the default handler. Other handlers have sections of their own: `[runtimes.NAME]` with
/// `path`, the absolute path of a program that takes runc's commands (runc, crun, youki), and `type`, which is
/// "oci" and can be left out, or "sandboxed" for a program that makes a sandbox for each pod, as runsc does, and is
/// told by annotations in containerd's words what is the sandbox and what is in it; `annotations` is a list of those
/// of a pod's own that the program is told too, such as "dev.gvisor.*". Or with `type = "native"` and nothing else,
/// for Corten's own runtime by another name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Native {
    /// The program `corten-runtime`. Not given: the one beside `corten`.
    pub path: Option<PathBuf>,
}

/// A unix socket as the kubelet writes it: `unix:///run/corten/corten.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Endpoint(PathBuf);

/// How much is logged.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    /// What needs an administrator.
    Error,
    /// What went wrong and was dealt with.
    Warn,
    /// What changes pods, containers and images.
    #[default]
    Info,
    /// What is asked of the server all the time, too.
    Debug,
    /// Everything.
    Trace,
}

/// Why a text is not an endpoint.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a unix socket such as unix:///run/corten/corten.sock")]
pub(crate) struct InvalidEndpoint(String);

// === impl CgroupDriver ===

impl From<CgroupDriver> for DriverChoice {
    fn from(driver: CgroupDriver) -> Self {
        match driver {
            CgroupDriver::Auto => Self::Auto,
            CgroupDriver::Cgroupfs => Self::Driver(Driver::Cgroupfs),
            CgroupDriver::Systemd => Self::Driver(Driver::Systemd),
        }
    }
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            root: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            listen: Endpoint("/run/corten/corten.sock".into()),
            log: Level::default(),
            cni: network::Config::default(),
            cgroup: Cgroup::default(),
            image: image::Config::default(),
            metrics: Metrics::default(),
            pod: pod::Config::default(),
            streaming: Streaming::default(),
            runtimes: Runtimes::default(),
        }
    }
}

impl Config {
    /// Reads the file and the drop-ins in the directory of the same name with `.d` behind it, in order. The file
    /// must exist only if it was named.
    pub(crate) fn load(named: Option<&Path>) -> Result<Self, Error> {
        file::load(named.unwrap_or_else(|| Path::new(DEFAULT_PATH)), named.is_some())
    }

    /// The configuration of the pod crate, with what it shares with others.
    pub(crate) fn pod(&self) -> pod::Config {
        pod::Config {
            data: self.root.clone(),
            state: self.state.clone(),
            netns_dir: self.cni.netns_dir.clone(),
            handlers: self.runtimes.handlers(),
            ..self.pod.clone()
        }
    }

    /// The names that a RuntimeClass may use, the default one's empty name first.
    pub(crate) fn handlers(&self) -> Vec<String> {
        [String::new()].into_iter().chain(self.runtimes.handlers().into_keys()).collect()
    }

    /// The first value that no option can have, as its key and what is wrong with it.
    fn mistake(&self) -> Option<(String, &'static str)> {
        let image = &self.image;
        let optional = |path: &Option<PathBuf>| path.as_ref().is_none_or(|path| path.is_absolute());
        let paths = [
            ("root", self.root.is_absolute()),
            ("state", self.state.is_absolute()),
            ("cni.conf_dir", self.cni.conf_dir.is_absolute()),
            ("cni.bin_dirs", self.cni.bin_dirs.iter().all(|path| path.is_absolute())),
            ("cni.netns_dir", self.cni.netns_dir.is_absolute()),
            ("cni.cache_dir", self.cni.cache_dir.is_absolute()),
            ("image.registries_conf", image.registries_conf.is_absolute()),
            ("image.certs_dir", image.certs_dir.is_absolute()),
            ("image.hosts_dir", optional(&image.hosts_dir)),
            ("image.auth_file", optional(&image.auth_file)),
            ("image.policy", optional(&image.policy)),
            ("pod.seccomp_dir", self.pod.seccomp_dir.is_absolute()),
            ("runtimes.corten.path", optional(&self.runtimes.corten.path)),
        ];
        let numbers = [
            ("cni.plugin_timeout_seconds", self.cni.plugin_timeout_seconds > 0),
            ("image.max_parallel_pulls", image.max_parallel_pulls > 0),
            ("image.max_parallel_layers", image.max_parallel_layers > 0),
            ("pod.log_line_bytes", self.pod.log_line_bytes > 0),
        ];
        let first_bad =
            |list: &[(&'static str, bool)]| list.iter().find(|(_, good)| !good).map(|(key, _)| *key);
        first_bad(&paths)
            .map(|key| (key, "the path must be absolute"))
            .or_else(|| first_bad(&numbers).map(|key| (key, "the number must be at least 1")))
            .or_else(|| self.streaming.mistake())
            .map(|(key, reason)| (key.to_owned(), reason))
            .or_else(|| self.runtimes.mistake())
    }
}

// === impl Runtimes ===

impl Runtimes {
    fn handlers(&self) -> BTreeMap<String, HandlerConfig> {
        let own = ("corten".to_owned(), HandlerConfig::Native);
        let others = self.others.iter().map(|(name, other)| {
            let kind = match other.r#type {
                HandlerType::Oci => Some(Kind::Plain),
                HandlerType::Sandboxed => Some(Kind::Sandboxed),
                HandlerType::Native => None,
            };
            let handler = match (kind, other.path.clone()) {
                (Some(kind), Some(path)) => {
                    HandlerConfig::Oci(Program { path, kind, annotations: other.annotations.clone() })
                }
                _ => HandlerConfig::Native,
            };
            (name.clone(), handler)
        });
        others.chain([own]).collect()
    }

    fn mistake(&self) -> Option<(String, &'static str)> {
        self.others.iter().find_map(|(name, other)| {
            let (key, reason) = match (other.r#type, &other.path) {
                _ if name.is_empty() => ("", "a handler's name is empty: the default one is `corten`"),
                (HandlerType::Native, Some(_)) => {
                    (".path", "only [runtimes.corten] gives the native runtime a `path`")
                }
                (HandlerType::Native, None) if !other.annotations.is_empty() => {
                    (".annotations", "the native runtime takes no annotations")
                }
                (HandlerType::Native, None) => return None,
                (_, None) => ("", "a handler that is not native needs `path`, its program"),
                (_, Some(path)) if !path.is_absolute() => (".path", "the path must be absolute"),
                _ => return None,
            };
            Some((format!("runtimes.{name}{key}"), reason))
        })
    }
}

// === impl Endpoint ===

impl Endpoint {
    /// The socket's path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl std::str::FromStr for Endpoint {
    type Err = InvalidEndpoint;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let path = Path::new(text.strip_prefix("unix://").unwrap_or(text));
        let named = path.is_absolute() && path.file_name().is_some() && !text.contains('\0');
        if named { Ok(Self(path.to_owned())) } else { Err(InvalidEndpoint(text.to_owned())) }
    }
}

impl TryFrom<String> for Endpoint {
    type Error = InvalidEndpoint;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Endpoint> for String {
    fn from(endpoint: Endpoint) -> Self {
        endpoint.to_string()
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "unix://{}", self.0.display())
    }
}

// === impl Level ===

impl From<Level> for tracing::level_filters::LevelFilter {
    fn from(level: Level) -> Self {
        match level {
            Level::Error => Self::ERROR,
            Level::Warn => Self::WARN,
            Level::Info => Self::INFO,
            Level::Debug => Self::DEBUG,
            Level::Trace => Self::TRACE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_unix_sockets() {
        let check = |text: &str, expected: Option<&str>| {
            let parsed = text.parse::<Endpoint>().ok();
            assert_eq!(parsed.as_ref().map(Endpoint::path), expected.map(Path::new), "{text:?}");
        };
        check("unix:///run/corten/corten.sock", Some("/run/corten/corten.sock"));
        check("/run/x.sock", Some("/run/x.sock"));
        check("unix://run/x.sock", None);
        check("tcp://127.0.0.1:80", None);
        check("unix:///", None);
        check("", None);
    }

    #[test]
    fn defaults_have_no_mistake() {
        assert_eq!(Config::default().mistake(), None);
    }
}
