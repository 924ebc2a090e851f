//! Containers as a test asks for them, and as they run.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_cri::v1 as wire;

use crate::cgroup::Cgroup;
use crate::kubelet::spec;
use crate::log::{self, Record};
use crate::registry::BUSYBOX;
use crate::wait::{PATIENCE, slowness};
use crate::{Kubelet, Pod, Result, eventually, newest};

/// A container that is not yet made.
#[derive(Debug)]
pub struct ContainerBuilder<'a> {
    pod: &'a Pod<'a>,
    image: String,
    config: wire::ContainerConfig,
}

impl<'a> ContainerBuilder<'a> {
    pub(crate) fn new(pod: &'a Pod<'a>) -> Self {
        let name = format!("container-{}", pod.kubelet.unique());
        let config = wire::ContainerConfig {
            metadata: Some(wire::ContainerMetadata { name: name.clone(), attempt: 0 }),
            command: ["sleep", "100000"].map(str::to_owned).into(),
            log_path: format!("{name}.log"),
            linux: Some(wire::LinuxContainerConfig {
                security_context: Some(wire::LinuxContainerSecurityContext {
                    namespace_options: pod
                        .config
                        .linux
                        .as_ref()
                        .and_then(|linux| linux.security_context.as_ref()?.namespace_options.clone()),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        Self { pod, image: BUSYBOX.to_owned(), config }
    }

    /// Changes anything of the configuration.
    pub fn with(mut self, change: impl FnOnce(&mut wire::ContainerConfig)) -> Self {
        change(&mut self.config);
        self
    }

    /// Changes the security context.
    pub fn security(mut self, change: impl FnOnce(&mut wire::LinuxContainerSecurityContext)) -> Self {
        change(self.config.linux.get_or_insert_default().security_context.get_or_insert_default());
        self
    }

    /// Changes the limits.
    pub fn limits(mut self, change: impl FnOnce(&mut wire::LinuxContainerResources)) -> Self {
        change(self.config.linux.get_or_insert_default().resources.get_or_insert_default());
        self
    }

    /// Runs another image, with the image's own command.
    pub fn image(mut self, reference: &str) -> Self {
        reference.clone_into(&mut self.image);
        self.config.command.clear();
        self
    }

    /// Replaces the image's entry point.
    pub fn command<const N: usize>(mut self, command: [&str; N]) -> Self {
        self.config.command = command.map(str::to_owned).into();
        self
    }

    /// Runs a shell script.
    pub fn sh(self, script: &str) -> Self {
        self.command(["sh", "-c", script])
    }

    /// Replaces the image's command.
    pub fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.config.args = args.map(str::to_owned).into();
        self
    }

    /// Runs as this user.
    pub fn user(self, id: i64) -> Self {
        self.security(|security| security.run_as_user = Some(wire::Int64Value { value: id }))
    }

    /// Binds a path of the host; `change` may set more than its two ends.
    pub fn mount(mut self, host: &str, container: &str, change: impl FnOnce(&mut wire::Mount)) -> Self {
        let mut mount = wire::Mount {
            host_path: host.to_owned(),
            container_path: container.to_owned(),
            ..Default::default()
        };
        change(&mut mount);
        self.config.mounts.push(mount);
        self
    }

    /// The request as it would be sent, with the image pulled.
    pub async fn request(mut self) -> Result<wire::CreateContainerRequest> {
        let image = self.pod.kubelet.image(&self.image).await?;
        self.config.image =
            Some(wire::ImageSpec { user_specified_image: self.image.clone(), ..spec(&image) });
        Ok(wire::CreateContainerRequest {
            pod_sandbox_id: self.pod.id.clone(),
            config: Some(self.config),
            sandbox_config: Some(self.pod.config.clone()),
        })
    }

    /// Makes it.
    pub async fn create(self) -> Result<Container<'a>> {
        let pod = self.pod;
        let request = self.request().await?;
        Container::create(pod, request).await.context("create a container")
    }

    /// Makes and starts it.
    pub async fn start(self) -> Result<Container<'a>> {
        let container = self.create().await?;
        container.start().await.context("start a container")?;
        Ok(container)
    }

    /// Makes it, and expects to be refused.
    pub async fn refused(self) -> Result<tonic::Status> {
        let pod = self.pod;
        let request = self.request().await?;
        match Container::create(pod, request).await {
            Ok(container) => bail!("container {} was made and should not be", container.id),
            Err(status) => Ok(status),
        }
    }

    /// Makes and starts it, and expects either to be refused.
    pub async fn does_not_start(self) -> Result<tonic::Status> {
        let pod = self.pod;
        let request = self.request().await?;
        match Container::create(pod, request).await {
            Ok(container) => match container.start().await {
                Ok(()) => bail!("container {} runs and should not", container.id),
                Err(status) => Ok(status),
            },
            Err(status) => Ok(status),
        }
    }
}

/// A container that was made; removed with its pod.
#[derive(Debug)]
pub struct Container<'a> {
    /// The client that made it.
    pub kubelet: &'a Kubelet,
    /// Its id.
    pub id: String,
    log: PathBuf,
}

/// What an ExecSync gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Exit code.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

impl<'a> Container<'a> {
    /// Sends a request to make a container.
    pub async fn create(
        pod: &'a Pod<'a>,
        request: wire::CreateContainerRequest,
    ) -> Result<Self, tonic::Status> {
        let log_path = request.config.as_ref().map(|config| config.log_path.clone()).unwrap_or_default();
        let id = pod.kubelet.cri().runtime.create_container(request).await?.into_inner().container_id;
        Ok(Self { kubelet: pod.kubelet, id, log: pod.log_directory().join(log_path) })
    }

