//! What a runtime finds when it makes a container: the root file system, and the sources of what is mounted in it.

use std::os::fd::OwnedFd;

use rustix::fs::{Access, AtFlags, CWD, Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::apart::{self, Host};
use crate::external::steps::{Create, Volume};
use crate::native::detached::show;
use crate::native::failure::{Context, Failure};
use crate::native::overlay::{self, Stack};
use crate::native::root::{Root, make_host_directory};
use crate::native::{Stage, relabel, volume};

/// Makes all of it. Leaves the working directory elsewhere, and where the pod has a user namespace the host's mount
/// namespace, which is returned.
pub(super) fn furnish(plan: &Create, stage: &Stage) -> Result<Option<Host>, Failure> {
    make_sources(plan)?;
    let volumes =
        plan.volumes.iter().map(|wanted| open_volume(plan, wanted)).collect::<Result<Vec<_>, _>>()?;
    let left = match (&plan.apart, &plan.root) {
        (Some(apart), Some(root)) => Some(apart::leave(plan, apart, (root, stage))?),
        (None, Some(root)) => {
            overlay::mount_on(&Stack::of(root), &plan.rootfs)?;
            None
        }
        (_, None) => None,
    };
    let root = Root::at(&plan.rootfs).during(|| format!("open {}", show(&plan.rootfs)))?;
    for (wanted, volume) in plan.volumes.iter().zip(volumes) {
        match root.find(&wanted.place) {
            Ok(there) => volume::fill(&there, &volume)?,
            Err(Errno::NOENT) => {}
            Err(errno) => return Err(errno).during(|| format!("find /{}", show(&wanted.place))),
        }
    }
    Ok(left)
}

fn make_sources(plan: &Create) -> Result<(), Failure> {
    for source in &plan.sources {
        if rustix::fs::access(source, Access::EXISTS) == Err(Errno::NOENT) {
            make_host_directory(source).during(|| format!("make {}", show(source)))?;
        }
    }
    for source in &plan.relabelled {
        let what = || format!("open {}", show(source));
        let flags = OFlags::PATH | OFlags::CLOEXEC;
        label(plan, &rustix::fs::openat(CWD, source, flags, Mode::empty()).during(what)?)?;
    }
    Ok(())
}

/// Makes the directory of a volume, the pod's root's.
fn open_volume(plan: &Create, wanted: &Volume) -> Result<OwnedFd, Failure> {
    let what = || format!("make {}", show(&wanted.source));
    make_host_directory(&wanted.source).during(what)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let volume = rustix::fs::openat(CWD, &wanted.source, flags, Mode::empty()).during(what)?;
    if let Some(apart) = &plan.apart {
        let (uid, gid) = (Uid::from_raw(apart.owner), Gid::from_raw(apart.owner));
        rustix::fs::chownat(&volume, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH).during(what)?;
    }
    label(plan, &volume)?;
    Ok(volume)
}

/// Gives what the container gets from the host its SELinux label.
fn label(plan: &Create, file: &OwnedFd) -> Result<(), Failure> {
    let label = plan.root.as_ref().and_then(|root| root.label.as_ref());
    label.map_or(Ok(()), |label| relabel::relabel(file, label))
}
