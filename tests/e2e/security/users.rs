//! Pods with a user namespace of their own (`hostUsers: false`).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Kubelet, Result, Setup, host, newest, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;

/// Why such pods cannot be tested.
const NONE: &str = "no idmapped mounts here, or not with this runtime handler";

const IDS: wire::IdMapping = wire::IdMapping { host_id: 400_000, container_id: 0, length: 65536 };

fn options(mode: wire::NamespaceMode, ids: &[wire::IdMapping]) -> Option<wire::UserNamespace> {
    Some(wire::UserNamespace { mode: mode.into(), uids: ids.to_vec(), gids: ids.to_vec() })
}

pub(super) fn own(namespaces: &mut wire::NamespaceOption) {
    namespaces.userns_options = options(wire::NamespaceMode::Pod, &[IDS]);
}

/// What the kubelet sends with every mount of such a pod.
pub(super) fn mapped(mount: &mut wire::Mount) {
    mount.uid_mappings = vec![IDS];
    mount.gid_mappings = vec![IDS];
}

/// Whether the runtime says that it can.
async fn is_offered(kubelet: &Kubelet) -> Result<bool> {
    let request = wire::StatusRequest { verbose: false };
    let handlers = kubelet.cri().runtime.status(request).await?.into_inner().runtime_handlers;
    let tested = handlers.into_iter().find(|handler| handler.name == host::handler());
    Ok(tested.and_then(|handler| handler.features).is_some_and(|features| features.user_namespaces))
}

/// Runs a test where there are such pods.
pub(super) fn on_mapped(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    on_node(async |kubelet| if is_offered(kubelet).await? { test(kubelet).await } else { skip(NONE) });
}

/// The same on a node of the test's own.
pub(super) fn on_own_mapped(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    on_own_node(
        &Setup::default(),
        async |kubelet| {
            if is_offered(kubelet).await? { test(kubelet).await } else { skip(NONE) }
        },
    );
}

pub(super) fn directory(kubelet: &Kubelet, name: &str) -> Result<PathBuf> {
    let dir = kubelet.node().dir().join(name);
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

pub(super) fn path(path: &Path) -> &str {
    path.to_str().unwrap_or_default()
}

#[test]
fn root_in_the_pod_is_nobody_on_the_node() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let status =
            pod.status().await?.linux.and_then(|linux| linux.namespaces?.options).unwrap_or_default();
        assert_eq!(status.userns_options, options(wire::NamespaceMode::Pod, &[IDS]));
        let container = pod.container().start().await?;
        let pid = container.pid().await?;
        assert_eq!(fs::metadata(format!("/proc/{pid}"))?.uid(), IDS.host_id);
        for kind in ["user", "pid", "mnt", "net", "ipc", "uts"] {
            let name = format!("ns/{kind}");
            assert_ne!(
                fs::read_link(format!("/proc/{pid}/{name}"))?,
                fs::read_link(format!("/proc/self/{name}"))?
            );
        }
        assert_eq!(container.sh("id -u; cat /proc/self/gid_map | tr -s ' '").await?, "0\n 0 400000 65536");
        assert_eq!(container.status().await?.user.and_then(|user| user.linux).unwrap_or_default().uid, 0);
        Ok(())
    });
}

#[test]
fn the_network_of_such_a_pod_works_and_is_its_own_to_change() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let ip = pod.ip().await?;
        let add = wire::Capability { add_capabilities: vec!["NET_ADMIN".to_owned()], ..Default::default() };
        let container =
            pod.container().security(|security| security.capabilities = Some(add)).start().await?;
        assert!(container.sh("ip -o -4 addr show eth0").await?.contains(&ip));
        let script = "cat /proc/sys/net/ipv4/ping_group_range /proc/sys/net/ipv4/ip_unprivileged_port_start; \
            ip link set lo down && ip link set lo up && ping -c 1 -W 5 127.0.0.1 >/dev/null && echo pinged";
        assert_eq!(container.sh(script).await?, "0\t65535\n0\npinged");
        let sysctl =
            kubelet.pod().namespaces(own).sysctl("net.ipv4.ip_unprivileged_port_start", "7").run().await?;
        let output = sysctl
            .output(
                "cat /proc/sys/net/ipv4/ip_unprivileged_port_start; stat -c %u /proc/sys/net/ipv4/ip_forward",
            )
            .await?;
        assert_eq!(output, ["7", "0"]);
        Ok(())
    });
}

