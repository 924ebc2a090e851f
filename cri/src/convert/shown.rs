//! What was asked for, in the contract's words again: the `config` in the `info` of verbose answers.

use pod::config::{
    ContainerConfig, Device, PodConfig, PortMapping, Profile, Protocol, RunAs, SecurityContext,
    SelinuxOptions, SupplementalGroupsPolicy,
};

use super::{container, mount, pod as pods, resources, security, signal};
use crate::wire::cri;

/// RunPodSandbox's configuration.
pub(crate) fn pod(config: &PodConfig) -> cri::PodSandboxConfig {
    let dns = config.dns.as_ref().map(|dns| cri::DnsConfig {
        servers: dns.servers.clone(),
        searches: dns.searches.clone(),
        options: dns.options.clone(),
    });
    cri::PodSandboxConfig {
        metadata: Some(pods::show_metadata(&config.metadata)),
        hostname: config.hostname.clone(),
        log_directory: path(config.log_directory.as_deref()),
        dns_config: dns,
        port_mappings: config.port_mappings.iter().map(port).collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        linux: Some(cri::LinuxPodSandboxConfig {
            cgroup_parent: config.cgroup_parent.clone().unwrap_or_default(),
            security_context: Some(pod_security(&config.security)),
            sysctls: config.sysctls.clone(),
            overhead: Some(resources::report(&config.overhead)),
            resources: Some(resources::report(&config.resources)),
        }),
        ..Default::default()
    }
}

