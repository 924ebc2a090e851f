//! Pods' networks: namespaces that outlive every process, and the CNI plugins that fill them.
//!
//! Follows the CNI specification 1.1.0 and speaks every released version before it; results are cached
//! in libcni's format, so that other software reads them. Knows nothing of pods beyond an [`Attachment`],
//! and keeps no state but the cache: what was attached is taken down with what was cached then.
#![forbid(unsafe_code)]

mod attachment;
mod cni;
mod dial;
mod error;
mod metrics;
pub mod netns;
mod quantity;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use serde::{Deserialize, Serialize};

pub use attachment::{
    Attached, Attachment, Bandwidth, Dns, INTERFACE, InterfaceUsage, IpRange, PortMapping, Protocol,
};
use cni::{Chain, Watched};
pub use cni::{Verb, Version};
pub use dial::{dial, dial_address};
pub use error::{Error, NotReady, PluginError};
use metrics::Metrics;
pub use quantity::QuantityError;

/// Where networks are configured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Directory of CNI configurations; the first valid one in the order of names is the network.
    pub conf_dir: PathBuf,
    /// Directories of CNI plugins, searched in order.
    pub bin_dirs: Vec<PathBuf>,
    /// Directory of the pods' network namespaces; made a shared mount.
    pub netns_dir: PathBuf,
    /// Directory of CNI results, as libcni keeps them.
    pub cache_dir: PathBuf,
    /// Seconds that one plugin may take for one answer before it is killed.
    pub plugin_timeout_seconds: u64,
}

/// The node's network for pods.
#[derive(Debug, Clone)]
pub struct Network {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    config: Config,
    chain: Arc<Chain>,
    watched: Watched,
    metrics: Metrics,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            conf_dir: "/etc/cni/net.d".into(),
            bin_dirs: vec!["/opt/cni/bin".into(), "/usr/lib/cni".into()],
            netns_dir: "/run/netns".into(),
            cache_dir: "/var/lib/cni".into(),
            plugin_timeout_seconds: 60,
        }
    }
}

// === impl Network ===

impl Network {
    /// Reads the configuration and watches it from now on; to be called within a tokio runtime.
    pub fn open(config: Config) -> Result<Self, Error> {
        let chain = Arc::new(Chain::new(&config));
        let watched = Watched::open(&config.conf_dir, &chain)?;
        Ok(Self { shared: Arc::new(Shared { config, chain, watched, metrics: Metrics::new() }) })
    }

    /// Whether pods can have a network now; answered at once, from what the directory and the plugins last said.
    pub fn status(&self) -> Result<(), NotReady> {
        self.shared.watched.status(self.shared.chain.plugins())
    }

    /// The network and where its parts are, in the words of `crictl info`.
    pub fn show(&self) -> serde_json::Value {
        cni::show::configuration(&self.shared.config, self.shared.watched.network().ok().as_deref())
    }

    /// What the plugins made for a pod, in the words of `crictl inspectp`; none where they made nothing.
    pub fn show_result(&self, id: &str) -> Option<serde_json::Value> {
        self.shared.chain.result(id).as_ref().map(cni::show::result)
    }

    /// Adds a pod to the network. On failure everything that was added is taken down again.
    pub async fn attach(&self, attachment: &Attachment) -> Result<Attached, Error> {
        let network = self.shared.watched.network().map_err(Error::NotReady)?;
        let began = Instant::now();
        let added = self.shared.chain.add(&network, attachment).await;
        self.shared.metrics.took("ADD", began.elapsed(), &added);
        added
    }

    /// Takes a pod out of the network that it was added to, whatever the configuration says now. Idempotent.
    pub async fn detach(&self, attachment: &Attachment) -> Result<(), Error> {
        let network = self.shared.watched.network().ok();
        let began = Instant::now();
        let deleted = self.shared.chain.del(network.as_deref(), attachment).await;
        self.shared.metrics.took("DEL", began.elapsed(), &deleted);
        deleted
    }

    /// Waits for plugins that a killed daemon left at work on a pod, so that what they do can be undone.
    pub async fn settle(&self, id: &str) {
        cni::orphans::ended(id, Duration::from_secs(60)).await;
    }

    /// Asks the plugins whether a pod's network is still as they made it.
    pub async fn check(&self, attachment: &Attachment) -> Result<(), Error> {
        let network = self.shared.watched.network().ok();
        self.shared.chain.check(network.as_deref(), attachment).await
    }

    /// Names what is counted in a registry of metrics.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
    }

    /// Counters of the interfaces of each of these namespaces, loopback aside; all of them by one thread.
    pub fn usage(&self, pins: &[&Path]) -> Vec<Result<Vec<InterfaceUsage>, Error>> {
        netns::within_each(pins, netns::usage)
    }
}

/// Runs what waits for the kernel or a disk where it holds nobody up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going down, and the caller with it.
        Err(_) => std::future::pending().await,
    }
}
