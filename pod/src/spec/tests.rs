//! Golden files: the spec of a configuration, compared with the committed one. `UPDATE=1` rewrites them.

use std::path::PathBuf;

use oci_spec::runtime::LinuxDeviceType;
use runtime::selinux::Labels;
use serde_json::Value;

use super::*;
use crate::config::{Device, ImageVolume, Mount, MountAccess, Resources, RunAs};
use crate::spec::user::{Databases, resolve};
use crate::testing::{container_config, pod_config};

/// What a test may change.
struct Case {
    pod: PodConfig,
    container: ContainerConfig,
    image: ImageConfig,
    devices: Vec<DeviceNode>,
    image_volumes: Vec<PathBuf>,
    confinement: Confinement,
    host: HostFacts,
}

impl Case {
    fn new() -> Self {
        let mut image = ImageConfig::default();
        image.env = vec!["PATH=/bin".into(), "A=image".into()];
        image.entrypoint = vec!["/entry".into()];
        image.cmd = vec!["default".into()];
        Self {
            pod: pod_config(),
            container: container_config(),
            image,
            devices: Vec::new(),
            image_volumes: Vec::new(),
            confinement: Confinement::default(),
            host: HostFacts {
                capabilities: ["CAP_CHOWN", "CAP_SYS_ADMIN", "CAP_NET_ADMIN"].map(str::to_owned).to_vec(),
                rlimits: vec![("RLIMIT_NOFILE".into(), 1024, 4096)],
                cgroup_v2: true,
            },
        }
    }

    fn build(&self) -> Result<Spec> {
        let databases = Databases::default();
        let resolved = resolve(&self.container.security, &self.image.user, &databases)?;
        build(&Inputs {
            id: "c1",
            pod_id: "p1",
            pod: &self.pod,
            container: &self.container,
            image: &self.image,
            user: &resolved.user,
            home: &resolved.home,
            hostname: "web",
            pod_dir: Path::new("/run/corten/pods/p1"),
            pause_pid: 42,
            target_pid: Some(77),
            cgroup: "/kubepods/pod1/c1",
            volumes: Path::new("/var/lib/corten/containers/c1/volumes"),
            image_volumes: &self.image_volumes,
            devices: &self.devices,
            seccomp: None,
            confinement: &self.confinement,
            host: &self.host,
        })
    }
}

