//! StartContainer: the waiting init is let go.

use std::sync::Arc;

use super::Container;
use crate::error::{Error, Result, chain};
use crate::node::{Node, blocking, now_ns};
use crate::record::{ContainerPhase, Ending};

impl Node {
    /// Starts a created container; its command runs when this returns.
    pub(crate) async fn start_container(self: &Arc<Self>, id: &str) -> Result<()> {
        let container = self.table.container(id)?;
        let node = self.clone();
        self.starting_containers
            .run(container.id.clone(), || async move { node.start_once(&container).await })
            .await
    }

    async fn start_once(self: &Arc<Self>, container: &Arc<Container>) -> Result<()> {
        let wrong = |state| Error::WrongState {
            kind: "container",
            id: container.id.clone(),
            state,
            needed: "only a created container can be started",
        };
        match container.phase() {
            ContainerPhase::Created => (),
            ContainerPhase::Creating => return Err(wrong("being created")),
            ContainerPhase::Running => return Err(wrong("running")),
            ContainerPhase::Exited(_) => return Err(wrong("exited")),
        }
        let monitor = container.pod.monitor().ok_or_else(|| wrong("without a monitor"))?;
        let _starting = container.starting.lock().await;
        let started = monitor.start(&container.id).await;
        match started.map_err(Error::runtime("start", "container", &container.id)) {
            Ok(started_at_ns) => self.started(container, started_at_ns).await,
            Err(error) => {
                self.exited(container, Ending::start_error(now_ns(), chain(&error))).await;
                Err(error)
            }
        }
    }

    async fn started(self: &Arc<Self>, container: &Arc<Container>, started_at_ns: i64) -> Result<()> {
        let (node, container) = (self.clone(), container.clone());
        blocking(move || {
            container.note(&node.records, |record| {
                record.started_at_ns = started_at_ns;
                // Its exit may have been taken in first.
                if record.phase == ContainerPhase::Created {
                    record.phase = ContainerPhase::Running;
                }
            });
            Ok(())
        })
        .await
    }
}
