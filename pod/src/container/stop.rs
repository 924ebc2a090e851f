//! StopContainer: the monitor sends the signal and keeps the deadline, also while no daemon runs.

use std::sync::Arc;
use std::time::Duration;

use super::{Container, parse_cgroup};
use crate::error::{Error, Result, chain};
use crate::node::{Node, blocking};
use crate::record::ContainerPhase;
use crate::signal;

impl Node {
    /// Asks the container to end and kills it after `grace`; a later call may shorten the time. Fine
    /// when it has ended or is unknown. Dropping the future ends the waiting, not the stop.
    pub(crate) async fn stop_container(self: &Arc<Self>, id: &str, grace: Duration) -> Result<()> {
        let Ok(container) = self.table.container(id) else { return Ok(()) };
        let signal = match container.phase() {
            ContainerPhase::Exited(_) => return Ok(()),
            ContainerPhase::Creating => return Err(Error::container_not_found(id)),
            // Nothing of the user's runs yet that could be asked.
            ContainerPhase::Created => nix::libc::SIGKILL,
            ContainerPhase::Running => signal::number(&container.record().stop_signal)?,
        };
        let Some(monitor) = container.pod.monitor() else {
            return self.bury_containers(&container.pod).await;
        };
        self.thaw(&container).await;
        let stopped = monitor.stop(&container.id, signal, grace).await;
        if let Err(error) = stopped
            && !container.has_ended()
            && container.pod.monitor().is_some()
        {
            return Err(Error::runtime("stop", "container", &container.id)(error));
        }
        container.ended().await;
        Ok(())
    }

    /// Someone may have paused the container, and what stands still hears no signal.
    async fn thaw(self: &Arc<Self>, container: &Arc<Container>) {
        let (node, frozen) = (self.clone(), container.clone());
        let thawed = blocking(move || {
            let cgroup = node.runtime.cgroups().open(&parse_cgroup(&frozen.cgroup())?);
            cgroup.thaw().map_err(|source| Error::Cgroup {
                operation: "thaw",
                id: frozen.id.clone(),
                source: Arc::new(source),
            })
        });
        if let Err(error) = thawed.await
            && !container.has_ended()
        {
            // Not a reason to let it run on: at the end of its grace it is killed all the same.
            tracing::debug!(
                container = container.id,
                error = chain(&error),
                "thaw a container to be stopped"
            );
        }
    }
}