#[test]
fn files_of_the_image_and_of_mapped_mounts_have_the_pods_ids() {
    on_mapped(async |kubelet| {
        let volume = directory(kubelet, "mapped")?;
        fs::write(volume.join("secret"), "text")?;
        fs::set_permissions(volume.join("secret"), fs::Permissions::from_mode(0o600))?;
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod
            .container()
            .mount(path(&volume), "/mapped", mapped)
            .mount(path(&volume), "/plain", |mount| mount.readonly = true)
            .start()
            .await?;
        container
            .sh("test $(cat /mapped/secret) = text && echo new > /mapped/new && chown 5:6 /mapped/new")
            .await?;
        let made = fs::metadata(volume.join("new"))?;
        assert_eq!((made.uid(), made.gid()), (5, 6));
        let output = container.exec(["cat", "/plain/secret"]).await?;
        assert!(output.stderr.contains("Permission denied"), "{output:?}");
        let owners =
            "stat -c %u / /etc /etc/passwd /etc/hosts /etc/hostname /etc/resolv.conf /dev/shm /dev /dev/pts";
        // Another runtime may show the node's own devices.
        let owners = owners.to_owned() + if host::handler().is_empty() { " /dev/null" } else { "" };
        assert_eq!(container.sh(&format!("{owners} | sort -u")).await?, "0");
        container.sh("cat /etc/hosts /etc/hostname /etc/resolv.conf && echo x >> /etc/hosts && echo x > /dev/shm/x").await?;
        container.sh("adduser -D -u 77 someone; touch /file && chown 77 /file && ls -ln /file").await?;
        Ok(())
    });
}

#[test]
fn execs_and_terminals_are_in_the_user_namespace() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod
            .container()
            .user(1000)
            .with(|config| config.tty = true)
            .sh("stat -c %u $(tty); echo x > /dev/stdout; id -u; sleep 100000")
            .start()
            .await?;
        container.says("1000").await?;
        let output = container.sh("id -u; echo y > /dev/stderr; tr -s ' ' < /proc/self/uid_map").await?;
        assert_eq!(output, "1000\n 0 400000 65536");
        let processes = pod.output("id -u; echo $$").await?;
        assert_eq!(processes, ["0", "1"]);
        Ok(())
    });
}

#[test]
fn containers_of_such_a_pod_can_share_processes() {
    on_mapped(async |kubelet| {
        let pod = kubelet
            .pod()
            .namespaces(|options| {
                own(options);
                options.pid = wire::NamespaceMode::Pod.into();
            })
            .run()
            .await?;
        let first = pod.container().sh("exec sleep 54321").start().await?;
        let second = pod.container().start().await?;
        assert!(second.sh("ps -o args").await?.contains("sleep 54321"));
        // 1A, CVE-2024-21626: nothing of pause can be looked into, and through it nothing of the node.
        for what in ["root/", "cwd/", "exe", "fd/"] {
            let output = second.exec(["sh", "-c", &format!("ls -L /proc/1/{what}")]).await?;
            assert!(output.code != 0 || output.stdout.is_empty(), "{what}: {output:?}");
        }
        first.stop(std::time::Duration::ZERO).await?;
        Ok(())
    });
}

#[test]
fn a_pod_in_the_nodes_network_can_have_one_too() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().host_network().namespaces(own).run().await?;
        let container = pod.container().start().await?;
        let inside = fs::read_link(format!("/proc/{}/ns/net", container.pid().await?))?;
        assert_eq!(inside, fs::read_link("/proc/self/ns/net")?);
        assert_eq!(
            container
                .sh("test -e /sys/class/net/lo && ls /sys/kernel/debug /sys/fs/bpf | grep -v : | wc -w")
                .await?,
            "0"
        );
        let output = container
            .exec(["sh", "-c", "ip link add dummy0 type dummy; echo 1 > /sys/class/net/lo/mtu"])
            .await?;
        assert!(output.stderr.contains("not permitted") && output.stderr.contains("Read-only"), "{output:?}");
        Ok(())
    });
}

