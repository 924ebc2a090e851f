//! The slices that a node's pods are in with the systemd driver, made over D-Bus as the kubelet makes them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use crate::{Result, cgroup};

/// How long systemd may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the kubelet sets of a pod's slice; its limits aside.
const PROPERTIES: [&str; 15] = [
    "MemoryAccounting",
    "b",
    "true",
    "CPUAccounting",
    "b",
    "true",
    "IOAccounting",
    "b",
    "true",
    "TasksAccounting",
    "b",
    "true",
    "DefaultDependencies",
    "b",
    "false",
];

/// Where systemd has the cgroup of a slice: `a-b.slice` is at `/a.slice/a-b.slice`.
pub fn path(name: &str) -> String {
    let stem = name.trim_end_matches(".slice");
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]);
    ends.map(|end| format!("/{}.slice", &stem[..end])).collect()
}

/// Makes a slice, and waits for its cgroup.
pub fn make(name: &str) -> Result {
    let manager = "org.freedesktop.systemd1.Manager";
    let mut command = Command::new("busctl");
    command.args(["call", "org.freedesktop.systemd1", "/org/freedesktop/systemd1", manager]);
    command.args(["StartTransientUnit", "ssa(sv)a(sa(sv))", name, "replace"]);
    command.arg((PROPERTIES.len() / 3).to_string()).args(PROPERTIES).arg("0");
    let output = command.output().context("run busctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success() || said.contains("already"), "make {name}: {said}");
    let directory = directory(name)?;
    let deadline = Instant::now() + PATIENCE;
    while !directory.exists() {
        ensure!(Instant::now() < deadline, "systemd makes no cgroup for {name}");
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

/// Ends a slice with all that is in it, and names the scopes that were.
pub fn remove(name: &str) -> Result<Vec<String>> {
    let mut left = Vec::new();
    scopes(&directory(name)?, &mut left);
    // One that is not there is no error.
    let output = Command::new("systemctl").args(["stop", name]).output().context("run systemctl")?;
    let said = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && !said.contains("not loaded") {
        bail!("stop {name}: {said}");
    }
    left.extend(cgroup::remove(&path(name))?);
    Ok(left)
}

fn directory(name: &str) -> Result<PathBuf> {
    let roots = cgroup::hierarchies()?;
    Ok(roots.first().context("a hierarchy")?.join(path(name).trim_start_matches('/')))
}

fn scopes(dir: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "scope") {
            found.push(path.display().to_string());
        } else if path.is_dir() {
            scopes(&path, found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slice_is_below_those_that_its_name_names() {
        assert_eq!(path("a-b-c.slice"), "/a.slice/a-b.slice/a-b-c.slice");
        assert_eq!(path("a.slice"), "/a.slice");
    }
}
