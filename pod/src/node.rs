//! What all verbs share: the crates below, the records, the table, and the operations in flight.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{SystemTime, UNIX_EPOCH};

use image::Images;
use network::Network;
use runtime::Runtime;
use runtime::cgroup::Layout;
use runtime::selinux::Selinux;
use serde::{Deserialize, Serialize};

use crate::config::{ContainerMetadata, PodMetadata};
use crate::error::{Error, Result};
use crate::event::Events;
use crate::handler::{HandlerConfig, Handlers};
use crate::record::{Records, make_private_dir};
use crate::spec::HostFacts;
use crate::spec::filter::Filters;
use crate::stats::disk::Walker;
use crate::stats::{self, Meters};
use crate::table::Table;
use crate::task::Tasks;

/// How pods are run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Kernel parameters for every pod that has the namespace they belong to and does not set them.
    pub sysctls: BTreeMap<String, String>,
    /// Resource limits of every container, `RLIMIT_NOFILE = [soft, hard]`; what is not named is the daemon's own.
    pub rlimits: BTreeMap<String, [u64; 2]>,
    /// Log lines are split at this many bytes.
    pub log_line_bytes: usize,
    /// Where network namespaces are pinned; `[cni] netns_dir` sets it.
    #[serde(skip)]
    pub netns_dir: PathBuf,
    /// Where seccomp profiles with relative names are, as the kubelet places them.
    pub seccomp_dir: PathBuf,
    /// `/var/lib/corten`; `--root` sets it.
    #[serde(skip)]
    pub data: PathBuf,
    /// `/run/corten`; `--state` sets it.
    #[serde(skip)]
    pub state: PathBuf,
    /// RuntimeClass handlers besides the default one, by name; `[runtimes.NAME]` sets them.
    #[serde(skip)]
    pub handlers: BTreeMap<String, HandlerConfig>,
}

impl Default for Config {
    fn default() -> Self {
        let sysctl = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Self {
            sysctls: BTreeMap::from([
                sysctl("net.ipv4.ip_unprivileged_port_start", "0"),
                sysctl("net.ipv4.ping_group_range", "0 2147483647"),
            ]),
            rlimits: BTreeMap::new(),
            log_line_bytes: 16 << 10,
            netns_dir: "/run/netns".into(),
            seccomp_dir: "/var/lib/kubelet/seccomp".into(),
            data: "/var/lib/corten".into(),
            state: "/run/corten".into(),
            handlers: BTreeMap::new(),
        }
    }
}

impl Config {
    /// The resource limits of containers: name, soft, hard.
    pub(crate) fn limits(&self) -> Vec<(String, u64, u64)> {
        self.rlimits.iter().map(|(name, [soft, hard])| (name.clone(), *soft, *hard)).collect()
    }
}

/// Everything behind the facade.
#[derive(Debug)]
pub(crate) struct Node {
    pub config: Config,
    /// What of the configuration may change while the daemon runs; see [`Node::settings`].
    settings: RwLock<Arc<Config>>,
    pub runtime: Runtime,
    pub images: Images,
    pub network: Network,
    pub records: Records,
    pub table: Arc<Table>,
    /// Where changes of pods and containers are told.
    pub events: Arc<Events>,
    pub boot_id: String,
    /// Where the file system of the writable layers is mounted.
    pub mountpoint: PathBuf,
    /// Walks the writable layers.
    pub walker: Walker,
    /// How many cgroups are kept open.
    pub meters: Meters,
    pub host_facts: HostFacts,
    /// None where it is off.
    pub selinux: Option<Selinux>,
    pub filters: Filters,
    pub handlers: Handlers,
    pub running_pods: Tasks<PodMetadata, String>,
    pub stopping_pods: Tasks<String, ()>,
    pub removing_pods: Tasks<String, ()>,
    pub creating_containers: Tasks<(String, ContainerMetadata), String>,
    pub starting_containers: Tasks<String, ()>,
    pub removing_containers: Tasks<String, ()>,
    pub releasing_bundles: Tasks<String, ()>,
}

impl Node {
    pub(crate) fn new(config: Config, runtime: Runtime, images: Images, network: Network) -> Result<Self> {
        make_private_dir(&config.data)?;
        let records = Records::open(&config.data)?;
        make_private_dir(&config.data.join("containers"))?;
        make_private_dir(&config.state.join("pods"))?;
        let host_facts = HostFacts {
            capabilities: runtime.host().capabilities.clone(),
            rlimits: config.limits(),
            cgroup_v2: runtime.cgroups().layout() == Layout::V2,
        };
        let table = Arc::new(Table::default());
        Ok(Self {
            records,
            runtime,
            images,
            network,
            events: Arc::new(Events::new(&table)),
            table,
            boot_id: crate::record::boot_id()?,
            mountpoint: stats::mountpoint(&config.data.join("containers"))?,
            walker: Walker::new(),
            meters: Meters::new(),
            host_facts,
            selinux: Selinux::detect(),
            filters: Filters::default(),
            handlers: Handlers::new(&config.handlers),
            running_pods: Tasks::new("RunPodSandbox"),
            stopping_pods: Tasks::new("StopPodSandbox"),
            removing_pods: Tasks::new("RemovePodSandbox"),
            creating_containers: Tasks::new("CreateContainer"),
            starting_containers: Tasks::new("StartContainer"),
            removing_containers: Tasks::new("RemoveContainer"),
            releasing_bundles: Tasks::new("the end of a bundle"),
            settings: RwLock::new(Arc::new(config.clone())),
            config,
        })
    }

    /// The configuration as it was read last: for what a new pod or container gets, not for where things are.
    pub(crate) fn settings(&self) -> Arc<Config> {
        self.settings.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// What is made from now on follows `config`; what is there stays as it is.
    pub(crate) fn set_settings(&self, config: Config) {
        *self.settings.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(config);
    }

    /// A pod's directory under the state directory.
    pub(crate) fn pod_dir(&self, id: &str) -> PathBuf {
        self.config.state.join("pods").join(id)
    }

    /// A container's directory under the data directory: its writable layer and its volumes.
    pub(crate) fn container_dir(&self, id: &str) -> PathBuf {
        self.config.data.join("containers").join(id)
    }

    pub(crate) fn network_error<'a>(
        &self,
        operation: &'static str,
        id: &'a str,
    ) -> impl FnOnce(network::Error) -> Error + use<'a> {
        move |source| Error::Network { operation, id: id.to_owned(), source: Arc::new(source) }
    }
}

/// Runs what may wait for a disk on a thread of its own; it runs to its end even if nobody waits.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(_) => Err(Error::TaskLost { operation: "a blocking step" }),
    }
}

/// Nanoseconds since 1970.
pub(crate) fn now_ns() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether something is there, links not followed.
pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