#[test]
fn user_namespaces_that_make_no_sense_are_refused() {
    use wire::NamespaceMode::{Container, Node, Pod, Target};
    on_node(async |kubelet| {
        let second = wire::IdMapping { container_id: 65536, host_id: 600_000, length: 10 };
        let from_1 = wire::IdMapping { container_id: 1, ..IDS };
        for (mode, ids) in [
            (Pod, vec![]),
            (Pod, vec![IDS, second]),
            (Pod, vec![from_1]),
            (Pod, vec![wire::IdMapping { length: 0, ..IDS }]),
            (Pod, vec![wire::IdMapping { host_id: u32::MAX, ..IDS }]),
            (Node, vec![IDS]),
            (Container, vec![IDS]),
            (Target, vec![IDS]),
        ] {
            let pod = kubelet.pod().namespaces(|namespaces| namespaces.userns_options = options(mode, &ids));
            let status = pod.refused().await?;
            assert!(status.message().contains("userns_options"), "{mode:?} {ids:?}: {status}");
        }
        for change in [
            |namespaces: &mut wire::NamespaceOption| namespaces.pid = Node.into(),
            |namespaces: &mut wire::NamespaceOption| namespaces.ipc = Node.into(),
        ] {
            kubelet.pod().namespaces(own).namespaces(change).refused().await?;
        }
        kubelet.pod().namespaces(|namespaces| namespaces.userns_options = options(Node, &[])).run().await?;
        Ok(())
    });
}

#[test]
fn mounts_that_do_not_fit_the_user_namespace_are_refused() {
    on_node(async |kubelet| {
        let volume = directory(kubelet, "unfit")?;
        let plain = kubelet.pod().run().await?;
        plain.container().mount(path(&volume), "/data", mapped).refused().await?;
        if !is_offered(kubelet).await? {
            return skip(NONE);
        }
        let pod = kubelet.pod().namespaces(own).run().await?;
        let other = |mount: &mut wire::Mount| {
            mapped(mount);
            mount.uid_mappings[0].host_id += 1;
            mount.gid_mappings[0].host_id += 1;
        };
        pod.container().mount(path(&volume), "/data", other).refused().await?;
        let half = |mount: &mut wire::Mount| mount.uid_mappings = vec![IDS];
        pod.container().mount(path(&volume), "/data", half).refused().await?;
        let shared =
            |mount: &mut wire::Mount| mount.set_propagation(wire::MountPropagation::PropagationBidirectional);
        pod.container().mount(path(&volume), "/data", shared).refused().await?;
        let status = pod.container().mount("/proc/sys", "/data", mapped).refused().await?;
        // Another runtime has words of its own.
        let reason = match host::handler().as_str() {
            "" => "its file system (proc) has no idmapped mounts",
            _ => "idmap mounts",
        };
        assert!(status.message().contains(reason), "{status}");
        let status = pod.container().user(70_000).refused().await?;
        assert!(status.message().contains("70000"), "{status}");
        Ok(())
    });
}

#[test]
fn an_image_volume_has_the_pods_ids() {
    on_mapped(async |kubelet| {
        let image = kubelet.image(BUSYBOX).await?;
        let pod = kubelet.pod().namespaces(own).run().await?;
        for sub_path in ["", "etc"] {
            let mut request: newest::CreateContainerRequest =
                newest::same(&pod.container().request().await?)?;
            let ids = newest::IdMapping { host_id: IDS.host_id, container_id: 0, length: IDS.length };
            request.config.get_or_insert_default().mounts.push(newest::Mount {
                container_path: "/volume".to_owned(),
                readonly: true,
                image: Some(newest::ImageSpec { image: image.clone(), ..Default::default() }),
                image_sub_path: sub_path.to_owned(),
                uid_mappings: vec![ids],
                gid_mappings: vec![ids],
                ..Default::default()
            });
            let container = Container::create_newest(&pod, request).await?;
            container.start().await?;
            let owners = container.sh("find /volume -maxdepth 1 | xargs stat -c %u | sort -u").await?;
            assert_eq!(owners, "0", "{sub_path:?}");
        }
        Ok(())
    });
}

#[test]
fn such_a_pod_outlives_its_daemon() {
    on_own_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod.container().start().await?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!(container.sh("id -u; tr -s ' ' < /proc/self/uid_map").await?, "0\n 0 400000 65536");
        let second = pod.container().start().await?;
        assert_eq!(second.sh("tr -s ' ' < /proc/self/uid_map").await?, " 0 400000 65536");
        Ok(())
    });
}
