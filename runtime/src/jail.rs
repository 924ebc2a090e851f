//! The jail of the process that unpacks a layer.
//!
//! What reads a stranger's archive sees the one directory that it writes, and nothing else of the node: no other
//! file, no network, no IPC object. It keeps the few capabilities that making files takes; CAP_SYS_ADMIN is among
//! them, because only it may mark a directory as opaque for overlayfs. There is no user namespace for the same
//! reason.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::sched::CloneFlags;
use rustix::fs::CWD;
use rustix::mount::{MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags};
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets};

use crate::sys::mount;

/// What the unpacking needs: to own and change files that are others', to make whiteouts, to set file capabilities
/// and overlayfs's marks.
const KEPT: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SYS_ADMIN);

/// Private memory: the largest window of a zstd layer, 128 MiB, and room for the rest.
const MEMORY_BYTES: u64 = 384 << 20;

/// Descriptors.
const FILES: u64 = 512;

/// A step into the jail that the kernel refused.
#[derive(Debug, thiserror::Error)]
#[error("close in the unpacking process: {step}")]
pub struct Error {
    /// What was tried.
    step: &'static str,
    source: io::Error,
}

/// Shuts this process into its working directory for good. It must not have started a thread yet.
pub fn enter() -> Result<(), Error> {
    let step = |step| move |source: io::Error| Error { step, source };
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(|e| step("forbid tracing")(e.into()))?;
    rustix::thread::set_no_new_privs(true).map_err(|e| step("forbid new privileges")(e.into()))?;
    nix::sched::unshare(
        CloneFlags::CLONE_NEWNS
            | CloneFlags::CLONE_NEWNET
            | CloneFlags::CLONE_NEWIPC
            | CloneFlags::CLONE_NEWUTS,
    )
    .map_err(|e| step("make namespaces")(e.into()))?;
    move_in().map_err(step("make the working directory the root"))?;
    limit().map_err(step("set limits"))?;
    drop_capabilities().map_err(step("give up capabilities"))
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
    for (resource, limit) in [
        (Resource::Core, 0),
        (Resource::Data, MEMORY_BYTES),
        (Resource::Nofile, FILES),
        (Resource::Memlock, 0),
    ] {
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
mod tests {
    use std::fs;
    use std::process::Command;

    use super::*;

    /// Runs [`inside`] in a process of its own, in a directory of its own.
    #[test]
    fn the_jail_holds() {
        let parent = tempfile::tempdir().unwrap();
        let layer = parent.path().join("layer");
        fs::create_dir(&layer).unwrap();
        fs::write(parent.path().join("outside"), "").unwrap();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let output = Command::new(std::env::current_exe().unwrap())
            .args(["jail::tests::inside", "--exact", "--nocapture", "--test-threads=1"])
            .env("CORTEN_TEST_JAIL", "1")
            .current_dir(&layer)
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        assert!(layer.join("made").exists(), "{said}");
        assert_eq!(fs::read_to_string("/proc/self/mountinfo").unwrap(), mounts);
    }

    #[test]
    fn inside() {
        if std::env::var_os("CORTEN_TEST_JAIL").is_none() {
            return;
        }
        // The tests' harness has threads, and only this one goes in.
        let proc = fs::File::open("/proc/thread-self").unwrap();
        enter().unwrap();
        // The tree is the empty directory, and `..` ends there.
        assert_eq!(fs::read_dir("/").unwrap().count(), 0);
        for path in ["/proc", "/etc", "../outside", "/../outside", "/.."] {
            assert_eq!(fs::read_dir(path).is_ok(), path == "/..", "{path}");
        }
        fs::write("made", "").unwrap();
        // Opened before, so it can still be asked.
        let status = |name: &str| {
            let path = rustix::fs::openat(&proc, name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty());
            io::read_to_string(fs::File::from(path.unwrap())).unwrap()
        };
        let network = status("net/dev");
        assert_eq!(network.lines().count(), 3, "{network}");
        assert_eq!(status("mountinfo").lines().count(), 1);
        let expected = format!("{:016x}", rustix::thread::capabilities(None).unwrap().permitted.bits());
        for field in ["CapPrm:\t", "CapEff:\t"] {
            assert!(status("status").contains(&format!("{field}{expected}")));
        }
        assert!(status("status").contains("NoNewPrivs:\t1"));
        assert!(status("status").contains("CapInh:\t0000000000000000"));
        assert_eq!(rustix::thread::capabilities(None).unwrap().permitted & !KEPT, CapabilitySet::empty());
        assert!(rustix::process::getrlimit(Resource::Nofile).current <= Some(FILES));
    }
}
