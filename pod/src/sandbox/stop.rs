//! StopPodSandbox, and what happens when a monitor dies: the pod's half of the one teardown.

use std::sync::Arc;
use std::time::Duration;

use runtime::{Event, Events};

use super::Sandbox;
use crate::container::Container;
use crate::error::{Error, Result};
use crate::node::{Node, blocking, now_ns};
use crate::record::{ContainerPhase, Ending, PodPhase};

/// How long a monitor that was told to end may take; what it leaves is killed by cgroup.
const END_LIMIT: Duration = Duration::from_secs(10);

impl Node {
    /// Ends all containers and releases the network. Fine when the pod is stopped or unknown.
    pub(crate) async fn stop_pod(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(pod) = self.table.pod(id) else { return Ok(()) };
        let node = self.clone();
        self.stopping_pods.run(pod.id.clone(), || async move { node.halt(&pod).await }).await
    }

    /// Idempotent, driven by the record; goes on past failures and returns them all.
    pub(crate) async fn halt(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let _gate = pod.gate.lock().await;
        if pod.phase() == PodPhase::Stopped {
            return Ok(());
        }
        let mut failures = Vec::new();
        self.advance(pod, PodPhase::Stopping).await.unwrap_or_else(|error| failures.push(error));
        self.end_monitor(pod).await.unwrap_or_else(|error| failures.push(error));
        self.release_enclosure(pod).await.unwrap_or_else(|error| failures.push(error));
        self.release_network(pod).await.unwrap_or_else(|error| failures.push(error));
        Error::teardown("pod", &pod.id, failures)?;
        self.advance(pod, PodPhase::Stopped).await
    }

    /// Moves the record on; a phase that is behind already changes nothing.
    async fn advance(self: &Arc<Self>, pod: &Arc<Sandbox>, phase: PodPhase) -> Result<()> {
        if pod.phase() >= phase {
            return Ok(());
        }
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || {
            pod.note(&node.records, |record| record.phase = phase);
            Ok(())
        })
        .await
    }

    async fn end_monitor(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let Some(monitor) = pod.monitor() else {
            return self.bury_containers(pod).await;
        };
        let ended = tokio::time::timeout(END_LIMIT, async {
            monitor.end().await?;
            pod.monitor_gone().await;
            Ok(())
        })
        .await;
        match ended {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Error::runtime("stop", "pod", &pod.id)(error)),
            Err(_) => self.bury_containers(pod).await,
        }
    }

    /// Follows the monitor's events until it is gone.
    pub(crate) fn watch(self: &Arc<Self>, pod: Arc<Sandbox>, mut events: Events) {
        let node = self.clone();
        tokio::spawn(async move {
            while let Some(Event::Exited { id, exit }) = events.recv().await {
                if let Ok(container) = node.table.container(&id) {
                    node.ended(container, Ending::from_exit(&exit)).await;
                }
            }
            node.monitor_lost(&pod).await;
        });
    }

    /// Takes in an end that the monitor tells of; not before the start that the container is still in.
    async fn ended(self: &Arc<Self>, container: Arc<Container>, ending: Ending) {
        if container.starting.try_lock().is_ok() {
            return self.exited(&container, ending).await;
        }
        // The pod's other containers do not wait for it.
        let node = self.clone();
        tokio::spawn(async move {
            let _started = container.starting.lock().await;
            node.exited(&container, ending).await;
        });
    }

    /// The monitor is gone, asked or unasked: nothing of the pod runs any more, or will in a moment.
    async fn monitor_lost(self: &Arc<Self>, pod: &Arc<Sandbox>) {
        if pod.phase() < PodPhase::Stopping {
            tracing::warn!(pod = pod.id, "the pod's monitor died: its containers are killed");
        }
        let result = async {
            self.bury_containers(pod).await?;
            self.advance(pod, PodPhase::Stopping).await
        };
        if let Err(error) = result.await {
            tracing::warn!(pod = pod.id, error = crate::error::chain(&error), "take in a dead monitor");
        }
        pod.set_monitor(None);
    }

    /// Kills what is left of a pod without a monitor, and records how its containers ended.
    pub(crate) async fn bury_containers(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let mut failures = Vec::new();
        self.kill_enclosure(pod).await.unwrap_or_else(|error| failures.push(error));
        for container in self.table.containers_of(&pod.id) {
            if !matches!(container.phase(), ContainerPhase::Created | ContainerPhase::Running) {
                continue;
            }
            if let Err(error) = self.kill_cgroup(&container).await {
                failures.push(error);
            }
            self.exited(&container, self.last_words(&container)).await;
        }
        Error::teardown("pod", &pod.id, failures)
    }

    /// How a container ended whose monitor cannot be asked: its exit file says, or nobody can.
    fn last_words(&self, container: &Container) -> Ending {
        match runtime::recorded_exit(&container.pod.dir, &container.id) {
            Some(exit) => Ending::from_exit(&exit),
            None => Ending::unknown(now_ns(), "the pod's monitor died"),
        }
    }
}
