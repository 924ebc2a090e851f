//! Who the process is: limits, user, groups, capabilities, filter; the last steps before execve(2).

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit};
use rustix::thread::{CapabilitySet, CapabilitySets, Gid, Uid};

use super::failure::{Context, Failure};
use crate::capabilities::{COUNT, Set, rustix_bit};
use crate::plan::steps::{self, Process};
use crate::sys;

/// In the order of RLIMIT_*.
const RESOURCES: [Resource; 16] = [
    Resource::Cpu,
    Resource::Fsize,
    Resource::Data,
    Resource::Stack,
    Resource::Core,
    Resource::Rss,
    Resource::Nproc,
    Resource::Nofile,
    Resource::Memlock,
    Resource::As,
    Resource::Locks,
    Resource::Sigpending,
    Resource::Msgqueue,
    Resource::Nice,
    Resource::Rtprio,
    Resource::Rttime,
];

/// Sets the limits; one that needs CAP_SYS_RESOURCE becomes the highest that is allowed.
pub(super) fn limit(rlimits: &[steps::Rlimit]) -> Result<(), Failure> {
    const INFINITY: u64 = u64::MAX;
    let known = |limit: u64| (limit != INFINITY).then_some(limit);
    for rlimit in rlimits {
        let Some(resource) = RESOURCES.get(usize::from(rlimit.resource)).copied() else { continue };
        let what = || format!("set the limit {resource:?}");
        let wanted = Rlimit { current: known(rlimit.soft), maximum: known(rlimit.hard) };
        match rustix::process::setrlimit(resource, wanted) {
            Err(Errno::PERM) => {
                let most = rustix::process::getrlimit(resource).maximum.unwrap_or(INFINITY);
                let (soft, hard) = (rlimit.soft.min(most), rlimit.hard.min(most));
                let allowed = Rlimit { current: known(soft), maximum: known(hard) };
                rustix::process::setrlimit(resource, allowed).during(what)?;
            }
            result => result.during(what)?,
        }
    }
    Ok(())
}

/// Raises how far the limits may go, as far as that is allowed; a process in a user namespace may not.
pub(super) fn raise_limits(rlimits: &[steps::Rlimit]) {
    for rlimit in rlimits {
        let Some(resource) = RESOURCES.get(usize::from(rlimit.resource)).copied() else { continue };
        let now = rustix::process::getrlimit(resource);
        if now.maximum.is_some_and(|maximum| maximum < rlimit.hard) {
            let maximum = (rlimit.hard != u64::MAX).then_some(rlimit.hard);
            // What is not allowed here is no error later either.
            rustix::process::setrlimit(resource, Rlimit { maximum, ..now }).ok();
        }
    }
}

/// Changes groups and user, and leaves the process with its capabilities.
///
/// With a filter that needs CAP_SYS_ADMIN this one is kept until [`confine`].
pub(super) fn assume(process: &Process) -> Result<(), Failure> {
    let own = rustix::thread::capabilities(None).during(|| "read the capabilities".into())?;
    let own = Set::from_bits(own.permitted.bits());
    for bit in (0..COUNT).filter(|bit| process.capabilities.bounding.bits() & (1 << bit) == 0) {
        match rustix::thread::remove_capability_from_bounding_set(rustix_bit(bit)) {
            // One that this kernel does not know.
            Ok(()) | Err(Errno::INVAL) => {}
            Err(errno) => return Err(errno).during(|| "drop capabilities from the bounding set".into()),
        }
    }
    rustix::thread::set_keep_capabilities(true).during(|| "keep the capabilities".into())?;
    let groups: Vec<Gid> = process.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    rustix::thread::set_thread_groups(&groups).during(|| "set the supplementary groups".into())?;
    let gid = Gid::from_raw(process.gid);
    rustix::thread::set_thread_res_gid(gid, gid, gid).during(|| format!("become group {}", process.gid))?;
    let uid = Uid::from_raw(process.uid);
    rustix::thread::set_thread_res_uid(uid, uid, uid).during(|| format!("become user {}", process.uid))?;
    rustix::thread::set_keep_capabilities(false).during(|| "keep the capabilities".into())?;
    let kept = if needs_admin(process) { Set::SYS_ADMIN } else { Set::EMPTY };
    set_capabilities(process, own, kept)?;
    rustix::thread::clear_ambient_capability_set().during(|| "clear the ambient capabilities".into())?;
    for bit in (0..COUNT).filter(|bit| (process.capabilities.ambient & own).bits() & (1 << bit) != 0) {
        rustix::thread::configure_capability_in_ambient_set(rustix_bit(bit), true)
            .during(|| "raise the ambient capabilities".into())?;
    }
    rustix::process::umask(Mode::from_raw_mode(process.umask));
    Ok(())
}

/// Installs the filter as the last but one thing that the stage does; nothing but execve(2) is to come.
pub(super) fn confine(process: &Process) -> Result<(), Failure> {
    if process.no_new_privs {
        rustix::thread::set_no_new_privs(true).during(|| "set no_new_privs".into())?;
    }
    let Some(filter) = &process.filter else { return Ok(()) };
    let own = rustix::thread::capabilities(None).during(|| "read the capabilities".into())?;
    sys::seccomp::install(filter).during(|| "install the seccomp filter".into())?;
    if needs_admin(process) {
        set_capabilities(process, Set::from_bits(own.permitted.bits()), Set::EMPTY)?;
    }
    Ok(())
}

fn needs_admin(process: &Process) -> bool {
    process.filter.is_some() && !process.no_new_privs
}

/// Sets what the plan says, as far as the process has it, and `kept`.
fn set_capabilities(process: &Process, own: Set, kept: Set) -> Result<(), Failure> {
    let flags = |set: Set| CapabilitySet::from_bits_retain(set.bits());
    let steps::Capabilities { permitted, effective, inheritable, bounding, .. } = process.capabilities;
    let kept = kept & own;
    let sets = CapabilitySets {
        effective: flags(effective & own | kept),
        permitted: flags(permitted & own | kept),
        inheritable: flags(inheritable & own & bounding),
    };
    rustix::thread::set_capabilities(None, sets).during(|| "set the capabilities".into())
}
