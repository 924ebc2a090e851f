//! What the kernel is told by names and files: host name, parameters, the OOM score, v1 cgroups.

use std::os::fd::OwnedFd;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::detached::{self, show};
use super::failure::{Context, Failure};
use crate::plan::steps::Container;

/// Names and parameters of the container's own namespaces.
pub(super) fn apply(plan: &Container) -> Result<(), Failure> {
    if let Some(name) = &plan.hostname {
        rustix::system::sethostname(name.as_bytes()).during(|| "set the host name".into())?;
    }
    if let Some(name) = &plan.domainname {
        rustix::system::setdomainname(name.as_bytes()).during(|| "set the domain name".into())?;
    }
    if plan.sysctls.is_empty() {
        return Ok(());
    }
    // A procfs that nothing can be mounted over.
    let proc = detached::filesystem(c"proc", &[], 0)?;
    for (path, value) in &plan.sysctls {
        let what = || format!("set the parameter {}", show(path));
        let sys =
            rustix::fs::openat(&proc, c"sys", OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).during(what)?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat2(&sys, path, flags, Mode::empty(), resolve).during(what)?;
        rustix::io::write(&file, value.as_bytes()).during(what)?;
    }
    Ok(())
}

/// Sets the score through the host's `/proc`; without CAP_SYS_RESOURCE one that is too low stays as it is.
pub(super) fn set_oom_score(score: i32) -> Result<(), Failure> {
    let what = || format!("set oom_score_adj to {score}");
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(CWD, c"/proc/self/oom_score_adj", flags, Mode::empty()).during(what)?;
    match rustix::io::write(&file, score.to_string().as_bytes()) {
        Ok(_) | Err(Errno::ACCESS | Errno::PERM) => Ok(()),
        Err(errno) => Err(errno).during(what),
    }
}

/// Moves the calling process into v1 cgroups.
pub(super) fn enter_cgroups(procs: &[OwnedFd]) -> Result<(), Failure> {
    for file in procs {
        rustix::io::write(file, b"0").during(|| "enter a control group".into())?;
    }
    Ok(())
}
