//! Malformed fields of every request: each is refused as an invalid argument, by its name, and leaves nothing.

use anyhow::{Context, bail};
use corten_tests::newest::{
    self as wire, CreateContainerRequest, LinuxContainerResources, RunPodSandboxRequest,
};
use corten_tests::{Kubelet, Pod, Result, Setup, newest, on_own_node};
use tonic::{Code, Status};

type Case<T> = (&'static str, fn(&mut T));

/// Longer than anything that the contract gives a length.
fn long() -> String {
    "a".repeat(70_000)
}

fn refused<T>(field: &str, answer: Result<T, Status>) -> Result {
    let Err(status) = answer else { bail!("{field} was accepted") };
    if status.code() != Code::InvalidArgument || !status.message().contains(field) {
        bail!("{field}: {status}");
    }
    Ok(())
}

/// Sends a good request with each of the changes, and tells of all that went wrong.
async fn check<T: Clone, A>(
    good: &T,
    cases: impl IntoIterator<Item = Case<T>>,
    send: impl AsyncFn(T) -> Result<A, Status>,
) -> Result {
    let mut wrong = Vec::new();
    for (number, (field, change)) in cases.into_iter().enumerate() {
        let mut request = good.clone();
        change(&mut request);
        if let Err(error) = refused(field, send(request).await) {
            wrong.push(format!("case {number}: {error:#}"));
        }
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("\n")) }
}

fn pod(request: &mut RunPodSandboxRequest) -> &mut wire::PodSandboxConfig {
    request.config.get_or_insert_default()
}

fn metadata(request: &mut RunPodSandboxRequest) -> &mut wire::PodSandboxMetadata {
    pod(request).metadata.get_or_insert_default()
}

fn dns(request: &mut RunPodSandboxRequest) -> &mut wire::DnsConfig {
    pod(request).dns_config.get_or_insert_default()
}

fn pod_linux(request: &mut RunPodSandboxRequest) -> &mut wire::LinuxPodSandboxConfig {
    pod(request).linux.get_or_insert_default()
}

fn pod_security(request: &mut RunPodSandboxRequest) -> &mut wire::LinuxSandboxSecurityContext {
    pod_linux(request).security_context.get_or_insert_default()
}

fn pod_namespaces(request: &mut RunPodSandboxRequest) -> &mut wire::NamespaceOption {
    pod_security(request).namespace_options.get_or_insert_default()
}

fn port(request: &mut RunPodSandboxRequest, change: fn(&mut wire::PortMapping)) {
    let mut mapping = wire::PortMapping { container_port: 80, host_port: 8080, ..Default::default() };
    change(&mut mapping);
    pod(request).port_mappings.push(mapping);
}

const fn number(value: i64) -> Option<wire::Int64Value> {
    Some(wire::Int64Value { value })
}

