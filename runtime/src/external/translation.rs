//! From the spec that Corten's own stages take to one that other runtimes take: a pure function, but for the
//! limits of this process, which no runtime without CAP_SYS_RESOURCE can go beyond.

use std::ffi::CString;
use std::path::Path;

use oci_spec::runtime::{
    LinuxResources, Mount, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, Spec,
};
use rustix::process::{Resource, getrlimit};

use super::steps::{Apart, Volume};
use super::{Kind, apart};
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
    pub(super) apart: Option<Apart>,
    pub(super) oom_score_adj: i32,
    pub(super) owner: Option<u32>,
    pub(super) terminal: bool,
}

/// Translates the spec of a container of the pod with this directory.
pub(super) fn container(mut spec: Spec, kind: Kind, pod: &Path) -> Result<Translated, Error> {
    let process = spec.process().clone().ok_or(Error::Missing("process"))?;
    let ids = plan::users(&spec)?;
    let owner = ids.map(|ids| plan::owner(ids, &process)).transpose()?;
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
    let apart = ids.map(|ids| apart::translate(&mut spec, ids, pod)).transpose()?;
    Ok(Translated { spec, volumes, sources, relabelled, apart, oom_score_adj, owner, terminal })
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

    use super::super::steps::{Bind, Devices};
    use super::*;
    use crate::plan::steps::Device;

    const POD: &str = "/pods/p";

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
        let enclosed = container(spec.clone(), Kind::Sandboxed, Path::new(POD)).unwrap().spec;
        assert_eq!(enclosed.linux(), spec.linux());
        let translated = container(spec, Kind::Plain, Path::new(POD)).unwrap();
        assert_eq!((translated.oom_score_adj, translated.terminal), (-5, true));
        assert_eq!((translated.apart, translated.owner), (None, None));
        assert_eq!(translated.volumes, [Volume { place: c"data".into(), source: c"/v/0".into() }]);
        assert_eq!(translated.sources, [c"/host/b".to_owned()]);
        let spec = serde_json::to_value(translated.spec).unwrap();
        assert_eq!(spec["process"].get("oomScoreAdj"), None);
        assert_eq!(spec["ociVersion"], VERSION);
        assert_eq!(spec["mounts"][0]["type"], "bind");
        let resources = json!({ "devices": [{ "allow": false, "access": "rwm" }] });
        assert_eq!(spec["linux"]["resources"], resources);
    }

    #[test]
    fn a_user_namespace_is_joined_and_what_it_cannot_come_by_is_shown_elsewhere() {
        let ids = json!([{ "containerID": 0, "hostID": 1000, "size": 10 }]);
        let spec = |uid: u32| {
            let spec = json!({
                "ociVersion": "1.2.0",
                "root": { "path": "rootfs", "readonly": true },
                "process": { "args": ["a"], "cwd": "/", "user": { "uid": uid, "gid": 0 } },
                "mounts": [
                    { "destination": "/proc", "type": "proc", "source": "proc" },
                    { "destination": "/data", "type": "volume", "source": "/v/0", "options": ["rbind"] },
                    { "destination": "/b", "type": "bind", "source": "/../host/b", "options": ["rbind"],
                        "uidMappings": ids, "gidMappings": ids },
                    { "destination": "/sys", "type": "bind", "source": "/sys", "options": ["bind"] },
                ],
                "linux": {
                    "devices": [
                        { "path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 432 },
                        { "path": "/dev/tty", "type": "c", "major": 5, "minor": 0 },
                    ],
                    "namespaces": [{ "type": "user", "path": "/proc/5/ns/user" }],
                    "uidMappings": ids, "gidMappings": ids,
                },
            });
            serde_json::from_value::<Spec>(spec).unwrap()
        };
        let translated = container(spec(5), Kind::Plain, Path::new(POD)).unwrap();
        let bind = |source: &str, place: &str, recursive| Bind {
            source: CString::new(source).unwrap(),
            place: CString::new(format!("{POD}/sources/{place}")).unwrap(),
            recursive,
        };
        let binds = vec![
            bind("/v/0", "0/v/0", true),
            bind("/../host/b", "1/host/b", true),
            bind("/sys", "2/sys", false),
        ];
        let (place, path) = (c"/pods/p/devices".into(), c"dev/mine".into());
        let node = Device { path, format: libc::S_IFCHR, major: 1, minor: 5, mode: 0o660, uid: 0, gid: 0 };
        let devices = Some(Devices { place, nodes: vec![node] });
        assert_eq!(translated.apart, Some(Apart { pod: c"/pods/p".into(), owner: 1000, binds, devices }));
        assert_eq!(translated.owner, Some(1005));
        let sources = ["/../host/b", "/sys"].map(|path| CString::new(path).unwrap());
        assert_eq!(translated.sources, sources, "they are made where they are");
        let changed = serde_json::to_value(translated.spec).unwrap();
        let given = serde_json::to_value(spec(5)).unwrap();
        assert_eq!(changed["root"], given["root"]);
        assert_eq!(changed["mounts"][0], given["mounts"][0]);
        assert_eq!(changed["mounts"][2]["source"], "/pods/p/sources/1/host/b");
        assert_eq!(changed["mounts"][2]["uidMappings"], given["mounts"][2]["uidMappings"]);
        let node = json!({ "destination": "/dev/mine", "type": "bind", "source": "/pods/p/devices/0",
            "options": ["bind"] });
        assert_eq!(changed["mounts"][4], node);
        assert_eq!(changed["linux"]["devices"], json!([given["linux"]["devices"][1]]));
        for field in ["namespaces", "uidMappings", "gidMappings"] {
            assert_eq!(changed["linux"][field], given["linux"][field]);
        }
        let error = container(spec(10), Kind::Plain, Path::new(POD)).unwrap_err().to_string();
        assert!(error.contains("process.user.uid") && error.contains("no id 10"), "{error}");
    }
}
