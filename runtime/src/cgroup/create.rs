//! Makes a cgroup in every hierarchy, with its limits, or not at all.

use std::io;

use rustix::fs::XattrFlags;

use super::directory::Directory;
use super::hierarchy::{Controller, Hierarchies, Unified, V1};
use super::slice::{HOLDER, scope_of};
use super::systemd::{Scope, Systemd};
use super::{CgroupPath, Error, Layout, Limits, processes, set, v1, v2};

/// Marks the parents that Corten made, so that a later daemon knows them from the kubelet's.
pub(super) const MARK: &str = "trusted.corten";

/// How often a parent may vanish under a cgroup that is being made.
const ATTEMPTS: usize = 3;

pub(super) fn create(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
    let mut attempt = 1;
    loop {
        let mut made = Vec::new();
        let result = make(host, path, limits, &mut made).and_then(|()| set::set(host, path, limits));
        let Err(error) = result else { return Ok(()) };
        // What cannot be removed has been filled by somebody else meanwhile.
        for directory in made.iter().rev() {
            if let Err(errno) = rustix::fs::rmdir(directory.path()) {
                let error = directory.error("rmdir", errno.into());
                tracing::debug!(error = &error as &dyn std::error::Error, "a cgroup is left");
            }
        }
        // Another teardown may have removed a parent that was there a moment ago.
        if attempt == ATTEMPTS || !error.is_missing() {
            return Err(error);
        }
        attempt += 1;
    }
}

/// Has systemd make the cgroup, and adds what systemd does not know of.
pub(super) fn create_scope(
    host: &Hierarchies,
    systemd: &Systemd,
    path: &CgroupPath,
    scope: &Scope<'_>,
) -> Result<(), Error> {
    systemd.start(path, scope)?;
    let unified = host.unified.as_ref().ok_or(Error::NoSystemd)?;
    let completed = step_aside(unified, path, scope.first).and_then(|()| {
        // Huge pages are not among the controllers that systemd passes on.
        enable(unified, &wanted(host, unified, scope.limits), path.ancestors())?;
        set::set(host, path, scope.limits)
    });
    if completed.is_err()
        && let Err(error) = systemd.stop(path)
    {
        tracing::debug!(error = &error as &dyn std::error::Error, "a scope is left");
    }
    completed
}

/// Makes a container's cgroup that is below its scope. What holds the scope moves beside it: only a cgroup without
/// processes passes controllers on.
fn step_aside(unified: &Unified, path: &CgroupPath, holder: u32) -> Result<(), Error> {
    let Some(scope) = scope_of(path).filter(|scope| scope != path) else { return Ok(()) };
    let beside = unified.directory(&scope.join(HOLDER)?);
    beside.make()?;
    beside.write("cgroup.procs", &holder.to_string())?;
    unified.directory(path).make().map(drop)
}

/// Makes the parents of a cgroup where they are missing; those that are there stay as they are.
pub(super) fn make_parents(host: &Hierarchies, path: &CgroupPath) -> Result<(), Error> {
    if let Some(unified) = &host.unified {
        make_parents_in(|path| unified.directory(path), path, &mut Vec::new())?;
        // The last one is for processes, and has what the others pass on.
        let above = path.parent().map(|last| last.ancestors().collect::<Vec<_>>());
        enable(unified, &wanted(host, unified, &Limits::default()), above.unwrap_or_default())?;
    }
    for hierarchy in &host.v1 {
        make_parents_in(|path| hierarchy.directory(path), path, &mut Vec::new())?;
        if hierarchy.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(hierarchy, path.ancestors())?;
        }
    }
    Ok(())
}

fn make(
    host: &Hierarchies,
    path: &CgroupPath,
    limits: &Limits,
    made: &mut Vec<Directory>,
) -> Result<(), Error> {
    if let Some(unified) = &host.unified {
        let wanted = wanted(host, unified, limits);
        make_in(|path| unified.directory(path), path, made)?;
        enable(unified, &wanted, path.ancestors())?;
    }
    for hierarchy in &host.v1 {
        make_in(|path| hierarchy.directory(path), path, made)?;
        if hierarchy.controllers.contains(&Controller::Cpuset) {
            inherit_cpuset(hierarchy, path.ancestors().chain([path.clone()]))?;
        }
    }
    Ok(())
}

