//! The spec of a pod's enclosure, of runtimes with sandboxes: a container that does nothing, by whose annotations,
//! in containerd's words, the runtime knows that it is to make one. A pure function like its parent.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    Capabilities, LinuxBuilder, LinuxCapabilitiesBuilder, LinuxNamespaceBuilder, LinuxNamespaceType,
    LinuxResources, MountBuilder, ProcessBuilder, RootBuilder, Spec, SpecBuilder, UserBuilder,
};

use super::pod_annotations;
use crate::config::{PodConfig, PodOrNode, Resources};
use crate::error::{Error, Result};

/// Who pause is.
const NOBODY: u32 = 65535;

/// The kernel takes everything else first: with it goes the pod.
const OOM_SCORE: i32 = -998;

/// All that it depends on.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    pub id: &'a str,
    pub pod: &'a PodConfig,
    pub hostname: &'a str,
    /// The pinned network namespace, none with the node's network.
    pub netns: Option<&'a Path>,
    /// PID of pause, which holds the other namespaces.
    pub pause_pid: i32,
    pub cgroup: &'a str,
}

/// Builds the spec.
pub(crate) fn build(inputs: &Inputs<'_>) -> Result<Spec> {
    assemble(inputs).map_err(|source| Error::Spec { id: inputs.id.to_owned(), source: source.into() })
}

fn assemble(inputs: &Inputs<'_>) -> Result<Spec, OciSpecError> {
    let none = Capabilities::default;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(none())
        .effective(none())
        .inheritable(none())
        .permitted(none())
        .ambient(none());
    let process = ProcessBuilder::default()
        .args(vec!["/pause".to_owned()])
        .cwd("/")
        .env(Vec::new())
        .user(UserBuilder::default().uid(NOBODY).gid(NOBODY).build()?)
        .capabilities(capabilities.build()?)
        .rlimits(Vec::new())
        .no_new_privileges(true)
        .oom_score_adj(OOM_SCORE)
        .build()?;
    let proc = MountBuilder::default().destination("/proc").typ("proc").source("proc");
    let proc = proc.options(["nosuid", "noexec", "nodev"].map(str::to_owned).to_vec()).build()?;
    let mut linux = LinuxBuilder::default()
        .cgroups_path(PathBuf::from(inputs.cgroup))
        .namespaces(namespaces(inputs)?)
        .resources(LinuxResources::default())
        .build()?;
    if inputs.netns.is_some() {
        linux.set_sysctl(Some(inputs.pod.sysctls.clone().into_iter().collect::<HashMap<_, _>>()));
    }
    let mut spec = SpecBuilder::default()
        .version("1.2.0")
        .root(RootBuilder::default().path("rootfs").readonly(true).build()?)
        .mounts(vec![proc])
        .process(process)
        .annotations(annotations(inputs.id, inputs.pod))
        .linux(linux)
        .build()?;
    spec.set_hostname(inputs.netns.map(|_| inputs.hostname.to_owned()));
    Ok(spec)
}

/// The network is the pod's, with what CNI made there; all else is within.
fn namespaces(inputs: &Inputs<'_>) -> Result<Vec<oci_spec::runtime::LinuxNamespace>, OciSpecError> {
    let mut list = vec![(LinuxNamespaceType::Mount, None), (LinuxNamespaceType::Pid, None)];
    if inputs.pod.security.namespaces.ipc == PodOrNode::Pod {
        list.push((LinuxNamespaceType::Ipc, Some(format!("/proc/{}/ns/ipc", inputs.pause_pid).into())));
    }
    if let Some(netns) = inputs.netns {
        list.push((LinuxNamespaceType::Network, Some(netns.to_owned())));
        list.push((LinuxNamespaceType::Uts, None));
    }
    let namespace = |(kind, path): (LinuxNamespaceType, Option<PathBuf>)| {
        let namespace = LinuxNamespaceBuilder::default().typ(kind);
        match path {
            Some(path) => namespace.path(path).build(),
            None => namespace.build(),
        }
    };
    list.into_iter().map(namespace).collect()
}

/// What a pod is known by, in containerd's words.
pub(crate) fn annotations(id: &str, pod: &PodConfig) -> HashMap<String, String> {
    let mut words = vec![("container-type", "sandbox".to_owned())];
    if let Some(directory) = &pod.log_directory {
        words.push(("sandbox-log-directory", directory.to_string_lossy().into_owned()));
    }
    words.extend(size(&pod.resources));
    let own = words.into_iter().map(|(key, value)| (format!("io.kubernetes.cri.{key}"), value));
    pod_annotations(id, pod).chain(own).collect()
}

/// How large it is to be, for those that have to know from the start.
fn size(wanted: &Resources) -> impl Iterator<Item = (&'static str, String)> {
    let text = |value: Option<String>, key| value.map(|value| (key, value));
    [
        text(wanted.cpu_period.map(|value| value.to_string()), "sandbox-cpu-period"),
        text(wanted.cpu_quota.map(|value| value.to_string()), "sandbox-cpu-quota"),
        text(wanted.cpu_shares.map(|value| value.to_string()), "sandbox-cpu-shares"),
        text(wanted.memory_limit_bytes.map(|value| value.to_string()), "sandbox-memory"),
    ]
    .into_iter()
    .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod_config;

    #[test]
    fn it_is_known_by_its_annotations() {
        let mut pod = pod_config();
        pod.resources.memory_limit_bytes = Some(64 << 20);
        pod.sysctls.insert("net.ipv4.ip_forward".into(), "1".into());
        let netns = Path::new("/run/netns/cni-1");
        let mut inputs = Inputs {
            id: "abc",
            pod: &pod,
            hostname: "web",
            netns: Some(netns),
            pause_pid: 7,
            cgroup: "/pods/abc",
        };
        let spec = serde_json::to_value(build(&inputs).unwrap()).unwrap();
        let annotation = |name: &str| spec["annotations"][format!("io.kubernetes.cri.{name}")].clone();
        assert_eq!(annotation("container-type"), "sandbox");
        assert_eq!(annotation("sandbox-id"), "abc");
        assert_eq!(annotation("sandbox-name"), "web");
        assert_eq!(annotation("sandbox-memory"), (64 << 20).to_string());
        assert_eq!(spec["annotations"].get("io.kubernetes.cri.sandbox-cpu-quota"), None);
        assert_eq!((&spec["hostname"], &spec["process"]["args"][0]), (&"web".into(), &"/pause".into()));
        assert_eq!(spec["linux"]["sysctl"]["net.ipv4.ip_forward"], "1");
        let network = |spec: &serde_json::Value| {
            let all = spec["linux"]["namespaces"].as_array().cloned().unwrap_or_default();
            all.into_iter().find(|one| one["type"] == "network").map(|one| one["path"].clone())
        };
        assert_eq!(network(&spec), Some("/run/netns/cni-1".into()));
        inputs.netns = None;
        let spec = serde_json::to_value(build(&inputs).unwrap()).unwrap();
        assert_eq!((network(&spec), spec.get("hostname")), (None, None));
    }
}