const POD: &[Case<RunPodSandboxRequest>] = &[
    ("config", |r| r.config = None),
    ("config.metadata", |r| pod(r).metadata = None),
    ("config.metadata.name", |r| metadata(r).name.clear()),
    ("config.metadata.name", |r| metadata(r).name = "a/b".to_owned()),
    ("config.metadata.name", |r| metadata(r).name = "a\0b".to_owned()),
    ("config.metadata.name", |r| metadata(r).name = long()),
    ("config.metadata.uid", |r| metadata(r).uid.clear()),
    ("config.metadata.uid", |r| metadata(r).uid = "../u".to_owned()),
    ("config.metadata.namespace", |r| metadata(r).namespace.clear()),
    ("config.metadata.namespace", |r| metadata(r).namespace = "a;K8S_POD_NAME=b".to_owned()),
    ("config.hostname", |r| pod(r).hostname = long()),
    ("config.hostname", |r| pod(r).hostname = "a b".to_owned()),
    ("config.log_directory", |r| pod(r).log_directory = "relative".to_owned()),
    ("config.log_directory", |r| pod(r).log_directory = "/var/../etc".to_owned()),
    ("config.log_directory", |r| pod(r).log_directory = "/var/\0".to_owned()),
    ("config.log_directory", |r| pod(r).log_directory = format!("/{}", long())),
    ("config.labels", |r| drop(pod(r).labels.insert(String::new(), "x".to_owned()))),
    ("config.labels", |r| drop(pod(r).labels.insert("x".to_owned(), long().repeat(20)))),
    ("config.annotations", |r| drop(pod(r).annotations.insert(String::new(), "x".to_owned()))),
    ("config.annotations", |r| drop(pod(r).annotations.insert("x".to_owned(), long().repeat(20)))),
    ("config.dns_config.servers", |r| dns(r).servers = vec!["1.1.1.1\nsearch x".to_owned()]),
    ("config.dns_config.searches", |r| dns(r).searches = vec![String::new()]),
    ("config.dns_config.options", |r| dns(r).options = vec!["a b".to_owned()]),
    ("config.port_mappings[0].protocol", |r| port(r, |p| p.protocol = 9)),
    ("config.port_mappings[0].container_port", |r| port(r, |p| p.container_port = -1)),
    ("config.port_mappings[0].container_port", |r| port(r, |p| p.container_port = 0)),
    ("config.port_mappings[0].host_port", |r| port(r, |p| p.host_port = 65_536)),
    ("config.port_mappings[0].host_ip", |r| port(r, |p| p.host_ip = "somewhere".to_owned())),
    ("config.port_mappings[1].host_port", |r| {
        port(r, |_| ());
        port(r, |_| ());
    }),
    ("config.linux.cgroup_parent", |r| pod_linux(r).cgroup_parent = "relative".to_owned()),
    ("config.linux.cgroup_parent", |r| pod_linux(r).cgroup_parent = "/a/../b".to_owned()),
    ("sysctl", |r| drop(pod_linux(r).sysctls.insert("kernel.hostname\0".to_owned(), "1".to_owned()))),
    ("config.linux.overhead", |r| {
        let overhead = LinuxContainerResources { cpu_period: -1, ..Default::default() };
        pod_linux(r).overhead = Some(overhead);
    }),
    ("config.linux.resources", |r| {
        let resources = LinuxContainerResources { memory_limit_in_bytes: -7, ..Default::default() };
        pod_linux(r).resources = Some(resources);
    }),
    ("config.windows", |r| pod(r).windows = Some(Default::default())),
    ("runtime_handler", |r| r.runtime_handler = "a\nb".to_owned()),
    ("no-such-handler", |r| r.runtime_handler = "no-such-handler".to_owned()),
    ("namespace_options.network", |r| pod_namespaces(r).network = 77),
    ("namespace_options.network", |r| pod_namespaces(r).network = wire::NamespaceMode::Container.into()),
    ("namespace_options.pid", |r| pod_namespaces(r).pid = -1),
    ("namespace_options.pid", |r| {
        let target = wire::NamespaceMode::Target.into();
        (pod_namespaces(r).pid, pod_namespaces(r).target_id) = (target, "x".to_owned());
    }),
    ("namespace_options.ipc", |r| pod_namespaces(r).ipc = 4),
    ("namespace_options.target_id", |r| pod_namespaces(r).target_id = "x".to_owned()),
    ("run_as_user", |r| pod_security(r).run_as_user = number(-1)),
    ("run_as_group", |r| pod_security(r).run_as_group = number(1)),
    ("supplemental_groups", |r| pod_security(r).supplemental_groups = vec![1 << 40]),
    ("supplemental_groups", |r| pod_security(r).supplemental_groups = vec![1; 70_000]),
    ("supplemental_groups_policy", |r| pod_security(r).supplemental_groups_policy = 5),
    ("seccomp.profile_type", |r| {
        pod_security(r).seccomp =
            Some(wire::SecurityProfile { profile_type: 9, localhost_ref: String::new() });
    }),
    ("seccomp.localhost_ref", |r| {
        pod_security(r).seccomp =
            Some(wire::SecurityProfile { profile_type: 2, localhost_ref: "../x".to_owned() });
    }),
    ("selinux_options.level", |r| {
        pod_security(r).selinux_options =
            Some(wire::SeLinuxOption { level: "s0\n".to_owned(), ..Default::default() });
    }),
];

#[test]
fn every_malformed_field_of_a_pod_is_refused_by_name() {
    on_own_node(&Setup::default(), async |kubelet| {
        let good: RunPodSandboxRequest = newest::same(&kubelet.pod().request().await?)?;
        let send = async |request| kubelet.cri().newest.run_pod_sandbox(request).await;
        check(&good, POD.iter().copied(), send).await?;
        let listed = kubelet.pods(Default::default()).await?;
        assert!(listed.is_empty(), "{listed:?}");
        // The request was good but for what was changed.
        let id = send(good).await?.into_inner().pod_sandbox_id;
        kubelet.remove_pod(&id).await?;
        Ok(())
    });
}

