//! Users, no_new_privs, privileged containers, devices and resource limits.

use std::fs;

use corten_tests::registry::NONEWPRIVS;
use corten_tests::{host, on_node};
use k8s_cri::v1 as wire;

#[test]
fn no_new_privs_keeps_a_setuid_program_from_becoming_root() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for (no_new_privs, expected) in [(true, "Effective uid: 1000"), (false, "Effective uid: 0")] {
            let container = pod
                .container()
                .image(NONEWPRIVS)
                .user(1000)
                .security(|security| security.no_new_privs = no_new_privs)
                .start()
                .await?;
            container.exited().await?;
            assert_eq!(container.lines("stdout")?, [expected]);
        }
        Ok(())
    });
}

#[test]
fn a_group_without_a_user_is_refused() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let group = Some(wire::Int64Value { value: 1000 });
        pod.container().security(|security| security.run_as_group = group).refused().await?;
        Ok(())
    });
}

#[test]
fn a_user_that_the_image_lacks_is_refused_by_name() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let name = "nobody-knows-me";
        let status =
            pod.container().security(|security| security.run_as_username = name.to_owned()).refused().await?;
        assert!(status.message().contains(name), "{status}");
        Ok(())
    });
}

#[test]
fn a_privileged_container_has_the_hosts_devices_and_all_capabilities() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().privileged().run().await?;
        let container = pod.container().security(|security| security.privileged = true).start().await?;
        let pid = container.pid().await?;
        let own = host::status_field(std::process::id().try_into()?, "CapBnd")?;
        assert_eq!(host::status_field(pid, "CapEff")?, own);
        assert_eq!(host::status_field(pid, "Seccomp")?, "0");
        container.sh("mkdir /mnt && mount -t tmpfs x /mnt && umount /mnt").await?;
        assert_eq!(container.sh("test -e /dev/kmsg && echo there").await.is_ok(), fs::exists("/dev/kmsg")?);
        let options = container.sh("grep ' /sys sysfs ' /proc/mounts | cut -d' ' -f4").await?;
        assert!(options.starts_with("rw"), "{options}");
        Ok(())
    });
}

#[test]
fn a_container_that_shares_with_a_pod_that_shares_nothing_does_not_get_the_hosts_processes() {
    on_node(async |kubelet| {
        // What crictl sends for a container's configuration without a word on namespaces.
        let pod = kubelet.pod().run().await?;
        let options = wire::NamespaceOption { pid: wire::NamespaceMode::Pod.into(), ..Default::default() };
        let request =
            pod.container().security(|security| security.namespace_options = Some(options)).request().await?;
        let Ok(container) = corten_tests::Container::create(&pod, request).await else { return Ok(()) };
        container.start().await?;
        let inside = fs::read_link(format!("/proc/{}/ns/pid", container.pid().await?))?;
        assert_ne!(inside, fs::read_link("/proc/self/ns/pid")?);
        Ok(())
    });
}

#[test]
fn a_privileged_container_needs_a_privileged_pod() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        pod.container().security(|security| security.privileged = true).refused().await?;
        Ok(())
    });
}

#[test]
fn only_the_usual_devices_are_there_and_no_other_can_be_used() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let nodes = container.sh("cd /dev; find . -type c -o -type b | sort").await?;
        let nodes: Vec<&str> = nodes.lines().filter(|name| !name.starts_with("./pts/")).collect();
        assert_eq!(nodes, ["./full", "./null", "./random", "./tty", "./urandom", "./zero"]);
        container.sh("head -c 4 /dev/zero > /dev/null; echo x > /dev/null").await?;
        // MKNOD is among the default capabilities; the device rules refuse the use.
        let output = container.exec(["sh", "-c", "mknod /kmsg c 1 11 && cat /kmsg"]).await?;
        assert!(output.stderr.contains("Operation not permitted"), "{output:?}");
        Ok(())
    });
}

#[test]
fn a_device_of_the_request_is_there_with_its_permissions() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let device = wire::Device {
            container_path: "/dev/mine".to_owned(),
            host_path: "/dev/zero".to_owned(),
            permissions: "rw".to_owned(),
        };
        let container = pod.container().with(|config| config.devices.push(device)).start().await?;
        assert_eq!(container.sh("head -c 3 /dev/mine | wc -c; stat -c %t:%T /dev/mine").await?, "3\n1:5");
        Ok(())
    });
}

#[test]
fn files_that_a_container_may_open_are_limited_sensibly() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let limits = fs::read_to_string(format!("/proc/{}/limits", container.pid().await?))?;
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
        let soft: u64 = line.split_whitespace().nth(3).unwrap_or_default().parse()?;
        assert!((1024..=1 << 30).contains(&soft), "{line}");
        Ok(())
    });
}
