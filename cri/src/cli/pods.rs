//! `runp`, `pods`, `inspectp`, `stopp`, `rmp`.

use std::collections::BTreeMap;

use anyhow::Context;
use clap::{Args, ValueEnum};

use super::client::{Client, answer};
use super::output::{Format, age, print_line, print_table, print_value, short_id};
use super::{ConfigFile, Ids, Output, configs, info, message};
use crate::wire::cri::{
    ListPodSandboxRequest, ListPodSandboxResponse, PodSandbox, PodSandboxFilter, PodSandboxState,
    PodSandboxStateValue, PodSandboxStatusRequest, RemovePodSandboxRequest, RunPodSandboxRequest,
    StopPodSandboxRequest,
};

/// `runp`
#[derive(Debug, Args)]
pub(crate) struct Run {
    /// The RuntimeClass handler
    #[arg(long, default_value = "")]
    runtime: String,
    /// The pod's configuration
    config: ConfigFile,
}

/// `pods`
#[derive(Debug, Args)]
pub(crate) struct List {
    /// Only the pod with this id
    #[arg(long)]
    id: Option<String>,
    /// Only pods with this name
    #[arg(long)]
    name: Option<String>,
    /// Only pods of this Kubernetes namespace
    #[arg(long)]
    namespace: Option<String>,
    /// Only pods with these labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Only pods in this state
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

/// The CRI's pod states.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum State {
    Ready,
    #[value(name = "notready")]
    NotReady,
}

/// `inspectp`
#[derive(Debug, Args)]
pub(crate) struct Inspect {
    #[command(flatten)]
    ids: Ids,
    #[command(flatten)]
    output: Output,
}

/// `stopp`
#[derive(Debug, Args)]
pub(crate) struct Stop {
    #[command(flatten)]
    ids: Ids,
}

/// `rmp`
#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Also pods that are running
    #[arg(short, long)]
    force: bool,
    #[command(flatten)]
    ids: Ids,
}

/// Splits `KEY=VALUE`.
pub(crate) fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("{text:?} is not KEY=VALUE")),
    }
}

impl Run {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let request =
            RunPodSandboxRequest { config: Some(configs::pod(&self.config)?), runtime_handler: self.runtime };
        print_line(&answer(client.runtime.run_pod_sandbox(request).await)?.pod_sandbox_id)
    }
}

impl List {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let state = self.state.map(|state| match state {
            State::Ready => PodSandboxState::SandboxReady,
            State::NotReady => PodSandboxState::SandboxNotready,
        });
        let filter = PodSandboxFilter {
            id: self.id.clone().unwrap_or_default(),
            state: state.map(|state| PodSandboxStateValue { state: state.into() }),
            label_selector: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        let request = ListPodSandboxRequest { filter: Some(filter) };
        let mut response = answer(client.runtime.list_pod_sandbox(request).await)?;
        response.items.retain(|pod| self.picks(pod));
        response.items.sort_by_key(|pod| std::cmp::Reverse(pod.created_at));
        self.print(&response)
    }

    fn picks(&self, pod: &PodSandbox) -> bool {
        let metadata = pod.metadata.clone().unwrap_or_default();
        self.name.as_ref().is_none_or(|name| metadata.name == *name)
            && self.namespace.as_ref().is_none_or(|namespace| metadata.namespace == *namespace)
    }

    fn print(&self, response: &ListPodSandboxResponse) -> anyhow::Result<()> {
        if let Some(format) = self.output.format() {
            return print_value(&message::to_json("ListPodSandboxResponse", response)?, format);
        }
        let id = |id: &str| if self.no_trunc || self.quiet { id.to_owned() } else { short_id(id) };
        if self.quiet {
            return response.items.iter().try_for_each(|pod| print_line(&id(&pod.id)));
        }
        let row = |pod: &PodSandbox| {
            let metadata = pod.metadata.clone().unwrap_or_default();
            let state = if pod.state() == PodSandboxState::SandboxReady { "Ready" } else { "NotReady" };
            let handler = Some(pod.runtime_handler.clone()).filter(|name| !name.is_empty());
            [
                id(&pod.id),
                age(pod.created_at),
                state.to_owned(),
                metadata.name,
                metadata.namespace,
                metadata.attempt.to_string(),
                handler.unwrap_or_else(|| "(default)".to_owned()),
            ]
        };
        let rows: Vec<_> = response.items.iter().map(row).collect();
        print_table(["POD ID", "CREATED", "STATE", "NAME", "NAMESPACE", "ATTEMPT", "RUNTIME"], &rows)
    }
}

impl Inspect {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            let request = PodSandboxStatusRequest { pod_sandbox_id: id, verbose: true };
            let response = answer(client.runtime.pod_sandbox_status(request).await)?;
            let status = response.status.context("the server sent no status")?;
            let status = message::to_json("PodSandboxStatus", &status)?;
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
            answer(
                client.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await,
            )?;
            print_line(&format!("Stopped sandbox {id}"))?;
        }
        Ok(())
    }
}

impl Remove {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for id in self.ids.ids {
            if !self.force {
                refuse_ready(client, &id).await?;
            }
            answer(
                client.runtime.stop_pod_sandbox(StopPodSandboxRequest { pod_sandbox_id: id.clone() }).await,
            )?;
            answer(
                client
                    .runtime
                    .remove_pod_sandbox(RemovePodSandboxRequest { pod_sandbox_id: id.clone() })
                    .await,
            )?;
            print_line(&format!("Removed sandbox {id}"))?;
        }
        Ok(())
    }
}

async fn refuse_ready(client: &mut Client, id: &str) -> anyhow::Result<()> {
    let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: false };
    let status = answer(client.runtime.pod_sandbox_status(request).await)?.status.unwrap_or_default();
    anyhow::ensure!(
        status.state() != PodSandboxState::SandboxReady,
        "pod {id} is running: stop it first, or give --force"
    );
    Ok(())
}
