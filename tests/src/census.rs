//! Counts what Corten could leave on a machine: mounts, processes, namespaces, cgroups, interfaces,
//! packet filter rules and files. What is left is named, since a number alone helps nobody.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::network::PACKET_FILTERS;
use crate::{Node, Result, cgroup, eventually};

/// What of a node without pods and without a daemon is left, images aside.
pub fn of_node(node: &Node) -> Result<Vec<String>> {
    let dir = node.dir().display().to_string();
    let mut left: Vec<String> = mounts()?
        .into_iter()
        .filter(|mount| mount.starts_with(&dir))
        // The directory of network namespaces is itself shared while the node lives.
        .filter(|mount| Path::new(mount) != node.dir().join("netns"))
        .map(|mount| format!("mount {mount}"))
        .collect();
    left.extend(processes(&[&dir, &node.cgroup()])?.into_iter().map(|(_, text)| text));
    left.extend(of_node_files(node));
    Ok(left)
}

/// The files among what [`of_node`] finds.
pub fn of_node_files(node: &Node) -> Vec<String> {
    let places = ["netns", "run/pods", "root/pods", "root/containers", "cni/cache/results"];
    let in_place = |place: &str| -> Vec<String> {
        let names = names(&node.dir().join(place));
        names.into_iter().map(|name| format!("file {place}/{name}")).collect()
    };
    places.into_iter().flat_map(in_place).collect()
}

/// Every path below a directory.
pub fn files(dir: &Path) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        all.insert(entry.path().display().to_string());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            all.extend(files(&entry.path()));
        }
    }
    all
}

/// Waits until a directory has the files that it had, and names those that it is not so for.
pub async fn as_before(dir: &Path, before: &BTreeSet<String>) -> Result {
    let mut changed = Vec::new();
    let same = eventually("nothing is left of what was begun", async || {
        let now = files(dir);
        changed = now.symmetric_difference(before).cloned().collect();
        Ok((now == *before).then_some(()))
    })
    .await;
    same.with_context(|| changed.join("\n"))
}

/// Undoes by force what [`of_node`] found, so that one failed test does not spoil the next.
pub fn tear_down(node: &Node) {
    let dir = node.dir().display().to_string();
    for (pid, _) in processes(&[&dir, &node.cgroup()]).unwrap_or_default() {
        // It may have ended by itself.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
    let mut mounts = mounts().unwrap_or_default();
    mounts.retain(|mount| mount.starts_with(&dir));
    for mount in mounts.iter().rev() {
        umount2(mount.as_str(), MntFlags::MNT_DETACH).ok();
    }
}

fn mounts() -> Result<Vec<String>> {
    let text = fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
    Ok(text.lines().filter_map(|line| line.split(' ').nth(4)).map(str::to_owned).collect())
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// Processes whose command line, cgroups, links or open files name one of `parts`.
fn processes(parts: &[&str]) -> Result<Vec<(i32, String)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        if let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok())
            && is_of(pid, parts)
        {
            found.push(pid);
        }
    }
    if !found.is_empty() {
        // A program that is just being run has its parent's files for a moment.
        std::thread::sleep(Duration::from_millis(20));
        found.retain(|pid| is_of(*pid, parts));
    }
    let name = |pid| format!("process {pid} {}{}", text(pid, "comm").trim_end(), text(pid, "cmdline"));
    Ok(found.into_iter().map(|pid| (pid, name(pid))).collect())
}

/// Whether a process names one of `parts`. What this one runs, and has not yet run, does not, though it has its files.
fn is_of(pid: i32, parts: &[&str]) -> bool {
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let is_own = fs::read_link(dir.join("exe")).ok() == fs::read_link("/proc/self/exe").ok();
    if is_own || text(pid, "stat").contains(") Z ") {
        return false;
    }
    let command = text(pid, "cmdline");
    // The registry is the fixture's own.
    if command.contains("docker-registry") || command.contains("hack/images") {
        return false;
    }
    let mut traces = command + &text(pid, "cgroup");
    let files = fs::read_dir(dir.join("fd")).into_iter().flatten().flatten().map(|file| file.path());
    for link in ["cwd", "root", "exe"].map(|name| dir.join(name)).into_iter().chain(files) {
        if let Ok(target) = fs::read_link(link) {
            traces.push('\n');
            traces.push_str(&target.to_string_lossy());
        }
    }
    parts.iter().any(|part| names_it(&traces, part))
}