/// Passes controllers on from the root through the parents of a cgroup.
fn enable(
    unified: &Unified,
    wanted: &[Controller],
    parents: impl IntoIterator<Item = CgroupPath>,
) -> Result<(), Error> {
    if wanted.is_empty() {
        return Ok(());
    }
    v2::enable::enable(&Directory::new(unified.root.clone()), wanted)?;
    for parent in parents {
        v2::enable::enable(&unified.directory(&parent), wanted)?;
    }
    Ok(())
}

/// Lets processes into cgroups that are new, from the topmost down.
fn inherit_cpuset(hierarchy: &V1, paths: impl Iterator<Item = CgroupPath>) -> Result<(), Error> {
    let mut parent = Directory::new(hierarchy.root.clone());
    for child in paths {
        let child = hierarchy.directory(&child);
        v1::cpuset::inherit(&parent, &child)?;
        parent = child;
    }
    Ok(())
}

/// On a v2 host everything, for the statistics too; on a hybrid one only what is asked for.
fn wanted(host: &Hierarchies, unified: &Unified, limits: &Limits) -> Vec<Controller> {
    let is_wanted = |controller: Controller| match host.layout() {
        Layout::V2 => true,
        Layout::Hybrid => {
            limits.needs().iter().any(|(needed, _)| *needed == controller)
                || v2::unified::needs_controller(limits, controller)
                || (controller == Controller::Hugetlb && !limits.hugepages.is_empty())
        }
    };
    unified.controllers.iter().copied().filter(|controller| is_wanted(*controller)).collect()
}

/// Makes the cgroup in one hierarchy, new and empty, and the parents that it lacks.
fn make_in(
    directory: impl Fn(&CgroupPath) -> Directory,
    path: &CgroupPath,
    made: &mut Vec<Directory>,
) -> Result<(), Error> {
    let leaf = directory(path);
    let is_new = match leaf.make() {
        Err(error) if error.is_missing() => {
            make_parents_in(directory, path, made)?;
            leaf.make()?
        }
        result => result?,
    };
    if !is_new {
        renew(path, &leaf)?;
    }
    made.push(leaf);
    Ok(())
}

fn make_parents_in(
    directory: impl Fn(&CgroupPath) -> Directory,
    path: &CgroupPath,
    made: &mut Vec<Directory>,
) -> Result<(), Error> {
    for parent in path.ancestors() {
        let parent = directory(&parent);
        if parent.make()? {
            mark(&parent);
            made.push(parent);
        }
    }
    Ok(())
}

/// What a teardown that was cut short has left is replaced, what is in use is not touched.
fn renew(path: &CgroupPath, leaf: &Directory) -> Result<(), Error> {
    let in_use = !processes::list(leaf)?.is_empty() || processes::tree(leaf)?.len() > 1;
    if in_use || rustix::fs::rmdir(leaf.path()).is_err() || !leaf.make()? {
        return Err(Error::Exists { path: path.clone() });
    }
    Ok(())
}

/// A parent without the mark is never removed: a loss of tidiness, not of function.
fn mark(directory: &Directory) {
    if let Err(errno) = rustix::fs::setxattr(directory.path(), MARK, b"1", XattrFlags::empty()) {
        let error = directory.error("mark", io::Error::from(errno));
        tracing::debug!(error = &error as &dyn std::error::Error, "a parent cgroup will stay");
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::fixture::v2_host;

    #[test]
    fn enables_controllers_down_the_path() {
        let (root, host, _) = v2_host(&[]);
        for (below, controllers) in
            [("", "cpuset cpu io memory hugetlb pids rdma"), ("pod", "cpu memory pids")]
        {
            fs::write(root.path().join(below).join("cgroup.controllers"), controllers).unwrap();
            fs::write(root.path().join(below).join("cgroup.subtree_control"), "memory").unwrap();
        }
        let path = CgroupPath::parse("/pod/two").unwrap();
        let mut made = Vec::new();
        make(&host, &path, &Limits::default(), &mut made).unwrap();
        assert_eq!(made, [host.unified(&path).unwrap()]);
        let enabled =
            |below: &str| fs::read_to_string(root.path().join(below).join("cgroup.subtree_control"));
        assert_eq!(enabled("").unwrap(), "+cpu +cpuset +io +pids +hugetlb");
        assert_eq!(enabled("pod").unwrap(), "+cpu +pids");
    }
}
