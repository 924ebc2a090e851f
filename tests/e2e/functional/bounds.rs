//! Limits at work: what the kernel does when a container comes to one, with cgroup v2 and the files that only it has.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use corten_tests::cgroup::Cgroup;
use corten_tests::{Container, Kubelet, Result, eventually, on_node, skip};
use k8s_cri::v1 as wire;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const MIB: i64 = 1 << 20;

fn needs_v2() -> Result {
    match Cgroup::is_unified() {
        true => Ok(()),
        false => skip("cgroup v2 is not the only one"),
    }
}

/// Limits that are files of v2.
fn unified<const N: usize>(files: [(&str, &str); N]) -> HashMap<String, String> {
    files.map(|(file, value)| (file.to_owned(), value.to_owned())).into()
}

/// A number of a file of the container's cgroup: `events`, `max`.
fn count(cgroup: &Cgroup, file: &str, key: &str) -> Result<u64> {
    let text = cgroup.file(file)?;
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '));
    Ok(value.with_context(|| format!("{key} in {file}: {text}"))?.parse()?)
}

async fn update(container: &Container<'_>, linux: wire::LinuxContainerResources) -> Result {
    let container_id = container.id.clone();
    let request =
        wire::UpdateContainerResourcesRequest { container_id, linux: Some(linux), ..Default::default() };
    container.kubelet.cri().runtime.update_container_resources(request).await?;
    Ok(())
}

#[test]
fn memory_beyond_high_is_reclaimed_and_nobody_is_killed() {
    on_node(async |kubelet| {
        needs_v2()?;
        let pod = kubelet.pod().run().await?;
        let container = pod
            .container()
            .limits(|limits| {
                limits.memory_limit_in_bytes = 128 * MIB;
                limits.unified = unified([("memory.high", "16777216")]);
            })
            .start()
            .await?;
        // Page cache, which can go: memory that cannot would be held back by seconds.
        container.sh("dd if=/dev/zero of=/big bs=1M count=48 2>/dev/null").await?;
        let cgroup = container.cgroup().await?;
        assert_eq!(cgroup.file("memory.high")?, "16777216");
        assert!(count(&cgroup, "memory.events", "high")? > 0, "{}", cgroup.file("memory.events")?);
        assert_eq!(count(&cgroup, "memory.events", "oom_kill")?, 0);
        let used: i64 = cgroup.file("memory.current")?.parse()?;
        assert!(used < 32 * MIB, "{used} bytes are in use");
        Ok(())
    });
}

/// Keeps 24 MiB in a container that has 16 MiB of memory, and `swap` more.
async fn keep_much(kubelet: &Kubelet, swap: i64) -> Result<(wire::ContainerStatus, u64)> {
    let pod = kubelet.pod().run().await?;
    let container = pod
        .container()
        .sh("dd if=/dev/zero of=/dev/shm/much bs=1M count=24 && echo kept && exec sleep 100000")
        .limits(|limits| {
            limits.memory_limit_in_bytes = 16 * MIB;
            limits.memory_swap_limit_in_bytes = 16 * MIB + swap;
        })
        .start()
        .await?;
    eventually("it has kept them, or ended", async || {
        let ended = container.status().await?.state() == wire::ContainerState::ContainerExited;
        Ok((ended || container.lines("stdout")?.contains(&"kept".to_owned())).then_some(()))
    })
    .await?;
    let status = container.status().await?;
    let swapped = match status.state() {
        wire::ContainerState::ContainerRunning => {
            container.cgroup().await?.file("memory.swap.current")?.parse()?
        }
        _ => 0,
    };
    Ok((status, swapped))
}

#[test]
fn swap_is_used_up_to_its_limit_and_not_beyond() {
    on_node(async |kubelet| {
        needs_v2()?;
        if fs::read_to_string("/proc/swaps")?.lines().count() < 2 {
            return skip("the machine has no swap");
        }
        let (status, swapped) = keep_much(kubelet, 32 * MIB).await?;
        assert_eq!(status.state(), wire::ContainerState::ContainerRunning, "{status:?}");
        assert!(swapped > 4 << 20, "{swapped} bytes are swapped");
        let (status, _) = keep_much(kubelet, 0).await?;
        assert_eq!(status.reason, "OOMKilled", "{status:?}");
        let (status, _) = keep_much(kubelet, 2 * MIB).await?;
        assert_eq!(status.reason, "OOMKilled", "{status:?}");
        Ok(())
    });
}