/// CreateContainer's configuration.
pub(crate) fn container(config: &ContainerConfig) -> cri::ContainerConfig {
    let env =
        |(key, value): &(String, String)| cri::KeyValue { key: key.clone(), value: value.clone().into() };
    let images = config.image_volumes.iter().map(|volume| mount::report_image(volume, &volume.image));
    cri::ContainerConfig {
        metadata: Some(container::show_metadata(&config.metadata)),
        image: Some(cri::ImageSpec {
            image: config.image.clone(),
            user_specified_image: config.user_specified_image.clone(),
            ..Default::default()
        }),
        command: config.command.clone(),
        args: config.args.clone(),
        working_dir: config.working_dir.clone().unwrap_or_default(),
        envs: config.envs.iter().map(env).collect(),
        mounts: config.mounts.iter().map(mount::report).chain(images).collect(),
        devices: config.devices.iter().map(device).collect(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        log_path: path(config.log_path.as_deref()),
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        linux: Some(cri::LinuxContainerConfig {
            resources: Some(resources::report(&config.resources)),
            security_context: Some(container_security(&config.security)),
        }),
        stop_signal: config.stop_signal.as_deref().map_or(cri::Signal::RuntimeDefault, signal::number).into(),
        ..Default::default()
    }
}

fn path(path: Option<&std::path::Path>) -> String {
    path.map(|path| path.display().to_string()).unwrap_or_default()
}

fn port(mapping: &PortMapping) -> cri::PortMapping {
    let protocol = match mapping.protocol {
        Protocol::Sctp => cri::Protocol::Sctp,
        Protocol::Tcp => cri::Protocol::Tcp,
        Protocol::Udp => cri::Protocol::Udp,
    };
    cri::PortMapping {
        protocol: protocol.into(),
        container_port: mapping.container_port.into(),
        host_port: mapping.host_port.into(),
        host_ip: mapping.host_ip.map(|ip| ip.to_string()).unwrap_or_default(),
    }
}

fn device(device: &Device) -> cri::Device {
    cri::Device {
        container_path: path(Some(&device.container_path)),
        host_path: path(Some(&device.host_path)),
        permissions: device.permissions.clone(),
    }
}

fn pod_security(security: &SecurityContext) -> cri::LinuxSandboxSecurityContext {
    cri::LinuxSandboxSecurityContext {
        namespace_options: Some(security::report(&security.namespaces)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user: user(security).0,
        run_as_group: group(security),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: groups(security),
        supplemental_groups_policy: policy(security).into(),
        privileged: security.privileged,
        seccomp: Some(profile(&security.seccomp)),
        apparmor: security.apparmor.as_ref().map(profile),
        ..Default::default()
    }
}

fn container_security(security: &SecurityContext) -> cri::LinuxContainerSecurityContext {
    let (run_as_user, run_as_username) = user(security);
    let paths = |paths: &[std::path::PathBuf]| paths.iter().map(|each| path(Some(each))).collect();
    cri::LinuxContainerSecurityContext {
        capabilities: Some(cri::Capability {
            add_capabilities: security.capabilities.add.clone(),
            drop_capabilities: security.capabilities.drop.clone(),
            add_ambient_capabilities: security.capabilities.add_ambient.clone(),
        }),
        namespace_options: Some(security::report(&security.namespaces)),
        selinux_options: security.selinux.as_ref().map(selinux),
        run_as_user,
        run_as_username,
        run_as_group: group(security),
        readonly_rootfs: security.readonly_rootfs,
        supplemental_groups: groups(security),
        supplemental_groups_policy: policy(security).into(),
        privileged: security.privileged,
        no_new_privs: security.no_new_privs,
        masked_paths: paths(&security.masked_paths),
        readonly_paths: paths(&security.readonly_paths),
        seccomp: Some(profile(&security.seccomp)),
        apparmor: security.apparmor.as_ref().map(profile),
        ..Default::default()
    }
}

fn user(security: &SecurityContext) -> (Option<cri::Int64Value>, String) {
    match &security.run_as {
        None => (None, String::new()),
        Some(RunAs::Uid(uid)) => (Some(cri::Int64Value { value: (*uid).into() }), String::new()),
        Some(RunAs::Name(name)) => (None, name.clone()),
    }
}

fn group(security: &SecurityContext) -> Option<cri::Int64Value> {
    security.run_as_group.map(|gid| cri::Int64Value { value: gid.into() })
}

fn groups(security: &SecurityContext) -> Vec<i64> {
    security.supplemental_groups.iter().map(|gid| (*gid).into()).collect()
}

fn policy(security: &SecurityContext) -> cri::SupplementalGroupsPolicy {
    match security.supplemental_groups_policy {
        SupplementalGroupsPolicy::Merge => cri::SupplementalGroupsPolicy::Merge,
        SupplementalGroupsPolicy::Strict => cri::SupplementalGroupsPolicy::Strict,
    }
}

fn profile(profile: &Profile) -> cri::SecurityProfile {
    use cri::security_profile::ProfileType;
    let (kind, localhost_ref) = match profile {
        Profile::RuntimeDefault => (ProfileType::RuntimeDefault, ""),
        Profile::Localhost(name) => (ProfileType::Localhost, name.as_str()),
        Profile::Unconfined => (ProfileType::Unconfined, ""),
    };
    cri::SecurityProfile { profile_type: kind.into(), localhost_ref: localhost_ref.to_owned() }
}

fn selinux(options: &SelinuxOptions) -> cri::SeLinuxOption {
    cri::SeLinuxOption {
        user: options.user.clone(),
        role: options.role.clone(),
        r#type: options.kind.clone(),
        level: options.level.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn security() -> cri::LinuxContainerSecurityContext {
        cri::LinuxContainerSecurityContext {
            capabilities: Some(cri::Capability {
                add_capabilities: vec!["NET_ADMIN".to_owned()],
                drop_capabilities: vec!["ALL".to_owned()],
                ..Default::default()
            }),
            run_as_user: Some(cri::Int64Value { value: 7 }),
            run_as_group: Some(cri::Int64Value { value: 8 }),
            supplemental_groups: vec![9],
            supplemental_groups_policy: cri::SupplementalGroupsPolicy::Strict.into(),
            no_new_privs: true,
            readonly_rootfs: true,
            masked_paths: vec!["/proc/keys".to_owned()],
            readonly_paths: vec!["/proc/sys".to_owned()],
            seccomp: Some(profile(&Profile::Localhost("a.json".to_owned()))),
            apparmor: Some(profile(&Profile::Unconfined)),
            selinux_options: Some(cri::SeLinuxOption { level: "s0".to_owned(), ..Default::default() }),
            ..Default::default()
        }
    }

    #[test]
    fn what_is_shown_of_a_container_asks_for_the_same_again() {
        let config = cri::ContainerConfig {
            metadata: Some(cri::ContainerMetadata { name: "c".to_owned(), attempt: 3 }),
            image: Some(cri::ImageSpec { image: "i".to_owned(), ..Default::default() }),
            command: vec!["a".to_owned()],
            args: vec!["b".to_owned()],
            working_dir: "/w".to_owned(),
            envs: vec![cri::KeyValue { key: "K".to_owned(), value: b"v".to_vec() }],
            mounts: vec![
                cri::Mount {
                    container_path: "/a".to_owned(),
                    host_path: "/b".to_owned(),
                    readonly: true,
                    recursive_read_only: true,
                    ..Default::default()
                },
                cri::Mount {
                    container_path: "/image".to_owned(),
                    readonly: true,
                    image: Some(cri::ImageSpec { image: "v".to_owned(), ..Default::default() }),
                    image_sub_path: "x/y".to_owned(),
                    ..Default::default()
                },
            ],
            devices: vec![cri::Device {
                container_path: "/dev/x".to_owned(),
                host_path: "/dev/null".to_owned(),
                permissions: "rw".to_owned(),
            }],
            log_path: "c.log".to_owned(),
            stdin: true,
            stop_signal: cri::Signal::Sigusr1.into(),
            linux: Some(cri::LinuxContainerConfig {
                resources: Some(cri::LinuxContainerResources { cpu_shares: 5, ..Default::default() }),
                security_context: Some(security()),
            }),
            ..Default::default()
        };
        let parse = |config| {
            let request = cri::CreateContainerRequest {
                pod_sandbox_id: "p".to_owned(),
                config: Some(config),
                sandbox_config: None,
            };
            container::parse(request).unwrap().1
        };
        let parsed = parse(config);
        assert_eq!(parse(container(&parsed)), parsed);
    }

    #[test]
    fn what_is_shown_of_a_pod_asks_for_the_same_again() {
        let config = cri::PodSandboxConfig {
            metadata: Some(cri::PodSandboxMetadata {
                name: "p".to_owned(),
                uid: "u".to_owned(),
                namespace: "n".to_owned(),
                attempt: 1,
            }),
            hostname: "h".to_owned(),
            log_directory: "/l".to_owned(),
            dns_config: Some(cri::DnsConfig { servers: vec!["10.0.0.1".to_owned()], ..Default::default() }),
            port_mappings: vec![cri::PortMapping {
                protocol: cri::Protocol::Udp.into(),
                container_port: 1,
                host_port: 2,
                host_ip: "127.0.0.1".to_owned(),
            }],
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("x".to_owned(), "y".to_owned())].into(),
            linux: Some(cri::LinuxPodSandboxConfig {
                cgroup_parent: "/c".to_owned(),
                sysctls: [("net.x".to_owned(), "1".to_owned())].into(),
                overhead: Some(cri::LinuxContainerResources { cpu_shares: 6, ..Default::default() }),
                security_context: Some(cri::LinuxSandboxSecurityContext {
                    run_as_user: Some(cri::Int64Value { value: 7 }),
                    privileged: true,
                    ..Default::default()
                }),
                ..Default::default()
            }),
            ..Default::default()
        };
        let parse = |config| {
            pods::parse(cri::RunPodSandboxRequest { config: Some(config), ..Default::default() }).unwrap()
        };
        let parsed = parse(config);
        assert_eq!(parse(pod(&parsed)), parsed);
    }
}
