//! What a pod with a user namespace of its own shares with the node and among its containers: volumes, mounts that
//! come later, devices, processes; and how it ends.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use corten_tests::image::Image;
use corten_tests::origin::Origin;
use corten_tests::registry::BUSYBOX;
use corten_tests::{Container, Kubelet, Result, eventually, host};
use k8s_cri::v1 as wire;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use super::users::{directory, mapped, on_mapped, on_own_mapped, own, path};

/// A directory of the node on which mounts travel.
struct Shared(PathBuf);

impl Drop for Shared {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
    }
}

fn tmpfs(place: &Path) -> Result {
    fs::create_dir_all(place)?;
    Ok(mount(Some("tmpfs"), place, Some("tmpfs"), MsFlags::empty(), None::<&str>)?)
}

/// Mounts in the host's namespace that have to do with a container.
fn mounts_of(container: &Container<'_>) -> Result<Vec<String>> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    Ok(mounts.lines().filter(|line| line.contains(&container.id)).map(str::to_owned).collect())
}

/// The directory of pods, and those in it, that others than root may enter.
fn open_directories(kubelet: &Kubelet) -> Result<Vec<PathBuf>> {
    let pods = kubelet.node().state().join("pods");
    let each = fs::read_dir(&pods)?.map(|pod| Ok(pod?.path())).collect::<Result<Vec<_>>>()?;
    let mut open = Vec::new();
    for dir in each.into_iter().chain([pods]) {
        if fs::metadata(&dir)?.mode() & 0o077 != 0 {
            open.push(dir);
        }
    }
    Ok(open)
}

#[test]
fn no_user_of_the_node_comes_by_the_root_file_system() {
    on_own_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod.container().start().await?;
        // 1D, CVE-2021-41103. The pod's root passes by directories that stay closed, by a mount namespace that is gone.
        assert_eq!(open_directories(kubelet)?, [""; 0].map(PathBuf::from));
        assert_eq!(mounts_of(&container)?, [""; 0]);
        let guards = host::status_field(container.pid().await?, "PPid")?;
        let children = fs::read_to_string(format!("/proc/{guards}/task/{guards}/children"))?;
        for child in children.split_whitespace().chain([guards.as_str()]) {
            let mounts = fs::read_to_string(format!("/proc/{child}/mounts")).unwrap_or_default();
            assert!(
                child == container.pid().await?.to_string() || !mounts.contains(&container.id),
                "{mounts}"
            );
        }
        assert_eq!(container.sh("touch /file && stat -c %u /file").await?, "0");
        Ok(())
    });
}

#[test]
fn what_is_mounted_on_the_node_later_comes_to_the_pod() {
    on_mapped(async |kubelet| {
        let base = directory(kubelet, "late")?;
        tmpfs(&base)?;
        let base = Shared(base);
        mount(None::<&str>, &base.0, None::<&str>, MsFlags::MS_SHARED, None::<&str>)?;
        let pod = kubelet.pod().namespaces(own).run().await?;
        let start = async |propagation: wire::MountPropagation| {
            let change = |mount: &mut wire::Mount| mount.set_propagation(propagation);
            pod.container().mount(path(&base.0), "/data", change).start().await
        };
        let private = start(wire::MountPropagation::PropagationPrivate).await?;
        let slave = start(wire::MountPropagation::PropagationHostToContainer).await?;
        let late = Shared(base.0.join("late"));
        tmpfs(&late.0)?;
        fs::write(late.0.join("file"), "")?;
        for (container, sees) in [(&private, false), (&slave, true)] {
            assert_eq!(container.exec(["test", "-e", "/data/late/file"]).await?.code == 0, sees);
        }
        drop(late);
        let gone = async || {
            let output = slave.exec(["test", "-e", "/data/late/file"]).await?;
            Ok((output.code != 0).then_some(()))
        };
        eventually("what is unmounted on the node is gone in the pod", gone).await
    });
}

#[test]
fn volumes_of_the_image_and_new_directories_of_the_node_can_be_written() {
    on_mapped(async |kubelet| {
        let origin = Origin::start()?;
        let config =
            json!({ "Volumes": { "/etc": {}, "/not/there": {} }, "Env": ["PATH=/bin:/sbin:/usr/bin"] });
        let reference = origin.offer("mapped", &Image::on(BUSYBOX, &config, vec![])?);
        let missing = kubelet.node().dir().join(format!("new/{}", kubelet.unique()));
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod
            .container()
            .image(&reference)
            .sh("sleep 1000")
            .mount(path(&missing), "/data", mapped)
            .start()
            .await?;
        let script = "stat -c %u /etc /etc/passwd /not/there | sort -u; grep -c ^root: /etc/passwd; \
            touch /etc/new /not/there/new && stat -c %u /not/there/new";
        assert_eq!(container.sh(script).await?, "0\n1\n0");
        container.sh("touch /data/file").await?;
        assert_eq!(fs::metadata(missing.join("file"))?.uid(), 0);
        Ok(())
    });
}

