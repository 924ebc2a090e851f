//! Pods as a test asks for them, and as they run.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;
use k8s_cri::v1 as wire;

use crate::container::ContainerBuilder;
use crate::{Kubelet, Result, host};

/// A pod that is not yet run.
#[derive(Debug)]
pub struct PodBuilder<'a> {
    kubelet: &'a Kubelet,
    config: wire::PodSandboxConfig,
    handler: String,
}

impl<'a> PodBuilder<'a> {
    pub(crate) fn new(kubelet: &'a Kubelet) -> Self {
        let number = kubelet.unique();
        let uid = format!("uid-{}-{number}", std::process::id());
        let name = format!("pod-{number}");
        let config = wire::PodSandboxConfig {
            metadata: Some(wire::PodSandboxMetadata {
                name: name.clone(),
                uid: uid.clone(),
                namespace: "tests".to_owned(),
                attempt: 0,
            }),
            hostname: name,
            log_directory: kubelet.node().dir().join("logs").join(&uid).display().to_string(),
            linux: Some(wire::LinuxPodSandboxConfig {
                security_context: Some(wire::LinuxSandboxSecurityContext {
                    namespace_options: Some(namespaces()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self { kubelet, config, handler: host::handler() }
    }

    /// Changes anything of the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut wire::PodSandboxConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the namespaces.
    pub fn namespaces(mut self, change: impl FnOnce(&mut wire::NamespaceOption)) -> Self {
        change(self.security().namespace_options.get_or_insert_default());
        self
    }

    /// Puts the pod into the node's network.
    pub fn host_network(self) -> Self {
        self.namespaces(|options| options.network = wire::NamespaceMode::Node.into())
            .with(|config| config.hostname.clear())
    }

    /// Lets its containers be privileged.
    pub fn privileged(mut self) -> Self {
        self.security().privileged = true;
        self
    }

    /// Sets a kernel parameter of the pod's namespaces.
    pub fn sysctl(mut self, name: &str, value: &str) -> Self {
        self.config.linux.get_or_insert_default().sysctls.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Leads a port of the host to one of the pod.
    pub fn port(mut self, host: i32, container: i32) -> Self {
        let protocol = wire::Protocol::Tcp.into();
        let mapping =
            wire::PortMapping { protocol, container_port: container, host_port: host, ..Default::default() };
        self.config.port_mappings.push(mapping);
        self
    }

    /// Names the runtime handler.
    pub fn handler(mut self, handler: &str) -> Self {
        handler.clone_into(&mut self.handler);
        self
    }

    fn security(&mut self) -> &mut wire::LinuxSandboxSecurityContext {
        self.config.linux.get_or_insert_default().security_context.get_or_insert_default()
    }

    /// The request as it would be sent, its cgroup and log directory made.
    pub async fn request(mut self) -> Result<wire::RunPodSandboxRequest> {
        let uid = self.config.metadata.as_ref().map(|metadata| metadata.uid.clone()).unwrap_or_default();
        let linux = self.config.linux.get_or_insert_default();
        if linux.cgroup_parent.is_empty() {
            linux.cgroup_parent = self.kubelet.node().make_pod_cgroup(&uid)?;
        }
        if !self.config.log_directory.is_empty() {
            fs::create_dir_all(&self.config.log_directory).context("make the pod's log directory")?;
        }
        Ok(wire::RunPodSandboxRequest { config: Some(self.config), runtime_handler: self.handler })
    }

    /// Runs it.
    pub async fn run(self) -> Result<Pod<'a>> {
        let kubelet = self.kubelet;
        let request = self.request().await?;
        Pod::run(kubelet, request).await.context("run a pod")
    }

    /// Runs it, and expects to be refused.
    pub async fn refused(self) -> Result<tonic::Status> {
        let kubelet = self.kubelet;
        let request = self.request().await?;
        match Pod::run(kubelet, request).await {
            Ok(pod) => anyhow::bail!("pod {} runs and should not", pod.id),
            Err(status) => Ok(status),
        }
    }
}

/// What the kubelet asks for: everything the pod's own, processes apart.
fn namespaces() -> wire::NamespaceOption {
    wire::NamespaceOption { pid: wire::NamespaceMode::Container.into(), ..Default::default() }
}

/// A pod that was run; removed at the end of the test.
#[derive(Debug)]
pub struct Pod<'a> {
    /// The client that made it.
    pub kubelet: &'a Kubelet,
    /// Its id.
    pub id: String,
    /// What was asked for.
    pub config: wire::PodSandboxConfig,
}

impl<'a> Pod<'a> {
    /// Sends a request to run a pod.
    pub async fn run(
        kubelet: &'a Kubelet,
        request: wire::RunPodSandboxRequest,
    ) -> Result<Self, tonic::Status> {
        let config = request.config.clone().unwrap_or_default();
        let id = kubelet.cri().runtime.run_pod_sandbox(request).await?.into_inner().pod_sandbox_id;
        kubelet.made(&id);
        Ok(Self { kubelet, id, config })
    }

    /// A container in it, busybox that sleeps unless told otherwise.
    pub fn container(&self) -> ContainerBuilder<'_> {
        ContainerBuilder::new(self)
    }

    /// Runs a shell script in a new container, waits for its end and returns its output lines.
    pub async fn output(&self, script: &str) -> Result<Vec<String>> {
        let container = self.container().sh(script).start().await?;
        container.exited().await?;
        container.lines("stdout")
    }

    /// Its status.
    pub async fn status(&self) -> Result<wire::PodSandboxStatus> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: false };
        let status = self.kubelet.cri().runtime.pod_sandbox_status(request).await?.into_inner().status;
        status.context("a status in the answer")
    }

    /// What the runtime tells of it when asked to be verbose.
    pub async fn info(&self) -> Result<serde_json::Value> {
        let request = wire::PodSandboxStatusRequest { pod_sandbox_id: self.id.clone(), verbose: true };
        let answer = self.kubelet.cri().runtime.pod_sandbox_status(request).await?.into_inner();
        serde_json::from_str(answer.info.get("info").context("info of the pod")?)
            .context("the pod's info as JSON")
    }

    /// Its first address.
    pub async fn ip(&self) -> Result<String> {
        let network = self.status().await?.network.context("a network in the pod's status")?;
        Ok(network.ip)
    }

    /// Stops it.
    pub async fn stop(&self) -> Result<(), tonic::Status> {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: self.id.clone() };
        self.kubelet.cri().runtime.stop_pod_sandbox(request).await.map(drop)
    }

    /// Stops and removes it.
    pub async fn remove(&self) -> Result<(), tonic::Status> {
        self.kubelet.remove_pod(&self.id).await
    }

    /// Where its containers' logs are.
    pub fn log_directory(&self) -> PathBuf {
        Path::new(&self.config.log_directory).to_owned()
    }
}
