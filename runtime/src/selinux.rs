//! SELinux as the daemon needs it: the labels of containers and their files, as the node's policy has them.
//!
//! The kernel's interface is selinuxfs; which types containers have stands in the policy's `lxc_contexts`, which other
//! runtimes read too. Where SELinux is on, a label that the policy does not know is an error before anything is made.
//! Putting labels on is the stages' work. Follows selinux(8), and The SELinux Notebook for contexts.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::XattrFlags;
use serde::{Deserialize, Serialize};

const SELINUXFS: &str = "/sys/fs/selinux";
const POLICIES: &str = "/etc/selinux";
const ATTRIBUTE: &str = "security.selinux";

/// What a container's processes and its files are labelled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of processes.
    pub process: String,
    /// Of files and mounts.
    pub mount: String,
}

/// Parts of a label that somebody asks for; the empty ones are the policy's.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Wanted<'a> {
    /// The user.
    pub user: &'a str,
    /// The role.
    pub role: &'a str,
    /// The type.
    pub kind: &'a str,
    /// The level.
    pub level: &'a str,
}

/// A node with SELinux on.
#[derive(Debug, Clone)]
pub struct Selinux {
    interface: PathBuf,
    policies: PathBuf,
}

/// Why there is no label.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The policy's own files.
    #[error("read {}", path.display())]
    Policy {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: io::Error,
    },
    /// The policy does not know it.
    #[error("the SELinux label {label:?} is not one of this node's policy")]
    Unknown {
        /// The label.
        label: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file of ours.
    #[error("label {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
}

impl Selinux {
    /// The node's, if it is on: selinuxfs is there and a policy is loaded, is_selinux_enabled(3).
    pub fn detect() -> Option<Self> {
        let own = fs::read_to_string("/proc/self/attr/current").unwrap_or_default();
        let is_loaded = !matches!(own.trim_end_matches(['\0', '\n']), "" | "kernel");
        let is_there = fs::exists(Path::new(SELINUXFS).join("enforce")).unwrap_or(false);
        (is_there && is_loaded).then(|| Self { interface: SELINUXFS.into(), policies: POLICIES.into() })
    }

    /// The labels of containers with these parts, in the form that the kernel gives them.
    ///
    /// # Errors
    /// When the policy says nothing of containers, or does not know the label.
    pub fn labels(&self, wanted: Wanted<'_>) -> Result<Labels, Error> {
        let path = self.policy()?.join("contexts/lxc_contexts");
        let failed = |source| Error::Policy { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(failed)?;
        let of = |key| {
            let label = text.lines().find_map(|line| value(line, key));
            let parts = label.and_then(Parts::parse);
            parts.ok_or_else(|| failed(io::Error::other(format!("it has no {key}"))))
        };
        let (mut process, mut mount) = (of("process")?, of("file")?);
        process.change(wanted);
        // As the process has it, so that its own files are in its reach, and no other's.
        mount.change(Wanted { user: wanted.user, level: &process.level.clone(), ..Wanted::default() });
        Ok(Labels { process: self.canonical(&process.text())?, mount: self.canonical(&mount.text())? })
    }

    /// What the kernel makes of a label; it knows no other.
    fn canonical(&self, label: &str) -> Result<String, Error> {
        let ask = || -> io::Result<String> {
            let mut file = fs::File::options().read(true).write(true).open(self.interface.join("context"))?;
            file.write_all(label.as_bytes())?;
            let mut answer = Vec::new();
            file.take(4096).read_to_end(&mut answer)?;
            Ok(String::from_utf8_lossy(&answer).trim_end_matches(['\0', '\n']).to_owned())
        };
        ask().map_err(|source| Error::Unknown { label: label.to_owned(), source })
    }

    /// The directory of the policy that is in use.
    fn policy(&self) -> Result<PathBuf, Error> {
        let path = self.policies.join("config");
        let failed = |source| Error::Policy { path: path.clone(), source };
        let text = fs::read_to_string(&path).map_err(failed)?;
        let kind = text.lines().find_map(|line| line.trim().strip_prefix("SELINUXTYPE="));
        let kind = kind.map(str::trim).filter(|kind| !kind.is_empty() && !kind.contains('/'));
        let kind = kind.ok_or_else(|| failed(io::Error::other("it has no SELINUXTYPE")))?;
        Ok(self.policies.join(kind))
    }
}

/// Labels a file or directory of Corten's own; what is below it is not touched.
///
/// # Errors
/// When the kernel refuses, or says something else afterwards.
pub fn label(path: &Path, label: &str) -> Result<(), Error> {
    let failed = |source: io::Error| Error::File { path: path.to_owned(), source };
    rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let mut found = vec![0; 4096];
    let length =
        rustix::fs::lgetxattr(path, ATTRIBUTE, found.as_mut_slice()).map_err(|errno| failed(errno.into()))?;
    found.truncate(length);
    if String::from_utf8_lossy(&found).trim_end_matches('\0') == label {
        return Ok(());
    }
    Err(failed(io::Error::other(format!("it is {:?} afterwards", String::from_utf8_lossy(&found)))))
}

/// `process = "system_u:system_r:container_t:s0"`.
fn value<'a>(line: &'a str, key: &str) -> Option<&'a str> {
    let (name, value) = line.split_once('=')?;
    (name.trim() == key).then(|| value.trim().trim_matches('"'))
}