/// Compares with `golden/<name>.json`; lists that are sets are sorted first.
fn check(name: &str, case: &Case) {
    let mut spec = serde_json::to_value(case.build().unwrap()).unwrap();
    for set in ["bounding", "effective", "permitted", "inheritable", "ambient"] {
        if let Some(Value::Array(names)) = spec.pointer_mut(&format!("/process/capabilities/{set}")) {
            names.sort_by_key(ToString::to_string);
        }
    }
    let found = serde_json::to_string_pretty(&spec).unwrap() + "\n";
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("src/spec/golden/{name}.json"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(found, expected, "{}: UPDATE=1 rewrites it", path.display());
}

#[test]
fn golden_plain() {
    check("plain", &Case::new());
}

fn kvm() -> DeviceNode {
    DeviceNode {
        path: "/dev/kvm".into(),
        kind: LinuxDeviceType::C,
        major: 10,
        minor: 232,
        mode: 0o660,
        uid: 0,
        gid: 108,
        access: "rwm".into(),
    }
}

#[test]
fn golden_privileged_on_the_nodes_namespaces() {
    let mut case = Case::new();
    case.container.security.privileged = true;
    case.container.security.namespaces.pid = PidMode::Node;
    case.pod.security.namespaces.network = PodOrNode::Node;
    case.pod.security.namespaces.ipc = PodOrNode::Node;
    case.devices = vec![kvm()];
    check("privileged", &case);
}

#[test]
fn golden_everything_asked_for() {
    let mut case = Case::new();
    let container = &mut case.container;
    container.command = vec!["sh".into(), "-c".into()];
    container.args = vec!["true".into()];
    container.working_dir = Some("/work".into());
    container.envs =
        vec![("A".into(), "container".into()), ("B".into(), "x=y".into()), ("HOME".into(), "/h".into())];
    container.tty = true;
    container.devices = vec![Device {
        container_path: "/dev/x".into(),
        host_path: "/dev/null".into(),
        permissions: "r".into(),
    }];
    container.resources = Resources {
        cpu_period: Some(100_000),
        cpu_quota: Some(50_000),
        cpu_shares: Some(512),
        memory_limit_bytes: Some(64 << 20),
        memory_swap_limit_bytes: Some(64 << 20),
        oom_score_adj: 500,
        cpuset_cpus: Some("0-1".into()),
        cpuset_mems: Some("0".into()),
        hugepage_limits: vec![("2MB".into(), 4 << 20)],
        unified: [("memory.high".to_owned(), "1000".to_owned())].into(),
    };
    case.confinement.apparmor = Some("corten-default".into());
    case.confinement.selinux = Some(Labels {
        process: Some("system_u:system_r:container_t:s0:c1,c2".into()),
        mount: "system_u:object_r:container_file_t:s0:c1,c2".into(),
    });
    let security = &mut container.security;
    security.namespaces.pid = PidMode::Pod;
    security.run_as = Some(RunAs::Uid(1000));
    security.run_as_group = Some(2000);
    security.supplemental_groups = vec![3000];
    security.readonly_rootfs = true;
    security.no_new_privs = true;
    security.capabilities.add = vec!["NET_ADMIN".into()];
    security.capabilities.drop = vec!["ALL".into()];
    security.masked_paths = vec!["/proc/kcore".into()];
    security.readonly_paths = vec!["/proc/sys".into()];
    let mount = |place: &str, source: &str, access, propagation| Mount {
        container_path: place.into(),
        host_path: source.into(),
        access,
        propagation,
        selinux_relabel: false,
        users: None,
    };
    container.mounts = vec![
        mount("/data/deep", "/srv/deep", MountAccess::Writable, Propagation::Private),
        mount("/data", "/srv/data", MountAccess::RecursiveReadOnly, Propagation::Private),
        mount("/etc/hosts", "/var/lib/kubelet/hosts", MountAccess::ReadOnly, Propagation::HostToContainer),
        mount("/csi", "/var/lib/csi", MountAccess::Writable, Propagation::Bidirectional),
    ];
    container.mounts[1].selinux_relabel = true;
    container.image_volumes = vec![ImageVolume {
        container_path: "/data/model".into(),
        image: "model".into(),
        user_specified_image: "model:1".into(),
        sub_path: "weights".into(),
        selinux_relabel: false,
        users: None,
    }];
    case.image_volumes = vec!["/run/corten/pods/p1/images/ab/c1-0".into()];
    case.image.volumes = vec!["/cache".into(), "/data".into(), "/../../escape".into()];
    check("everything", &case);
}

#[test]
fn golden_user_namespace() {
    let mut case = Case::new();
    let ids = IdMap { host: 100_000, length: 65536 };
    case.pod.security.namespaces.users = Some(ids);
    case.pod.security.namespaces.network = PodOrNode::Node;
    case.container.security.namespaces = case.pod.security.namespaces.clone();
    let bind = Mount {
        container_path: "/data".into(),
        host_path: "/srv/data".into(),
        access: MountAccess::Writable,
        propagation: Propagation::Private,
        selinux_relabel: false,
        users: Some(ids),
    };
    case.container.mounts = vec![bind];
    case.devices = vec![kvm()];
    check("users", &case);
}

#[test]
fn command_and_arguments_follow_the_image_rules() {
    let check = |command: &[&str], args: &[&str], expected: &[&str]| {
        let mut case = Case::new();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        case.container.command = owned(command);
        case.container.args = owned(args);
        let spec = case.build().unwrap();
        let found = spec.process().as_ref().and_then(|process| process.args().clone());
        assert_eq!(found, Some(owned(expected)), "{command:?} {args:?}");
    };
    check(&[], &[], &["/entry", "default"]);
    check(&[], &["a"], &["/entry", "a"]);
    check(&["c"], &[], &["c"]);
    check(&["c"], &["a"], &["c", "a"]);
}

#[test]
fn a_container_without_a_command_is_refused() {
    let mut case = Case::new();
    case.image = ImageConfig::default();
    assert!(matches!(case.build(), Err(Error::Invalid { field: "config.command", .. })));
}

#[test]
fn capabilities_are_added_and_dropped() {
    let check = |add: &[&str], drop: &[&str], expected: &[&str]| {
        let mut case = Case::new();
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        case.container.security.capabilities.add = owned(add);
        case.container.security.capabilities.drop = owned(drop);
        let spec = serde_json::to_value(case.build().unwrap()).unwrap();
        let mut found: Vec<&str> = spec["process"]["capabilities"]["bounding"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        found.sort_unstable();
        assert_eq!(found, expected, "{add:?} {drop:?}");
    };
    check(&["ALL"], &[], &["CAP_CHOWN", "CAP_NET_ADMIN", "CAP_SYS_ADMIN"]);
    check(&["all"], &["cap_sys_admin"], &["CAP_CHOWN", "CAP_NET_ADMIN"]);
    check(&[], &["ALL"], &[]);
    check(&["NET_BIND_SERVICE"], &["ALL"], &["CAP_NET_BIND_SERVICE"]);
    let mut case = Case::new();
    case.container.security.capabilities.add = vec!["SUPERPOWER".into()];
    assert!(matches!(case.build(), Err(Error::Invalid { field: "add_capabilities", .. })));
}
