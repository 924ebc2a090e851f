//! What a pod asks of its network, and what it got.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::Error;
use crate::quantity;

/// The interface that CNI makes in a pod, as Kubernetes wants it.
pub const INTERFACE: &str = "eth0";

const INGRESS: &str = "kubernetes.io/ingress-bandwidth";
const EGRESS: &str = "kubernetes.io/egress-bandwidth";
/// The limits of a rate in bits per second that Kubernetes accepts: 1k to 1P.
const RATES: std::ops::RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

/// A pod's place in the network: everything that a CNI chain is told about it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attachment {
    /// The sandbox's id.
    pub id: String,
    /// The pod's name.
    pub name: String,
    /// The pod's Kubernetes namespace.
    pub namespace: String,
    /// The pod's Kubernetes uid.
    pub uid: String,
    /// The pin of the network namespace; none once it is gone.
    pub netns: Option<PathBuf>,
    /// Ports of the host that lead to the pod.
    pub ports: Vec<PortMapping>,
    /// Limits of the interface, see [`Bandwidth::from_annotations`].
    pub bandwidth: Option<Bandwidth>,
    /// What the pod's resolv.conf says, for plugins that serve names.
    pub dns: Dns,
    /// The ranges that an address is taken from, one list for each address; empty leaves it to the configuration.
    pub ip_ranges: Vec<Vec<IpRange>>,
    /// The cgroup that the pod's containers go below.
    pub cgroup_parent: String,
    /// The pod's annotations.
    pub annotations: BTreeMap<String, String>,
}

/// One port of the host that leads to one of the pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortMapping {
    /// Port on the host.
    pub host_port: u16,
    /// Port in the pod.
    pub container_port: u16,
    /// Transport protocol.
    pub protocol: Protocol,
    /// Address of the host to listen on; none for all.
    #[serde(rename = "hostIP", default, skip_serializing_if = "Option::is_none")]
    pub host_ip: Option<IpAddr>,
}

/// Transport protocols of a port mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9260.
    Sctp,
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

/// Rates in bits per second.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bandwidth {
    /// What the pod may receive.
    pub ingress: Option<u64>,
    /// What the pod may send.
    pub egress: Option<u64>,
}

/// Name resolution of the pod, see resolv.conf(5).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dns {
    /// `nameserver` lines.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<String>,
    /// The `search` line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub searches: Vec<String>,
    /// The `options` line.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
}

/// A range of addresses, in the words of the `ipRanges` capability.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IpRange {
    /// The subnet, as `10.1.2.0/24`.
    pub subnet: String,
    /// First address to give; none for the subnet's first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_start: Option<IpAddr>,
    /// Last address to give; none for the subnet's last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range_end: Option<IpAddr>,
    /// The gateway; none for the subnet's first address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gateway: Option<IpAddr>,
}

/// What an attached pod has.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// The network's name.
    pub network: String,
    /// The pod's addresses, in the order that the plugins gave them; never empty.
    pub ips: Vec<IpAddr>,
    /// The chain's result, in the format of the version that it was called with.
    pub result: Value,
}

/// What one interface of a namespace has carried.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InterfaceUsage {
    /// The interface's name.
    pub name: String,
    /// Bytes received.
    pub rx_bytes: u64,
    /// Packets received.
    pub rx_packets: u64,
    /// Packets received broken.
    pub rx_errors: u64,
    /// Packets received and dropped.
    pub rx_dropped: u64,
    /// Bytes sent.
    pub tx_bytes: u64,
    /// Packets sent.
    pub tx_packets: u64,
    /// Packets that could not be sent.
    pub tx_errors: u64,
    /// Packets dropped before they were sent.
    pub tx_dropped: u64,
}

// === impl Bandwidth ===

impl Bandwidth {
    /// Reads `kubernetes.io/ingress-bandwidth` and `kubernetes.io/egress-bandwidth`; none when neither is there.
    pub fn from_annotations(annotations: &BTreeMap<String, String>) -> Result<Option<Self>, Error> {
        let rate = |key: &'static str| annotations.get(key).map(|text| parse_rate(key, text)).transpose();
        let bandwidth = Self { ingress: rate(INGRESS)?, egress: rate(EGRESS)? };
        Ok((bandwidth != Self::default()).then_some(bandwidth))
    }
}

fn parse_rate(key: &'static str, text: &str) -> Result<u64, Error> {
    let rate =
        quantity::parse(text).map_err(|source| Error::Bandwidth { key, value: text.to_owned(), source })?;
    if RATES.contains(&rate) { Ok(rate) } else { Err(Error::BandwidthRange { key, value: text.to_owned() }) }
}

// === impl Dns ===

impl Dns {
    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(pairs: &[(&str, &str)], expect: Result<Option<Bandwidth>, &str>) {
        let annotations = pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let found = Bandwidth::from_annotations(&annotations).map_err(|error| error.to_string());
        assert_eq!(found, expect.map_err(str::to_owned), "{pairs:?}");
    }

    #[test]
    fn bandwidth_annotations() {
        check(&[], Ok(None));
        check(&[("other", "10M")], Ok(None));
        check(&[(INGRESS, "10M")], Ok(Some(Bandwidth { ingress: Some(10_000_000), egress: None })));
        check(
            &[(INGRESS, "1Mi"), (EGRESS, "1.5k")],
            Ok(Some(Bandwidth { ingress: Some(1 << 20), egress: Some(1500) })),
        );
        check(&[(EGRESS, "999")], Err("kubernetes.io/egress-bandwidth \"999\" is not between 1k and 1P"));
        check(&[(EGRESS, "2P")], Err("kubernetes.io/egress-bandwidth \"2P\" is not between 1k and 1P"));
        check(&[(EGRESS, "fast")], Err("kubernetes.io/egress-bandwidth \"fast\""));
    }

    #[test]
    fn port_mapping_in_the_words_of_the_capability() {
        let port = PortMapping {
            host_port: 8080,
            container_port: 80,
            protocol: Protocol::Tcp,
            host_ip: Some(IpAddr::from([127, 0, 0, 1])),
        };
        let json = serde_json::to_value(&port).expect("serializes");
        assert_eq!(
            json,
            serde_json::json!({"hostPort": 8080, "containerPort": 80, "protocol": "tcp", "hostIP": "127.0.0.1"})
        );
    }
}
