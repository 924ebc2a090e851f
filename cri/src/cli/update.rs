//! `update`: other limits for running containers.

use clap::Args;

use super::Ids;
use super::client::{Client, answer};
use super::output::print_line;
use crate::wire::cri::{LinuxContainerResources, UpdateContainerResourcesRequest};

/// `update`
#[derive(Debug, Args)]
pub(crate) struct Update {
    /// Microseconds of a period of the processor quota
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0)]
    cpu_period: i64,
    /// Microseconds of processor time for each period; -1 for no limit
    #[arg(long, value_name = "MICROSECONDS", default_value_t = 0, allow_negative_numbers = true)]
    cpu_quota: i64,
    /// Relative weight of the processor
    #[arg(long, value_name = "SHARES", default_value_t = 0)]
    cpu_share: i64,
    /// Most bytes of memory; -1 for no limit
    #[arg(long, value_name = "BYTES", default_value_t = 0, allow_negative_numbers = true)]
    memory: i64,
    /// Processors to use, such as 0-2,7
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_cpus: String,
    /// Memory nodes to use, such as 0-1
    #[arg(long, value_name = "LIST", default_value = "")]
    cpuset_mems: String,
    /// How eagerly the OOM killer takes its processes, -1000 to 1000
    #[arg(long, value_name = "SCORE", default_value_t = 0, allow_negative_numbers = true)]
    oom_score_adj: i64,
    #[command(flatten)]
    ids: Ids,
}

impl Update {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let linux = LinuxContainerResources {
            cpu_period: self.cpu_period,
            cpu_quota: self.cpu_quota,
            cpu_shares: self.cpu_share,
            memory_limit_in_bytes: self.memory,
            oom_score_adj: self.oom_score_adj,
            cpuset_cpus: self.cpuset_cpus,
            cpuset_mems: self.cpuset_mems,
            ..Default::default()
        };
        for id in self.ids.ids {
            let request = UpdateContainerResourcesRequest {
                container_id: id.clone(),
                linux: Some(linux.clone()),
                ..Default::default()
            };
            answer(client.runtime.update_container_resources(request).await)?;
            print_line(&id)?;
        }
        Ok(())
    }
}
