//! `kill -9` of a monitor: its pod ends within a second and is reported.

use std::time::{Duration, Instant};

use corten_tests::wait::slowness;
use corten_tests::{Container, Result, Setup, eventually, host, on_own_node};
use k8s_cri::v1 as wire;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

async fn monitor(container: &Container<'_>) -> Result<Pid> {
    let parent = host::status_field(container.pid().await?, "PPid")?;
    Ok(Pid::from_raw(parent.parse()?))
}

#[test]
fn a_pod_ends_with_its_monitor_and_is_reported() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().sh("sleep 1000 & sleep 1000").start().await?;
        let other_pod = kubelet.pod().run().await?;
        let other = other_pod.container().start().await?;
        let pid = container.pid().await?;
        let monitor = monitor(&container).await?;
        let children = |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let of_the_monitor = children(monitor.as_raw())?;
        // A container of another runtime has its driver beside it.
        assert!(of_the_monitor.split_whitespace().count() > 1, "pause and the container: {of_the_monitor}");
        let children = of_the_monitor + &children(pid)?;
        let began = Instant::now();
        kill(monitor, Signal::SIGKILL)?;
        let status = container.exited().await?;
        assert!(began.elapsed() < Duration::from_secs(5) * slowness(), "{:?}", began.elapsed());
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        for process in children.split_whitespace().map(str::parse) {
            let process = process?;
            eventually(
                "every process of the pod ends",
                async || Ok((!host::is_alive(process)).then_some(())),
            )
            .await?;
        }
        eventually("the pod is not ready", async || {
            Ok((pod.status().await?.state() == wire::PodSandboxState::SandboxNotready).then_some(()))
        })
        .await?;
        assert_eq!(other.sh("echo unharmed").await?, "unharmed");
        Ok(())
    });
}

#[test]
fn a_monitor_that_died_with_the_daemon_is_reported_by_the_next() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let pid = container.pid().await?;
        let monitor = monitor(&container).await?;
        kubelet.node().kill_daemon()?;
        kill(monitor, Signal::SIGKILL)?;
        let has_ended = async || Ok((!host::is_alive(pid)).then_some(()));
        if host::ends_with_monitor() {
            eventually("the container ends with its monitor", has_ended).await?;
        }
        kubelet.node().start_daemon()?;
        let status = container.exited().await?;
        eventually("the container ends with the next daemon", has_ended).await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (255, "Unknown"));
        assert_eq!(pod.status().await?.state(), wire::PodSandboxState::SandboxNotready);
        Ok(())
    });
}