/// A file of a process in procfs, empty when it is gone.
fn text(pid: i32, name: &str) -> String {
    let bytes = fs::read(format!("/proc/{pid}/{name}")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

/// Whether `part` occurs in `text` as a whole word or path: node 1 is not node 12, and nothing names no node.
fn names_it(text: &str, part: &str) -> bool {
    let is_whole = |at: usize| {
        let next = text[at + part.len()..].chars().next();
        !next.is_some_and(|char| char.is_ascii_alphanumeric())
    };
    !part.is_empty() && text.match_indices(part).any(|(at, _)| is_whole(at))
}

/// Everything on the machine that bears the mark of Corten or of its tests, one line each.
pub fn of_machine() -> Result<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let ours = |text: &str| text.contains("corten") || text.contains("ctest");
    all.extend(mounts()?.into_iter().filter(|mount| ours(mount)).map(|mount| format!("mount {mount}")));
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let exe = fs::read_link(entry.path().join("exe")).unwrap_or_default();
        let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with("corten") || name.starts_with("memfd:corten") || name == "docker-registry" {
            all.insert(format!("process {} {name}", entry.file_name().to_string_lossy()));
        }
    }
    for root in cgroup::hierarchies()? {
        cgroups_below(&root, &mut all);
    }
    for place in
        ["/run/netns", "/var/lib/cni/results", "/var/lib/cni/networks", "/run/corten", "/var/lib/corten"]
    {
        all.extend(names(Path::new(place)).into_iter().map(|name| format!("file {place}/{name}")));
    }
    let temporary = std::env::temp_dir();
    let files = names(&temporary).into_iter().filter(|name| ours(name));
    all.extend(files.map(|name| format!("file {}/{name}", temporary.display())));
    for name in names(Path::new("/sys/class/net")) {
        if ours(&name) || name.starts_with("veth") {
            all.insert(format!("interface {name}"));
        }
    }
    for program in PACKET_FILTERS {
        let rules = Command::new(program).args(["-w", "-t", "nat", "-S"]).stderr(Stdio::null()).output();
        let rules =
            rules.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        all.extend(rules.lines().filter(|rule| ours(rule)).map(|rule| format!("{program} rule {rule}")));
    }
    Ok(all)
}

fn cgroups_below(dir: &Path, all: &mut BTreeSet<String>) {
    for name in names(dir) {
        let path = dir.join(&name);
        if !path.is_dir() || path.is_symlink() {
            continue;
        }
        if name.contains("corten") {
            all.insert(format!("cgroup {}", path.display()));
        }
        cgroups_below(&path, all);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_test_is_about_to_run_is_not_left_behind() {
        let dir = tempfile::tempdir().unwrap();
        let _open = fs::File::create(dir.path().join("file")).unwrap();
        let path = dir.path().display().to_string();
        let others = std::thread::spawn(|| {
            for _ in 0..300 {
                assert!(Command::new("true").status().unwrap().success());
            }
        });
        while !others.is_finished() {
            assert_eq!(processes(&[&path]).unwrap(), []);
        }
        others.join().unwrap();
    }

    #[test]
    fn a_node_is_not_taken_for_another() {
        assert!(names_it("0::/corten-test-1/pod2", "/corten-test-1"));
        assert!(!names_it("0::/corten-test-12/pod2", "/corten-test-1"));
        assert!(!names_it("0::/ /sbin/init", ""), "everything on the machine would be killed");
    }
}
