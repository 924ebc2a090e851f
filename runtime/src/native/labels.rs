//! What the kernel's security modules confine the command to: AppArmor's profiles, SELinux' contexts.
//!
//! A process names what its next execve(2) is to put on in files of its own in procfs. What a container has made of
//! its `/proc` is not asked: the files are found in a procfs that is attached nowhere, without links and without
//! whatever could be mounted on them (CVE-2019-16884, CVE-2025-52881). What was written is read back and compared.
//! Whoever cannot be confined is not started.

use std::ffi::CStr;
use std::os::fd::OwnedFd;

use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::detached;
use super::failure::{Context, Failure};
use crate::plan::steps::Labels;

const APPARMOR: &CStr = c"attr/apparmor/exec";
const SELINUX: &CStr = c"attr/exec";
const SELINUX_KEYS: &CStr = c"attr/keycreate";

/// A longer label is none of ours.
const LABEL_BYTES: usize = 4096;

/// A procfs of the stage's own; none when there is nothing to put on.
#[derive(Debug)]
pub(crate) struct Gate {
    proc: Option<OwnedFd>,
}

impl Gate {
    /// Makes the procfs, for the calling process' PID namespace; those below it are seen from there too.
    pub(super) fn open(labels: &Labels) -> Result<Self, Failure> {
        if *labels == Labels::default() {
            return Ok(Self { proc: None });
        }
        let hidden = libc::MOUNT_ATTR_NOSUID | libc::MOUNT_ATTR_NODEV | libc::MOUNT_ATTR_NOEXEC;
        let subset = [(c"subset".into(), Some(c"pid".into()))];
        detached::filesystem(c"proc", &subset, hidden).map(|proc| Self { proc: Some(proc) })
    }

    /// The node's procfs, for who has come into no tree but the node's.
    pub(crate) fn of_node() -> Result<Self, Failure> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let proc = rustix::fs::open(c"/proc", flags, Mode::empty()).during(|| "open /proc".into())?;
        Ok(Self { proc: Some(proc) })
    }

    /// Names what the next execve(2) of the calling process puts on.
    pub(crate) fn set(&self, labels: &Labels) -> Result<(), Failure> {
        if let Some(profile) = &labels.apparmor {
            let what = || format!("apply the AppArmor profile {profile:?}");
            let word = [b"exec ", profile.as_bytes()].concat();
            let told = self.tell(APPARMOR, &word).map_err(|errno| match errno {
                Errno::NOENT => Failure::new(format!("the AppArmor profile {profile:?} is not loaded")),
                _ => Failure { errno: errno.raw_os_error(), ..Failure::new(what()) },
            })?;
            if name_of_profile(&told) != profile.as_bytes() {
                return Err(differs(what(), &told));
            }
        }
        match &labels.selinux {
            Some(context) => self.set_context(SELINUX, context),
            None => Ok(()),
        }
    }

    /// Has keyrings that are made between here and the end of `work` belong to the container.
    pub(super) fn with_keys<T>(
        &self,
        labels: &Labels,
        work: impl FnOnce() -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let Some(context) = &labels.selinux else { return work() };
        self.set_context(SELINUX_KEYS, context)?;
        let result = work()?;
        self.tell(SELINUX_KEYS, b"\0").during(|| "reset the SELinux label of keys".into())?;
        Ok(result)
    }

    fn set_context(&self, file: &CStr, context: &CStr) -> Result<(), Failure> {
        let what = || format!("apply the SELinux label {context:?}");
        let told = self.tell(file, context.to_bytes()).during(what)?;
        if told == context.to_bytes() { Ok(()) } else { Err(differs(what(), &told)) }
    }

    /// Writes to a file of the calling thread; returns what it says afterwards.
    fn tell(&self, file: &CStr, word: &[u8]) -> Result<Vec<u8>, Errno> {
        let proc = self.proc.as_ref().ok_or(Errno::BADF)?;
        let own = rustix::fs::readlinkat(proc, c"thread-self", Vec::new())?;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_XDEV;
        let directory = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let own = rustix::fs::openat2(proc, &own, directory, Mode::empty(), resolve)?;
        let open = |flags| rustix::fs::openat2(&own, file, flags | OFlags::CLOEXEC, Mode::empty(), resolve);
        // Without the module there is no such file: that is not a profile which is missing.
        let writing = open(OFlags::WRONLY)
            .map_err(|errno| if errno == Errno::NOENT { Errno::OPNOTSUPP } else { errno })?;
        rustix::io::write(&writing, word)?;
        let mut told = vec![0; LABEL_BYTES];
        let length = rustix::io::read(open(OFlags::RDONLY)?, told.as_mut_slice())?;
        told.truncate(length);
        while told.last().is_some_and(|byte| matches!(byte, b'\n' | b'\0')) {
            told.pop();
        }
        Ok(told)
    }
}

/// The name without the mode that the kernel shows behind it: `name (enforce)`.
fn name_of_profile(told: &[u8]) -> &[u8] {
    let open = told.windows(2).rposition(|pair| pair == b" (");
    match open {
        Some(open) if told.ends_with(b")") => told.get(..open).unwrap_or_default(),
        _ => told,
    }
}

fn differs(what: String, told: &[u8]) -> Failure {
    Failure::new(format!("{what}: the kernel says {:?} instead", String::from_utf8_lossy(told)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_shown_with_its_mode() {
        for (told, name) in [
            ("a (enforce)", "a"),
            ("a b (complain)", "a b"),
            ("a (b) (unconfined)", "a (b)"),
            ("unconfined", "unconfined"),
            ("a (b", "a (b"),
            ("", ""),
        ] {
            assert_eq!(name_of_profile(told.as_bytes()), name.as_bytes(), "{told}");
        }
    }

    #[test]
    fn nothing_to_put_on_needs_nothing() {
        let gate = Gate::open(&Labels::default()).unwrap();
        assert!(gate.proc.is_none());
        gate.set(&Labels::default()).unwrap();
        gate.with_keys(&Labels::default(), || Ok(())).unwrap();
    }

    /// Needs root, as all of these tests do, and works with and without the modules.
    #[test]
    fn what_cannot_be_put_on_is_an_error() {
        let labels = |apparmor: Option<&CStr>, selinux: Option<&CStr>| Labels {
            apparmor: apparmor.map(Into::into),
            selinux: selinux.map(Into::into),
        };
        for labels in
            [labels(Some(c"no-such-profile-of-corten"), None), labels(None, Some(c"no:such:context:s0"))]
        {
            let failure = Gate::open(&labels).unwrap().set(&labels).unwrap_err();
            assert!(failure.what.contains("no"), "{failure}");
        }
    }

    /// The way to the files goes through nothing that the container's `/proc` could have changed.
    #[test]
    fn the_files_are_those_of_the_calling_thread() {
        let labels = labels_of_a_profile();
        let gate = Gate::open(&labels).unwrap();
        let proc = gate.proc.as_ref().unwrap();
        let own = rustix::fs::readlinkat(proc, c"thread-self", Vec::new()).unwrap();
        let expected = format!("{}/task/{}", std::process::id(), rustix::thread::gettid().as_raw_nonzero());
        assert_eq!(own.to_str().unwrap(), expected);
        // Nothing but processes is in it.
        assert_eq!(
            rustix::fs::statat(proc, c"sysrq-trigger", rustix::fs::AtFlags::empty()).unwrap_err(),
            Errno::NOENT
        );
    }

    fn labels_of_a_profile() -> Labels {
        Labels { apparmor: Some(c"x".into()), selinux: None }
    }
}
