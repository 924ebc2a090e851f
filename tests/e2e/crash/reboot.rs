//! The node restarts: what was in memory is gone, what was on disk speaks of another boot.

use std::fs;
use std::path::Path;

use anyhow::Context;
use corten_tests::{Container, Kubelet, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Does to a node what a restart of the machine does to it.
async fn reboot(kubelet: &Kubelet, containers: &[&Container<'_>]) -> Result {
    let node = kubelet.node();
    let mut pids = Vec::new();
    for container in containers {
        pids.push(container.pid().await?);
    }
    let monitors: Result<Vec<_>> = pids.iter().map(|pid| host::status_field(*pid, "PPid")).collect();
    node.kill_daemon()?;
    for monitor in monitors? {
        kill(Pid::from_raw(monitor.parse()?), Signal::SIGKILL)?;
    }
    if !host::ends_with_monitor() {
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
        }
    }
    eventually("all processes are gone", async || {
        Ok((!pids.iter().any(|pid| host::is_alive(*pid))).then_some(()))
    })
    .await?;
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mut mounts: Vec<&str> = mounts.lines().filter_map(|line| line.split(' ').nth(4)).collect();
    mounts.retain(|mount| Path::new(mount).starts_with(node.dir()));
    for mount in mounts.iter().rev() {
        match umount2(*mount, MntFlags::MNT_DETACH) {
            // A peer in the same place, where mounts are shared: it went with the other one.
            Err(Errno::EINVAL) => {}
            result => result.with_context(|| format!("unmount {mount}"))?,
        }
    }
    fs::remove_dir_all(node.state())?;
    fs::remove_dir_all(node.dir().join("netns"))?;
    node.remove_cgroup()?;
    node.network().forget_rules();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let other = "00000000-0000-4000-8000-000000000000";
    let changed = change(&node.root().join("pods"), boot.trim(), other)?;
    assert!(changed > 0, "no record has the boot's id");
    Ok(())
}

/// Replaces a text in all files below a directory, and counts the files.
fn change(dir: &Path, from: &str, to: &str) -> Result<usize> {
    let mut changed = 0;
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            changed += change(&path, from, to)?;
            continue;
        }
        let text = fs::read_to_string(&path)?;
        if text.contains(from) {
            fs::write(&path, text.replace(from, to))?;
            changed += 1;
        }
    }
    Ok(changed)
}

#[test]
fn after_a_restart_of_the_node_pods_are_not_ready_and_their_containers_ended() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let running = pod.container().sh("echo x > /written; sleep 1000").start().await?;
        let exited = pod.container().sh("exit 5").start().await?;
        exited.exited().await?;
        reboot(kubelet, &[&running]).await?;
        kubelet.node().start_daemon()?;

        assert_eq!(pod.status().await?.state(), wire::PodSandboxState::SandboxNotready);
        let status = running.status().await?;
        assert_eq!(status.state(), wire::ContainerState::ContainerExited);
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        assert!(status.message.contains("restarted"), "{}", status.message);
        assert_eq!(exited.status().await?.exit_code, 5);

        // The kubelet stops the old sandbox and runs the next attempt.
        pod.stop().await?;
        assert_eq!(
            kubelet.node().network().leftovers(),
            Vec::<String>::new(),
            "its network is not given back"
        );
        let next = kubelet
            .pod()
            .with(|config| {
                config.metadata = pod.config.metadata.clone();
                config.metadata.get_or_insert_default().attempt = 1;
            })
            .run()
            .await?;
        assert_eq!(next.output("echo again").await?, ["again"]);
        Ok(())
    });
}
