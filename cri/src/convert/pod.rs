//! Pods: RunPodSandbox's configuration, filters, and how they are shown.

use std::collections::BTreeSet;
use std::net::IpAddr;

use pod::config::{Dns, PodConfig, PodMetadata, PodOrNode, PodResources, PortMapping, Protocol, Resources};
use pod::status::{PodFilter, PodState, PodStatus};

use super::{Invalid, field, resources, security};
use crate::wire::cri;

/// __NEW_UTS_LEN: what sethostname(2) takes.
const HOSTNAME_BYTES: usize = 64;

/// Parses what RunPodSandbox asks for.
pub(crate) fn parse(request: cri::RunPodSandboxRequest) -> Result<PodConfig, Invalid> {
    let config = field::required("config", request.config)?;
    let metadata = metadata(field::required("config.metadata", config.metadata)?)?;
    if config.windows.is_some() {
        return Err(Invalid::new("config.windows", "this is Linux"));
    }
    let linux = config.linux.unwrap_or_default();
    let security = security::pod("config.linux.security_context", linux.security_context)?;
    Ok(PodConfig {
        hostname: hostname(config.hostname, &metadata.name, security.namespaces.network)?,
        log_directory: match config.log_directory.as_str() {
            "" => None,
            path => Some(field::absolute("config.log_directory", path)?),
        },
        dns: config.dns_config.map(dns).transpose()?.filter(|dns| *dns != Dns::default()),
        port_mappings: port_mappings(config.port_mappings)?,
        labels: field::map("config.labels", config.labels)?,
        annotations: field::map("config.annotations", config.annotations)?,
        cgroup_parent: match linux.cgroup_parent.as_str() {
            "" => None,
            path => Some(cgroup_parent(path)?),
        },
        sysctls: linux.sysctls,
        overhead: limits("config.linux.overhead", linux.overhead)?,
        resources: limits("config.linux.resources", linux.resources)?,
        handler: field::plain("runtime_handler", request.runtime_handler)?,
        metadata,
        security,
    })
}

fn metadata(metadata: cri::PodSandboxMetadata) -> Result<PodMetadata, Invalid> {
    Ok(PodMetadata {
        name: field::name("config.metadata.name", metadata.name)?,
        uid: field::name("config.metadata.uid", metadata.uid)?,
        namespace: field::name("config.metadata.namespace", metadata.namespace)?,
        attempt: metadata.attempt,
    })
}

/// A pod with a network of its own has a name there; without one in the request it is the pod's, made fit.
fn hostname(given: String, pod: &str, network: PodOrNode) -> Result<String, Invalid> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ['-', '.', '_'].contains(&c);
    if given.is_empty() && network == PodOrNode::Pod {
        let fit: String =
            pod.chars().map(|c| if allowed(c) { c } else { '-' }).take(HOSTNAME_BYTES - 1).collect();
        return Ok(fit.trim_matches(['-', '.']).to_owned());
    }
    if given.len() > HOSTNAME_BYTES {
        return Err(Invalid::new("config.hostname", format!("longer than {HOSTNAME_BYTES} bytes")));
    }
    match given.chars().find(|c| !allowed(*c)) {
        Some(c) => Err(Invalid::new("config.hostname", format!("contains {c:?}"))),
        None => Ok(given),
    }
}

fn dns(config: cri::DnsConfig) -> Result<Dns, Invalid> {
    let words = |name: &str, words: Vec<String>| {
        let at = format!("config.dns_config.{name}");
        let word = |word: String| match word.chars().find(|c| c.is_control() || c.is_whitespace()) {
            Some(c) => Err(Invalid::new(&at, format!("{word:?} contains {c:?}"))),
            None if word.is_empty() => Err(Invalid::new(&at, "one of them is empty")),
            None => Ok(word),
        };
        words.into_iter().map(word).collect::<Result<Vec<_>, _>>()
    };
    Ok(Dns {
        servers: words("servers", config.servers)?,
        searches: words("searches", config.searches)?,
        options: words("options", config.options)?,
    })
}

/// Mappings without a port of the host ask for nothing and are left out.
fn port_mappings(mappings: Vec<cri::PortMapping>) -> Result<Vec<PortMapping>, Invalid> {
    let mut taken = BTreeSet::new();
    let mut parsed = Vec::new();
    for (index, mapping) in mappings.into_iter().enumerate() {
        let at = format!("config.port_mappings[{index}]");
        let protocol = match field::one_of(format_args!("{at}.protocol"), mapping.protocol)? {
            cri::Protocol::Tcp => Protocol::Tcp,
            cri::Protocol::Udp => Protocol::Udp,
            cri::Protocol::Sctp => Protocol::Sctp,
        };
        let container_port = port(format_args!("{at}.container_port"), mapping.container_port)?;
        let host_port = port(format_args!("{at}.host_port"), mapping.host_port)?;
        let host_ip = match mapping.host_ip.as_str() {
            "" => None,
            text => Some(address(format_args!("{at}.host_ip"), text)?),
        };
        if host_port == 0 {
            continue;
        }
        if container_port == 0 {
            return Err(Invalid::new(format_args!("{at}.container_port"), "0 is not a port"));
        }
        if !taken.insert((mapping.protocol, host_port, host_ip)) {
            let reason = format!("another mapping has the port {host_port}");
            return Err(Invalid::new(format_args!("{at}.host_port"), reason));
        }
        parsed.push(PortMapping { protocol, container_port, host_port, host_ip });
    }
    Ok(parsed)
}

