//! A pod's place in the network: what the CNI plugins are told, and when.

use std::net::IpAddr;
use std::sync::Arc;

use network::{Attachment, Bandwidth, netns};

use super::Sandbox;
use crate::config::{PortMapping, Protocol};
use crate::error::Result;
use crate::node::{Node, blocking};

impl Node {
    /// Adds the pod to the network and returns its addresses; none with the node's network.
    pub(crate) async fn attach(&self, pod: &Sandbox) -> Result<Vec<IpAddr>> {
        if !pod.has_network() {
            return Ok(Vec::new());
        }
        let bandwidth = Bandwidth::from_annotations(&pod.config.annotations)
            .map_err(self.network_error("understand the annotations for", &pod.id))?;
        let attached = self.network.attach(&attachment(pod, bandwidth)).await;
        Ok(attached.map_err(self.network_error("set up", &pod.id))?.ips)
    }

    /// Takes the pod out of the network and deletes its namespace. Idempotent.
    pub(crate) async fn release_network(self: &Arc<Self>, pod: &Arc<Sandbox>) -> Result<()> {
        let Some(path) = pod.netns() else { return Ok(()) };
        // Annotations that could not be understood were never acted on.
        let bandwidth = Bandwidth::from_annotations(&pod.config.annotations).unwrap_or_default();
        let detached = self.network.detach(&attachment(pod, bandwidth)).await;
        detached.map_err(self.network_error("release", &pod.id))?;
        let (node, pod) = (self.clone(), pod.clone());
        blocking(move || netns::delete(&path).map_err(node.network_error("delete", &pod.id))).await
    }
}

fn attachment(pod: &Sandbox, bandwidth: Option<Bandwidth>) -> Attachment {
    let config = &pod.config;
    let dns = config.dns.clone().unwrap_or_default();
    Attachment {
        id: pod.id.clone(),
        name: config.metadata.name.clone(),
        namespace: config.metadata.namespace.clone(),
        uid: config.metadata.uid.clone(),
        netns: pod.netns(),
        ports: config.port_mappings.iter().map(port).collect(),
        bandwidth,
        dns: network::Dns { servers: dns.servers, searches: dns.searches, options: dns.options },
        ip_ranges: Vec::new(),
        cgroup_parent: config.cgroup_parent.clone().unwrap_or_default(),
        annotations: config.annotations.clone(),
    }
}

fn port(port: &PortMapping) -> network::PortMapping {
    network::PortMapping {
        host_port: port.host_port,
        container_port: port.container_port,
        protocol: match port.protocol {
            Protocol::Sctp => network::Protocol::Sctp,
            Protocol::Tcp => network::Protocol::Tcp,
            Protocol::Udp => network::Protocol::Udp,
        },
        host_ip: port.host_ip,
    }
}
