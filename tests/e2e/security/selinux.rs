//! SELinux labels. These tests need a kernel that has it on, and a policy that knows containers: `hack/vm --selinux`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use corten_tests::{Container, Kubelet, Result, Setup, eventually, host, on_node, on_own_node, skip};
use k8s_cri::v1 as wire;

use super::users::{on_mapped, own};

const OFF: &str = "this kernel has no SELinux on";

fn on_selinux(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    on_node(async |kubelet| {
        if !host::has_selinux() {
            return skip(OFF);
        }
        test(kubelet).await
    });
}

/// What only a policy that is enforced denies.
fn on_enforcing(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    on_selinux(async |kubelet| {
        if fs::read_to_string("/sys/fs/selinux/enforce")? != "1" {
            return skip("SELinux is permissive");
        }
        test(kubelet).await
    });
}

/// A label's user, role, type and level.
fn parts(label: &str) -> Result<[&str; 4]> {
    let parts: Vec<_> = label.trim_end_matches('\0').splitn(4, ':').collect();
    parts.try_into().ok().with_context(|| format!("{label:?} is no label with a level"))
}

/// The label of a process.
fn of_process(pid: i32) -> Result<String> {
    let path = format!("/proc/{pid}/attr/current");
    let label = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(label.trim_end_matches(['\0', '\n']).to_owned())
}

async fn of(container: &Container<'_>) -> Result<String> {
    of_process(container.pid().await?)
}

/// The label of a file, of a link itself.
fn of_file(path: &Path) -> Result<String> {
    let mut label = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, "security.selinux", label.as_mut_slice())
        .with_context(|| format!("read the label of {}", path.display()))?;
    label.truncate(length);
    Ok(String::from_utf8(label)?.trim_end_matches('\0').to_owned())
}

/// A file as the container has it.
async fn within(container: &Container<'_>, path: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(format!("/proc/{}/root{path}", container.pid().await?)))
}

/// The context that the container's root is mounted with.
async fn of_root(container: &Container<'_>) -> Result<String> {
    let mounts = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid().await?))?;
    let root = mounts.lines().find(|line| line.split(' ').nth(4) == Some("/")).context("its root")?;
    let (_, context) = root.split_once("context=\"").with_context(|| format!("the context in {root}"))?;
    Ok(context.split('"').next().unwrap_or_default().to_owned())
}

/// A directory of the node with a file in it, as the policy labels what is made there.
fn volume(kubelet: &Kubelet) -> Result<PathBuf> {
    let dir = kubelet.node().dir().join(format!("labelled-{}", kubelet.unique()));
    fs::create_dir(&dir)?;
    fs::write(dir.join("file"), "of the node\n")?;
    Ok(dir)
}

