//! Which kernel parameters a pod may set: those that belong to a namespace of its own, sysctl(8).
//!
//! A name may be dotted (`net.ipv4.ip_forward`) or slashed (`net/ipv4/conf/eth0.1/forwarding`); the
//! runtime gets the slashed form. Values are plain words: none can smuggle in a second parameter
//! (CVE-2022-0811).

use std::collections::BTreeMap;

use crate::config::{PodConfig, PodOrNode};
use crate::error::{Error, Result};

const FIELD: &str = "linux.sysctls";

/// The parameters to write, as slashed names and values: the request's, and the defaults that it
/// leaves alone and that apply to it.
pub(crate) fn for_pod(
    config: &PodConfig,
    defaults: &BTreeMap<String, String>,
) -> Result<Vec<(String, String)>> {
    let mut wanted = BTreeMap::new();
    for (name, value) in defaults {
        let name = slashed(name)?;
        if owner(config, &name).is_ok() {
            let value = plain(value)?;
            let value = if name == "net/ipv4/ping_group_range" { within(config, value) } else { value };
            wanted.insert(name, value);
        }
    }
    for (name, value) in &config.sysctls {
        let name = slashed(name)?;
        owner(config, &name)?;
        wanted.insert(name, plain(value)?);
    }
    Ok(wanted.into_iter().collect())
}

/// A range of groups as far as the pod has them: the kernel takes no others.
fn within(config: &PodConfig, range: String) -> String {
    let Some(ids) = config.security.namespaces.users else { return range };
    let last = ids.length - 1;
    let ends: Option<Vec<u32>> = range.split_whitespace().map(|end| end.parse().ok()).collect();
    match ends.as_deref() {
        Some([from, to]) if from <= to => format!("{} {}", from.min(&last), to.min(&last)),
        _ => range,
    }
}

/// Refuses a parameter that is not of one of the pod's own namespaces.
fn owner(config: &PodConfig, name: &str) -> Result<()> {
    let namespaces = &config.security.namespaces;
    let (namespace, mode) = if name.starts_with("net/") {
        ("network", namespaces.network)
    } else if is_ipc(name) {
        ("IPC", namespaces.ipc)
    } else {
        return Err(Error::invalid(
            FIELD,
            format!("{name} belongs to no namespace of a pod: set it on the node"),
        ));
    };
    match mode {
        PodOrNode::Pod => Ok(()),
        PodOrNode::Node => {
            let reason =
                format!("{name} would change the node, since the pod uses the node's {namespace} namespace");
            Err(Error::invalid(FIELD, reason))
        }
    }
}

/// ipc_namespaces(7).
fn is_ipc(name: &str) -> bool {
    name.starts_with("fs/mqueue/")
        || name.strip_prefix("kernel/").is_some_and(|rest| {
            ["shmall", "shmmax", "shmmni", "shm_rmid_forced", "msgmax", "msgmnb", "msgmni", "sem"]
                .contains(&rest)
        })
}

fn slashed(name: &str) -> Result<String> {
    let separator = name.chars().find(|c| ['.', '/'].contains(c)).unwrap_or('.');
    let parts: Vec<&str> = name.split(separator).collect();
    let plain = |part: &&str| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.".contains(&byte);
        !part.is_empty() && *part != "." && *part != ".." && part.bytes().all(allowed)
    };
    if parts.len() < 2 || !parts.iter().all(plain) {
        return Err(Error::invalid(FIELD, format!("{name:?} is not the name of a kernel parameter")));
    }
    Ok(parts.join("/"))
}

fn plain(value: &str) -> Result<String> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b" \t,._:-".contains(&byte);
    if value.is_empty() || !value.bytes().all(allowed) {
        return Err(Error::invalid(FIELD, format!("{value:?} is not a value of a kernel parameter")));
    }
    Ok(value.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Namespaces;
    use crate::config::PidMode;
    use crate::testing::pod_config;

    fn check(network: PodOrNode, name: &str, value: &str) -> Result<Vec<(String, String)>> {
        let mut config = pod_config();
        config.security.namespaces =
            Namespaces { network, pid: PidMode::Container, ipc: network, users: None };
        config.sysctls.insert(name.to_owned(), value.to_owned());
        for_pod(&config, &BTreeMap::new())
    }

    #[test]
    fn parameters_of_the_pods_namespaces_are_written() {
        for (name, slashed) in [
            ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
            ("net/ipv4/conf/eth0.1/forwarding", "net/ipv4/conf/eth0.1/forwarding"),
            ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
            ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ] {
            assert_eq!(check(PodOrNode::Pod, name, "1").unwrap(), [(slashed.to_owned(), "1".to_owned())]);
            assert!(check(PodOrNode::Node, name, "1").is_err(), "{name} on the node");
        }
    }

    #[test]
    fn others_are_refused() {
        for name in [
            "kernel.core_pattern",
            "vm.swappiness",
            "net",
            "net..x",
            "net/../kernel/core_pattern",
            "",
            "a b.c",
        ] {
            assert!(check(PodOrNode::Pod, name, "1").is_err(), "{name:?}");
        }
        for value in ["", "1+kernel.core_pattern=|/x", "a\nb", "a\0", "$(x)"] {
            assert!(check(PodOrNode::Pod, "net.ipv4.ip_forward", value).is_err(), "{value:?}");
        }
    }

    #[test]
    fn a_default_range_of_groups_ends_with_those_of_the_pod() {
        let defaults = BTreeMap::from([("net.ipv4.ping_group_range".to_owned(), "0 2147483647".to_owned())]);
        let mut config = pod_config();
        config.security.namespaces.users = Some(crate::config::IdMap { host: 1000, length: 65536 });
        let expected = [("net/ipv4/ping_group_range".to_owned(), "0 65535".to_owned())];
        assert_eq!(for_pod(&config, &defaults).unwrap(), expected);
    }

    #[test]
    fn defaults_give_way_to_the_request_and_to_the_nodes_namespaces() {
        let defaults = BTreeMap::from([("net.ipv4.ip_unprivileged_port_start".to_owned(), "0".to_owned())]);
        let mut config = pod_config();
        assert_eq!(for_pod(&config, &defaults).unwrap().len(), 1);
        config.sysctls.insert("net/ipv4/ip_unprivileged_port_start".to_owned(), "80".to_owned());
        assert_eq!(for_pod(&config, &defaults).unwrap()[0].1, "80");
        config.sysctls.clear();
        config.security.namespaces.network = PodOrNode::Node;
        assert!(for_pod(&config, &defaults).unwrap().is_empty());
    }
}
