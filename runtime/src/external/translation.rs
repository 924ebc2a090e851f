//! From the spec that Corten's own stages take to one that other runtimes take: a pure function, but for the
//! limits of this process, which no runtime without CAP_SYS_RESOURCE can go beyond.

use std::ffi::CString;

use oci_spec::runtime::{
    LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use rustix::process::{Resource, getrlimit};

use super::Kind;
use super::steps::Volume;
use crate::plan::{self, Error, RELABEL};

/// The oldest version that has all that is said: crun of 2023 takes no newer one.
const VERSION: &str = "1.0.2";

/// A spec for another runtime, and what its driver does before.
#[derive(Debug)]
pub(super) struct Translated {
    pub(super) spec: Spec,
    pub(super) volumes: Vec<Volume>,
    pub(super) sources: Vec<CString>,
    /// Those of the sources whose files get the container's SELinux label.
    pub(super) relabelled: Vec<CString>,
    pub(super) oom_score_adj: i32,
    pub(super) terminal: bool,
}

/// Translates a container's spec.
pub(super) fn container(mut spec: Spec, kind: Kind) -> Result<Translated, Error> {
    let process = spec.process().clone().ok_or(Error::Missing("process"))?;
    let (oom_score_adj, terminal) =
        (process.oom_score_adj().unwrap_or(0), process.terminal().unwrap_or(false));
    spec.set_process(Some(self::process(process))).set_version(VERSION.to_owned());
    let (mut volumes, mut sources, mut relabelled) = (Vec::new(), Vec::new(), Vec::new());
    for mount in spec.mounts_mut().iter_mut().flatten() {
        match mount.typ().as_deref() {
            Some("volume") => volumes.push(volume(mount)?),
            Some("bind") => {
                let source = source(mount)?;
                if take_word(mount, RELABEL) {
                    relabelled.extend(source.clone());
                }
                sources.extend(source);
            }
            _ => {}
        }
    }
    // An enclosure's size and the limits within it are the runtime's matter.
    if kind == Kind::Plain
        && let Some(resources) = spec.linux_mut().as_mut().and_then(|linux| linux.resources_mut().as_mut())
    {
        // The cgroup has its limits. Devices are for the runtime, too: it would put a list of its own there.
        let mut devices = LinuxResources::default();
        devices.set_devices(resources.devices().clone());
        *resources = devices;
    }
    Ok(Translated { spec, volumes, sources, relabelled, oom_score_adj, terminal })
}

/// Translates a process. What needs CAP_SYS_RESOURCE is done as far as it is allowed: the driver has the OOM
/// score already, and its children inherit it.
pub(super) fn process(mut process: Process) -> Process {
    process.set_oom_score_adj(None);
    let rlimits = process.rlimits().as_ref().map(|limits| limits.iter().map(allowed).collect());
    process.set_rlimits(rlimits);
    process
}

/// A bind of a directory that the driver has filled.
fn volume(mount: &mut Mount) -> Result<Volume, Error> {
    let place = plan::container_path("mounts.destination", mount.destination())?;
    let source = source(mount)?.ok_or(Error::Missing("mounts.source"))?;
    mount.set_typ(Some("bind".to_owned()));
    Ok(Volume { place, source })
}

/// Takes a word of Corten's own out of a mount's options; whether it was there.
fn take_word(mount: &mut Mount, word: &str) -> bool {
    let mut options = mount.options().clone().unwrap_or_default();
    let before = options.len();
    options.retain(|option| option != word);
    let was_there = options.len() < before;
    mount.set_options(Some(options));
    was_there
}

fn source(mount: &Mount) -> Result<Option<CString>, Error> {
    mount.source().as_ref().map(|path| plan::host_path("mounts.source", path)).transpose()
}

/// The limit, or the hard limit of this process when only CAP_SYS_RESOURCE could go beyond it.
fn allowed(limit: &PosixRlimit) -> PosixRlimit {
    let own = getrlimit(resource(limit.typ())).maximum.unwrap_or(u64::MAX);
    let can_raise = rustix::thread::capabilities(None)
        .is_ok_and(|sets| sets.effective.contains(rustix::thread::CapabilitySet::SYS_RESOURCE));
    if can_raise || limit.hard() <= own {
        return *limit;
    }
    let lowered = PosixRlimitBuilder::default().typ(limit.typ()).soft(limit.soft().min(own)).hard(own);
    // All three are given.
    lowered.build().unwrap_or(*limit)
}

fn resource(kind: PosixRlimitType) -> Resource {
    match kind {
        PosixRlimitType::RlimitCpu => Resource::Cpu,
        PosixRlimitType::RlimitFsize => Resource::Fsize,
        PosixRlimitType::RlimitData => Resource::Data,
        PosixRlimitType::RlimitStack => Resource::Stack,
        PosixRlimitType::RlimitCore => Resource::Core,
        PosixRlimitType::RlimitRss => Resource::Rss,
        PosixRlimitType::RlimitNproc => Resource::Nproc,
        PosixRlimitType::RlimitNofile => Resource::Nofile,
        PosixRlimitType::RlimitMemlock => Resource::Memlock,
        PosixRlimitType::RlimitAs => Resource::As,
        PosixRlimitType::RlimitLocks => Resource::Locks,
        PosixRlimitType::RlimitSigpending => Resource::Sigpending,
        PosixRlimitType::RlimitMsgqueue => Resource::Msgqueue,
        PosixRlimitType::RlimitNice => Resource::Nice,
        PosixRlimitType::RlimitRtprio => Resource::Rtprio,
        PosixRlimitType::RlimitRttime => Resource::Rttime,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_only_corten_knows_is_translated() {
        let spec = json!({
            "ociVersion": "1.2.0",
            "process": { "args": ["a"], "cwd": "/", "user": { "uid": 0, "gid": 0 }, "oomScoreAdj": -5,
                "terminal": true },
            "mounts": [
                { "destination": "/data", "type": "volume", "source": "/v/0", "options": ["rbind"] },
                { "destination": "/b", "type": "bind", "source": "/host/b", "options": ["rbind"] },
                { "destination": "/proc", "type": "proc", "source": "proc" },
            ],
            "linux": { "resources": {
                "memory": { "limit": 5 },
                "devices": [{ "allow": false, "access": "rwm" }],
            } },
        });
        let spec: Spec = serde_json::from_value(spec).unwrap();
        let enclosed = container(spec.clone(), Kind::Sandboxed).unwrap().spec;
        assert_eq!(enclosed.linux(), spec.linux());
        let translated = container(spec, Kind::Plain).unwrap();
        assert_eq!((translated.oom_score_adj, translated.terminal), (-5, true));
        assert_eq!(translated.volumes, [Volume { place: c"data".into(), source: c"/v/0".into() }]);
        assert_eq!(translated.sources, [c"/host/b".to_owned()]);
        let spec = serde_json::to_value(translated.spec).unwrap();
        assert_eq!(spec["process"].get("oomScoreAdj"), None);
        assert_eq!(spec["ociVersion"], VERSION);
        assert_eq!(spec["mounts"][0]["type"], "bind");
        let resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        assert_eq!(spec["linux"]["resources"], resources);
    }
}
