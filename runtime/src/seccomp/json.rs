//! Localhost profiles: the OCI form, and docker's, which adds conditions on capabilities, architectures and
//! kernels (`includes`, `excludes`) and a map of architectures.
//!
//! Fields that are not known are passed over, as the peers do; an action or an operator that is not known is an
//! error that names the entry.

use std::fs;

use oci_spec::runtime::{
    Arch, Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag, LinuxSyscall,
};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::Error;
use super::machine::Machine;

/// The largest profiles in the field have a twentieth of it.
const BYTES_MAX: usize = 1 << 20;
/// More entries than that do not become a filter that the kernel takes.
const ENTRIES_MAX: usize = 4096;

/// For whom a profile is read.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    pub(super) capabilities: &'a [Capability],
    pub(super) machine: Machine,
    /// Major and minor number.
    pub(super) kernel: (u32, u32),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Profile {
    default_action: Value,
    default_errno_ret: Option<u32>,
    default_errno: Option<String>,
    #[serde(default)]
    architectures: Option<Vec<Value>>,
    #[serde(default)]
    arch_map: Option<Vec<Architecture>>,
    #[serde(default)]
    flags: Option<Vec<LinuxSeccompFilterFlag>>,
    #[serde(default)]
    syscalls: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Architecture {
    architecture: Value,
    #[serde(default)]
    sub_architectures: Option<Vec<Value>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    /// Docker's oldest form has one name an entry.
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    names: Option<Vec<String>>,
    action: Value,
    errno_ret: Option<u32>,
    errno: Option<String>,
    #[serde(default)]
    args: Option<Vec<LinuxSeccompArg>>,
    #[serde(default)]
    includes: Option<Filter>,
    #[serde(default)]
    excludes: Option<Filter>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Option<Vec<String>>,
    #[serde(default)]
    arches: Option<Vec<String>>,
    #[serde(default)]
    min_kernel: Option<String>,
}

/// Reads a Localhost profile, in the OCI form or in docker's, for a process with these capabilities.
pub fn parse(json: &[u8], capabilities: &[Capability]) -> Result<LinuxSeccomp, Error> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").ok();
    let kernel = kernel.and_then(|release| version(&release)).unwrap_or((0, 0));
    Reader { capabilities, machine: Machine::HOST, kernel }.read(json)
}

// === impl Reader ===

