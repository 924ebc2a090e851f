//! `metricsp` and `metricdescs`: the metrics of pods as the server collects them, and what they are.

use std::time::Duration;

use clap::Args;

use super::client::{Client, answer};
use super::output::{Format, clear_screen, print_value};
use super::{Output, message};
use crate::wire::cri::{ListMetricDescriptorsRequest, ListPodSandboxMetricsRequest};

/// Between two readings of `--watch`.
const PAUSE: Duration = Duration::from_secs(1);

/// `metricsp`
#[derive(Debug, Args)]
pub(crate) struct PodMetrics {
    /// Again and again, until it is interrupted
    #[arg(short, long)]
    watch: bool,
    #[command(flatten)]
    output: Output,
}

/// `metricdescs`
#[derive(Debug, Args)]
pub(crate) struct Descriptors {
    #[command(flatten)]
    output: Output,
}

impl PodMetrics {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        loop {
            let request = ListPodSandboxMetricsRequest {};
            let response = answer(client.runtime.list_pod_sandbox_metrics(request).await)?;
            if self.watch {
                clear_screen()?;
            }
            let value = message::to_json("ListPodSandboxMetricsResponse", &response)?;
            print_value(&value, self.output.format().unwrap_or(Format::Json))?;
            if !self.watch {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

impl Descriptors {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let request = ListMetricDescriptorsRequest {};
        let response = answer(client.runtime.list_metric_descriptors(request).await)?;
        let value = message::to_json("ListMetricDescriptorsResponse", &response)?;
        print_value(&value, self.output.format().unwrap_or(Format::Json))
    }
}
