//! What the kernel says of a container's cgroup, in one language for cgroup v1 and v2.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::Result;
use crate::wait::slowness;

const MOUNT: &str = "/sys/fs/cgroup";

/// The cgroups of one process.
#[derive(Debug, Clone)]
pub struct Cgroup {
    /// Lines of /proc/PID/cgroup: controllers and path.
    lines: Vec<(String, String)>,
}

impl Cgroup {
    /// The cgroups that `pid` is in.
    pub fn of(pid: i32) -> Result<Self> {
        let path = format!("/proc/{pid}/cgroup");
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        let lines = text.lines().filter_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            Some((controllers.to_owned(), path.to_owned()))
        });
        Ok(Self { lines: lines.collect() })
    }

    /// Path of the cgroup that `controller` is attached to, below its hierarchy's mount.
    pub fn path(&self, controller: &str) -> Result<&str> {
        let of = |name: &str| self.lines.iter().find(|(names, _)| names.split(',').any(|n| n == name));
        let line =
            of(controller).or_else(|| of("")).with_context(|| format!("a cgroup with {controller}"))?;
        Ok(&line.1)
    }

    /// Memory limit in bytes, none without one.
    pub fn memory_limit(&self) -> Result<Option<u64>> {
        let text = self.read("memory", &["memory.max", "memory.limit_in_bytes"])?;
        // v1 writes "no limit" as the largest number of pages.
        Ok(text.parse().ok().filter(|bytes| *bytes < 1 << 60))
    }

    /// Bytes that may be swapped beside the memory, the largest number without a limit; none where the kernel does
    /// not account swap.
    pub fn swap_limit(&self) -> Result<Option<u64>> {
        if let Ok(text) = self.read("memory", &["memory.swap.max"]) {
            return Ok(Some(text.parse().unwrap_or(u64::MAX)));
        }
        let Ok(both) = self.read("memory", &["memory.memsw.limit_in_bytes"]) else { return Ok(None) };
        Ok(Some(both.parse::<u64>()?.saturating_sub(self.memory_limit()?.unwrap_or_default())))
    }

    /// Quota and period of the processor in microseconds, none without a quota.
    pub fn cpu_quota(&self) -> Result<Option<(u64, u64)>> {
        if let Ok(text) = self.read("cpu", &["cpu.max"]) {
            let (quota, period) = text.split_once(' ').context("two numbers in cpu.max")?;
            return Ok(quota.parse().ok().zip(period.parse().ok()));
        }
        let quota = self.read("cpu", &["cpu.cfs_quota_us"])?;
        let period = self.read("cpu", &["cpu.cfs_period_us"])?;
        Ok(quota.parse().ok().zip(period.parse().ok()))
    }

    /// Weight of the processor as v1's shares, by the curve that runc since 1.3.2 and crun since 1.23 use.
    pub fn cpu_shares(&self) -> Result<u64> {
        if let Ok(text) = self.read("cpu", &["cpu.weight"]) {
            let weight: f64 = text.parse().context("a number in cpu.weight")?;
            let log = ((15_625.0 + 4.0 * 612.0 * (weight.log10() + 7.0 / 34.0)).sqrt() - 125.0) / 2.0;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "between 2 and 2^18"
            )]
            return Ok(log.exp2().round() as u64);
        }
        self.read("cpu", &["cpu.shares"])?.parse().context("a number in cpu.shares")
    }

    /// The processors it may use, as a list.
    pub fn cpus(&self) -> Result<String> {
        self.read("cpuset", &["cpuset.cpus"])
    }

    /// A file of its cgroup, which only v2 may have.
    pub fn file(&self, name: &str) -> Result<String> {
        self.read("", &[name])
    }

    /// Whether the kernel's unified hierarchy is the only one.
    pub fn is_unified() -> bool {
        Path::new(MOUNT).join("cgroup.controllers").exists()
    }

    /// Stops its processes in the unified hierarchy, as other software may, and waits until they stand still.
    pub fn freeze(&self) -> Result {
        let line = self.lines.iter().find(|(names, _)| names.is_empty()).context("a unified hierarchy")?;
        let root = if Self::is_unified() { MOUNT.to_owned() } else { format!("{MOUNT}/unified") };
        let dir = Path::new(&root).join(line.1.trim_start_matches('/'));
        fs::write(dir.join("cgroup.freeze"), "1").context("write cgroup.freeze")?;
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10) * slowness();
        while !fs::read_to_string(dir.join("cgroup.events"))?.contains("frozen 1") {
            if std::time::Instant::now() > deadline {
                bail!("{} is not frozen", dir.display());
            }
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        Ok(())
    }

    fn read(&self, controller: &str, names: &[&str]) -> Result<String> {
        let below = self.path(controller)?.trim_start_matches('/');
        let dir = if Self::is_unified() {
            Path::new(MOUNT).join(below)
        } else {
            Path::new(MOUNT).join(controller).join(below)
        };
        for name in names {
            if let Ok(text) = fs::read_to_string(dir.join(name)) {
                return Ok(text.trim().to_owned());
            }
        }
        bail!("none of {names:?} in {}", dir.display())
    }
}

/// The mounted hierarchies' roots: one with cgroup v2, several else.
pub fn hierarchies() -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    let mut roots = Vec::new();
    for line in mounts.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        if matches!(after.split(' ').next(), Some("cgroup" | "cgroup2")) {
            roots.extend(before.split(' ').nth(4).map(PathBuf::from));
        }
    }
    roots.retain(|root| root.starts_with(MOUNT));
    Ok(roots)
}

/// Makes a cgroup in every hierarchy, as the kubelet does for a pod before it asks for its sandbox.
pub fn make(path: &str) -> Result {
    for root in hierarchies()? {
        let mut dir = root.clone();
        for part in Path::new(path.trim_start_matches('/')) {
            let parent = dir.clone();
            dir.push(part);
            match fs::create_dir(&dir) {
                // Another test made the node's cgroup, and fills it.
                Err(err) if err.kind() == ErrorKind::AlreadyExists => continue,
                made => made.with_context(|| format!("make the cgroup {}", dir.display()))?,
            }
            // A v1 cpuset takes no process before it has processors and memory nodes.
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if !Cgroup::is_unified() && dir.join(file).exists() {
                    fs::write(dir.join(file), fs::read(parent.join(file))?)
                        .with_context(|| format!("fill {file} of {}", dir.display()))?;
                }
            }
            // v2 gives a child the controllers that its parent enables.
            let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
            for controller in controllers.split_whitespace() {
                fs::write(parent.join("cgroup.subtree_control"), format!("+{controller}"))
                    .with_context(|| format!("enable {controller} in {}", parent.display()))?;
            }
        }
    }
    Ok(())
}

/// Removes a cgroup and the empty ones below it; those that still hold something are returned.
pub fn remove(path: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for root in hierarchies()? {
        remove_tree(&root.join(path.trim_start_matches('/')), &mut left);
    }
    Ok(left)
}

fn remove_tree(dir: &Path, left: &mut Vec<String>) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for entry in entries.flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path(), left);
        }
    }
    if fs::remove_dir(dir).is_err() {
        left.push(dir.display().to_string());
    }
}