/// The disk that a node's data is on, as `io.max` names it; none where that takes no limits.
fn disk(kubelet: &Kubelet) -> Result<Option<String>> {
    let device = fs::metadata(kubelet.node().dir())?.dev();
    let (major, minor) = (nix::sys::stat::major(device), nix::sys::stat::minor(device));
    let sys = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    // A partition is limited with its disk.
    let whole = if sys.join("partition").exists() { sys.canonicalize()?.join("..") } else { sys };
    Ok(fs::read_to_string(whole.join("dev")).ok().map(|number| number.trim().to_owned()))
}

#[test]
fn writes_are_no_quicker_than_io_max() {
    on_node(async |kubelet| {
        needs_v2()?;
        let Some(disk) = disk(kubelet)? else { return skip("the data is on no disk") };
        let pod = kubelet.pod().run().await?;
        let rate = |rate: &str| unified([("io.max", format!("{disk} wbps={rate}").as_str())]);
        let container = pod.container().limits(|limits| limits.unified = rate("1048576")).start().await?;
        let cgroup = container.cgroup().await?;
        assert!(cgroup.file("io.max")?.starts_with(&format!("{disk} rbps=max wbps=1048576")));
        // Past the page cache; what it takes is the container's to say, since an exec takes time too.
        let script = "s=$(cut -d' ' -f1 /proc/uptime); dd if=/dev/zero of=/big bs=256k count=16 oflag=direct \
             2>/dev/null; e=$(cut -d' ' -f1 /proc/uptime); echo $s $e";
        let seconds = async || -> Result<f64> {
            let said = container.sh(script).await?;
            let (began, ended) = said.split_once(' ').context("two times")?;
            Ok(ended.parse::<f64>()? - began.parse::<f64>()?)
        };
        let limited = seconds().await?;
        assert!(limited > 2.5, "4 MiB in {limited} s");
        let none = wire::LinuxContainerResources { unified: rate("max"), ..Default::default() };
        update(&container, none).await?;
        // Other tests write, too.
        eventually("writes are free", async || Ok((seconds().await? < limited / 2.0).then_some(()))).await
    });
}

#[test]
fn who_weighs_more_gets_more_of_a_busy_processor() {
    on_node(async |kubelet| {
        needs_v2()?;
        let pod = kubelet.pod().run().await?;
        let spinning = async |shares| {
            let busy = pod.container().sh("while :; do :; done").limits(|limits| {
                limits.cpu_shares = shares;
                limits.cpuset_cpus = "0".to_owned();
            });
            busy.start().await?.cgroup().await
        };
        let (light, heavy) = (spinning(128).await?, spinning(4096).await?);
        let usage = || -> Result<(u64, u64)> {
            let of = |cgroup| count(cgroup, "cpu.stat", "usage_usec");
            Ok((of(&light)?, of(&heavy)?))
        };
        let begun = usage()?;
        eventually("they have used the processor for a while", async || {
            let now = usage()?;
            let (light, heavy) = (now.0 - begun.0, now.1 - begun.1);
            if light + heavy < 2_000_000 {
                return Ok(None);
            }
            assert!(heavy > 4 * light, "{heavy} us for the heavy one, {light} us for the light one");
            Ok(Some(()))
        })
        .await
    });
}

#[test]
fn processors_are_those_of_the_set_and_follow_its_change() {
    on_node(async |kubelet| {
        if std::thread::available_parallelism()?.get() < 2 {
            return skip("the machine has one processor");
        }
        let pod = kubelet.pod().run().await?;
        let set =
            |cpus: &str| wire::LinuxContainerResources { cpuset_cpus: cpus.to_owned(), ..Default::default() };
        let container = pod.container().limits(|limits| limits.cpuset_cpus = "0".to_owned()).start().await?;
        let status = format!("/proc/{}/status", container.pid().await?);
        let allowed = || -> Result<_> {
            let text = fs::read_to_string(&status)?;
            let list = text.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            Ok(list.context("a list")?.trim().to_owned())
        };
        assert_eq!(allowed()?, "0");
        for cpus in ["1", "0-1"] {
            update(&container, set(cpus)).await?;
            assert_eq!(allowed()?, cpus);
            assert_eq!(container.sh("nproc").await?, if cpus == "1" { "1" } else { "2" });
        }
        Ok(())
    });
}

