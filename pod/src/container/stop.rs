//! StopContainer: the monitor sends the signal and keeps the deadline, also while no daemon runs.

use std::sync::Arc;
use std::time::Duration;

use crate::error::{Error, Result};
use crate::node::Node;
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
}
