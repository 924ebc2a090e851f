//! pause, the process that holds a pod's namespaces, and is PID 1 of a shared PID namespace.
//!
//! It is a clone of the monitor that makes and joins the namespaces, sets the host name and the sysctls, and
//! then becomes a program of a few instructions, so that no copy of the monitor's memory stays behind in a
//! namespace that containers can look into. What they may reach through it is nothing: its root is an empty
//! directory, it is nobody without a capability, and its program cannot be read, which forbids ptrace(2) and
//! all that asks the same questions. SIGCHLD is ignored, so that the kernel reaps the orphans that it inherits.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AtFlags;
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
};
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType};

use crate::monitor::wire::SandboxOrder;
use crate::native::link::{self, FailureKind, FromStage, ToStage};
use crate::sys::{clone, signal};
use crate::{Failure, NamespaceMode, seal};

mod elf;
mod sysctl;

/// Who pause is: an id that no container is expected to have.
const NOBODY: u32 = 65535;

/// What the stage works with.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) program: OwnedFd,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) link: OwnedFd,
    pub(crate) order: SandboxOrder,
}

/// The pause program, sealed. Anyone may execute it and nobody read it.
pub(crate) fn program() -> io::Result<OwnedFd> {
    seal::executable("pause", &mut elf::PROGRAM.as_slice(), Mode::XUSR | Mode::XGRP | Mode::XOTH)
}

/// The program as a file.
pub(crate) fn file() -> &'static [u8] {
    &elf::PROGRAM
}

/// The namespaces that the stage is to be cloned into.
pub(crate) fn namespaces(order: &SandboxOrder) -> i32 {
    let mut flags = libc::CLONE_NEWNS;
    if order.own_network {
        flags |= libc::CLONE_NEWUTS;
    }
    if order.users.is_some() {
        // The kernel makes it first, and the others belong to it.
        flags |= libc::CLONE_NEWUSER;
        if order.own_network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    // The file system of message queues belongs to who makes the namespace: in a user namespace, to its root.
    if order.ipc == NamespaceMode::Pod && order.users.is_none() {
        flags |= libc::CLONE_NEWIPC;
    }
    if order.pid == NamespaceMode::Pod {
        flags |= libc::CLONE_NEWPID;
    }
    flags
}

/// Becomes pause; the end of the link says that it is.
pub(crate) fn stage(stage: Stage) -> ! {
    let Err(failure) = become_pause(&stage);
    let word = FromStage::Failed { what: failure.what, errno: failure.errno, kind: FailureKind::Setup };
    // With the monitor gone there is nobody to tell.
    link::send(&stage.link, &word, None).ok();
    clone::exit(1)
}

fn become_pause(stage: &Stage) -> Result<std::convert::Infallible, Failure> {
    let order = &stage.order;
    if order.users.is_some() {
        wait_for_ids(stage)?;
        if order.ipc == NamespaceMode::Pod {
            own_ipc().map_err(|errno| Failure::setup("make the IPC namespace", errno as i32))?;
        }
    }
    if let Some(network) = &stage.network {
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(failed("join the network namespace"))?;
    }
    if order.own_network {
        rustix::system::sethostname(order.hostname.as_bytes())
            .map_err(failed(format!("set the host name {:?}", order.hostname)))?;
    }
    if order.users.is_some() {
        // Before Linux 6.11 those of the IPC namespace are the node's root's alone, after it the pod's root's.
        let others = sysctl::apply_allowed(&order.sysctls)?;
        become_own_root().map_err(failed("become the root of the user namespace"))?;
        sysctl::apply(&others)?;
    } else {
        sysctl::apply(&order.sysctls)?;
    }
    empty_root().map_err(failed("make an empty root directory"))?;
    signal::ignore(libc::SIGCHLD).map_err(|error| Failure::io("ignore SIGCHLD", &error))?;
    drop_privileges().map_err(failed("give up privileges"))?;
    // Changing the user has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("die with the monitor"))?;
    rustix::io::ioctl_fionbio(&stage.link, true).map_err(failed("look at the link"))?;
    if !matches!(link::receive::<FromStage>(&stage.link), Err(Errno::AGAIN)) {
        return Err(failed("go on without a monitor")(Errno::OWNERDEAD));
    }
    nix::unistd::execveat(
        &stage.program,
        c"",
        &[c"/pause"],
        &[] as &[&std::ffi::CStr],
        AtFlags::AT_EMPTY_PATH,
    )
    .map_err(|errno| Failure::setup("execute pause", errno as i32))
}

/// Sleeps until the monitor has given the user namespace its ids.
fn wait_for_ids(stage: &Stage) -> Result<(), Failure> {
    match link::receive::<ToStage>(&stage.link).map_err(failed("wait for the user namespace's ids"))? {
        Some((ToStage::Go, _)) => Ok(()),
        None => clone::exit(1),
    }
}

fn own_ipc() -> Result<(), nix::Error> {
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(0));
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(0));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWIPC)
}

fn become_own_root() -> Result<(), Errno> {
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// Leaves the host's tree, of which the new mount namespace has a copy, for an empty one.
fn empty_root() -> Result<(), Errno> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let context = rustix::mount::fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "size", "4k")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "nr_inodes", "1")?;
    rustix::mount::fsconfig_set_string(context.as_fd(), "mode", "555")?;
    rustix::mount::fsconfig_create(context.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = rustix::mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    // A directory that is always there; nobody else sees what is mounted on it here.
    let place = rustix::fs::open("/proc", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    rustix::mount::move_mount(root.as_fd(), "", place.as_fd(), "", flags)?;
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")
}

fn drop_privileges() -> Result<(), Errno> {
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::set_thread_groups(&[])?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    // A user namespace, the pod's or the daemon's, may have no such id; then pause is a root that can do nothing.
    match rustix::thread::set_thread_res_gid(gid, gid, gid) {
        Ok(()) => rustix::thread::set_thread_res_uid(uid, uid, uid)?,
        Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::setup(what, errno.raw_os_error())
}