#[test]
fn a_device_has_the_place_that_was_asked_for() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let device = |host: &str, inside: &str| wire::Device {
            container_path: inside.to_owned(),
            host_path: host.to_owned(),
            permissions: "rw".to_owned(),
        };
        let devices = [device("/dev/zero", "/dev/some/mine"), device("/dev/zero", "/dev/kmsg")];
        let container = pod.container().with(|config| config.devices.extend(devices)).start().await?;
        let read = "head -c 3 /dev/some/mine | wc -c; stat -c %t:%T /dev/some/mine /dev/kmsg";
        assert_eq!(container.sh(read).await?, "3\n1:5\n1:5");
        assert_eq!(container.sh("echo x > /dev/null; tty -s; ls /dev/ptmx /dev/fd/0 | wc -l").await?, "2");
        Ok(())
    });
}

#[test]
fn another_containers_processes_can_be_joined() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let target = pod.container().command(["sleep", "54322"]).start().await?;
        let guest = pod
            .container()
            .security(|security| {
                let options = security.namespace_options.get_or_insert_default();
                options.pid = wire::NamespaceMode::Target.into();
                options.target_id = target.id.clone();
            })
            .start()
            .await?;
        assert!(guest.sh("ps -o args").await?.contains("sleep 54322"));
        assert_eq!(guest.sh("kill -9 1 2>/dev/null; id -u").await?, "0");
        Ok(())
    });
}

#[test]
fn groups_limits_and_statistics_are_those_of_any_pod() {
    on_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let container = pod
            .container()
            .user(1000)
            .security(|security| {
                security.run_as_group = Some(wire::Int64Value { value: 2000 });
                security.supplemental_groups = vec![3000];
            })
            .limits(|limits| limits.memory_limit_in_bytes = 64 << 20)
            .start()
            .await?;
        assert_eq!(container.sh("id -u; id -g; id -G").await?, "1000\n2000\n2000 3000");
        assert_eq!(container.cgroup().await?.memory_limit()?, Some(64 << 20));
        let wanted = wire::LinuxContainerResources { memory_limit_in_bytes: 96 << 20, ..Default::default() };
        let request = wire::UpdateContainerResourcesRequest {
            container_id: container.id.clone(),
            linux: Some(wanted),
            ..Default::default()
        };
        kubelet.cri().runtime.update_container_resources(request).await?;
        assert_eq!(container.cgroup().await?.memory_limit()?, Some(96 << 20));
        assert!(container.stats().await?.memory.is_some());
        let unknown = pod.container().security(|security| security.supplemental_groups = vec![70_000]);
        let status = unknown.refused().await?;
        assert!(status.message().contains("70000"), "{status}");
        Ok(())
    });
}

#[test]
fn a_container_that_waits_outlives_the_daemon_and_stops_when_asked() {
    on_own_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let waiting =
            pod.container().sh("trap 'exit 7' TERM; echo up; while :; do sleep 1; done").create().await?;
        let unused = pod.container().create().await?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        waiting.start().await?;
        waiting.says("up").await?;
        waiting.stop(Duration::from_secs(20)).await?;
        assert_eq!(waiting.exited().await?.exit_code, 7);
        for container in [&waiting, &unused] {
            container.remove().await?;
            assert_eq!(mounts_of(container)?, [""; 0]);
        }
        Ok(())
    });
}

#[test]
fn such_a_pod_ends_with_its_monitor() {
    on_own_mapped(async |kubelet| {
        let pod = kubelet.pod().namespaces(own).run().await?;
        let running = pod.container().start().await?;
        let waiting = pod.container().create().await?;
        let pids = [running.pid().await?, waiting.pid().await?];
        let monitor = host::status_field(pids[0], "PPid")?.parse().context("the monitor")?;
        kill(Pid::from_raw(monitor), Signal::SIGKILL)?;
        for pid in pids {
            eventually("it ends with its monitor", async || Ok((!host::is_alive(pid)).then_some(()))).await?;
        }
        let status = running.exited().await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        pod.remove().await?;
        assert_eq!([mounts_of(&running)?, mounts_of(&waiting)?], [[""; 0]; 2]);
        Ok(())
    });
}