fn container(request: &mut CreateContainerRequest) -> &mut wire::ContainerConfig {
    request.config.get_or_insert_default()
}

fn name(request: &mut CreateContainerRequest) -> &mut String {
    &mut container(request).metadata.get_or_insert_default().name
}

fn linux(request: &mut CreateContainerRequest) -> &mut wire::LinuxContainerConfig {
    container(request).linux.get_or_insert_default()
}

fn security(request: &mut CreateContainerRequest) -> &mut wire::LinuxContainerSecurityContext {
    linux(request).security_context.get_or_insert_default()
}

fn namespaces(request: &mut CreateContainerRequest) -> &mut wire::NamespaceOption {
    security(request).namespace_options.get_or_insert_default()
}

fn capabilities(request: &mut CreateContainerRequest) -> &mut wire::Capability {
    security(request).capabilities.get_or_insert_default()
}

fn mount(request: &mut CreateContainerRequest, change: fn(&mut wire::Mount)) {
    let mut mount = wire::Mount {
        container_path: "/data".to_owned(),
        host_path: "/usr".to_owned(),
        readonly: true,
        ..Default::default()
    };
    change(&mut mount);
    container(request).mounts.push(mount);
}

fn device(request: &mut CreateContainerRequest, change: fn(&mut wire::Device)) {
    let mut device = wire::Device {
        container_path: "/dev/n".to_owned(),
        host_path: "/dev/null".to_owned(),
        permissions: "rwm".to_owned(),
    };
    change(&mut device);
    container(request).devices.push(device);
}

fn env(request: &mut CreateContainerRequest, key: &str, value: &[u8]) {
    container(request).envs.push(wire::KeyValue { key: key.to_owned(), value: value.to_vec() });
}

fn profile(profile_type: i32, localhost_ref: &str) -> Option<wire::SecurityProfile> {
    Some(wire::SecurityProfile { profile_type, localhost_ref: localhost_ref.to_owned() })
}

