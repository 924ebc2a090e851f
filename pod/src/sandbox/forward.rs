//! PortForward: connections into a pod.

use std::sync::Arc;

use tokio::net::TcpStream;

use super::Sandbox;
use crate::error::{Error, Result};
use crate::node::Node;
use crate::record::PodPhase;

impl Node {
    /// A ready pod.
    pub(crate) fn ready(&self, id: &str) -> Result<Arc<Sandbox>> {
        let pod = self.table.pod(id)?;
        match pod.phase() {
            PodPhase::Ready => Ok(pod),
            PodPhase::Creating => Err(Error::pod_not_found(id)),
            PodPhase::Stopping | PodPhase::Stopped => Err(Error::WrongState {
                kind: "pod",
                id: pod.id.clone(),
                state: "not ready",
                needed: "only to a ready pod can ports be forwarded",
            }),
        }
    }

    /// Connects to a port of the pod's loopback interface, or of the node's where the pod uses that network.
    pub(crate) async fn dial(&self, id: &str, port: u16) -> Result<TcpStream> {
        let pod = self.ready(id)?;
        if pod.enclosure().is_some() && pod.has_network() {
            // Its loopback interface is within, and cannot be reached from without.
            let stream = network::dial_address(&pod.ips(), port).await;
            return stream.map_err(self.network_error("forward a port into", &pod.id));
        }
        let namespace = pod.netns();
        let stream = network::dial(namespace.as_deref(), port).await;
        stream.map_err(self.network_error("forward a port into", &pod.id))
    }
}
