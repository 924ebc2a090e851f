//! Pods and their containers: records, lifecycle, and the OCI spec of a container.
//!
//! [`Pods`] is the whole interface: one method for each verb of the CRI, in domain types. A verb's
//! file is named after it (`sandbox/run.rs`, `container/create.rs`). The daemon may be killed at any
//! line: what is in memory is a cache of the records, the monitors and the kernel (`recover`), and
//! whatever takes something down is the one idempotent teardown (`sandbox/remove.rs`,
//! `container/remove.rs`). No protobuf and no HTTP here.
#![forbid(unsafe_code)]

pub mod config;
pub mod event;
pub mod status;
pub mod stream;

mod confinement;
mod container;
mod error;
mod filter;
mod handler;
mod id;
mod inspect;
mod node;
mod record;
mod recover;
mod sandbox;
mod signal;
mod spec;
mod stats;
mod sysctl;
mod table;
mod task;
#[cfg(test)]
mod testing;
mod users;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use image::Images;
use network::Network;
use runtime::Runtime;
use tokio::net::TcpStream;

pub use self::error::{Error, Result, chain};
pub use self::handler::{HandlerConfig, Program};
pub use self::node::Config;

use self::config::{ContainerConfig, PodConfig, PodResources, Resources};
use self::event::{Listener, Snapshot};
use self::node::Node;
use self::status::{
    ContainerFilter, ContainerStats, ContainerStatus, DiskUsage, ExecOutput, HandlerStatus, Metrics,
    PodFilter, PodStats, PodStatus,
};
use self::stream::{Session, Stdio};

/// All pods of the node; cheap to clone.
///
/// Ids may be given by their unique beginnings. Work goes on when a future is dropped: only the
/// waiting ends, and a repeated request joins it.
#[derive(Debug, Clone)]
pub struct Pods {
    node: Arc<Node>,
}

impl Pods {
    /// Takes in what an earlier daemon left, and is ready to serve.
    pub async fn open(config: Config, runtime: Runtime, images: Images, network: Network) -> Result<Self> {
        let node = Arc::new(Node::new(config, runtime, images, network)?);
        node.share_layers().await;
        node.handlers.probe().await;
        node.recover().await?;
        node.keep_measuring();
        Ok(Self { node })
    }

    /// Takes the limits, kernel parameters and the like from a new configuration, for what is made from now on. Where
    /// things are does not change.
    pub fn reconfigure(&self, config: Config) {
        self.node.set_settings(config);
    }

    /// Makes and starts a pod; it is ready when this returns its id (RunPodSandbox).
    pub async fn run(&self, config: PodConfig) -> Result<String> {
        self.node.run_pod(config).await
    }

    /// Ends all containers and releases the network (StopPodSandbox). Fine when stopped or unknown.
    pub async fn stop(&self, id: &str) -> Result<()> {
        self.node.stop_pod(id).await
    }

    /// Stops the pod if need be and removes all of it (RemovePodSandbox). Fine when unknown.
    pub async fn remove(&self, id: &str) -> Result<()> {
        self.node.remove_pod(id).await
    }

    /// Takes note of a pod's new size (UpdatePodSandboxResources).
    pub async fn resize(&self, id: &str, told: PodResources) -> Result<()> {
        self.node.resize_pod(id, told).await
    }

    /// What a pod is found to be (PodSandboxStatus).
    pub fn status(&self, id: &str) -> Result<Arc<PodStatus>> {
        self.node.table.pod(id)?.status().ok_or_else(|| Error::pod_not_found(id))
    }

    /// What a pod and its containers are found to be at one time (PodSandboxStatus).
    pub fn snapshot(&self, id: &str) -> Result<Snapshot> {
        let pod = self.node.table.pod(id)?;
        pod.status().ok_or_else(|| Error::pod_not_found(id))?;
        Ok(self.node.events.snapshot(&pod))
    }

    /// Listens to what happens to pods and containers from now on (GetContainerEvents).
    pub fn listen(&self) -> Listener {
        self.node.events.listen()
    }

    /// Ends all listening, since the daemon stops.
    pub fn end_listening(&self) {
        self.node.events.close();
    }

    /// The pods that the filter picks, the oldest first (ListPodSandbox).
    pub fn list(&self, filter: &PodFilter) -> Vec<Arc<PodStatus>> {
        let pods = self.node.table.pods().into_iter().filter_map(|pod| pod.status());
        let mut pods: Vec<_> = pods.filter(|pod| filter.matches(pod)).collect();
        pods.sort_by_key(|pod| pod.created_at_ns);
        pods
    }

    /// Prepares a container in a pod; it waits for [`Pods::start`] when this returns its id (CreateContainer).
    pub async fn create(&self, pod: &str, config: ContainerConfig) -> Result<String> {
        self.node.create_container(pod, config).await
    }

    /// Starts a created container; its command runs when this returns (StartContainer).
    pub async fn start(&self, id: &str) -> Result<()> {
        self.node.start_container(id).await
    }

