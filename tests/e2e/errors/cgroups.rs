//! Control groups that cannot be as they are asked for: each is a clear error, and nothing is left behind.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::ensure;
use corten_tests::bus::{self, Bus};
use corten_tests::wait::slowness;
use corten_tests::{Kubelet, Pod, Result, on_own_node, skip};
use k8s_cri::v1 as wire;

async fn has_systemd(kubelet: &Kubelet) -> Result<bool> {
    let config = kubelet.cri().runtime.runtime_config(wire::RuntimeConfigRequest {}).await?.into_inner();
    Ok(config.linux.is_some_and(|linux| linux.cgroup_driver() == wire::CgroupDriver::Systemd))
}

async fn has_nothing(kubelet: &Kubelet) -> Result {
    let containers = kubelet.containers(wire::ContainerFilter::default()).await?;
    ensure!(containers.is_empty(), "left behind: {containers:?}");
    Ok(())
}

/// The refusal of a container with these limits.
async fn refused(
    pod: &Pod<'_>,
    change: impl FnOnce(&mut wire::LinuxContainerResources),
) -> Result<tonic::Status> {
    let status = pod.container().limits(change).refused().await?;
    has_nothing(pod.kubelet).await?;
    Ok(status)
}

#[test]
fn a_cgroup_parent_in_the_other_drivers_form_makes_no_pod() {
    on_own_node(&Default::default(), async |kubelet| {
        let wrong: &[&str] = match has_systemd(kubelet).await? {
            true => &["/kubepods/pod1", "/a.slice/b", "/a-b.slice", "/corten-test-1/x.scope"],
            false => &["kubepods-pod1.slice", "kubepods.slice"],
        };
        for parent in wrong {
            let change = |config: &mut wire::PodSandboxConfig| {
                config.linux.get_or_insert_default().cgroup_parent = (*parent).to_owned();
            };
            let status = kubelet.pod().with(change).refused().await?;
            assert!(status.message().contains(parent), "{parent}: {status}");
            assert_eq!(status.code(), tonic::Code::InvalidArgument, "{status}");
        }
        assert_eq!(kubelet.pods(wire::PodSandboxFilter::default()).await?.len(), 0);
        Ok(())
    });
}

#[test]
fn a_limit_that_the_kernel_refuses_makes_no_container() {
    on_own_node(&Default::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let status = refused(&pod, |limits| limits.cpuset_cpus = "4000".to_owned()).await?;
        assert!(status.message().contains("cpuset.cpus"), "{status}");
        let unified = |limits: &mut wire::LinuxContainerResources| {
            limits.unified.insert("pids.max".to_owned(), "many".to_owned());
        };
        let status = refused(&pod, unified).await?;
        assert!(status.message().contains("pids.max"), "{status}");
        // The same pod has room for others.
        pod.container().start().await?;
        Ok(())
    });
}

#[test]
fn a_controller_that_is_not_there_is_named() {
    on_own_node(&Default::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let unified = |limits: &mut wire::LinuxContainerResources| {
            limits.unified.insert("nosuch.max".to_owned(), "1".to_owned());
        };
        let status = refused(&pod, unified).await?;
        assert!(status.message().contains("nosuch"), "{status}");
        Ok(())
    });
}

/// A node with a bus that can be made to hang, and works yet; none where systemd does not own the cgroups.
async fn on_bus(kubelet: &Kubelet) -> Result<Bus> {
    if !has_systemd(kubelet).await? {
        return skip("the cgroup driver is not systemd");
    }
    let bus = Bus::start()?;
    kubelet.node().kill_daemon()?;
    kubelet.node().start_daemon_with(&[(bus::VARIABLE, &bus.address())])?;
    Ok(bus)
}

fn check_refusal(status: &tonic::Status, began: Instant) {
    assert!(status.message().contains("systemd does not answer within"), "{status}");
    // Its deadline of 30 s, once for what is asked and once for taking it down.
    assert!(began.elapsed() < Duration::from_secs(80) * slowness(), "{:?}", began.elapsed());
}

#[test]
fn a_bus_that_hangs_is_said_in_time_and_works_again_afterwards() {
    on_own_node(&Default::default(), async |kubelet| {
        let bus = on_bus(kubelet).await?;
        let pod = kubelet.pod().run().await?;
        pod.container().start().await?.remove().await?;
        let began = Instant::now();
        bus.hang(true);
        let status = pod.container().refused().await?;
        bus.hang(false);
        check_refusal(&status, began);
        pod.container().start().await?;
        // What of the first one could not be taken down meanwhile goes with its pod.
        pod.remove().await?;
        has_nothing(kubelet).await?;
        let left = fs::read_to_string("/proc/self/mounts")?;
        assert!(!left.contains(&format!("{}/containers", kubelet.node().root().display())), "{left}");
        Ok(())
    });
}

#[test]
fn a_bus_that_never_answers_makes_no_pod_or_no_container() {
    on_own_node(&Default::default(), async |kubelet| {
        let bus = on_bus(kubelet).await?;
        bus.hang(true);
        let began = Instant::now();
        let request = kubelet.pod().request().await?;
        let status = match Pod::run(kubelet, request).await {
            // Where another node has made the monitors' scope, nothing of a pod is systemd's.
            Ok(pod) => pod.container().refused().await?,
            Err(status) => {
                assert_eq!(kubelet.pods(wire::PodSandboxFilter::default()).await?.len(), 0);
                status
            }
        };
        check_refusal(&status, began);
        has_nothing(kubelet).await?;
        bus.hang(false);
        let pod = kubelet.pod().run().await?;
        pod.container().start().await?;
        pod.remove().await?;
        has_nothing(kubelet).await
    });
}
