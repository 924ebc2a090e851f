//! `stats`: what containers use, from two readings a second apart.

use std::collections::HashMap;
use std::time::Duration;

use clap::Args;

use super::client::{Client, answer};
use super::output::{print_table, print_value, short_id, size};
use super::{Output, message};
use crate::wire::cri::{
    ContainerStats, ContainerStatsFilter, ListContainerStatsRequest, ListContainerStatsResponse, UInt64Value,
};

/// `stats`
#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Only the container with this id
    id: Option<String>,
    /// Only containers of this pod
    #[arg(short, long)]
    pod: Option<String>,
    /// Seconds between the two readings of the processor
    #[arg(short, long, default_value_t = 1)]
    seconds: u64,
    /// Whole ids
    #[arg(long)]
    no_trunc: bool,
    #[command(flatten)]
    output: Output,
}

impl Stats {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        if let Some(format) = self.output.output {
            let response = self.read(client).await?;
            return print_value(&message::to_json("ListContainerStatsResponse", &response)?, format);
        }
        let before = self.read(client).await?;
        tokio::time::sleep(Duration::from_secs(self.seconds)).await;
        let after = self.read(client).await?;
        let before: HashMap<String, &ContainerStats> =
            before.stats.iter().map(|stats| (id(stats), stats)).collect();
        let rows: Vec<_> =
            after.stats.iter().map(|stats| self.row(stats, before.get(&id(stats)).copied())).collect();
        print_table(["CONTAINER", "NAME", "CPU %", "MEM", "DISK", "INODES"], &rows)
    }

    async fn read(&self, client: &mut Client) -> anyhow::Result<ListContainerStatsResponse> {
        let filter = ContainerStatsFilter {
            id: self.id.clone().unwrap_or_default(),
            pod_sandbox_id: self.pod.clone().unwrap_or_default(),
            ..Default::default()
        };
        let request = ListContainerStatsRequest { filter: Some(filter) };
        answer(client.runtime.list_container_stats(request).await)
    }

    fn row(&self, stats: &ContainerStats, before: Option<&ContainerStats>) -> [String; 6] {
        let id = id(stats);
        let attributes = stats.attributes.clone().unwrap_or_default();
        let memory = stats.memory.as_ref().map_or(0, |memory| value(memory.working_set_bytes.as_ref()));
        let (disk, inodes) = stats
            .writable_layer
            .as_ref()
            .map_or((0, 0), |layer| (value(layer.used_bytes.as_ref()), value(layer.inodes_used.as_ref())));
        [
            if self.no_trunc { id } else { short_id(&id) },
            attributes.metadata.unwrap_or_default().name,
            format!("{:.2}", before.map_or(0.0, |before| processor_percent(before, stats))),
            size(memory),
            size(disk),
            inodes.to_string(),
        ]
    }
}

fn id(stats: &ContainerStats) -> String {
    stats.attributes.as_ref().map(|attributes| attributes.id.clone()).unwrap_or_default()
}

fn value(value: Option<&UInt64Value>) -> u64 {
    value.map_or(0, |value| value.value)
}

/// Of one processor.
fn processor_percent(before: &ContainerStats, after: &ContainerStats) -> f64 {
    let (Some(before), Some(after)) = (&before.cpu, &after.cpu) else { return 0.0 };
    let used = value(after.usage_core_nano_seconds.as_ref())
        .saturating_sub(value(before.usage_core_nano_seconds.as_ref()));
    let elapsed = after.timestamp.saturating_sub(before.timestamp).max(1);
    used as f64 * 100.0 / elapsed as f64
}
