//! Limits: what the kernel is told, what it does at the limit, and changing it while it runs.

use std::time::Duration;

use anyhow::Context;
use corten_tests::{Container, Kubelet, Result, Setup, newest, on_node, on_own_node, rounds};
use k8s_cri::v1 as wire;
use tonic::Code;

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
        // Nothing was said of swap: none of it.
        assert!(cgroup.swap_limit()?.is_none_or(|limit| limit == 0), "{:?}", cgroup.swap_limit()?);
        assert_eq!(cgroup.cpu_quota()?, Some((25_000, 100_000)));
        assert!(cgroup.cpu_shares()?.abs_diff(512) < 30, "{}", cgroup.cpu_shares()?);
        assert_eq!(cgroup.cpus()?, "0");
        let resources = container.status().await?.resources.context("resources in the status")?;
        let linux = resources.linux.context("Linux resources")?;
        assert_eq!((linux.cpu_period, linux.cpu_quota, linux.cpu_shares), (100_000, 25_000, 512));
        assert_eq!((linux.memory_limit_in_bytes, linux.cpuset_cpus.as_str()), (64 * MIB, "0"));
        assert_eq!(linux.memory_swap_limit_in_bytes, 64 * MIB);
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
        // With systemd it is a scope.
        let name = path.trim_end_matches(".scope");
        assert!(name.ends_with(&container.id), "{path} does not end with the container's id");
        Ok(())
    });
}

/// How a script ends that has 15 MiB of memory.
async fn with_little_memory(kubelet: &Kubelet, script: &str) -> Result<wire::ContainerStatus> {
    let pod = kubelet.pod().run().await?;
    let container = pod.container().sh(script).limits(|limits| {
        limits.memory_limit_in_bytes = 15 * MIB;
        limits.memory_swap_limit_in_bytes = 15 * MIB;
    });
    container.start().await?.exited().await
}

#[test]
fn too_much_memory_ends_in_oom_killed() {
    on_node(async |kubelet| {
        let exited =
            with_little_memory(kubelet, "sleep 0.1; exec dd if=/dev/zero of=/dev/null bs=40M count=1")
                .await?;
        assert_eq!((exited.exit_code, exited.reason.as_str()), (137, "OOMKilled"));
        Ok(())
    });
}

#[test]
fn an_oom_kill_is_the_reason_though_the_command_ended_well() {
    on_node(async |kubelet| {
        let exited =
            with_little_memory(kubelet, "sleep 0.1; dd if=/dev/zero of=/dev/null bs=40M count=1; exit 0")
                .await?;
        assert_eq!((exited.exit_code, exited.reason.as_str()), (0, "OOMKilled"));
        Ok(())
    });
}

/// With systemd the scope is often gone before its count is read. Others end beside it that lost nothing.
#[test]
fn no_oom_kill_is_overlooked_or_put_down_to_another_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let survivor = |code: i32| {
            let script = format!("dd if=/dev/zero of=/dev/null bs=40M count=1 2>/dev/null; exit {code}");
            pod.container().sh(&script).limits(|limits| {
                limits.memory_limit_in_bytes = 15 * MIB;
                limits.memory_swap_limit_in_bytes = 15 * MIB;
            })
        };
        for round in 0..rounds(8) {
            let code = if round % 2 == 0 { 0 } else { 3 };
            let (killed, well, other) = (
                survivor(code).start().await?,
                pod.container().sh("exit 0").start().await?,
                pod.container().start().await?,
            );
            other.stop(Duration::ZERO).await?;
            for (container, code, reason) in
                [(killed, code, "OOMKilled"), (well, 0, "Completed"), (other, 137, "Error")]
            {
                let exited = container.exited().await?;
                assert_eq!((exited.exit_code, exited.reason.as_str()), (code, reason), "round {round}");
                container.remove().await?;
            }
        }
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

