//! The work that is measured: one pod with one container that sleeps, as a kubelet would ask for it.

use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use corten_tests::Result;
use corten_tests::cri::Cri;
use corten_tests::registry::BUSYBOX;
use k8s_cri::v1 as wire;
use k8s_cri::v1::security_profile::ProfileType;

/// What the containers run.
pub(crate) const IMAGE: &str = BUSYBOX;

static NEXT: AtomicU32 = AtomicU32::new(1);

/// Whose network the pods use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    Host,
    Cni,
}

impl Network {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Host => "host network",
            Self::Cni => "CNI bridge",
        }
    }
}

/// A pod that runs, and how long each step took.
#[derive(Debug)]
pub(crate) struct Running {
    pub pod: String,
    pub container: String,
    pub run: Duration,
    pub create: Duration,
    pub start: Duration,
}

/// Runs a pod and starts its container.
pub(crate) async fn up(cri: &Cri, dir: &Path, network: Network, cgroup: &str) -> Result<Running> {
    let mut runtime = cri.runtime.clone();
    let config = pod_config(dir, network, cgroup);
    let began = Instant::now();
    let request = wire::RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: String::new() };
    let pod = runtime.run_pod_sandbox(request).await.context("RunPodSandbox")?.into_inner().pod_sandbox_id;
    let run = began.elapsed();
    let began = Instant::now();
    let request = wire::CreateContainerRequest {
        pod_sandbox_id: pod.clone(),
        config: Some(container_config()),
        sandbox_config: Some(config),
    };
    let container =
        runtime.create_container(request).await.context("CreateContainer")?.into_inner().container_id;
    let create = began.elapsed();
    let began = Instant::now();
    let request = wire::StartContainerRequest { container_id: container.clone() };
    runtime.start_container(request).await.context("StartContainer")?;
    Ok(Running { pod, container, run, create, start: began.elapsed() })
}

/// Stops and removes container and pod, as the kubelet does it.
pub(crate) async fn down(cri: &Cri, running: &Running) -> Result {
    let mut runtime = cri.runtime.clone();
    let container_id = running.container.clone();
    let request = wire::StopContainerRequest { container_id: container_id.clone(), timeout: 0 };
    runtime.stop_container(request).await.context("StopContainer")?;
    runtime
        .remove_container(wire::RemoveContainerRequest { container_id })
        .await
        .context("RemoveContainer")?;
    let pod_sandbox_id = running.pod.clone();
    let request = wire::StopPodSandboxRequest { pod_sandbox_id: pod_sandbox_id.clone() };
    runtime.stop_pod_sandbox(request).await.context("StopPodSandbox")?;
    runtime
        .remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id })
        .await
        .context("RemovePodSandbox")?;
    Ok(())
}

/// Runs `true` in the container and returns how long it took.
pub(crate) async fn exec(cri: &Cri, container: &str) -> Result<Duration> {
    let mut runtime = cri.runtime.clone();
    let began = Instant::now();
    let cmd = vec!["/bin/true".to_owned()];
    let request = wire::ExecSyncRequest { container_id: container.to_owned(), cmd, timeout: 30 };
    let response = runtime.exec_sync(request).await.context("ExecSync")?.into_inner();
    ensure!(response.exit_code == 0, "true ended with {}", response.exit_code);
    Ok(began.elapsed())
}

/// Removes all pods, whoever made them.
pub(crate) async fn remove_all(cri: &Cri) -> Result {
    let mut runtime = cri.runtime.clone();
    let pods = runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default()).await?.into_inner().items;
    for pod in pods {
        let request = wire::StopPodSandboxRequest { pod_sandbox_id: pod.id.clone() };
        runtime.stop_pod_sandbox(request).await?;
        runtime.remove_pod_sandbox(wire::RemovePodSandboxRequest { pod_sandbox_id: pod.id }).await?;
    }
    Ok(())
}

fn pod_config(dir: &Path, network: Network, cgroup: &str) -> wire::PodSandboxConfig {
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("bench-{}-{number}", std::process::id());
    let mode = match network {
        Network::Host => wire::NamespaceMode::Node,
        Network::Cni => wire::NamespaceMode::Pod,
    };
    let namespaces = wire::NamespaceOption {
        network: mode.into(),
        pid: wire::NamespaceMode::Container.into(),
        ..Default::default()
    };
    wire::PodSandboxConfig {
        metadata: Some(wire::PodSandboxMetadata {
            name: name.clone(),
            uid: name.clone(),
            namespace: "bench".to_owned(),
            attempt: 0,
        }),
        hostname: if network == Network::Cni { name.clone() } else { String::new() },
        log_directory: dir.join("logs").join(name).to_string_lossy().into_owned(),
        linux: Some(wire::LinuxPodSandboxConfig {
            cgroup_parent: cgroup.to_owned(),
            security_context: Some(wire::LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces),
                seccomp: Some(runtime_default()),
                ..Default::default()
            }),
            ..Default::default()
        }),
        ..Default::default()
    }
}

fn container_config() -> wire::ContainerConfig {
    wire::ContainerConfig {
        metadata: Some(wire::ContainerMetadata { name: "sleep".to_owned(), attempt: 0 }),
        image: Some(wire::ImageSpec { image: IMAGE.to_owned(), ..Default::default() }),
        command: vec!["sleep".to_owned(), "3600".to_owned()],
        log_path: "0.log".to_owned(),
        linux: Some(wire::LinuxContainerConfig {
            resources: Some(wire::LinuxContainerResources {
                cpu_period: 100_000,
                cpu_quota: 50_000,
                cpu_shares: 512,
                memory_limit_in_bytes: 64 << 20,
                oom_score_adj: 500,
                ..Default::default()
            }),
            security_context: Some(wire::LinuxContainerSecurityContext {
                namespace_options: Some(wire::NamespaceOption {
                    pid: wire::NamespaceMode::Container.into(),
                    ..Default::default()
                }),
                seccomp: Some(runtime_default()),
                masked_paths: ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"]
                    .map(str::to_owned)
                    .to_vec(),
                readonly_paths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"]
                    .map(str::to_owned)
                    .to_vec(),
                ..Default::default()
            }),
        }),
        ..Default::default()
    }
}

fn runtime_default() -> wire::SecurityProfile {
    wire::SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), localhost_ref: String::new() }
}
