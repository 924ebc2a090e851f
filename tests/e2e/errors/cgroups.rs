//! Control groups that cannot be as they are asked for: each is a clear error, and nothing is left behind.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, ensure};
use corten_tests::{Kubelet, Pod, Result, on_own_node, skip};
use k8s_cri::v1 as wire;

/// Where hack/vm says that this machine is a guest of its own.
const GUEST: &str = "/run/hack-vm";

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

/// Stops the bus for as long as it lives.
struct Stopped(String);

impl Stopped {
    fn bus() -> Result<Self> {
        let output =
            Command::new("systemctl").args(["show", "--property=MainPID", "--value", "dbus"]).output();
        let pid = String::from_utf8(output.context("run systemctl")?.stdout)?.trim().to_owned();
        let stopped = Self(pid);
        stopped.signal("-STOP")?;
        Ok(stopped)
    }

    fn signal(&self, signal: &str) -> Result {
        ensure!(Command::new("kill").args([signal, &self.0]).status()?.success(), "kill {signal} {}", self.0);
        Ok(())
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        self.signal("-CONT").ok();
    }
}

#[test]
fn a_bus_that_hangs_is_said_in_time_and_works_again_afterwards() {
    on_own_node(&Default::default(), async |kubelet| {
        if !has_systemd(kubelet).await? {
            return skip("the cgroup driver is not systemd");
        }
        if !Path::new(GUEST).exists() {
            return skip("it stops the machine's D-Bus: only in a guest of hack/vm");
        }
        let pod = kubelet.pod().run().await?;
        let began = Instant::now();
        let bus = Stopped::bus()?;
        let status = pod.container().refused().await?;
        drop(bus);
        assert!(status.message().contains("systemd does not answer within"), "{status}");
        assert!(began.elapsed().as_secs() < 80, "{:?}", began.elapsed());
        pod.container().start().await?;
        // What of the first one could not be taken down meanwhile goes with its pod.
        pod.remove().await?;
        has_nothing(kubelet).await?;
        let left = fs::read_to_string("/proc/self/mounts")?;
        assert!(!left.contains(&format!("{}/containers", kubelet.node().root().display())), "{left}");
        Ok(())
    });
}
