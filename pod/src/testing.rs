//! Configurations for unit tests: the smallest valid ones, to be changed by the test.

use std::collections::BTreeMap;

use crate::config::{
    Capabilities, ContainerConfig, ContainerMetadata, Mount, MountAccess, Namespaces, PidMode, PodConfig,
    PodMetadata, PodOrNode, Profile, Propagation, Resources, SecurityContext, SupplementalGroupsPolicy,
};

pub(crate) fn security_context() -> SecurityContext {
    SecurityContext {
        namespaces: Namespaces {
            network: PodOrNode::Pod,
            pid: PidMode::Container,
            ipc: PodOrNode::Pod,
            users: None,
        },
        run_as: None,
        run_as_group: None,
        supplemental_groups: Vec::new(),
        supplemental_groups_policy: SupplementalGroupsPolicy::Merge,
        readonly_rootfs: false,
        privileged: false,
        no_new_privs: false,
        capabilities: Capabilities::default(),
        seccomp: Profile::Unconfined,
        apparmor: None,
        selinux: None,
        masked_paths: Vec::new(),
        readonly_paths: Vec::new(),
    }
}

pub(crate) fn pod_config() -> PodConfig {
    PodConfig {
        metadata: PodMetadata {
            name: "web".into(),
            uid: "u1".into(),
            namespace: "default".into(),
            attempt: 0,
        },
        hostname: "web".into(),
        log_directory: Some("/var/log/pods/web".into()),
        dns: None,
        port_mappings: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        cgroup_parent: None,
        sysctls: BTreeMap::new(),
        security: security_context(),
        overhead: Resources::default(),
        resources: Resources::default(),
        handler: String::new(),
    }
}

pub(crate) fn mount() -> Mount {
    Mount {
        container_path: "/data".into(),
        host_path: "/srv/data".into(),
        access: MountAccess::Writable,
        propagation: Propagation::Private,
        selinux_relabel: false,
        users: None,
    }
}

pub(crate) fn container_config() -> ContainerConfig {
    ContainerConfig {
        metadata: ContainerMetadata { name: "app".into(), attempt: 0 },
        image: "busybox".into(),
        user_specified_image: "busybox".into(),
        command: Vec::new(),
        args: Vec::new(),
        working_dir: None,
        envs: Vec::new(),
        mounts: Vec::new(),
        image_volumes: Vec::new(),
        devices: Vec::new(),
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        log_path: None,
        stdin: false,
        stdin_once: false,
        tty: false,
        resources: Resources::default(),
        security: security_context(),
        stop_signal: None,
    }
}