    /// Asks a container to end and kills it after `grace` (StopContainer). Fine when ended or unknown.
    pub async fn stop_container(&self, id: &str, grace: Duration) -> Result<()> {
        self.node.stop_container(id, grace).await
    }

    /// Kills a container if need be and removes all of it but its log (RemoveContainer). Fine when unknown.
    pub async fn remove_container(&self, id: &str) -> Result<()> {
        self.node.remove_container(id).await
    }

    /// What a container is found to be (ContainerStatus).
    pub fn container_status(&self, id: &str) -> Result<Arc<ContainerStatus>> {
        self.node.table.container(id)?.status().ok_or_else(|| Error::container_not_found(id))
    }

    /// The containers that the filter picks, the oldest first (ListContainers).
    pub fn list_containers(&self, filter: &ContainerFilter) -> Vec<Arc<ContainerStatus>> {
        let containers = self.node.table.containers().into_iter().filter_map(|container| container.status());
        let mut containers: Vec<_> = containers.filter(|container| filter.matches(container)).collect();
        containers.sort_by_key(|container| container.created_at_ns);
        containers
    }

    /// Runs a command in a running container to its end, or until `timeout` (ExecSync).
    pub async fn exec_sync(
        &self,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        self.node.exec_sync(id, command, timeout).await
    }

    /// The id of a running container, or what an Exec or Attach of it is answered at once.
    pub fn running(&self, id: &str) -> Result<String> {
        self.node.running(id).map(|container| container.id.clone())
    }

    /// Runs a command in a running container for someone who follows it (Exec).
    pub async fn exec(&self, id: &str, command: Vec<String>, stdio: Stdio) -> Result<Session> {
        self.node.exec(id, command, stdio).await
    }

    /// Follows a running container's own process from now on (Attach).
    pub async fn attach(&self, id: &str, stdio: Stdio) -> Result<Session> {
        self.node.attach_to(id, stdio).await
    }

    /// The id of a ready pod, or what a PortForward of it is answered at once.
    pub fn ready(&self, pod: &str) -> Result<String> {
        self.node.ready(pod).map(|pod| pod.id.clone())
    }

    /// Connects to a port of a pod, as a process in it would to 127.0.0.1 or ::1 (PortForward).
    pub async fn dial(&self, pod: &str, port: u16) -> Result<TcpStream> {
        self.node.dial(pod, port).await
    }

    /// Goes on logging into a new file of the old name (ReopenContainerLog).
    pub async fn reopen_log(&self, id: &str) -> Result<()> {
        self.node.reopen_log(id).await
    }

    /// Changes the limits that are given, all or none (UpdateContainerResources).
    pub async fn update(&self, id: &str, resources: Resources) -> Result<()> {
        self.node.update_container(id, resources).await
    }

    /// What a container uses (ContainerStats).
    pub async fn container_stats(&self, id: &str) -> Result<ContainerStats> {
        self.node.container_stats(id).await
    }

    /// What the running containers use that the filter picks (ListContainerStats).
    pub async fn list_container_stats(&self, filter: ContainerFilter) -> Vec<ContainerStats> {
        self.node.list_container_stats(filter).await
    }

    /// What a pod uses (PodSandboxStats).
    pub async fn pod_stats(&self, id: &str) -> Result<PodStats> {
        self.node.pod_stats(id).await
    }

    /// What the ready pods use that the filter picks (ListPodSandboxStats).
    pub async fn list_pod_stats(&self, filter: PodFilter) -> Vec<PodStats> {
        self.node.list_pod_stats(filter).await
    }

    /// Everything that is counted of the ready pods (ListPodSandboxMetrics).
    pub async fn list_metrics(&self) -> Metrics {
        self.node.list_metrics().await
    }

    /// What all writable layers take (ImageFsInfo); `images` is where the images are.
    pub fn writable_layers(&self, images: &Path) -> DiskUsage {
        self.node.writable_layers(images)
    }

    /// The `info` of a verbose PodSandboxStatus, without the configuration.
    pub async fn inspect_pod(&self, id: &str) -> Result<serde_json::Value> {
        self.node.inspect_pod(id).await
    }

    /// The `info` of a verbose ContainerStatus, without the configuration.
    pub async fn inspect_container(&self, id: &str) -> Result<serde_json::Value> {
        self.node.inspect_container(id).await
    }

    /// The versions of the monitors that live, one each.
    pub fn monitors(&self) -> Vec<u16> {
        let pods = self.node.table.pods().into_iter();
        pods.filter_map(|pod| Some(pod.monitor()?.version())).collect()
    }

    /// The runtime handlers, the default one's empty name first.
    pub fn handlers(&self) -> Vec<HandlerStatus> {
        self.node.handlers.status(self.node.runtime.host())
    }

    /// The image service.
    pub fn images(&self) -> &Images {
        &self.node.images
    }

    /// The pods' network.
    pub fn network(&self) -> &Network {
        &self.node.network
    }

    /// The runtime below.
    pub fn runtime(&self) -> &Runtime {
        &self.node.runtime
    }
}
