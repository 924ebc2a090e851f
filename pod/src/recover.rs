//! A new daemon takes in what the last one left: the records, the monitors, and this boot's id.
//!
//! The daemon is a cache. A record of another boot is dead; of a living pod, the monitor knows more
//! than the record; where the monitor is gone too, what runs is killed and what is half made is taken
//! down by the one teardown.

use std::path::Path;
use std::sync::Arc;

use runtime::{ContainerReport, ContainerState};

use crate::container::{Container, discard};
use crate::error::{Result, chain};
use crate::node::{Node, blocking, now_ns};
use crate::record::{ContainerPhase, ContainerRecord, Ending, PodPhase, PodRecord, entries};
use crate::sandbox::{Sandbox, files};

impl Node {
    /// Fills the table. What cannot be read is left where it is and said; the rest goes on.
    pub(crate) async fn recover(self: &Arc<Self>) -> Result<()> {
        let node = self.clone();
        let loaded = blocking(move || node.records.load_all()).await?;
        for error in loaded.unreadable {
            tracing::error!(error = chain(&error), "a record cannot be read: remove it when its pod is gone");
        }
        let tasks: Vec<_> = loaded
            .pods
            .into_iter()
            .map(|(pod, containers)| {
                let node = self.clone();
                tokio::spawn(async move { node.recover_pod(pod, containers).await })
            })
            .collect();
        for task in tasks {
            match task.await {
                Ok(Ok(())) => (),
                Ok(Err(error)) => tracing::warn!(error = chain(&error), "recover a pod"),
                Err(error) => tracing::error!(%error, "recover a pod"),
            }
        }
        self.collect_layers();
        self.sweep().await
    }

    /// Deletes what no record speaks of: a daemon was killed while it made or removed something.
    async fn sweep(self: &Arc<Self>) -> Result<()> {
        let node = self.clone();
        blocking(move || {
            for dir in entries(&node.config.data.join("containers"))? {
                if !file_name_is(&dir, |id| node.table.container(id).is_ok()) {
                    discard(&dir)?;
                }
            }
            for dir in entries(&node.config.state.join("pods"))? {
                if !file_name_is(&dir, |id| node.table.pod(id).is_ok()) {
                    files::remove(&dir)?;
                }
            }
            Ok(())
        })
        .await
    }

    async fn recover_pod(
        self: &Arc<Self>,
        record: PodRecord,
        containers: Vec<ContainerRecord>,
    ) -> Result<()> {
        let same_boot = record.boot_id == self.boot_id;
        let phase = record.phase;
        let dir = self.pod_dir(&record.id);
        let pod = Arc::new(Sandbox::new(record, dir, self.events.clone()));
        self.table.insert_pod(pod.clone())?;
        if matches!(phase, PodPhase::Creating | PodPhase::Stopping) && pod.has_network() {
            self.network.settle(&pod.id).await;
        }
        let mut half_made = Vec::new();
        for record in containers {
            let container = self.recover_container(&pod, record)?;
            if container.phase() == ContainerPhase::Creating {
                half_made.push(container);
            }
        }
        if !same_boot {
            self.after_reboot(&pod).await?;
        } else if phase != PodPhase::Stopped {
            self.adopt(&pod).await?;
        }
        for container in half_made {
            self.remove_container_parts(&container).await?;
        }
        match phase {
            // Nobody was told of it.
            PodPhase::Creating => self.remove_pod_parts(&pod).await,
            _ => Ok(()),
        }
    }

    fn recover_container(
        self: &Arc<Self>,
        pod: &Arc<Sandbox>,
        record: ContainerRecord,
    ) -> Result<Arc<Container>> {
        let images: Vec<_> = [&record.image_id].into_iter().chain(&record.volume_images).cloned().collect();
        let config = record.config.clone();
        let container = Arc::new(Container::new(record, config, pod.clone()));
        // An image that was removed meanwhile is of no matter to a container that has ended.
        let lease = |image: &String| self.images.lease(&image.parse().ok()?).ok();
        container.set_leases(images.iter().filter_map(lease).collect());
        self.table.insert_container(container.clone())?;
        Ok(container)
    }

    /// Everything that ran is gone; addresses are given back at StopPodSandbox with CNI's cached results.
    async fn after_reboot(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        for container in self.table.containers_of(&pod.id) {
            self.exited(&container, Ending::unknown(now_ns(), "the node restarted")).await;
            discard(&self.container_dir(&container.id))?;
        }
        self.halt(pod).await
    }

    async fn adopt(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        match self.runtime.adopt(&pod.dir).await {
            Ok((monitor, events, report)) => {
                pod.set_monitor(Some(monitor));
                for reported in report.containers {
                    self.compare(reported).await?;
                }
                self.watch(pod.clone(), events);
                Ok(())
            }
            Err(error) => {
                tracing::warn!(pod = pod.id, error = chain(&error), "the pod's monitor does not answer");
                self.bury_containers(pod).await?;
                let (node, dead) = (self.clone(), pod.clone());
                blocking(move || {
                    dead.note(&node.records, |record| record.phase = record.phase.max(PodPhase::Stopping));
                    Ok(())
                })
                .await
            }
        }
    }

    /// The monitor's word on a container goes over the record's.
    async fn compare(self: &Arc<Self>, reported: ContainerReport) -> Result<()> {
        let Ok(container) = self.table.container(&reported.id) else { return Ok(()) };
        match reported.state {
            ContainerState::Created => Ok(()),
            ContainerState::Exited(exit) => {
                self.exited(&container, Ending::from_exit(&exit)).await;
                Ok(())
            }
            ContainerState::Running => {
                let node = self.clone();
                blocking(move || {
                    if container.phase() == ContainerPhase::Created {
                        container.note(&node.records, |record| {
                            record.phase = ContainerPhase::Running;
                            record.started_at_ns = reported.started_at_ns;
                        });
                    }
                    Ok(())
                })
                .await
            }
        }
    }
}

fn file_name_is(path: &Path, known: impl Fn(&str) -> bool) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(known)
}