const CONTAINER: &[Case<CreateContainerRequest>] = &[
    ("pod_sandbox_id", |r| r.pod_sandbox_id.clear()),
    ("pod_sandbox_id", |r| r.pod_sandbox_id = "a\0".to_owned()),
    ("pod_sandbox_id", |r| r.pod_sandbox_id = long()),
    ("config", |r| r.config = None),
    ("config.metadata", |r| container(r).metadata = None),
    ("config.metadata.name", |r| name(r).clear()),
    ("config.metadata.name", |r| *name(r) = "a\nb".to_owned()),
    ("config.metadata.name", |r| *name(r) = long()),
    ("config.image", |r| container(r).image = None),
    ("config.image.image", |r| container(r).image.get_or_insert_default().image.clear()),
    ("config.image.image", |r| container(r).image.get_or_insert_default().image = "a\0".to_owned()),
    ("config.image.image", |r| container(r).image.get_or_insert_default().image = long()),
    ("config.command[0]", |r| container(r).command = vec!["a\0b".to_owned()]),
    ("config.args[1]", |r| container(r).args = vec!["a".to_owned(), "b\0".to_owned()]),
    ("config.working_dir", |r| container(r).working_dir = "relative".to_owned()),
    ("config.working_dir", |r| container(r).working_dir = "/a/../b".to_owned()),
    ("config.envs[0].key", |r| env(r, "", b"x")),
    ("config.envs[0].key", |r| env(r, "a=b", b"x")),
    ("config.envs[0].key", |r| env(r, "a\0", b"x")),
    ("config.envs[0].value", |r| env(r, "a", b"x\0")),
    ("config.envs[0].value", |r| env(r, "a", b"\xff")),
    ("config.labels", |r| drop(container(r).labels.insert(String::new(), "x".to_owned()))),
    ("config.annotations", |r| drop(container(r).annotations.insert("x".to_owned(), long().repeat(20)))),
    ("config.log_path", |r| container(r).log_path = "/absolute.log".to_owned()),
    ("config.log_path", |r| container(r).log_path = "../outside.log".to_owned()),
    ("config.log_path", |r| container(r).log_path = "a\0.log".to_owned()),
    ("config.stop_signal", |r| container(r).stop_signal = 1000),
    ("config.windows", |r| container(r).windows = Some(Default::default())),
    ("config.mounts[0].container_path", |r| mount(r, |m| m.container_path.clear())),
    ("config.mounts[0].container_path", |r| mount(r, |m| m.container_path = "/".to_owned())),
    ("config.mounts[0].container_path", |r| mount(r, |m| m.container_path = "data".to_owned())),
    ("config.mounts[0].container_path", |r| mount(r, |m| m.container_path = "/a/../b".to_owned())),
    ("config.mounts[0].host_path", |r| mount(r, |m| m.host_path.clear())),
    ("config.mounts[0].host_path", |r| mount(r, |m| m.host_path = "usr".to_owned())),
    ("config.mounts[0].host_path", |r| mount(r, |m| m.host_path = "/usr/../etc".to_owned())),
    ("config.mounts[0].host_path", |r| mount(r, |m| m.host_path = "/usr\0".to_owned())),
    ("config.mounts[0].propagation", |r| mount(r, |m| m.propagation = 3)),
    ("config.mounts[0].recursive_read_only", |r| {
        mount(r, |m| (m.recursive_read_only, m.readonly) = (true, false));
    }),
    ("config.mounts[0].recursive_read_only", |r| {
        mount(r, |m| (m.recursive_read_only, m.propagation) = (true, 2));
    }),
    ("config.mounts[1].container_path", |r| {
        mount(r, |_| ());
        mount(r, |m| m.container_path = "//data/.".to_owned());
    }),
    ("config.mounts[0].image.image", |r| {
        mount(r, |m| {
            m.host_path.clear();
            m.image = Some(Default::default());
        });
    }),
    ("config.mounts[0].image_sub_path", |r| mount(r, |m| m.image_sub_path = "x".to_owned())),
    ("config.mounts[0].image_sub_path", |r| {
        mount(r, |m| {
            m.host_path.clear();
            m.image = Some(wire::ImageSpec { image: "i".to_owned(), ..Default::default() });
            m.image_sub_path = "../x".to_owned();
        });
    }),
    ("config.mounts[0].readonly", |r| {
        mount(r, |m| {
            m.host_path.clear();
            m.readonly = false;
            m.image = Some(wire::ImageSpec { image: "i".to_owned(), ..Default::default() });
        });
    }),
    ("config.devices[0].permissions", |r| device(r, |d| d.permissions = "rwx".to_owned())),
    ("config.devices[0].host_path", |r| device(r, |d| d.host_path = "dev/null".to_owned())),
    ("config.devices[0].container_path", |r| device(r, |d| d.container_path = "/../n".to_owned())),
    ("config.devices", |r| device(r, |d| d.host_path = "/dev/no-such-device".to_owned())),
    ("config.devices", |r| device(r, |d| d.host_path = "/etc/passwd".to_owned())),
    ("run_as_user", |r| security(r).run_as_user = number(-1)),
    ("run_as_user", |r| security(r).run_as_user = number(1 << 33)),
    ("run_as_group", |r| security(r).run_as_group = number(5)),
    ("run_as_username", |r| security(r).run_as_username = "a\nb".to_owned()),
    ("run_as_username", |r| {
        (security(r).run_as_user, security(r).run_as_username) = (number(1), "nobody".to_owned());
    }),
    ("supplemental_groups", |r| security(r).supplemental_groups = vec![-5]),
    ("supplemental_groups", |r| security(r).supplemental_groups = vec![7; 70_000]),
    ("supplemental_groups_policy", |r| security(r).supplemental_groups_policy = 2),
    ("namespace_options.pid", |r| namespaces(r).pid = 9),
    ("namespace_options.target_id", |r| namespaces(r).pid = wire::NamespaceMode::Target.into()),
    ("namespace_options.ipc", |r| namespaces(r).ipc = wire::NamespaceMode::Target.into()),
    ("add_capabilities", |r| capabilities(r).add_capabilities = vec!["NET ADMIN".to_owned()]),
    ("add_capabilities", |r| capabilities(r).add_capabilities = vec!["SUPERPOWER".to_owned()]),
    ("drop_capabilities", |r| capabilities(r).drop_capabilities = vec![String::new()]),
    ("seccomp.profile_type", |r| security(r).seccomp = profile(3, "")),
    ("seccomp.localhost_ref", |r| security(r).seccomp = profile(2, "")),
    ("seccomp.localhost_ref", |r| security(r).seccomp = profile(2, "/a/../b")),
    ("seccomp", |r| security(r).seccomp = profile(2, "/no/such/profile.json")),
    ("apparmor", |r| security(r).apparmor = profile(2, "no-such-profile")),
    ("masked_paths", |r| security(r).masked_paths = vec!["proc".to_owned()]),
    ("readonly_paths", |r| security(r).readonly_paths = vec!["/proc/../x".to_owned()]),
    ("privileged", |r| security(r).privileged = true),
];

