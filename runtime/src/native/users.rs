//! Pods with a user namespace: what a stage does as long as it is the host's root, and how it gets there.
//!
//! Mounts are made and given the pod's ids before the stage enters; what the kernel mounts for those only who
//! are already there (procfs, sysfs) is made afterwards, as long as the host's is still to be seen. The PID
//! namespace is made from within too, so that all that the container has belongs to its user namespace.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::thread::{Gid, Uid};

use super::detached::{self, show};
use super::failure::{Context, Failure};
use super::overlay::{self, Stack};
use super::sources::{self, Layout, Source};
use super::{Stage, console, container, entrance, identity, mounts, process};
use crate::IdMap;
use crate::plan::steps::{Container, Pid, Process};
use crate::sys;

/// The ids of a pod, and the namespace that mounts take them from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Users<'a> {
    pub(super) ids: IdMap,
    pub(super) namespace: BorrowedFd<'a>,
}

/// Enters the pod's user namespace and makes the container's root the root; returns the sources of its mounts.
pub(super) fn enter(
    plan: &Container,
    ids: IdMap,
    stage: &Stage,
    cgroups: Layout,
) -> Result<Vec<Source>, Failure> {
    let namespace = stage.users.as_ref();
    let namespace = namespace.ok_or_else(|| Failure::new("join the user namespace: there is none"))?;
    let users = Users { ids, namespace: namespace.as_fd() };
    hand_over(&plan.process, ids)?;
    let mut sources = sources::open(plan, cgroups, Some(users))?;
    let root = overlay::detached(&Stack::of(&plan.root), users.namespace)?;
    match (plan.namespaces.pid, &stage.pid_namespace) {
        (Pid::New, _) => {}
        // Pause cannot be looked into by anyone who is in the user namespace.
        (Pid::Joined, Some(target)) => process::join(target)?,
        (Pid::Joined | Pid::Host, _) => {
            return Err(Failure::new("join the PID namespace: there is none to join"));
        }
    }
    container::enter_namespaces(plan, stage)?;
    let mut own = CloneFlags::CLONE_NEWNS;
    own.set(CloneFlags::CLONE_NEWPID, plan.namespaces.pid == Pid::New);
    own.set(CloneFlags::CLONE_NEWCGROUP, plan.namespaces.cgroup && cgroups == Layout::V2);
    nix::sched::unshare(own).during(|| "make the namespaces of the container".into())?;
    process::replace(&stage.link)?;
    // Nobody but the host's root, which the stage still is to files, may come by here.
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let place = rustix::fs::openat(CWD, plan.root.layers.as_c_str(), flags, Mode::empty())
        .during(|| format!("open {}", show(&plan.root.layers)))?;
    become_root(&stage.link)?;
    mounts::make_ahead(&plan.mounts, &mut sources)?;
    detached::attach(&root, &place).during(|| "attach the root file system".into())?;
    container::change_root(&root)?;
    Ok(sources)
}

/// The last that the host's root does for the process: limits that only it may raise, and the pipes.
pub(super) fn hand_over(process: &Process, ids: IdMap) -> Result<(), Failure> {
    identity::raise_limits(&process.rlimits);
    let uid = ids.on_host(process.uid);
    console::own(uid.ok_or_else(|| Failure::new(format!("become user {}: no such id", process.uid)))?)
}

/// Becomes the root of the user namespace that has been entered.
pub(super) fn become_root(link: &OwnedFd) -> Result<(), Failure> {
    let what = || "become the root of the user namespace".to_owned();
    rustix::thread::set_thread_groups(&[Gid::ROOT]).during(what)?;
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT).during(what)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT).during(what)?;
    // The change of user has cleared it.
    entrance::die_with_monitor(link)
}

/// Shows the files of a detached mount with the ids of a user namespace.
pub(super) fn map(namespace: BorrowedFd<'_>, mount: impl AsFd, source: &CStr) -> Result<(), Failure> {
    let what = || format!("map the ids of {}", show(source));
    match sys::mount::map_ids(&mount, namespace) {
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let name = file_system(rustix::fs::fstatfs(&mount).during(what)?.f_type);
            Err(Failure::new(format!("{}: its file system ({name}) has no idmapped mounts", what())))
        }
        result => result.during(what),
    }
}

/// The names of those that people are likely to meet, see statfs(2).
fn file_system(number: i64) -> String {
    let known = [
        (0x0102_1997, "9p"),
        (0x00c3_6400, "ceph"),
        (0xff53_4d42, "cifs"),
        (0x6573_5546, "fuse"),
        (0x6969, "nfs"),
        (0x794c_7630, "overlay"),
        (0x9fa0, "proc"),
        (0xfe53_4d42, "smb"),
        (0x6265_6572, "sysfs"),
        (0x0102_1994, "tmpfs"),
        (0x2fc1_2fc1, "zfs"),
    ];
    let name = known.iter().find(|(magic, _)| *magic == number).map(|(_, name)| (*name).to_owned());
    name.unwrap_or_else(|| format!("{number:#x}"))
}