fn port(at: std::fmt::Arguments<'_>, number: i32) -> Result<u16, Invalid> {
    u16::try_from(number).map_err(|_| Invalid::new(at, format!("{number} is not between 0 and 65535")))
}

fn address(at: std::fmt::Arguments<'_>, text: &str) -> Result<IpAddr, Invalid> {
    text.parse().map_err(|_| Invalid::new(at, format!("{text:?} is not an address")))
}

/// A path, or the name of a slice; which one it has to be is the cgroup driver's to say.
fn cgroup_parent(text: &str) -> Result<String, Invalid> {
    const FIELD: &str = "config.linux.cgroup_parent";
    if text.ends_with(".slice") && !text.contains('/') {
        return field::plain(FIELD, text.to_owned());
    }
    field::absolute(FIELD, text).map(|path| path.display().to_string())
}

/// Parses what UpdatePodSandboxResources tells.
pub(crate) fn parse_resize(
    request: cri::UpdatePodSandboxResourcesRequest,
) -> Result<(String, PodResources), Invalid> {
    let id = field::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let overhead = limits("overhead", request.overhead)?;
    Ok((id, PodResources { overhead, resources: limits("resources", request.resources)? }))
}

fn limits(at: &str, limits: Option<cri::LinuxContainerResources>) -> Result<Resources, Invalid> {
    resources::parse(at, limits)
}

/// Parses ListPodSandbox's filter; one that is not there lets everything through.
pub(crate) fn filter(filter: Option<cri::PodSandboxFilter>) -> Result<PodFilter, Invalid> {
    let filter = filter.unwrap_or_default();
    let state = |value: cri::PodSandboxStateValue| match field::one_of("filter.state", value.state)? {
        cri::PodSandboxState::SandboxReady => Ok(PodState::Ready),
        cri::PodSandboxState::SandboxNotready => Ok(PodState::NotReady),
    };
    Ok(PodFilter {
        id: field::id_filter("filter.id", filter.id)?,
        state: filter.state.map(state).transpose()?,
        labels: filter.label_selector,
    })
}

/// A pod as PodSandboxStatus shows it.
pub(crate) fn status(pod: &PodStatus) -> cri::PodSandboxStatus {
    let namespaces = &pod.config.security.namespaces;
    let addresses: Vec<String> = pod.ips.iter().map(IpAddr::to_string).collect();
    // The kubelet makes a pod anew that has a network section without an address in it, but for the node's network.
    let known = !addresses.is_empty() || namespaces.network == PodOrNode::Node;
    let mut addresses = addresses.into_iter();
    let network = cri::PodSandboxNetworkStatus {
        ip: addresses.next().unwrap_or_default(),
        additional_ips: addresses.map(|ip| cri::PodIp { ip }).collect(),
    };
    cri::PodSandboxStatus {
        id: pod.id.clone(),
        metadata: Some(show_metadata(&pod.config.metadata)),
        state: state(pod.state).into(),
        created_at: pod.created_at_ns,
        network: known.then_some(network),
        linux: Some(cri::LinuxPodSandboxStatus {
            namespaces: Some(cri::Namespace { options: Some(security::report(namespaces)) }),
        }),
        labels: pod.config.labels.clone(),
        annotations: pod.config.annotations.clone(),
        runtime_handler: pod.config.handler.clone(),
    }
}

/// A pod as ListPodSandbox shows it.
pub(crate) fn listed(pod: &PodStatus) -> cri::PodSandbox {
    cri::PodSandbox {
        id: pod.id.clone(),
        metadata: Some(show_metadata(&pod.config.metadata)),
        state: state(pod.state).into(),
        created_at: pod.created_at_ns,
        labels: pod.config.labels.clone(),
        annotations: pod.config.annotations.clone(),
        runtime_handler: pod.config.handler.clone(),
    }
}

pub(super) fn show_metadata(metadata: &PodMetadata) -> cri::PodSandboxMetadata {
    cri::PodSandboxMetadata {
        name: metadata.name.clone(),
        uid: metadata.uid.clone(),
        namespace: metadata.namespace.clone(),
        attempt: metadata.attempt,
    }
}

fn state(state: PodState) -> cri::PodSandboxState {
    match state {
        PodState::Ready => cri::PodSandboxState::SandboxReady,
        PodState::NotReady => cri::PodSandboxState::SandboxNotready,
    }
}

#[cfg(test)]
mod tests;