fn options(kind: &str, level: &str) -> Option<wire::SeLinuxOption> {
    Some(wire::SeLinuxOption { r#type: kind.to_owned(), level: level.to_owned(), ..Default::default() })
}

#[test]
fn a_pod_has_a_level_of_its_own_for_all_of_its_processes_and_files() {
    on_selinux(async |kubelet| {
        let (pod, other) = (kubelet.pod().run().await?, kubelet.pod().run().await?);
        let (one, two) = (pod.container().start().await?, pod.container().start().await?);
        let label = of(&one).await?;
        let [user, role, kind, level] = parts(&label)?;
        assert_eq!((user, role, kind), ("system_u", "system_r", "container_t"));
        ensure!(level.starts_with("s0:c") && level.contains(','), "the level is {level}");
        assert_eq!(of(&two).await?, label);
        assert_eq!(one.sh("cat /proc/self/attr/current").await?.trim_end_matches('\0'), label);
        let files = format!("system_u:object_r:container_file_t:{level}");
        assert_eq!(of_root(&one).await?, files);
        // What is the pod's, and what is made for a container.
        for path in [
            "/etc/hosts",
            "/etc/resolv.conf",
            "/etc/hostname",
            "/dev/shm",
            "/dev/mqueue",
            "/dev",
            "/dev/null",
        ] {
            assert_eq!(of_file(&within(&one, path).await?)?, files, "{path}");
        }
        one.sh("echo x > /dev/shm/x && echo x > /root-file && cat /etc/hosts > /dev/null").await?;
        assert_eq!(two.sh("cat /dev/shm/x").await?, "x");
        let stranger = other.container().start().await?;
        assert_ne!(parts(&of(&stranger).await?)?[3], level);
        Ok(())
    });
}

#[test]
fn no_pod_reads_what_is_labelled_for_another_one() {
    on_enforcing(async |kubelet| {
        let (pod, other) = (kubelet.pod().run().await?, kubelet.pod().run().await?);
        let dir = volume(kubelet)?.display().to_string();
        let own = pod.container().mount(&dir, "/data", |mount| mount.selinux_relabel = true).start().await?;
        assert_eq!(own.sh("cat /data/file && echo x > /data/new").await?, "of the node");
        let stranger = other.container().mount(&dir, "/data", |_| {}).start().await?;
        let refused = stranger.exec(["cat", "/data/file"]).await?;
        assert!(refused.code != 0 && refused.stderr.contains("denied"), "{refused:?}");
        Ok(())
    });
}

/// CVE-2021-43816: without being asked for it, no file of the node has another label.
#[test]
fn what_is_not_to_be_relabelled_keeps_its_label_and_is_not_read() {
    on_enforcing(async |kubelet| {
        let dir = volume(kubelet)?;
        let (before, hosts) = (of_file(&dir.join("file"))?, of_file(Path::new("/etc/hosts"))?);
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .mount(&dir.display().to_string(), "/data", |_| {})
            .mount("/etc/hosts", "/etc/hosts", |_| {})
            .start()
            .await?;
        let refused = container.exec(["cat", "/data/file"]).await?;
        assert!(refused.code != 0 && refused.stderr.contains("denied"), "{refused:?}");
        assert_eq!((of_file(&dir.join("file"))?, of_file(Path::new("/etc/hosts"))?), (before, hosts));
        Ok(())
    });
}

#[test]
fn a_relabelled_volume_is_the_pods_and_what_its_links_lead_to_is_not() {
    on_selinux(async |kubelet| {
        let (dir, outside) = (volume(kubelet)?, volume(kubelet)?);
        symlink(outside.join("file"), dir.join("link"))?;
        let before = of_file(&outside.join("file"))?;
        let pod = kubelet.pod().run().await?;
        let source = dir.display().to_string();
        let container =
            pod.container().mount(&source, "/data", |mount| mount.selinux_relabel = true).start().await?;
        let files = of_root(&container).await?;
        for name in ["", "file", "link"] {
            assert_eq!(of_file(&dir.join(name))?, files, "{name}");
        }
        assert_eq!(of_file(&outside.join("file"))?, before);
        Ok(())
    });
}

#[test]
fn the_nodes_own_places_are_not_relabelled() {
    on_selinux(async |kubelet| {
        let before = of_file(Path::new("/etc"))?;
        let pod = kubelet.pod().run().await?;
        let status =
            pod.container().mount("/etc", "/host", |mount| mount.selinux_relabel = true).refused().await?;
        assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        assert!(status.message().contains("not relabelled"), "{status}");
        assert_eq!(of_file(Path::new("/etc"))?, before);
        Ok(())
    });
}

#[test]
fn process_1_of_shared_processes_is_of_the_pod_and_reaps() {
    on_selinux(async |kubelet| {
        let pod =
            kubelet.pod().namespaces(|options| options.pid = wire::NamespaceMode::Pod.into()).run().await?;
        let container = pod.container().start().await?;
        let label = of(&container).await?;
        assert_eq!(container.sh("cat /proc/1/attr/current").await?.trim_end_matches('\0'), label);
        let files = of_root(&container).await?;
        let mounts = container.sh("cat /proc/1/mountinfo").await?;
        ensure!(mounts.contains(&format!("context=\"{files}\"")), "{mounts}");
        // Nothing is in its reach that a container could change or read.
        let refused = container.exec(["sh", "-c", "cat /proc/1/root/pause || echo > /proc/1/root/x"]).await?;
        assert_ne!(refused.code, 0, "{refused:?}");
        container.sh("(sleep 0 &)").await?;
        eventually("the orphan is reaped", async || {
            let output = container.sh("grep -l '^State:.Z' /proc/[0-9]*/status || true").await?;
            Ok(output.is_empty().then_some(()))
        })
        .await
    });
}

#[test]
fn a_pod_with_a_user_namespace_has_labels_too() {
    on_mapped(async |kubelet| {
        if !host::has_selinux() {
            return skip(OFF);
        }
        for pid in [wire::NamespaceMode::Container, wire::NamespaceMode::Pod] {
            let namespaces = |options: &mut wire::NamespaceOption| {
                own(options);
                options.pid = pid.into();
            };
            let pod = kubelet.pod().namespaces(namespaces).run().await?;
            let container = pod.container().start().await?;
            let label = of(&container).await?;
            assert_eq!(parts(&label)?[2], "container_t");
            assert_eq!(container.sh("cat /proc/1/attr/current").await?.trim_end_matches('\0'), label);
            container.sh("echo x > /root-file && cat /etc/hosts > /dev/null").await?;
        }
        Ok(())
    });
}

#[test]
fn what_is_asked_for_is_put_on() {
    on_selinux(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .security(|security| security.selinux_options = options("", "s0:c4,c5"))
            .start()
            .await?;
        assert_eq!(of(&container).await?, "system_u:system_r:container_t:s0:c4,c5");
        assert_eq!(of_root(&container).await?, "system_u:object_r:container_file_t:s0:c4,c5");
        container.sh("touch /foo").await?;
        // The pod's options are its containers' too.
        let pod = kubelet
            .pod()
            .with(|config| {
                let linux = config.linux.get_or_insert_default();
                linux.security_context.get_or_insert_default().selinux_options = options("", "s0:c7,c8");
            })
            .run()
            .await?;
        let container = pod.container().start().await?;
        assert_eq!(of(&container).await?, "system_u:system_r:container_t:s0:c7,c8");
        Ok(())
    });
}

#[test]
fn a_label_that_the_policy_does_not_know_is_refused() {
    on_selinux(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for (kind, level) in [("no_such_type_t", ""), ("", "s0,c4,c5"), ("", "s9")] {
            let asked = |security: &mut wire::LinuxContainerSecurityContext| {
                security.selinux_options = options(kind, level);
            };
            let status = pod.container().security(asked).refused().await?;
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
            assert!(status.message().contains("policy"), "{status}");
        }
        Ok(())
    });
}

