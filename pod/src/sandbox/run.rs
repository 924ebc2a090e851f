//! RunPodSandbox: namespaces, monitor with pause, and the network, side by side where they can be.

use std::fs::DirBuilder;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;
use std::sync::Arc;

use network::netns;
use runtime::{Launched, NamespaceMode};

use super::{Sandbox, files};
use crate::config::{PidMode, PodConfig, PodOrNode};
use crate::error::{Error, Result};
use crate::node::{Node, blocking, now_ns};
use crate::record::{PodPhase, PodRecord};
use crate::{id, sysctl, users};

impl Node {
    /// Makes and starts a pod; it is ready when this returns its id.
    pub(crate) async fn run_pod(self: &Arc<Self>, config: PodConfig) -> Result<String> {
        let node = self.clone();
        self.running_pods
            .run(config.metadata.clone(), || async move { node.run_pod_once(config).await })
            .await
    }

    async fn run_pod_once(self: Arc<Self>, config: PodConfig) -> Result<String> {
        if let Some(external) = self.handlers.external(&config.handler)? {
            external.ready().await?;
            external.check_pod(&config)?;
        }
        users::check_pod(&config, self.runtime.host())?;
        if let Some(parent) = &config.cgroup_parent {
            self.pod_cgroup(parent)?;
        }
        self.check_confinement(&config).await?;
        let sysctls = sysctl::for_pod(&config, &self.settings().sysctls)?;
        let pod = Arc::new(self.new_sandbox(config).await?);
        self.table.insert_pod(pod.clone())?;
        match self.bring_up(&pod, sysctls).await {
            Ok(()) => Ok(pod.id.clone()),
            Err(error) => {
                // The one teardown; when it fails the pod stays listed, not ready, for Stop and Remove.
                if let Err(teardown) = self.remove_pod_parts(&pod).await {
                    tracing::warn!(
                        pod = pod.id,
                        error = crate::error::chain(&teardown),
                        "left over after a failed start"
                    );
                }
                Err(error)
            }
        }
    }

    async fn new_sandbox(&self, config: PodConfig) -> Result<Sandbox> {
        let (id, config) = (id::random()?, Arc::new(config));
        let dir = self.pod_dir(&id);
        let record = PodRecord {
            id,
            boot_id: self.boot_id.clone(),
            config: config.clone(),
            created_at_ns: now_ns(),
            phase: PodPhase::Creating,
            netns: None,
            ips: Vec::new(),
            resized: None,
            enclosure: None,
            selinux: self.pod_labels(&config).await?,
        };
        Ok(Sandbox::new(record, dir, self.events.clone()))
    }

    async fn bring_up(self: &Arc<Self>, pod: &Arc<Sandbox>, sysctls: Vec<(String, String)>) -> Result<()> {
        let network = self.prepare(pod).await?;
        let ips = if let runtime::Network::New = network {
            // Only the pod itself can make a namespace that belongs to its user namespace.
            let made = self.keep(pod, self.launch(pod, network, sysctls).await)?;
            self.pin_netns(pod, made).await?;
            self.attach(pod).await?
        } else {
            let attach = self.attach(pod);
            let launch = self.launch(pod, network, sysctls);
            let (attached, launched) = tokio::join!(attach, launch);
            // Kept before any error is told, so that teardown finds it.
            self.keep(pod, launched)?;
            attached?
        };
        self.enclose(pod).await?;
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || {
            pod.update(&node.records, |record| {
                record.ips = ips;
                record.phase = PodPhase::Ready;
            })
        })
        .await
    }

    /// Follows what was launched; returns the network namespace that was made with it.
    fn keep(self: &Arc<Self>, pod: &Arc<Sandbox>, launched: Result<Launched>) -> Result<Option<OwnedFd>> {
        let Launched { monitor, events, network } = launched?;
        pod.set_monitor(Some(monitor));
        self.watch(pod.clone(), events);
        Ok(network)
    }

    /// The record first, so that whatever follows can be taken down after a crash; then the directory,
    /// the shared files and the network namespace.
    async fn prepare(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<runtime::Network> {
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || {
            let place = pod.has_network().then(|| netns::place(&node.config.netns_dir));
            let place = place.transpose().map_err(node.network_error("find a place for", &pod.id))?;
            pod.update(&node.records, |record| record.netns.clone_from(&place))?;
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&pod.dir)
                .map_err(Error::file("make directory", &pod.dir))?;
            files::create(&pod, &files::hostname(&pod.config)?)?;
            match place {
                None => Ok(runtime::Network::Node),
                Some(_) if pod.config.security.namespaces.users.is_some() => Ok(runtime::Network::New),
                Some(path) => node.create_netns(&pod, &path).map(runtime::Network::Made),
            }
        })
        .await
    }

    async fn pin_netns(self: &Arc<Self>, pod: &Arc<Sandbox>, made: Option<OwnedFd>) -> Result<()> {
        let (Some(path), Some(made)) = (pod.netns(), made) else { return Ok(()) };
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || netns::pin_at(&path, &made).map_err(node.network_error("pin", &pod.id))).await
    }

    fn create_netns(&self, pod: &Sandbox, path: &Path) -> Result<OwnedFd> {
        netns::create_at(path).map_err(self.network_error("make", &pod.id))?;
        netns::open(path).map_err(self.network_error("open", &pod.id))
    }

    async fn launch(
        &self,
        pod: &Sandbox,
        network: runtime::Network,
        sysctls: Vec<(String, String)>,
    ) -> Result<Launched> {
        let namespaces = &pod.config.security.namespaces;
        let mode = |pod_owned| if pod_owned { NamespaceMode::Pod } else { NamespaceMode::Node };
        let sandbox = runtime::Sandbox {
            id: pod.id.clone(),
            dir: pod.dir.clone(),
            hostname: files::hostname(&pod.config)?,
            network,
            users: namespaces.users,
            ipc: mode(namespaces.ipc == PodOrNode::Pod),
            pid: mode(namespaces.pid == PidMode::Pod),
            sysctls,
            labels: pod.labels(),
        };
        self.runtime.launch(sandbox).await.map_err(Error::runtime("start", "pod", &pod.id))
    }
}
