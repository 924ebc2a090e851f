//! `stats` and `statsp`: what containers and pods use, from two readings some time apart.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use clap::Args;

use super::client::{Client, answer};
use super::output::{clear_screen, print_table, print_value, short_id, size};
use super::pods::label;
use super::{Output, message};
use crate::wire::cri::{
    ContainerStats, ContainerStatsFilter, CpuUsage, ListContainerStatsRequest, ListContainerStatsResponse,
    ListPodSandboxStatsRequest, ListPodSandboxStatsResponse, PodSandboxStats, PodSandboxStatsFilter,
    UInt64Value,
};

/// `stats`
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Only the container with this id
    #[arg(value_name = "ID", conflicts_with = "container")]
    id: Option<String>,
    /// Only the container with this id
    #[arg(long = "id", value_name = "ID")]
    container: Option<String>,
    /// Only containers of this pod
    #[arg(short, long)]
    pod: Option<String>,
    /// Only containers with these labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Also containers that use nothing, since they do not run
    #[arg(short, long)]
    all: bool,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    sample: Sample,
    #[command(flatten)]
    output: Output,
}

/// `statsp`
#[derive(Debug, Args)]
pub(crate) struct PodStats {
    /// Only the pod with this id
    #[arg(value_name = "ID", conflicts_with = "pod")]
    id: Option<String>,
    /// Only the pod with this id
    #[arg(long = "id", value_name = "ID")]
    pod: Option<String>,
    /// Only pods with these labels
    #[arg(long, value_name = "KEY=VALUE", value_parser = label)]
    label: Vec<(String, String)>,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    sample: Sample,
    #[command(flatten)]
    output: Output,
}

/// How use is measured.
#[derive(Debug, Args)]
struct Sample {
    /// Seconds between the two readings of the processor
    #[arg(short, long, default_value_t = 1)]
    seconds: u64,
    /// Again and again, until it is interrupted
    #[arg(short, long)]
    watch: bool,
}

impl Stats {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        if let Some(format) = self.output.format() {
            let response = self.read(client).await?;
            return print_value(&message::to_json("ListContainerStatsResponse", &response)?, format);
        }
        loop {
            let before = self.read(client).await?;
            tokio::time::sleep(Duration::from_secs(self.sample.seconds)).await;
            let after = self.read(client).await?;
            let before: HashMap<String, &ContainerStats> =
                before.stats.iter().map(|stats| (id(stats), stats)).collect();
            let shown = after.stats.iter().filter(|stats| self.all || stats.cpu.is_some());
            let rows: Vec<_> = shown.map(|stats| self.row(stats, before.get(&id(stats)).copied())).collect();
            self.sample.clear_screen()?;
            print_table(["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES", "SWAP"], &rows)?;
            if !self.sample.watch {
                return Ok(());
            }
        }
    }

    async fn read(&self, client: &mut Client) -> anyhow::Result<ListContainerStatsResponse> {
        let filter = ContainerStatsFilter {
            id: self.id.clone().or_else(|| self.container.clone()).unwrap_or_default(),
            pod_sandbox_id: self.pod.clone().unwrap_or_default(),
            label_selector: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        answer(client.runtime.list_container_stats(request).await)
    }

    fn row(&self, stats: &ContainerStats, before: Option<&ContainerStats>) -> [String; 7] {
        let id = id(stats);
        let attributes = stats.attributes.clone().unwrap_or_default();
        let memory = stats.memory.as_ref().map_or(0, |memory| value(memory.working_set_bytes.as_ref()));
        let swap = stats.swap.as_ref().map_or(0, |swap| value(swap.swap_usage_bytes.as_ref()));
        let (disk, inodes) = stats
            .writable_layer
            .as_ref()
            .map_or((0, 0), |layer| (value(layer.used_bytes.as_ref()), value(layer.inodes_used.as_ref())));
        let percent = processor_percent(before.and_then(|before| before.cpu.as_ref()), stats.cpu.as_ref());
        [
            if self.no_trunc { id } else { short_id(&id) },
            attributes.metadata.unwrap_or_default().name,
            format!("{percent:.2}"),
            size(memory),
            size(disk),
            inodes.to_string(),
            size(swap),
        ]
    }
}

impl PodStats {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        if let Some(format) = self.output.format() {
            let response = self.read(client).await?;
            return print_value(&message::to_json("ListPodSandboxStatsResponse", &response)?, format);
        }
        loop {
            let before = self.read(client).await?;
            tokio::time::sleep(Duration::from_secs(self.sample.seconds)).await;
            let after = self.read(client).await?;
            let before: HashMap<String, CpuUsage> = before
                .stats
                .iter()
                .filter_map(|stats| Some((pod_id(stats), stats.linux.as_ref()?.cpu?)))
                .collect();
            let rows: Vec<_> =
                after.stats.iter().map(|stats| self.row(stats, before.get(&pod_id(stats)))).collect();
            self.sample.clear_screen()?;
            print_table(["POD", "POD ID", "CPU %", "MEM"], &rows)?;
            if !self.sample.watch {
                return Ok(());
            }
        }
    }

    async fn read(&self, client: &mut Client) -> anyhow::Result<ListPodSandboxStatsResponse> {
        let filter = PodSandboxStatsFilter {
            id: self.id.clone().or_else(|| self.pod.clone()).unwrap_or_default(),
            label_selector: self.label.iter().cloned().collect::<BTreeMap<_, _>>(),
        };
        let request = ListPodSandboxStatsRequest { filter: Some(filter) };
        answer(client.runtime.list_pod_sandbox_stats(request).await)
    }

    fn row(&self, stats: &PodSandboxStats, before: Option<&CpuUsage>) -> [String; 4] {
        let id = pod_id(stats);
        let attributes = stats.attributes.clone().unwrap_or_default();
        let linux = stats.linux.clone().unwrap_or_default();
        let memory = linux.memory.as_ref().map_or(0, |memory| value(memory.working_set_bytes.as_ref()));
        [
            attributes.metadata.unwrap_or_default().name,
            if self.no_trunc { id } else { short_id(&id) },
            format!("{:.2}", processor_percent(before, linux.cpu.as_ref())),
            size(memory),
        ]
    }
}

impl Sample {
    fn clear_screen(&self) -> anyhow::Result<()> {
        if self.watch { clear_screen() } else { Ok(()) }
    }
}

fn id(stats: &ContainerStats) -> String {
    stats.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default()
}

fn pod_id(stats: &PodSandboxStats) -> String {
    stats.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default()
}

fn value(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

/// Of one processor.
fn processor_percent(before: Option<&CpuUsage>, after: Option<&CpuUsage>) -> f64 {
    let (Some(before), Some(after)) = (before, after) else { return 0.0 };
    let used = value(after.usage_core_nano_seconds.as_ref())
        .saturating_sub(value(before.usage_core_nano_seconds.as_ref()));
    let elapsed = after.timestamp.saturating_sub(before.timestamp).max(1);
    used as f64 * 100.0 / elapsed as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn use_is_what_came_between_two_readings() {
        let at = |timestamp, used| CpuUsage {
            timestamp,
            usage_core_nano_seconds: Some(UInt64Value { value: used }),
            ..Default::default()
        };
        let half = processor_percent(Some(&at(1_000, 100)), Some(&at(2_000, 600)));
        assert!((half - 50.0).abs() < 1e-9, "{half}");
        assert!(processor_percent(None, Some(&at(2_000, 600))).abs() < 1e-9);
        // Two of the same reading, as a server that measures every ten seconds gives.
        assert!(processor_percent(Some(&at(1, 5)), Some(&at(1, 5))).abs() < 1e-9);
    }
}
