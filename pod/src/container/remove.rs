//! RemoveContainer: the container's half of the one teardown.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Container;
use crate::error::{Error, Result};
use crate::node::{Node, blocking, exists};
use crate::record::ContainerPhase;

impl Node {
    /// Kills the container if need be and removes all of it but its log. Fine when it is unknown.
    pub(crate) async fn remove_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let Ok(container) = self.table.container(id) else { return Ok(()) };
        let node = self.clone();
        let work = || async move { node.remove_container_parts(&container).await };
        self.removing_containers.run(id.to_owned(), work).await
    }

    /// Idempotent, driven by the record; goes on past failures and returns them all.
    pub(crate) async fn remove_container_parts(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let _gate = container.gate.lock().await;
        let mut failures = Vec::new();
        self.end_container(container).await.unwrap_or_else(|error| failures.push(error));
        if let Some(monitor) = container.pod.monitor() {
            // The monitor may never have heard of it, or be going itself: what matters is on disk.
            if let Err(error) = monitor.remove(&container.id).await {
                tracing::debug!(container = container.id, %error, "the monitor does not forget it");
            }
        }
        if failures.is_empty() {
            self.release_bundle(container).await.unwrap_or_else(|error| failures.push(error));
        }
        if failures.is_empty() {
            let (node, gone) = (self.clone(), container.clone());
            let removed = blocking(move || {
                node.remove_cgroup(&gone)?;
                node.release_volumes(&gone)?;
                discard(&node.container_dir(&gone.id))?;
                node.records.remove_container(&gone.pod.id, &gone.id)
            });
            removed.await.unwrap_or_else(|error| failures.push(error));
        }
        Error::teardown("container", &container.id, failures)?;
        container.set_leases(Vec::new());
        self.table.remove_container(container);
        container.tell_deleted();
        let key = (container.pod.id.clone(), container.config.metadata.clone());
        self.creating_containers.discard(&key);
        self.collect_layers();
        Ok(())
    }

    /// An image may have been removed while containers used its layers. Nobody waits for their deletion.
    pub(crate) fn collect_layers(self: &Arc<Self>) {
        let node = self.clone();
        tokio::spawn(async move {
            if let Err(error) = node.images.collect().await {
                tracing::warn!(error = crate::error::chain(&error), "delete unused layers");
            }
        });
    }

    async fn end_container(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        match container.phase() {
            ContainerPhase::Creating => self.kill_cgroup(container).await,
            ContainerPhase::Exited(_) => Ok(()),
            ContainerPhase::Created | ContainerPhase::Running => {
                self.stop_container(&container.id, Duration::ZERO).await
            }
        }
    }
}

/// Moves a directory out of sight, so that a half deleted one is never taken for a whole one, and
/// deletes it on a thread of its own.
pub(crate) fn discard(dir: &Path) -> Result<()> {
    if !exists(dir) {
        return Ok(());
    }
    let trash = dir.with_extension("gone");
    fs::rename(dir, &trash).map_err(Error::file("move away", dir))?;
    tokio::task::spawn_blocking(move || {
        if let Err(error) = fs::remove_dir_all(&trash) {
            tracing::warn!(path = %trash.display(), %error, "delete a container's files");
        }
    });
    Ok(())
}
