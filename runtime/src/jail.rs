//! The jail of the process that unpacks a layer.
//!
//! What reads a stranger's archive sees the one directory that it writes, and nothing else of the node: no other
//! file or process, no network, no IPC object. Of the capabilities it keeps those that owning and changing files
//! takes; not CAP_MKNOD, which whiteouts and fifos do not need, and not CAP_SYS_ADMIN: the server itself sets
//! overlayfs's marks afterwards. That is also why there is no user namespace: an owner of a file is one of the
//! node's. System calls are those in [`filter`], and memory, time and sizes have limits.

mod filter;

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitId, WaitIdOptions};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys::clone::{Cloned, fork};
use crate::sys::{mount, seccomp};

/// What the unpacking needs: to own and change files that are others', and to set file capabilities.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::SETFCAP);

const NAMESPACES: i32 =
    libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS;

/// The limits of what is inside. Private memory is the largest window of a zstd layer, 128 MiB, and 64 MiB for the
/// rest; addresses are more, because each thread reserves some. A file is no larger than a whole layer may be.
const LIMITS: [(Resource, u64); 7] = [
    (Resource::Core, 0),
    (Resource::Data, 192 << 20),
    (Resource::As, 2 << 30),
    (Resource::Cpu, 3600),
    (Resource::Fsize, 1 << 40),
    (Resource::Nofile, 512),
    (Resource::Memlock, 0),
];

/// A step into the jail that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("close in the unpacking process: {step}")]
pub struct Error {
    /// What was tried.
    step: &'static str,
    source: io::Error,
}

/// Where one is after [`enter`].
#[derive(Debug)]
pub enum Side {
    /// In the jail, for good.
    Inside,
    /// Where one was; the one inside has ended, and this is how.
    Outside(ExitCode),
}

/// Clones this process into a jail that is its working directory, and waits for the end of the clone.
///
/// The process must not have started a thread yet. If it dies, the one inside dies with it.
pub fn enter() -> Result<Side, Error> {
    let step = |step| move |source: io::Error| Error { step, source };
    // Compiled here, where allocating is free.
    let filter =
        filter::program().map_err(|e| step("compile the system call filter")(io::Error::other(e)))?;
    match fork(NAMESPACES, None).map_err(step("make namespaces"))? {
        Cloned::Parent { pidfd, .. } => wait(&pidfd).map(Side::Outside).map_err(step("wait for it")),
        Cloned::Child => {
            rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
                .map_err(|e| step("follow the parent")(e.into()))?;
            rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
                .map_err(|e| step("forbid tracing")(e.into()))?;
            rustix::thread::set_no_new_privs(true).map_err(|e| step("forbid new privileges")(e.into()))?;
            move_in().map_err(step("make the working directory the root"))?;
            limit().map_err(step("set limits"))?;
            drop_capabilities().map_err(step("give up capabilities"))?;
            seccomp::install(&filter).map_err(step("install the system call filter"))?;
            Ok(Side::Inside)
        }
    }
}

/// Waits, and ends as the one inside did.
fn wait(pidfd: &OwnedFd) -> io::Result<ExitCode> {
    let status = loop {
        match rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED) {
            Err(rustix::io::Errno::INTR) => {}
            other => break other?,
        }
    };
    let code = status.and_then(|status| status.exit_status());
    // One that was killed leaves no report: the server says so.
    Ok(code.and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from))
}

/// Makes the working directory the root of the new mount namespace, and lets go of everything else in there.
fn move_in() -> io::Result<()> {
    rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let root: OwnedFd = rustix::mount::open_tree(CWD, ".", flags)?;
    let attributes =
        libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC | libc::MOUNT_ATTR_NOATIME;
    mount::set_attributes(&root, attributes, 0, false)?;
    rustix::mount::move_mount(root.as_fd(), "", CWD, ".", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::process::fchdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    Ok(rustix::process::chdir("/")?)
}

fn limit() -> io::Result<()> {
    for (resource, limit) in LIMITS {
        // No more than before: raising a limit takes a privilege.
        let limit = rustix::process::getrlimit(resource).maximum.map_or(limit, |maximum| maximum.min(limit));
        rustix::process::setrlimit(resource, Rlimit { current: Some(limit), maximum: Some(limit) })?;
    }
    Ok(())
}

fn drop_capabilities() -> io::Result<()> {
    rustix::thread::clear_ambient_capability_set()?;
    let permitted = rustix::thread::capabilities(None)?.permitted;
    for capability in CapabilitySet::all().difference(KEPT).iter() {
        // One that this kernel does not know is not there.
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            Err(e) => return Err(e.into()),
        }
    }
    let kept = permitted & KEPT;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: kept, permitted: kept, inheritable: none },
    )?;
    Ok(())
}

#[cfg(test)]
mod tests;
