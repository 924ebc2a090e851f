//! Limits: what the kernel is told, what it does at the limit, and changing it while it runs.

use anyhow::Context;
use corten_tests::{Container, Result, on_node};
use k8s_cri::v1 as wire;

const MIB: i64 = 1 << 20;

async fn update(
    container: &Container<'_>,
    change: impl FnOnce(&mut wire::LinuxContainerResources),
) -> Result<(), tonic::Status> {
    let mut linux = wire::LinuxContainerResources::default();
    change(&mut linux);
    let request = wire::UpdateContainerResourcesRequest {
        container_id: container.id.clone(),
        linux: Some(linux),
        ..Default::default()
    };
    container.kubelet.cri().runtime.update_container_resources(request).await.map(drop)
}

#[test]
fn limits_are_set_before_the_process_runs_and_reported() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .limits(|limits| {
                limits.cpu_period = 100_000;
                limits.cpu_quota = 25_000;
                limits.cpu_shares = 512;
                limits.memory_limit_in_bytes = 64 * MIB;
                limits.cpuset_cpus = "0".to_owned();
            })
            .start()
            .await?;
        let cgroup = container.cgroup().await?;
        assert_eq!(cgroup.memory_limit()?, Some(64 << 20));
        assert_eq!(cgroup.cpu_quota()?, Some((25_000, 100_000)));
        assert!(cgroup.cpu_shares()?.abs_diff(512) < 30, "{}", cgroup.cpu_shares()?);
        assert_eq!(cgroup.cpus()?, "0");
        let resources = container.status().await?.resources.context("resources in the status")?;
        let linux = resources.linux.context("Linux resources")?;
        assert_eq!((linux.cpu_period, linux.cpu_quota, linux.cpu_shares), (100_000, 25_000, 512));
        assert_eq!((linux.memory_limit_in_bytes, linux.cpuset_cpus.as_str()), (64 * MIB, "0"));
        Ok(())
    });
}

#[test]
fn without_limits_there_are_none() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let cgroup = container.cgroup().await?;
        assert_eq!(cgroup.memory_limit()?, None);
        assert!(cgroup.cpu_quota()?.is_none_or(|(quota, _)| quota == 0));
        Ok(())
    });
}

#[test]
fn containers_are_in_the_pods_cgroup_by_their_id() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let parent = &pod.config.linux.as_ref().context("the Linux part")?.cgroup_parent;
        let cgroup = container.cgroup().await?;
        let path = cgroup.path("memory")?;
        assert!(path.starts_with(parent.as_str()), "{path} is not below {parent}");
        assert!(path.ends_with(&container.id), "{path} does not end with the container's id");
        Ok(())
    });
}

#[test]
fn too_much_memory_ends_in_oom_killed() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .sh("sleep 0.1; exec dd if=/dev/zero of=/dev/null bs=40M count=1")
            .limits(|limits| {
                limits.memory_limit_in_bytes = 15 * MIB;
                limits.memory_swap_limit_in_bytes = 15 * MIB;
            })
            .start()
            .await?;
        let exited = container.exited().await?;
        assert_eq!((exited.exit_code, exited.reason.as_str()), (137, "OOMKilled"));
        Ok(())
    });
}

#[test]
fn limits_change_while_the_container_runs() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().limits(|limits| limits.memory_limit_in_bytes = 64 * MIB).start().await?;
        update(&container, |limits| {
            limits.memory_limit_in_bytes = 128 * MIB;
            limits.cpu_period = 50_000;
            limits.cpu_quota = 20_000;
            limits.cpu_shares = 2048;
        })
        .await?;
        let cgroup = container.cgroup().await?;
        assert_eq!(cgroup.memory_limit()?, Some(128 << 20));
        assert_eq!(cgroup.cpu_quota()?, Some((20_000, 50_000)));
        assert!(cgroup.cpu_shares()?.abs_diff(2048) < 60);
        let resources = container.status().await?.resources.context("resources in the status")?;
        let linux = resources.linux.context("Linux resources")?;
        assert_eq!((linux.memory_limit_in_bytes, linux.cpu_quota), (128 * MIB, 20_000));
        Ok(())
    });
}

#[test]
fn limits_change_before_the_container_starts() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().limits(|limits| limits.memory_limit_in_bytes = 64 * MIB).create().await?;
        update(&container, |limits| limits.memory_limit_in_bytes = 96 * MIB).await?;
        container.start().await?;
        assert_eq!(container.cgroup().await?.memory_limit()?, Some(96 << 20));
        Ok(())
    });
}

#[test]
fn a_refused_change_changes_nothing() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().limits(|limits| limits.memory_limit_in_bytes = 64 * MIB).start().await?;
        let refused = update(&container, |limits| {
            limits.memory_limit_in_bytes = 128 * MIB;
            limits.cpuset_cpus = "9999".to_owned();
        });
        refused.await.unwrap_err();
        assert_eq!(container.cgroup().await?.memory_limit()?, Some(64 << 20));
        let resources = container.status().await?.resources.context("resources in the status")?;
        assert_eq!(resources.linux.context("Linux resources")?.memory_limit_in_bytes, 64 * MIB);
        Ok(())
    });
}

#[test]
fn the_oom_score_is_set() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().limits(|limits| limits.oom_score_adj = 987).start().await?;
        let path = format!("/proc/{}/oom_score_adj", container.pid().await?);
        assert_eq!(std::fs::read_to_string(path)?.trim(), "987");
        Ok(())
    });
}

#[test]
fn an_oom_score_below_what_is_allowed_is_clamped() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().limits(|limits| limits.oom_score_adj = -998).start().await?;
        let path = format!("/proc/{}/oom_score_adj", container.pid().await?);
        let score: i32 = std::fs::read_to_string(path)?.trim().parse()?;
        let own: i32 = std::fs::read_to_string("/proc/self/oom_score_adj")?.trim().parse()?;
        assert!(score == -998 || score == own, "{score}");
        Ok(())
    });
}
