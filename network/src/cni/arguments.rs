//! What plugins are told of a pod: `CNI_ARGS`, and the capabilities' arguments.
//!
//! The keys are those of CNI's CONVENTIONS.md and those that the kubelet's runtimes have always passed.

use serde_json::{Map, Value, json};

use crate::attachment::{Attachment, Bandwidth};
use crate::error::Error;

/// Pairs for `CNI_ARGS`.
pub(super) type Pairs = Vec<(String, String)>;

/// How much may pass at once beyond the rate, in bits: as much as tc takes, since Kubernetes knows no burst.
const BURST: u64 = i32::MAX as u64;

/// The pairs of `CNI_ARGS`. Plugins that do not know one are told not to mind.
pub(super) fn pairs(attachment: &Attachment) -> Result<Pairs, Error> {
    let mut pairs = vec![("IgnoreUnknown".to_owned(), "1".to_owned())];
    for (key, field, value) in [
        ("K8S_POD_NAMESPACE", "namespace", &attachment.namespace),
        ("K8S_POD_NAME", "name", &attachment.name),
        ("K8S_POD_INFRA_CONTAINER_ID", "id", &attachment.id),
        ("K8S_POD_UID", "uid", &attachment.uid),
    ] {
        // There is no way to quote these, and a second pair in a name would be believed.
        if value.contains([';', '=', '\0']) {
            return Err(Error::Argument { field, value: value.clone() });
        }
        pairs.push((key.to_owned(), value.clone()));
    }
    Ok(pairs)
}

/// `CNI_ARGS` of these pairs.
pub(super) fn join(pairs: &[(String, String)]) -> String {
    pairs.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(";")
}

/// The capabilities' arguments; a plugin gets those that it declares.
pub(super) fn capabilities(attachment: &Attachment) -> Map<String, Value> {
    let mut map = Map::new();
    let mut put = |key: &str, value: Value| map.insert(key.to_owned(), value);
    if !attachment.ports.is_empty() {
        put("portMappings", json!(attachment.ports));
    }
    if let Some(bandwidth) = &attachment.bandwidth {
        put("bandwidth", rates(bandwidth));
    }
    if !attachment.dns.is_empty() {
        put("dns", json!(attachment.dns));
    }
    if !attachment.ip_ranges.is_empty() {
        put("ipRanges", json!(attachment.ip_ranges));
    }
    if !attachment.annotations.is_empty() {
        put("io.kubernetes.cri.pod-annotations", json!(attachment.annotations));
    }
    if !attachment.cgroup_parent.is_empty() {
        put("cgroupPath", json!(attachment.cgroup_parent));
    }
    map
}

fn rates(bandwidth: &Bandwidth) -> Value {
    let mut rates = Map::new();
    for (direction, rate) in [("ingress", bandwidth.ingress), ("egress", bandwidth.egress)] {
        if let Some(rate) = rate {
            rates.insert(format!("{direction}Rate"), json!(rate));
            rates.insert(format!("{direction}Burst"), json!(BURST));
        }
    }
    Value::Object(rates)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attachment::{Dns, IpRange, PortMapping, Protocol};

    #[test]
    fn pairs_of_a_pod() {
        let attachment = Attachment {
            id: "c0ffee".into(),
            name: "web-1".into(),
            namespace: "default".into(),
            uid: "u-1".into(),
            ..Attachment::default()
        };
        let found = join(&pairs(&attachment).expect("valid"));
        let expect = "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-1;\
                      K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=u-1";
        assert_eq!(found, expect);
    }

    #[test]
    fn pairs_cannot_be_smuggled_in() {
        let attachment =
            Attachment { name: "web;K8S_POD_NAMESPACE=kube-system".into(), ..Attachment::default() };
        let error = pairs(&attachment).expect_err("refused");
        assert!(matches!(error, Error::Argument { field: "name", .. }), "{error}");
    }

    #[test]
    fn capabilities_of_a_pod() {
        assert_eq!(capabilities(&Attachment::default()), Map::new());
        let attachment = Attachment {
            ports: vec![PortMapping {
                host_port: 8080,
                container_port: 80,
                protocol: Protocol::Udp,
                host_ip: None,
            }],
            bandwidth: Some(Bandwidth { ingress: Some(1_000_000), egress: None }),
            dns: Dns { servers: vec!["10.0.0.10".into()], ..Dns::default() },
            ip_ranges: vec![vec![IpRange {
                subnet: "10.1.0.0/24".into(),
                range_start: None,
                range_end: None,
                gateway: None,
            }]],
            cgroup_parent: "/kubepods/pod1".into(),
            annotations: [("a".to_owned(), "b".to_owned())].into(),
            ..Attachment::default()
        };
        let expect = json!({
            "portMappings": [{"hostPort": 8080, "containerPort": 80, "protocol": "udp"}],
            "bandwidth": {"ingressRate": 1_000_000, "ingressBurst": 2_147_483_647},
            "dns": {"servers": ["10.0.0.10"]},
            "ipRanges": [[{"subnet": "10.1.0.0/24"}]],
            "io.kubernetes.cri.pod-annotations": {"a": "b"},
            "cgroupPath": "/kubepods/pod1",
        });
        assert_eq!(Value::Object(capabilities(&attachment)), expect);
    }
}