impl Reader<'_> {
    pub(super) fn read(&self, json: &[u8]) -> Result<LinuxSeccomp, Error> {
        if json.len() > BYTES_MAX {
            return Err(Error::TooLarge { bytes: json.len(), limit: BYTES_MAX });
        }
        let profile: Profile = serde_json::from_slice(json).map_err(Error::Json)?;
        let calls = profile.syscalls.unwrap_or_default();
        if calls.len() > ENTRIES_MAX {
            let reason = format!("the profile has {} entries, more than {ENTRIES_MAX}", calls.len());
            return Err(Error::Entry { entry: ENTRIES_MAX.to_string(), reason });
        }
        let mut read = Vec::with_capacity(calls.len());
        for (at, call) in calls.into_iter().enumerate() {
            read.extend(self.call(&at.to_string(), call)?);
        }
        let default = "defaultAction";
        let mut result = LinuxSeccomp::default();
        result
            .set_default_action(word::<LinuxSeccompAction>(default, &profile.default_action)?)
            .set_default_errno_ret(errno(
                default,
                profile.default_errno.as_deref(),
                profile.default_errno_ret,
            )?)
            .set_architectures(Some(self.architectures(profile.architectures, profile.arch_map)))
            .set_flags(profile.flags)
            .set_syscalls(Some(read));
        Ok(result)
    }

    fn call(&self, entry: &str, call: Value) -> Result<Option<LinuxSyscall>, Error> {
        let call: Call = serde_json::from_value(call)
            .map_err(|error| Error::Entry { entry: entry.to_owned(), reason: error.to_string() })?;
        if !self.includes(call.includes.unwrap_or_default())
            || self.excludes(call.excludes.unwrap_or_default())
        {
            return Ok(None);
        }
        let names: Vec<String> = call.names.unwrap_or_default().into_iter().chain(call.name).collect();
        if names.is_empty() {
            return Err(Error::Entry {
                entry: entry.to_owned(),
                reason: "it names no system call".to_owned(),
            });
        }
        let mut result = LinuxSyscall::default();
        result
            .set_names(names)
            .set_action(word::<LinuxSeccompAction>(entry, &call.action)?)
            .set_errno_ret(errno(entry, call.errno.as_deref(), call.errno_ret)?)
            .set_args(call.args.filter(|arguments| !arguments.is_empty()));
        Ok(Some(result))
    }

    /// Everything that is listed has to be so.
    fn includes(&self, filter: Filter) -> bool {
        filter.caps.is_none_or(|caps| caps.iter().all(|name| self.has(name)))
            && filter.arches.is_none_or(|arches| arches.is_empty() || self.is_one_of(&arches))
            && filter.min_kernel.is_none_or(|least| version(&least).is_some_and(|least| self.kernel >= least))
    }

    /// One of what is listed is enough.
    fn excludes(&self, filter: Filter) -> bool {
        filter.caps.is_some_and(|caps| caps.iter().any(|name| self.has(name)))
            || filter.arches.is_some_and(|arches| self.is_one_of(&arches))
            || filter
                .min_kernel
                .is_some_and(|least| version(&least).is_some_and(|least| self.kernel >= least))
    }

    fn has(&self, name: &str) -> bool {
        // One that this project has no name for, nobody has.
        let capability: Option<Capability> = serde_json::from_value(Value::from(name)).ok();
        capability.is_some_and(|capability| self.capabilities.contains(&capability))
    }

    fn is_one_of(&self, arches: &[String]) -> bool {
        arches.iter().any(|arch| arch == self.machine.docker_name())
    }

    /// Those of other machines, and those that nobody knows, cannot occur here.
    fn architectures(&self, plain: Option<Vec<Value>>, map: Option<Vec<Architecture>>) -> Vec<Arch> {
        let known = |value: &Value| serde_json::from_value::<Arch>(value.clone()).ok();
        let mut found: Vec<Arch> = plain.iter().flatten().filter_map(known).collect();
        let native = self.machine.architectures()[0];
        for entry in map.iter().flatten().filter(|entry| known(&entry.architecture) == Some(native)) {
            found.push(native);
            found.extend(entry.sub_architectures.iter().flatten().filter_map(known));
        }
        found.retain(|arch| self.machine.architectures().contains(arch));
        found.dedup();
        found
    }
}

/// One of the words of the OCI spec.
fn word<T: DeserializeOwned>(entry: &str, value: &Value) -> Result<T, Error> {
    serde_json::from_value(value.clone())
        .map_err(|_| Error::Entry { entry: entry.to_owned(), reason: format!("{value} is not known") })
}

/// The name of an error wins over its number, as in the profiles that have both.
fn errno(entry: &str, name: Option<&str>, number: Option<u32>) -> Result<Option<u32>, Error> {
    let known = name.filter(|name| !name.is_empty()).map(|name| {
        let found = ERRNOS.iter().find(|(known, _)| *known == name).map(|(_, value)| value.cast_unsigned());
        found.or(number).ok_or_else(|| Error::Entry {
            entry: entry.to_owned(),
            reason: format!("errno {name:?} is not known"),
        })
    });
    Ok(known.transpose()?.or(number))
}

/// Those that a filter may sensibly answer with.
const ERRNOS: [(&str, i32); 14] = [
    ("EACCES", libc::EACCES),
    ("EAFNOSUPPORT", libc::EAFNOSUPPORT),
    ("EAGAIN", libc::EAGAIN),
    ("EBADF", libc::EBADF),
    ("EBUSY", libc::EBUSY),
    ("EINVAL", libc::EINVAL),
    ("EIO", libc::EIO),
    ("ENODEV", libc::ENODEV),
    ("ENOENT", libc::ENOENT),
    ("ENOMEM", libc::ENOMEM),
    ("ENOSYS", libc::ENOSYS),
    ("ENOTSUP", libc::ENOTSUP),
    ("EPERM", libc::EPERM),
    ("EPROTONOSUPPORT", libc::EPROTONOSUPPORT),
];

/// `4.8`, or what uname(2) says, `6.1.0-13-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.trim().split('.');
    let major = parts.next()?.parse().ok()?;
    let minor = parts.next()?;
    let digits = minor.find(|c: char| !c.is_ascii_digit()).unwrap_or(minor.len());
    Some((major, minor[..digits].parse().ok()?))
}

#[cfg(test)]
mod tests;
