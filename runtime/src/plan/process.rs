//! The process of the spec: its arguments, its identity, its limits.

use std::ffi::CString;

use oci_spec::runtime::{LinuxCapabilities, PosixRlimit, PosixRlimitType, Process as SpecProcess, User};

use super::Error;
use super::steps::{Capabilities, Labels, Process, Rlimit, Size, Terminal};
use super::text;
use crate::seccomp::Program;

/// Compiles a process; `filter` is what its seccomp profile became.
pub(super) fn compile(process: &SpecProcess, filter: Option<&Program>) -> Result<Process, Error> {
    let user = process.user();
    let strings = |field: &str, list: &Option<Vec<String>>| {
        list.iter().flatten().map(|text| text::string(field, text)).collect::<Result<Vec<_>, _>>()
    };
    let args = strings("process.args", process.args())?;
    if args.is_empty() {
        return Err(Error::Missing("process.args"));
    }
    let adj = process.oom_score_adj();
    if adj.is_some_and(|adj| !(-1000..=1000).contains(&adj)) {
        return Err(Error::invalid("process.oomScoreAdj", "it is not between -1000 and 1000"));
    }
    Ok(Process {
        args,
        env: strings("process.env", process.env())?,
        cwd: text::container_path("process.cwd", process.cwd())?,
        umask: user.umask().unwrap_or(0o022) & 0o777,
        uid: id("process.user.uid", user.uid())?,
        gid: id("process.user.gid", user.gid())?,
        groups: groups(user)?,
        capabilities: process.capabilities().as_ref().map(capabilities).unwrap_or_default(),
        rlimits: process.rlimits().iter().flatten().map(rlimit).collect::<Result<_, _>>()?,
        no_new_privs: process.no_new_privileges().unwrap_or(false),
        // The monitor's own must not be inherited: it is kept from the OOM killer.
        oom_score_adj: adj.unwrap_or(0),
        terminal: terminal(process)?,
        labels: labels(process)?,
        filter: filter.cloned(),
    })
}

/// The highest number means "leave it as it is" to the kernel: a process would stay root.
fn id(field: &str, id: u32) -> Result<u32, Error> {
    if id == u32::MAX { Err(Error::invalid(field, "4294967295 is no id")) } else { Ok(id) }
}

fn groups(user: &User) -> Result<Vec<u32>, Error> {
    let mut groups = vec![user.gid()];
    for gid in user.additional_gids().iter().flatten() {
        let gid = id("process.user.additionalGids", *gid)?;
        if !groups.contains(&gid) {
            groups.push(gid);
        }
    }
    Ok(groups)
}

/// Ambient capabilities are those that are permitted and inheritable too, as the kernel has it.
fn capabilities(capabilities: &LinuxCapabilities) -> Capabilities {
    let set =
        |set: &Option<oci_spec::runtime::Capabilities>| set.as_ref().map(Into::into).unwrap_or_default();
    let (permitted, inheritable) = (set(capabilities.permitted()), set(capabilities.inheritable()));
    Capabilities {
        bounding: set(capabilities.bounding()),
        permitted,
        effective: set(capabilities.effective()) & permitted,
        inheritable,
        ambient: set(capabilities.ambient()) & permitted & inheritable,
    }
}

fn labels(process: &SpecProcess) -> Result<Labels, Error> {
    Ok(Labels {
        apparmor: label("process.apparmorProfile", process.apparmor_profile().as_deref())?,
        selinux: label("process.selinuxLabel", process.selinux_label().as_deref())?,
    })
}

/// One line: more would be further words for the kernel. `unconfined` is what a process is without a label.
pub(super) fn label(field: &str, text: Option<&str>) -> Result<Option<CString>, Error> {
    match text {
        None | Some("" | "unconfined") => Ok(None),
        Some(text) if text.len() > 4000 || text.chars().any(char::is_control) => {
            Err(Error::invalid(field, format!("{text:?} is no label")))
        }
        Some(text) => text::string(field, text).map(Some),
    }
}

fn terminal(process: &SpecProcess) -> Result<Option<Terminal>, Error> {
    if !process.terminal().unwrap_or(false) {
        return Ok(None);
    }
    let cells = |cells: u64| {
        u16::try_from(cells)
            .map_err(|_| Error::invalid("process.consoleSize", "a terminal is not that large"))
    };
    let size = process
        .console_size()
        .as_ref()
        .map(|size| Ok::<_, Error>(Size { rows: cells(size.height())?, columns: cells(size.width())? }));
    Ok(Some(Terminal { size: size.transpose()? }))
}

fn rlimit(rlimit: &PosixRlimit) -> Result<Rlimit, Error> {
    if rlimit.soft() > rlimit.hard() {
        let name = rlimit.typ();
        return Err(Error::invalid(
            "process.rlimits",
            format!("{name}: the soft limit is above the hard one"),
        ));
    }
    // The numbers of asm-generic/resource.h, which all architectures that Corten is built for share.
    let resource = match rlimit.typ() {
        PosixRlimitType::RlimitCpu => 0,
        PosixRlimitType::RlimitFsize => 1,
        PosixRlimitType::RlimitData => 2,
        PosixRlimitType::RlimitStack => 3,
        PosixRlimitType::RlimitCore => 4,
        PosixRlimitType::RlimitRss => 5,
        PosixRlimitType::RlimitNproc => 6,
        PosixRlimitType::RlimitNofile => 7,
        PosixRlimitType::RlimitMemlock => 8,
        PosixRlimitType::RlimitAs => 9,
        PosixRlimitType::RlimitLocks => 10,
        PosixRlimitType::RlimitSigpending => 11,
        PosixRlimitType::RlimitMsgqueue => 12,
        PosixRlimitType::RlimitNice => 13,
        PosixRlimitType::RlimitRtprio => 14,
        PosixRlimitType::RlimitRttime => 15,
    };
    Ok(Rlimit { resource, soft: rlimit.soft(), hard: rlimit.hard() })
}