    /// Sends a request to make a container that uses what `k8s-cri` does not know.
    pub async fn create_newest(
        pod: &'a Pod<'a>,
        request: newest::CreateContainerRequest,
    ) -> Result<Self, tonic::Status> {
        let log_path = request.config.as_ref().map(|config| config.log_path.clone()).unwrap_or_default();
        let id = pod.kubelet.cri().newest.create_container(request).await?.into_inner().container_id;
        Ok(Self { kubelet: pod.kubelet, id, log: pod.log_directory().join(log_path) })
    }

    /// Its status, with what `k8s-cri` does not know.
    pub async fn newest_status(&self) -> Result<newest::ContainerStatus> {
        let request = newest::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let status = self.kubelet.cri().newest.container_status(request).await?.into_inner().status;
        status.context("a status in the answer")
    }

    /// Starts it.
    pub async fn start(&self) -> Result<(), tonic::Status> {
        let request = wire::StartContainerRequest { container_id: self.id.clone() };
        self.kubelet.cri().runtime.start_container(request).await.map(drop)
    }

    /// Stops it, killing it after `grace`.
    pub async fn stop(&self, grace: Duration) -> Result<(), tonic::Status> {
        let timeout = i64::try_from(grace.as_secs()).unwrap_or(i64::MAX);
        let request = wire::StopContainerRequest { container_id: self.id.clone(), timeout };
        self.kubelet.cri().runtime.stop_container(request).await.map(drop)
    }

    /// Removes it.
    pub async fn remove(&self) -> Result<(), tonic::Status> {
        let request = wire::RemoveContainerRequest { container_id: self.id.clone() };
        self.kubelet.cri().runtime.remove_container(request).await.map(drop)
    }

    /// Its status.
    pub async fn status(&self) -> Result<wire::ContainerStatus> {
        let request = wire::ContainerStatusRequest { container_id: self.id.clone(), verbose: false };
        let status = self.kubelet.cri().runtime.container_status(request).await?.into_inner().status;
        status.context("a status in the answer")
    }

    /// What the runtime tells of it when asked to be verbose.
    pub async fn info(&self) -> Result<serde_json::Value> {
        let request = wire::ContainerStatusRequest { container_id: self.id.clone(), verbose: true };
        let answer = self.kubelet.cri().runtime.container_status(request).await?.into_inner();
        let info = answer.info.get("info").context("info of the container")?;
        serde_json::from_str(info).context("the container's info as JSON")
    }

    /// Its first process, as the host counts.
    pub async fn pid(&self) -> Result<i32> {
        let info = self.info().await?;
        let pid = info.get("pid").and_then(serde_json::Value::as_i64).context("a pid in the info")?;
        Ok(i32::try_from(pid)?)
    }

    /// The cgroups of its first process.
    pub async fn cgroup(&self) -> Result<Cgroup> {
        Cgroup::of(self.pid().await?)
    }

    /// Waits until it has ended.
    pub async fn exited(&self) -> Result<wire::ContainerStatus> {
        eventually(&format!("container {} exits", self.id), async || {
            let status = self.status().await?;
            Ok((status.state() == wire::ContainerState::ContainerExited).then_some(status))
        })
        .await
    }

    /// Runs a command in it, at most for `timeout`.
    pub async fn exec_for<const N: usize>(
        &self,
        timeout: Duration,
        command: [&str; N],
    ) -> Result<Output, tonic::Status> {
        let request = wire::ExecSyncRequest {
            container_id: self.id.clone(),
            cmd: command.map(str::to_owned).into(),
            timeout: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        };
        let answer = self.kubelet.cri().runtime.exec_sync(request).await?.into_inner();
        Ok(Output {
            code: answer.exit_code,
            stdout: String::from_utf8_lossy(&answer.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&answer.stderr).into_owned(),
        })
    }

    /// Runs a command in it.
    pub async fn exec<const N: usize>(&self, command: [&str; N]) -> Result<Output, tonic::Status> {
        self.exec_for(PATIENCE * slowness(), command).await
    }

    /// Runs a shell script in it, which must succeed, and returns its output without the last newline.
    pub async fn sh(&self, script: &str) -> Result<String> {
        let output = self.exec(["sh", "-c", script]).await?;
        if output.code != 0 {
            bail!("{script:?} in the container ended with {output:?}");
        }
        Ok(output.stdout.trim_end_matches('\n').to_owned())
    }

    /// Path of its log.
    pub fn log_path(&self) -> &PathBuf {
        &self.log
    }

    /// The records of its log.
    pub fn log(&self) -> Result<Vec<Record>> {
        log::read(&self.log)
    }

    /// The lines that it wrote to a stream.
    pub fn lines(&self, stream: &str) -> Result<Vec<String>> {
        log::lines(&self.log, stream)
    }

    /// Waits until it has written a line that contains `part`.
    pub async fn says(&self, part: &str) -> Result<String> {
        eventually(&format!("the log says {part:?}"), async || {
            Ok(self.lines("stdout")?.into_iter().find(|line| line.contains(part)))
        })
        .await
    }

    /// Its usage.
    pub async fn stats(&self) -> Result<wire::ContainerStats> {
        let request = wire::ContainerStatsRequest { container_id: self.id.clone() };
        let stats = self.kubelet.cri().runtime.container_stats(request).await?.into_inner().stats;
        stats.context("stats in the answer")
    }
}
