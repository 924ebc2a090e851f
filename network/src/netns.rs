//! Network namespaces that outlive every process.
//!
//! A namespace is pinned by a bind mount on a file, as `ip netns` does it, so that other network software
//! finds it. The directory of the pins is a shared mount: a pin and its end reach mount namespaces made before.
//! Entering one is done by threads that live for that alone; the process itself stays where it is.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::fs::{AtFlags, FlockOperation, StatxAttributes, StatxFlags};
use rustix::mount::{MountPropagationFlags, UnmountFlags};

use crate::error::Error;

mod counters;
mod link;

pub(crate) use counters::usage;

/// Type of the file system that namespaces are files of, see statfs(2).
const NSFS_MAGIC: u64 = 0x6e73_6673;
const OWN: &str = "/proc/thread-self/ns/net";
const UUID: &str = "/proc/sys/kernel/random/uuid";

/// Makes a network namespace, its loopback interface up, and returns where in `dir` it is pinned.
pub fn create(dir: &Path) -> Result<PathBuf, Error> {
    let path = place(dir)?;
    create_at(&path)?;
    Ok(path)
}

/// A place in `dir` that no namespace has, for those who write it down before anything is there to be lost.
pub fn place(dir: &Path) -> Result<PathBuf, Error> {
    let uuid = fs::read_to_string(UUID).map_err(at("name", dir))?;
    Ok(dir.join(format!("cni-{}", uuid.trim())))
}

/// Makes a network namespace, its loopback interface up, and pins it at `path`. Nothing is left on failure.
pub fn create_at(path: &Path) -> Result<(), Error> {
    pin_by(path, || {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| at("make", path)(errno.into()))?;
        pin(path)
    })
}

/// Makes the file of a pin, and lets a thread of its own enter the namespace and pin it there.
fn pin_by(path: &Path, work: impl FnOnce() -> Result<(), Error> + Send) -> Result<(), Error> {
    let dir = path.parent().unwrap_or_else(|| Path::new("/"));
    prepare(dir).map_err(at("share the directory of", dir))?;
    OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o444)
        .open(path)
        .map_err(at("make the file of", path))?;
    let made = on_thread(path, work).and_then(|made| made);
    if made.is_err()
        // The first failure is the one to tell; a pin that stays is harmless, and deleted like any other.
        && let Err(error) = delete(path)
    {
        tracing::warn!(%error, path = %path.display(), "half-made network namespace stays");
    }
    made
}

/// Pins a network namespace that somebody else made at `path`, and raises its loopback interface.
pub fn pin_at(path: &Path, namespace: &OwnedFd) -> Result<(), Error> {
    pin_by(path, || {
        setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET)
            .map_err(|errno| at("enter", path)(errno.into()))?;
        pin(path)
    })
}

/// Opens a pinned network namespace.
pub fn open(path: &Path) -> Result<OwnedFd, Error> {
    let file = File::open(path).map_err(at("open", path))?;
    let stat = rustix::fs::fstatfs(&file).map_err(|errno| at("open", path)(errno.into()))?;
    if u64::try_from(stat.f_type) == Ok(NSFS_MAGIC) {
        Ok(file.into())
    } else {
        Err(Error::NotNamespace { path: path.to_owned() })
    }
}

/// Deletes a pin, and with it the namespace unless a process is in it. One that is not there, or that the last
/// boot left as a plain file, is fine.
pub fn delete(path: &Path) -> Result<(), Error> {
    loop {
        match rustix::mount::unmount(path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            // Again: a pin may have been mounted over.
            Ok(()) => {}
            Err(rustix::io::Errno::INVAL) => break,
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(at("unmount", path)(errno.into())),
        }
    }
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(at("delete the file of", path)(source))
        }
        _ => Ok(()),
    }
}

/// Runs `work` on a thread of its own within the namespace.
pub(crate) fn within<T, F>(path: &Path, work: F) -> Result<T, Error>
where
    T: Send,
    F: FnOnce() -> Result<T, Error> + Send,
{
    on_thread(path, || {
        enter(path)?;
        work()
    })?
}

/// Runs `work` within one namespace after the other, on one thread of its own: starting one takes longer than most
/// work.
pub(crate) fn within_each<T: Send>(
    paths: &[&Path],
    work: impl Fn() -> Result<T, Error> + Sync,
) -> Vec<Result<T, Error>> {
    let Some(first) = paths.first() else { return Vec::new() };
    let each = || paths.iter().map(|path| enter(path).and_then(|()| work())).collect();
    on_thread(first, each).unwrap_or_else(|error| vec![Err(error)])
}

fn enter(path: &Path) -> Result<(), Error> {
    let namespace = open(path)?;
    setns(namespace.as_fd(), CloneFlags::CLONE_NEWNET).map_err(|errno| at("enter", path)(errno.into()))
}

fn on_thread<T: Send>(path: &Path, work: impl FnOnce() -> T + Send) -> Result<T, Error> {
    thread::scope(|scope| {
        let builder = thread::Builder::new().name("netns".into());
        let child = builder.spawn_scoped(scope, work).map_err(at("start a thread for", path))?;
        Ok(join(child))
    })
}

fn join<T>(child: thread::ScopedJoinHandle<'_, T>) -> T {
    child.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// The last that the thread in a new namespace does: it ends, the namespace stays.
fn pin(path: &Path) -> Result<(), Error> {
    link::raise_loopback()?;
    rustix::mount::mount_bind(OWN, path).map_err(|errno| at("pin", path)(errno.into()))
}

/// Makes the directory a mount point that is shared, once.
fn prepare(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(dir)?;
    if is_mount_point(dir)? {
        return Ok(());
    }
    // `ip netns` takes the same lock: two that mount at once would stack two mounts.
    let lock = File::open(dir)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
    if !is_mount_point(dir)? {
        rustix::mount::mount_bind_recursive(dir, dir)?;
    }
    rustix::mount::mount_change(dir, MountPropagationFlags::SHARED | MountPropagationFlags::REC)?;
    Ok(())
}

fn is_mount_point(dir: &Path) -> io::Result<bool> {
    let stat = rustix::fs::statx(rustix::fs::CWD, dir, AtFlags::empty(), StatxFlags::empty())?;
    Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn at(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Namespace { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests;
