//! What pods use: their cgroup's figures, or the sum of their containers', and the interfaces of their network.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use network::InterfaceUsage;
use runtime::cgroup;

use crate::container::Container;
use crate::error::{Error, Result};
use crate::node::{Node, blocking, now_ns};
use crate::record::{ContainerPhase, PodPhase};
use crate::sandbox::Sandbox;
use crate::status::{ContainerStats, PodFilter, PodStats};

/// Running containers by their pod, and pods by their cgroup parent.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    containers: HashMap<String, Vec<Arc<Container>>>,
    parents: HashMap<String, u32>,
}

impl Node {
    /// One pod's figures; also of one that is not ready, then without any but its containers' disks.
    pub(crate) async fn pod_stats(self: &Arc<Self>, id: &str) -> Result<PodStats> {
        let pod = self.table.pod(id)?;
        self.walker.ask();
        let node = self.clone();
        let id = id.to_owned();
        blocking(move || {
            let found = node.read_pod_stats(vec![pod]).pop();
            found.ok_or_else(|| Error::pod_not_found(&id))
        })
        .await
    }

    /// The figures of the ready pods that the filter picks.
    pub(crate) async fn list_pod_stats(self: &Arc<Self>, filter: PodFilter) -> Vec<PodStats> {
        self.walker.ask();
        let node = self.clone();
        let read = move || {
            let picked = node.ready_pods().filter(|pod| pod.status().is_some_and(|pod| filter.matches(&pod)));
            Ok(node.read_pod_stats(picked.collect()))
        };
        // Nothing in it fails; a panic shows as an empty list.
        blocking(read).await.unwrap_or_default()
    }

    pub(super) fn ready_pods(&self) -> impl Iterator<Item = Arc<Sandbox>> + use<> {
        self.table.pods().into_iter().filter(|pod| pod.phase() == PodPhase::Ready)
    }

    /// Everything that runs, in one look at the table.
    pub(super) fn crowd(&self) -> Crowd {
        let mut crowd = Crowd::default();
        for container in self.table.containers() {
            if container.phase() == ContainerPhase::Running {
                crowd.containers.entry(container.pod.id.clone()).or_default().push(container);
            }
        }
        for pod in self.ready_pods() {
            if let Some(parent) = &pod.config.cgroup_parent {
                *crowd.parents.entry(parent.clone()).or_default() += 1;
            }
        }
        crowd
    }

    fn read_pod_stats(&self, pods: Vec<Arc<Sandbox>>) -> Vec<PodStats> {
        let mut crowd = self.crowd();
        let mut interfaces = self.interfaces(&pods);
        let read = |pod: Arc<Sandbox>| {
            let status = pod.status()?;
            let running = crowd.containers_of(&pod);
            let containers: Vec<_> =
                running.iter().filter_map(|container| self.read_stats(container)).collect();
            let (usage, usage_nano_cores) = self.pod_usage(&pod, &crowd, &containers);
            let network = interfaces.remove(&pod.id);
            Some(PodStats { status, timestamp_ns: now_ns(), usage, usage_nano_cores, network, containers })
        };
        pods.into_iter().filter_map(read).collect()
    }

    fn pod_usage(
        &self,
        pod: &Sandbox,
        crowd: &Crowd,
        containers: &[ContainerStats],
    ) -> (Option<cgroup::Stats>, Option<u64>) {
        if pod.phase() != PodPhase::Ready {
            return (None, None);
        }
        if let Some(parent) = crowd.own_cgroup(pod) {
            let open = || Some(self.runtime.cgroups().open(&self.pod_cgroup(parent).ok()?));
            if let Some((usage, rate)) = pod.readings.read(&self.meters, open) {
                return (Some(usage), rate);
            }
        }
        let usage = sum(containers.iter().filter_map(|container| container.usage.as_ref()));
        let rate = pod.readings.rate(usage.cpu_usage_ns);
        (Some(usage), rate)
    }

    /// Of the pods' own networks, by the pods' ids; pods with the node's network have none.
    pub(super) fn interfaces(&self, pods: &[Arc<Sandbox>]) -> HashMap<String, Vec<InterfaceUsage>> {
        let ready = pods.iter().filter(|pod| pod.phase() == PodPhase::Ready);
        let pins: Vec<_> = ready.filter_map(|pod| Some((&pod.id, pod.netns()?))).collect();
        let paths: Vec<&Path> = pins.iter().map(|(_, pin)| pin.as_path()).collect();
        let found = self.network.usage(&paths).into_iter().zip(&pins);
        let counted = found.filter_map(|(usage, (id, _))| match usage {
            Ok(interfaces) => Some(((*id).clone(), interfaces)),
            Err(error) => {
                tracing::debug!(
                    pod = *id,
                    error = crate::error::chain(&error),
                    "count the interfaces of a pod"
                );
                None
            }
        });
        counted.collect()
    }
}

impl Crowd {
    /// The running containers of a pod, each pod asked for once.
    pub(super) fn containers_of(&mut self, pod: &Sandbox) -> Vec<Arc<Container>> {
        self.containers.remove(&pod.id).unwrap_or_default()
    }

    /// The cgroup that is the pod's alone, as the kubelet makes one for each; none for pods that share.
    pub(super) fn own_cgroup<'a>(&self, pod: &'a Sandbox) -> Option<&'a str> {
        let parent = pod.config.cgroup_parent.as_deref()?;
        (self.parents.get(parent) == Some(&1)).then_some(parent)
    }
}

/// Pressure has no sum.
fn sum<'a>(all: impl Iterator<Item = &'a cgroup::Stats>) -> cgroup::Stats {
    let mut sum = cgroup::Stats::default();
    for one in all {
        sum.cpu_usage_ns += one.cpu_usage_ns;
        sum.memory.usage += one.memory.usage;
        sum.memory.working_set += one.memory.working_set;
        sum.memory.rss += one.memory.rss;
        sum.memory.page_faults += one.memory.page_faults;
        sum.memory.major_page_faults += one.memory.major_page_faults;
        if let Some(pids) = one.pids {
            *sum.pids.get_or_insert(0) += pids;
        }
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn containers_are_summed() {
        let one = |cpu_usage_ns, pids| {
            let memory =
                cgroup::Memory { usage: 10, working_set: 5, available: Some(9), ..Default::default() };
            cgroup::Stats { cpu_usage_ns, memory, pids, ..Default::default() }
        };
        let summed = sum([one(1, Some(2)), one(2, None)].iter());
        assert_eq!((summed.cpu_usage_ns, summed.pids), (3, Some(2)));
        let memory = cgroup::Memory { usage: 20, working_set: 10, ..Default::default() };
        assert_eq!(summed.memory, memory, "what is left of one limit says nothing of the pod");
        assert_eq!(sum([].iter()).pids, None);
    }
}
