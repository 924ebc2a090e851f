//! `run`: pod, container, output and clean-up in one, for trying an image.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::client::{Client, answer};
use super::exec::exit_code;
use super::logs::{Log, status};
use super::pull::pull;
use crate::wire::cri::{
    ContainerConfig, ContainerMetadata, CreateContainerRequest, ImageSpec, ImageStatusRequest, KeyValue,
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, RemovePodSandboxRequest, RunPodSandboxRequest, StartContainerRequest,
    StopPodSandboxRequest,
};

/// `run`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Set a variable of the environment
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = super::pods::label)]
    env: Vec<(String, String)>,
    /// Whose network it uses
    #[arg(long, value_enum, default_value_t = Network::Pod)]
    network: Network,
    /// The RuntimeClass handler
    #[arg(long, default_value = "")]
    runtime: String,
    /// The image; pulled when it is not here
    image: String,
    /// The command, instead of the image's
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

/// Whose network a pod uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Network {
    /// One of its own, by CNI
    Pod,
    /// The node's
    Node,
}

impl Run {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let image = self.image_id(client).await?;
        let logs = LogDirectory::make()?;
        let config = self.pod_config(&logs);
        let request =
            RunPodSandboxRequest { config: Some(config.clone()), runtime_handler: self.runtime.clone() };
        let pod = answer(client.runtime.run_pod_sandbox(request).await)?.pod_sandbox_id;
        // However it ends, nothing is left.
        let result = tokio::select! {
            result = self.run_container(client, &pod, image, config) => result,
            _ = tokio::signal::ctrl_c() => Ok(ExitCode::from(130)),
        };
        answer(client.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: pod.clone() }).await)?;
        answer(client.runtime.remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: pod }).await)?;
        result
    }

    async fn image_id(&self, client: &mut Client) -> anyhow::Result<String> {
        let spec = ImageSpec { image: self.image.clone(), ..Default::default() };
        let request = ImageStatusRequest { image: Some(spec), verbose: false };
        match answer(client.images.image_status(request).await)?.image {
            Some(image) => Ok(image.id),
            None => pull(client, &self.image, None, false).await,
        }
    }

    fn pod_config(&self, logs: &LogDirectory) -> PodSandboxConfig {
        let name = format!("run-{}", std::process::id());
        let network = match self.network {
            Network::Pod => NamespaceMode::Pod,
            Network::Node => NamespaceMode::Node,
        };
        let namespaces = NamespaceOption {
            network: network.into(),
            pid: NamespaceMode::Container.into(),
            ..Default::default()
        };
        let security =
            LinuxSandboxSecurityContext { namespace_options: Some(namespaces), ..Default::default() };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                uid: name.clone(),
                namespace: "corten-run".to_owned(),
                attempt: 0,
                name: name.clone(),
            }),
            hostname: if self.network == Network::Pod { name } else { String::new() },
            log_directory: logs.0.to_string_lossy().into_owned(),
            linux: Some(LinuxPodSandboxConfig { security_context: Some(security), ..Default::default() }),
            ..Default::default()
        }
    }

    async fn run_container(
        &self,
        client: &mut Client,
        pod: &str,
        image: String,
        pod_config: PodSandboxConfig,
    ) -> anyhow::Result<ExitCode> {
        let config = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "run".to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image, user_specified_image: self.image.clone(), ..Default::default() }),
            // As with docker run, the words after the image are arguments of its entry point.
            args: self.command.clone(),
            envs: self
                .env
                .iter()
                .map(|(key, value)| KeyValue { key: key.clone(), value: value.clone().into() })
                .collect(),
            log_path: "run.log".to_owned(),
            ..Default::default()
        };
        let request = CreateContainerRequest {
            pod_sandbox_id: pod.to_owned(),
            config: Some(config),
            sandbox_config: Some(pod_config),
        };
        let id = answer(client.runtime.create_container(request).await)?.container_id;
        let mut log = Log::open(&PathBuf::from(status(client, &id).await?.log_path), false).await?;
        answer(client.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await)?;
        log.follow(client, &id).await?;
        Ok(exit_code(status(client, &id).await?.exit_code))
    }
}

/// A directory for the log that goes away with the command.
struct LogDirectory(PathBuf);

impl LogDirectory {
    fn make() -> anyhow::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        let path = std::env::temp_dir().join(format!("corten-run-{}", std::process::id()));
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&path)
            .with_context(|| format!("make directory {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for LogDirectory {
    fn drop(&mut self) {
        // In the temporary directory, and gone at the next boot at the latest.
        drop(std::fs::remove_dir_all(&self.0));
    }
}