/// A label's parts; the level may have colons of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    user: String,
    role: String,
    kind: String,
    level: String,
}

impl Parts {
    fn parse(label: &str) -> Option<Self> {
        let mut parts = label.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Self { user, role, kind, level: parts.next().unwrap_or_default() })
    }

    fn change(&mut self, wanted: Wanted<'_>) {
        for (part, new) in [
            (&mut self.user, wanted.user),
            (&mut self.role, wanted.role),
            (&mut self.kind, wanted.kind),
            (&mut self.level, wanted.level),
        ] {
            if !new.is_empty() {
                new.clone_into(part);
            }
        }
    }

    /// A policy without levels has labels of three parts.
    fn text(&self) -> String {
        let Self { user, role, kind, level } = self;
        if level.is_empty() {
            format!("{user}:{role}:{kind}")
        } else {
            format!("{user}:{role}:{kind}:{level}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose kernel takes every label as it is: files in the place of selinuxfs and the policy.
    fn node(lxc_contexts: &str) -> (tempfile::TempDir, Selinux) {
        let dir = tempfile::tempdir().unwrap();
        let (interface, policies) = (dir.path().join("fs"), dir.path().join("etc"));
        fs::create_dir_all(&interface).unwrap();
        fs::create_dir_all(policies.join("default/contexts")).unwrap();
        fs::write(policies.join("config"), "# x\nSELINUX=permissive\nSELINUXTYPE=default\n").unwrap();
        fs::write(policies.join("default/contexts/lxc_contexts"), lxc_contexts).unwrap();
        (dir, Selinux { interface, policies })
    }

    const CONTEXTS: &str =
        "process = \"system_u:system_r:container_t:s0\"\nfile = \"system_u:object_r:container_file_t:s0\"\n";

    #[test]
    fn labels_are_the_policys_with_what_is_asked_for() {
        let parts = |wanted| {
            let mut process = Parts::parse("system_u:system_r:container_t:s0").unwrap();
            process.change(wanted);
            process.text()
        };
        assert_eq!(parts(Wanted::default()), "system_u:system_r:container_t:s0");
        let wanted = Wanted { kind: "spc_t", level: "s0:c1,c2", ..Wanted::default() };
        assert_eq!(parts(wanted), "system_u:system_r:spc_t:s0:c1,c2");
        assert_eq!(Parts::parse("a:b:c").unwrap().text(), "a:b:c");
        assert_eq!(Parts::parse("a:b"), None);
    }

    #[test]
    fn a_policy_without_containers_has_no_labels() {
        for (text, reason) in [("", "it has no process"), ("process = \"a:b:c\"\n", "it has no file")] {
            let (_dir, selinux) = node(text);
            let Err(Error::Policy { source, .. }) = selinux.labels(Wanted::default()) else {
                panic!("{text}")
            };
            assert_eq!(source.to_string(), reason);
        }
        let (_dir, mut selinux) = node(CONTEXTS);
        selinux.policies = "/no/such/directory".into();
        assert!(matches!(selinux.labels(Wanted::default()), Err(Error::Policy { .. })));
    }

    #[test]
    fn a_label_that_the_kernel_does_not_know_is_an_error() {
        let (_dir, selinux) = node(CONTEXTS);
        // There is no such file, as there is no such label.
        let error = selinux.labels(Wanted { level: "s0:c5", ..Wanted::default() }).unwrap_err();
        assert!(error.to_string().contains("system_u:system_r:container_t:s0:c5"), "{error}");
    }

    #[test]
    fn a_line_has_a_name_and_a_quoted_value() {
        assert_eq!(value("process = \"a:b:c:s0\"", "process"), Some("a:b:c:s0"));
        assert_eq!(value("processes = \"a\"", "process"), None);
        assert_eq!(value("# process", "process"), None);
    }
}