#[test]
fn every_malformed_field_of_a_container_is_refused_by_name() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let good: CreateContainerRequest = newest::same(&pod.container().request().await?)?;
        let send = async |request| kubelet.cri().newest.create_container(request).await;
        check(&good, CONTAINER.iter().copied(), send).await?;
        let limits = async |resources: LinuxContainerResources| {
            let mut request = good.clone();
            linux(&mut request).resources = Some(resources);
            send(request).await
        };
        check(&LinuxContainerResources::default(), LIMITS.iter().copied(), limits).await?;
        let listed = kubelet.containers(Default::default()).await?;
        assert!(listed.is_empty(), "{listed:?}");
        send(good).await.context("the request was good but for what was changed")?;
        Ok(())
    });
}

const LIMITS: &[Case<LinuxContainerResources>] = &[
    ("cpu_period", |r| r.cpu_period = -1),
    ("cpu_quota", |r| r.cpu_quota = -2),
    ("cpu_shares", |r| r.cpu_shares = 1),
    ("cpu_shares", |r| r.cpu_shares = i64::MAX),
    ("memory_limit_in_bytes", |r| r.memory_limit_in_bytes = i64::MIN),
    ("memory_swap_limit_in_bytes", |r| r.memory_swap_limit_in_bytes = -9),
    ("memory_swap_limit_in_bytes", |r| {
        (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (1 << 30, 1 << 20);
    }),
    ("oom_score_adj", |r| r.oom_score_adj = 1001),
    ("oom_score_adj", |r| r.oom_score_adj = i64::MIN),
    ("cpuset_cpus", |r| r.cpuset_cpus = "0,,1".to_owned()),
    ("cpuset.cpus", |r| r.cpuset_cpus = "9999".to_owned()),
    ("cpuset_mems", |r| r.cpuset_mems = "0\n".to_owned()),
    ("hugepage_limits[0].page_size", |r| {
        r.hugepage_limits = vec![wire::HugepageLimit { page_size: "../2MB".to_owned(), limit: 1 }];
    }),
    ("hugepage_limits[1].page_size", |r| {
        r.hugepage_limits = vec![wire::HugepageLimit { page_size: "2MB".to_owned(), limit: 1 }; 2];
    }),
    ("unified", |r| drop(r.unified.insert("cgroup.procs".to_owned(), "1".to_owned()))),
    ("unified", |r| drop(r.unified.insert("../memory.max".to_owned(), "1".to_owned()))),
    ("unified[memory.max]", |r| drop(r.unified.insert("memory.max".to_owned(), "1\n2".to_owned()))),
];

#[test]
fn every_malformed_field_of_an_update_is_refused_by_name() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().create().await?;
        let update = async |linux| {
            let request = wire::UpdateContainerResourcesRequest {
                container_id: container.id.clone(),
                linux,
                ..Default::default()
            };
            kubelet.cri().newest.update_container_resources(request).await
        };
        let limits = async |resources| update(Some(resources)).await;
        check(&LinuxContainerResources::default(), LIMITS.iter().copied(), limits).await?;
        refused("linux", update(None).await)?;
        let resize = async |resources| {
            let request = wire::UpdatePodSandboxResourcesRequest {
                pod_sandbox_id: pod.id.clone(),
                overhead: None,
                resources: Some(resources),
            };
            kubelet.cri().newest.update_pod_sandbox_resources(request).await
        };
        // Whether the node has such a processor is nothing that is looked at for a pod.
        let told = LIMITS.iter().copied().filter(|(field, _)| *field != "cpuset.cpus");
        check(&LinuxContainerResources::default(), told, resize).await
    });
}