#[test]
fn every_limit_of_a_change_is_in_force_reported_and_kept() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container =
            pod.container().limits(|limits| limits.memory_limit_in_bytes = 64 * MIB).start().await?;
        let change = |limits: &mut wire::LinuxContainerResources| {
            limits.memory_limit_in_bytes = 96 * MIB;
            limits.memory_swap_limit_in_bytes = 96 * MIB;
            limits.cpuset_cpus = "0".to_owned();
            limits.cpuset_mems = "0".to_owned();
            limits.oom_score_adj = 321;
            limits.hugepage_limits = vec![wire::HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }];
        };
        update(&container, change).await?;
        let cgroup = container.cgroup().await?;
        assert_eq!((cgroup.memory_limit()?, cgroup.cpus()?.as_str()), (Some(96 << 20), "0"));
        let score = async |pid: i32| std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj"));
        assert_eq!(score(container.pid().await?).await?.trim(), "321");
        assert_eq!(container.sh("cat /proc/self/oom_score_adj").await?, "321", "of a later exec");

        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        let resources = container.status().await?.resources.context("resources in the status")?;
        let mut expected = wire::LinuxContainerResources::default();
        change(&mut expected);
        assert_eq!(resources.linux, Some(expected));
        assert_eq!(container.sh("cat /proc/self/oom_score_adj").await?, "321", "after a restart too");
        let info = container.info().await?;
        let limit = info.pointer("/runtimeSpec/linux/resources/memory/limit");
        assert_eq!(limit.and_then(serde_json::Value::as_i64), Some(96 * MIB), "in the spec shown");
        Ok(())
    });
}

#[test]
fn limits_that_the_kernel_does_not_take_are_named() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for (key, value) in [("memory.wish", "1"), ("wish.max", "1"), ("hugetlb.3MB.max", "1")] {
            let unified = |limits: &mut wire::LinuxContainerResources| {
                limits.unified.insert(key.to_owned(), value.to_owned());
            };
            let status = update(&container, unified).await.unwrap_err();
            assert!(status.message().contains(key), "{status}");
            assert!(matches!(status.code(), Code::InvalidArgument | Code::FailedPrecondition), "{status}");
            let status = pod.container().limits(unified).refused().await?;
            assert!(status.message().contains(key), "{status}");
        }
        let status = update(&container, |limits| limits.cpuset_cpus = "9999".to_owned()).await.unwrap_err();
        assert_eq!(status.code(), Code::InvalidArgument, "{status}");
        assert!(status.message().contains("cpuset.cpus"), "{status}");
        Ok(())
    });
}

#[test]
fn limits_of_what_has_ended_do_not_change() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().command(["true"]).start().await?;
        container.exited().await?;
        let status = update(&container, |limits| limits.cpu_shares = 100).await.unwrap_err();
        assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
        Ok(())
    });
}

#[test]
fn a_pods_new_size_is_taken_note_of_and_never_refused() {
    on_own_node(&Setup::default(), async |kubelet| {
        let size = |memory_limit_in_bytes| {
            Some(newest::LinuxContainerResources { memory_limit_in_bytes, ..Default::default() })
        };
        let at_start = wire::LinuxContainerResources { memory_limit_in_bytes: MIB, ..Default::default() };
        let pod = kubelet.pod().with(|config| {
            config.linux.get_or_insert_default().overhead = Some(at_start.clone());
        });
        let pod = pod.run().await?;
        let known = async |part: &str| -> Result<_> {
            let info = pod.info().await?;
            Ok(info.pointer(&format!("/resources/{part}/memory_limit_bytes")).and_then(|v| v.as_i64()))
        };
        assert_eq!((known("overhead").await?, known("resources").await?), (Some(MIB), None));
        let resize = async |id: &str, memory| {
            let request = newest::UpdatePodSandboxResourcesRequest {
                pod_sandbox_id: id.to_owned(),
                overhead: size(2 * MIB),
                resources: size(memory),
            };
            kubelet.cri().newest.update_pod_sandbox_resources(request).await
        };
        resize(&pod.id, 1 << 50).await?;
        resize(&pod.id, 64 * MIB).await?;
        kubelet.node().kill_daemon()?;
        kubelet.node().start_daemon()?;
        assert_eq!((known("overhead").await?, known("resources").await?), (Some(2 * MIB), Some(64 * MIB)));
        pod.stop().await?;
        resize(&pod.id, MIB).await?;
        let status = resize("0badcafe", MIB).await.unwrap_err();
        assert_eq!(status.code(), Code::NotFound, "{status}");
        Ok(())
    });
}