#[test]
fn no_more_processes_than_pids_max() {
    on_node(async |kubelet| {
        needs_v2()?;
        let pod = kubelet.pod().run().await?;
        let limits = unified([("pids.max", "8")]);
        let container = pod.container().limits(|all| all.unified = limits).start().await?;
        let cgroup = container.cgroup().await?;
        let forks = ["sh", "-c", "for i in 1 2 3 4 5 6 7 8 9 10; do sleep 1000 >/dev/null 2>&1 & done"];
        let output = container.exec(forks).await?;
        assert!(output.code != 0 && output.stderr.contains("fork"), "{output:?}");
        assert!(count(&cgroup, "pids.events", "max")? > 0);
        assert!(cgroup.file("pids.current")?.parse::<u32>()? <= 8);
        Ok(())
    });
}

/// A file system of huge pages, as the kubelet mounts one for a volume.
struct HugePages(PathBuf);

impl HugePages {
    fn mount(kubelet: &Kubelet) -> Result<Self> {
        let path = kubelet.node().dir().join(format!("huge-{}", kubelet.unique()));
        fs::create_dir(&path)?;
        mount(Some("huge"), &path, Some("hugetlbfs"), MsFlags::empty(), Some("pagesize=2M"))?;
        Ok(Self(path))
    }
}

impl Drop for HugePages {
    fn drop(&mut self) {
        umount2(&self.0, MntFlags::MNT_DETACH).ok();
        fs::remove_dir(&self.0).ok();
    }
}

#[test]
fn huge_pages_are_given_up_to_their_limit() {
    on_node(async |kubelet| {
        needs_v2()?;
        let free = fs::read_to_string("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
        if free.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0) < 4 {
            return skip("no huge pages of 2 MiB are set aside");
        }
        let pages = HugePages::mount(kubelet)?;
        let pod = kubelet.pod().run().await?;
        let limits = vec![wire::HugepageLimit { page_size: "2MB".to_owned(), limit: 4 << 20 }];
        let container = pod
            .container()
            .limits(|all| all.hugepage_limits = limits)
            .mount(&pages.0.display().to_string(), "/huge", |_| {})
            .start()
            .await?;
        let cgroup = container.cgroup().await?;
        container.sh("fallocate -l 4194304 /huge/two").await?;
        assert_eq!(cgroup.file("hugetlb.2MB.current")?, "4194304");
        let third = container.exec(["fallocate", "-l", "2097152", "/huge/third"]).await?;
        assert_ne!(third.code, 0, "{third:?}");
        assert!(count(&cgroup, "hugetlb.2MB.events", "max")? > 0);
        container
            .sh("rm /huge/two /huge/third; fallocate -l 4194304 /huge/again; rm /huge/again")
            .await
            .map(drop)
    });
}

/// A container of which one process takes too much memory, and the other says so.
async fn one_of_two_is_killed<'a>(
    pod: &'a corten_tests::Pod<'a>,
    group: Option<&str>,
) -> Result<Container<'a>> {
    let script = "dd if=/dev/zero of=/dev/null bs=40M count=1 & wait $!; echo killed; exec sleep 100000";
    let builder = pod.container().sh(script).limits(|limits| {
        limits.memory_limit_in_bytes = 16 * MIB;
        limits.memory_swap_limit_in_bytes = 16 * MIB;
        limits.unified = group.map(|value| unified([("memory.oom.group", value)])).unwrap_or_default();
    });
    builder.start().await
}

#[test]
fn an_oom_kill_is_of_one_process_or_of_the_whole_group() {
    on_node(async |kubelet| {
        needs_v2()?;
        let pod = kubelet.pod().run().await?;
        for alone in [None, Some("0")] {
            let container = one_of_two_is_killed(&pod, alone).await?;
            container.says("killed").await?;
            let cgroup = container.cgroup().await?;
            assert_eq!(cgroup.file("memory.oom.group")?, "0");
            assert_eq!(count(&cgroup, "memory.events", "oom_kill")?, 1);
            assert_eq!(container.status().await?.state(), wire::ContainerState::ContainerRunning);
            container.stop(Duration::ZERO).await?;
        }
        let container = one_of_two_is_killed(&pod, Some("1")).await?;
        let status = container.exited().await?;
        assert_eq!((status.exit_code, status.reason.as_str()), (137, "OOMKilled"));
        assert_eq!(container.lines("stdout")?, Vec::<String>::new());
        Ok(())
    });
}