/// Calls that name one pod or container; each gets an id that is none.
async fn with_id(kubelet: &Kubelet, id: &str) -> Result {
    let mut cri = kubelet.cri().newest;
    let (pod, container) = (|| id.to_owned(), || id.to_owned());
    let cmd = vec!["x".to_owned()];
    macro_rules! call {
        ($method:ident, $field:literal, $request:expr) => {
            refused($field, cri.$method($request).await).context(stringify!($method))?
        };
    }
    call!(stop_pod_sandbox, "pod_sandbox_id", wire::StopPodSandboxRequest { pod_sandbox_id: pod() });
    call!(remove_pod_sandbox, "pod_sandbox_id", wire::RemovePodSandboxRequest { pod_sandbox_id: pod() });
    call!(
        pod_sandbox_status,
        "pod_sandbox_id",
        wire::PodSandboxStatusRequest { pod_sandbox_id: pod(), verbose: true }
    );
    call!(
        update_pod_sandbox_resources,
        "pod_sandbox_id",
        wire::UpdatePodSandboxResourcesRequest { pod_sandbox_id: pod(), ..Default::default() }
    );
    call!(start_container, "container_id", wire::StartContainerRequest { container_id: container() });
    call!(
        stop_container,
        "container_id",
        wire::StopContainerRequest { container_id: container(), timeout: 1 }
    );
    call!(remove_container, "container_id", wire::RemoveContainerRequest { container_id: container() });
    call!(
        container_status,
        "container_id",
        wire::ContainerStatusRequest { container_id: container(), verbose: true }
    );
    call!(
        reopen_container_log,
        "container_id",
        wire::ReopenContainerLogRequest { container_id: container() }
    );
    call!(exec_sync, "container_id", wire::ExecSyncRequest { container_id: container(), cmd, timeout: 1 });
    call!(container_stats, "container_id", wire::ContainerStatsRequest { container_id: container() });
    Ok(())
}

#[test]
fn ids_that_are_none_are_refused_in_every_call() {
    on_own_node(&Setup::default(), async |kubelet| {
        for id in ["", "a\0b", "a\n", &long()] {
            with_id(kubelet, id).await.with_context(|| format!("{:?}", &id[..id.len().min(5)]))?;
        }
        Ok(())
    });
}

async fn exec(pod: &Pod<'_>, cmd: &[&str], timeout: i64) -> Result<(), Status> {
    let request = wire::ExecSyncRequest {
        container_id: "0badcafe".to_owned(),
        cmd: cmd.iter().map(|word| (*word).to_owned()).collect(),
        timeout,
    };
    pod.kubelet.cri().newest.exec_sync(request).await.map(drop)
}

#[test]
fn other_malformed_fields_are_refused_by_name() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        refused("cmd", exec(&pod, &[], 1).await)?;
        refused("cmd[0]", exec(&pod, &["a\0"], 1).await)?;
        refused("timeout", exec(&pod, &["a"], -1).await)?;
        let mut cri = kubelet.cri();
        let stop = wire::StopContainerRequest { container_id: "0badcafe".to_owned(), timeout: -1 };
        refused("timeout", cri.newest.stop_container(stop).await)?;
        let state = Some(wire::PodSandboxStateValue { state: 9 });
        let filter = Some(wire::PodSandboxFilter { state, ..Default::default() });
        refused("filter.state", cri.newest.list_pod_sandbox(wire::ListPodSandboxRequest { filter }).await)?;
        let state = Some(wire::ContainerStateValue { state: -9 });
        let filter = Some(wire::ContainerFilter { state, ..Default::default() });
        refused("filter.state", cri.newest.list_containers(wire::ListContainersRequest { filter }).await)?;
        let filter = Some(wire::ContainerStatsFilter { id: "a\0".to_owned(), ..Default::default() });
        refused(
            "filter.id",
            cri.newest.list_container_stats(wire::ListContainerStatsRequest { filter }).await,
        )?;
        let image = |name: &str| Some(wire::ImageSpec { image: name.to_owned(), ..Default::default() });
        for (field, image) in [
            ("image", None),
            ("image.image", image("")),
            ("image.image", image("a\0")),
            ("image.image", image(&long())),
        ] {
            let pull = wire::PullImageRequest { image: image.clone(), ..Default::default() };
            refused(field, cri.newest_images.pull_image(pull).await)?;
            let status = wire::ImageStatusRequest { image: image.clone(), verbose: true };
            refused(field, cri.newest_images.image_status(status).await)?;
            let remove = wire::RemoveImageRequest { image };
            refused(field, cri.newest_images.remove_image(remove).await)?;
        }
        Ok(())
    });
}
