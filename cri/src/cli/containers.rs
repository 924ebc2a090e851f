//! `create`, `start`, `ps`, `inspect`, `stop`, `rm`.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, ensure};
use clap::{Args, ValueEnum};

use super::client::{Client, answer};
use super::output::{Format, age, print_line, print_table, print_value, short_id};
use super::pods::label;
use super::{ConfigFile, Ids, Output, configs, info, message};
use crate::wire::cri::{
    Container, ContainerFilter, ContainerState, ContainerStateValue, ContainerStatusRequest,
    CreateContainerRequest, ListContainersRequest, ListContainersResponse, ListPodSandboxRequest,
    PodSandboxMetadata, RemoveContainerRequest, StartContainerRequest, StopContainerRequest,
};

/// `create`
#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The pod's id
    pod: String,
    /// The container's configuration
    container_config: ConfigFile,
    /// The pod's configuration
    pod_config: ConfigFile,
}

/// `start`
#[derive(Debug, Args)]
pub(crate) struct Start {
    #[command(flatten)]
    ids: Ids,
}

/// `ps`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Also containers that do not run
    #[arg(short, long)]
    all: bool,
    /// Only the container with this id
    #[arg(long)]
    id: Option<String>,
    /// Only containers of this pod
    #[arg(short, long)]
    pod: Option<String>,
    /// Only containers with this name
    #[arg(long)]
    name: Option<String>,
    /// Only containers with these labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Only containers in this state
    #[arg(short, long, value_enum)]
    state: Option<State>,
    /// Only the ids
    #[arg(short, long)]
    quiet: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: Output,
}

/// The CRI's container states.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Created,
    Running,
    Exited,
    Unknown,
}

/// `inspect`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    ids: Ids,
    #[command(flatten)]
    output: Output,
}

/// `stop`
#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until it is killed
    #[arg(short, long, default_value_t = 0)]
    timeout: i64,
    #[command(flatten)]
    ids: Ids,
}

/// `rm`
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Also containers that are running
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    ids: Ids,
}

impl Create {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let request = CreateContainerRequest {
            pod_sandbox_id: self.pod,
            config: Some(configs::container(&self.container_config)?),
            sandbox_config: Some(configs::pod(&self.pod_config)?),
        };
        print_line(&answer(client.runtime.create_container(request).await)?.container_id)
    }
}

impl Start {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            answer(client.runtime.start_container(StartContainerRequest { container_id: id.clone() }).await)?;
            print_line(&id)?;
        }
        Ok(())
    }
}

impl List {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let default = if self.all { None } else { Some(State::Running) };
        let state = self.state.or(default).map(|state| match state {
            State::Created => ContainerState::ContainerCreated,
            State::Running => ContainerState::ContainerRunning,
            State::Exited => ContainerState::ContainerExited,
            State::Unknown => ContainerState::ContainerUnknown,
        });
        let filter = ContainerFilter {
            id: self.id.clone().unwrap_or_default(),
            pod_sandbox_id: self.pod.clone().unwrap_or_default(),
            state: state.map(|state| ContainerStateValue { state: state.into() }),
            label_selector: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        let request = ListContainersRequest { filter: Some(filter) };
        let mut response = answer(client.runtime.list_containers(request).await)?;
        let name = |container: &Container| container.metadata.clone().unwrap_or_default().name;
        response
            .containers
            .retain(|container| self.name.as_ref().is_none_or(|wanted| name(container) == *wanted));
        response.containers.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        self.print(client, &response).await
    }

    async fn print(&self, client: &mut Client, response: &ListContainersResponse) -> anyhow::Result<()> {
        if let Some(format) = self.output.format() {
            return print_value(&message::to_json("ListContainersResponse", response)?, format);
        }
        let id = |id: &str| if self.no_trunc || self.quiet { id.to_owned() } else { short_id(id) };
        if self.quiet {
            return response.containers.iter().try_for_each(|container| print_line(&id(&container.id)));
        }
        let pods = pod_names(client).await?;
        let row = |container: &Container| {
            let metadata = container.metadata.clone().unwrap_or_default();
            let pod = pods.get(&container.pod_sandbox_id).cloned().unwrap_or_default();
            let image = container.image.clone().unwrap_or_default();
            let image =
                Some(image.user_specified_image).filter(|name| !name.is_empty()).unwrap_or(image.image);
            [
                id(&container.id),
                image_name(&image),
                age(container.created_at),
                state_name(container.state()).to_owned(),
                metadata.name,
                metadata.attempt.to_string(),
                id(&container.pod_sandbox_id),
                pod.name,
                pod.namespace,
            ]
        };
        let rows: Vec<_> = response.containers.iter().map(row).collect();
        let headings =
            ["CONTAINER", "IMAGE", "CREATED", "STATE", "NAME", "ATTEMPT", "POD ID", "POD", "NAMESPACE"];
        print_table(headings, &rows)
    }
}

/// The name that the user gave, or the beginning of an id.
fn image_name(image: &str) -> String {
    let is_id = image.starts_with("sha256:")
        || (image.len() == 64 && image.bytes().all(|byte| byte.is_ascii_hexdigit()));
    if is_id { short_id(image) } else { image.to_owned() }
}

fn state_name(state: ContainerState) -> &'static str {
    match state {
        ContainerState::ContainerCreated => "Created",
        ContainerState::ContainerRunning => "Running",
        ContainerState::ContainerExited => "Exited",
        ContainerState::ContainerUnknown => "Unknown",
    }
}

async fn pod_names(client: &mut Client) -> anyhow::Result<HashMap<String, PodSandboxMetadata>> {
    let pods = answer(client.runtime.list_pod_sandbox(ListPodSandboxRequest::default()).await)?;
    Ok(pods.items.into_iter().map(|pod| (pod.id, pod.metadata.unwrap_or_default())).collect())
}

impl Inspect {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            let request = ContainerStatusRequest { container_id: id, verbose: true };
            let response = answer(client.runtime.container_status(request).await)?;
            let status = response.status.context("the server sent no status")?;
            let status = message::to_json("ContainerStatus", &status)?;
            print_value(
                &info::with_status(status, &response.info),
                self.output.format().unwrap_or(Format::Json),
            )?;
        }
        Ok(())
    }
}

impl Stop {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            let request = StopContainerRequest { container_id: id.clone(), timeout: self.timeout };
            answer(client.runtime.stop_container(request).await)?;
            print_line(&id)?;
        }
        Ok(())
    }
}

impl Remove {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            if !self.force {
                let request = ContainerStatusRequest { container_id: id.clone(), verbose: false };
                let status =
                    answer(client.runtime.container_status(request).await)?.status.unwrap_or_default();
                ensure!(
                    status.state() != ContainerState::ContainerRunning,
                    "container {id} is running: stop it first, or give --force"
                );
            }
            answer(
                client.runtime.remove_container(RemoveContainerRequest { container_id: id.clone() }).await,
            )?;
            print_line(&id)?;
        }
        Ok(())
    }
}