#[test]
fn who_is_not_kept_apart_from_the_node_has_the_type_for_that_and_its_files_the_level() {
    on_selinux(async |kubelet| {
        let pod = kubelet.pod().privileged().run().await?;
        let privileged = pod.container().security(|security| security.privileged = true).start().await?;
        assert_eq!(of(&privileged).await?, "system_u:system_r:spc_t:s0");
        let [.., kind, level] = parts(&of_root(&privileged).await?)?.map(str::to_owned);
        assert_eq!(kind, "container_file_t");
        ensure!(level.starts_with("s0:c"), "the level is {level}");
        privileged.sh("touch /foo").await?;
        // The same for those who see the node's processes.
        let pod =
            kubelet.pod().namespaces(|options| options.pid = wire::NamespaceMode::Node.into()).run().await?;
        let container = pod.container().start().await?;
        assert_eq!(of(&container).await?, "system_u:system_r:spc_t:s0");
        // Unless it is to have another one.
        let confined = pod
            .container()
            .security(|security| security.selinux_options = options("container_t", "s0:c4,c5"))
            .start()
            .await?;
        assert_eq!(of(&confined).await?, "system_u:system_r:container_t:s0:c4,c5");
        Ok(())
    });
}

#[test]
fn labels_are_the_same_for_a_new_daemon() {
    on_own_node(&Setup::default(), async |kubelet| {
        if !host::has_selinux() {
            return skip(OFF);
        }
        let pod = kubelet.pod().run().await?;
        let before = pod.container().start().await?;
        let label = of(&before).await?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!(before.sh("cat /proc/self/attr/current").await?.trim_end_matches('\0'), label);
        let after = pod.container().start().await?;
        assert_eq!(of(&after).await?, label);
        Ok(())
    });
}
