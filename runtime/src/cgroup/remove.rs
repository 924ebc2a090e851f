//! Removes cgroups, from the bottom up.

use std::thread;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::directory::Directory;
use super::hierarchy::Hierarchies;
use super::{CgroupPath, Error, create, processes, v2};

/// How long processes that are about to end may take; killing them is the caller's.
const BOUND: Duration = Duration::from_secs(5);
/// A v1 hierarchy tells nobody when the last process has left.
const INTERVAL: Duration = Duration::from_millis(1);

/// Removes the cgroup and all below it, waiting a while for processes that are about to end.
pub(super) fn remove(host: &Hierarchies, path: &CgroupPath) -> Result<(), Error> {
    let deadline = Instant::now() + BOUND;
    for directory in host.directories(path) {
        let mut pause = INTERVAL;
        while !remove_tree(&directory)? {
            if Instant::now() >= deadline {
                return Err(Error::Busy { path: path.clone() });
            }
            match host.unified(path).map(|unified| v2::freeze::wait(&unified, "populated 0", deadline)) {
                None | Some(Ok(_)) => {}
                // It is the first that is removed; what is left is in v1 hierarchies.
                Some(Err(error)) if error.is_missing() => {}
                Some(Err(error)) => return Err(error),
            }
            if remove_tree(&directory)? {
                break;
            }
            thread::sleep(pause);
            pause *= 2;
        }
    }
    Ok(())
}

/// Removes the empty parents of a cgroup that bear Corten's mark, up to the first one that is not its own.
pub(super) fn remove_empty_parents(host: &Hierarchies, path: &CgroupPath) -> Result<(), Error> {
    let parents: Vec<CgroupPath> = path.ancestors().collect();
    let v1 = host.v1.iter().map(|v1| v1.root.clone());
    for root in host.unified.iter().map(|unified| unified.root.clone()).chain(v1) {
        for parent in parents.iter().rev() {
            let directory = Directory::new(root.join(parent.relative()));
            let mut value = [0_u8; 8];
            match rustix::fs::getxattr(directory.path(), create::MARK, &mut value) {
                Ok(_) => {}
                // Already gone: its own parent may be left.
                Err(Errno::NOENT) => continue,
                Err(_) => break,
            }
            match rustix::fs::rmdir(directory.path()) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(Errno::BUSY | Errno::NOTEMPTY) => break,
                Err(errno) => return Err(directory.error("rmdir", errno.into())),
            }
        }
    }
    Ok(())
}

/// False when something is still in it.
fn remove_tree(top: &Directory) -> Result<bool, Error> {
    if remove_one(top)? {
        return Ok(true);
    }
    let mut is_gone = true;
    for directory in processes::tree(top)? {
        is_gone = remove_one(&directory)?;
    }
    Ok(is_gone)
}

fn remove_one(directory: &Directory) -> Result<bool, Error> {
    match rustix::fs::rmdir(directory.path()) {
        Ok(()) | Err(Errno::NOENT) => Ok(true),
        Err(Errno::BUSY | Errno::NOTEMPTY) => Ok(false),
        Err(errno) => Err(directory.error("rmdir", errno.into())),
    }
}
