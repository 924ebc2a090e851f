//! SELinux as the daemon needs it: the labels of containers and their files, as the node's policy has them.
//!
//! The kernel's interface is selinuxfs; which types containers have stands in the policy's `lxc_contexts`, which other
//! runtimes read too. Where SELinux is on, a label that the policy does not know is an error before anything is made.
//! Putting labels on is the stages' work. Follows selinux(8), and The SELinux Notebook for contexts.

use std::ffi::CString;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, XattrFlags};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::native::relabel::relabel;

const SELINUXFS: &str = "/sys/fs/selinux";
const POLICIES: &str = "/etc/selinux";
const ATTRIBUTE: &str = "security.selinux";

/// The type of privileged containers, in every policy that has one.
const PRIVILEGED: &str = "spc_t";

/// What a container's processes and its files are labelled with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Labels {
    /// Of processes; none has them go on as the policy has it for what the daemon starts.
    pub process: Option<String>,
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
    /// Not to be kept apart from the node, unless a type is asked for.
    pub is_privileged: bool,
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
    #[error(
        "the SELinux label {label:?} is not one of this node's policy: ask for another, or install the \
             policy's module for containers"
    )]
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
    pub async fn labels(&self, wanted: Wanted<'_>) -> Result<Labels, Error> {
        let contexts = self.contexts().await?;
        let (process, mut mount) = (contexts.require("process")?, contexts.require("file")?);
        // As the process has it, so that its own files are in its reach, and no other's.
        let level = if wanted.level.is_empty() { &process.level } else { wanted.level };
        mount.change(Wanted { user: wanted.user, level, ..Wanted::default() });
        Ok(Labels {
            process: self.of_process(process, wanted).await?,
            mount: self.canonical(&mount.text()).await?,
        })
    }

    async fn of_process(&self, mut label: Parts, wanted: Wanted<'_>) -> Result<Option<String>, Error> {
        if !wanted.is_privileged || !wanted.kind.is_empty() {
            label.change(wanted);
            return self.canonical(&label.text()).await.map(Some);
        }
        label.change(Wanted { kind: PRIVILEGED, ..Wanted::default() });
        match self.canonical(&label.text()).await {
            // Small policies have none.
            Err(Error::Unknown { .. }) => Ok(None),
            result => result.map(Some),
        }
    }

    /// Labels a directory of Corten's own, and all that is in it, as what containers may read and not write.
    ///
    /// What is made in it later takes that on. Containers need it of what lies below their overlays: the kernel asks
    /// for the label of the file there, too, when memory that is mapped from it becomes executable. Where the directory
    /// is labelled already, or the policy has no such type, nothing is done.
    ///
    /// # Errors
    /// When the policy cannot be read, or a file not be labelled.
    pub async fn share(&self, directory: &Path) -> Result<(), Error> {
        let Some(wanted) = self.contexts().await?.get("ro_file") else { return Ok(()) };
        let label = wanted.text();
        if self.canonical(&label).await.is_err() {
            return Ok(());
        }
        let path = directory.to_owned();
        let work = move || {
            // The user may be another one, as who made it has it.
            let now = current(&path).map_err(|source| Error::File { path: path.clone(), source })?;
            if Parts::parse(&now).is_some_and(|now| now.kind == wanted.kind) {
                return Ok(());
            }
            label_content(&path, &label).map_err(|source| Error::File { path: path.clone(), source })?;
            // Last, so that what was interrupted begins anew.
            self::label(&path, &label)
        };
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|ended| Err(Error::File { path: directory.to_owned(), source: ended.into() }))
    }

    async fn contexts(&self) -> Result<Contexts, Error> {
        let path = self.policy().await?.join("contexts/lxc_contexts");
        match tokio::fs::read_to_string(&path).await {
            Ok(text) => Ok(Contexts { path, text }),
            Err(source) => Err(Error::Policy { path, source }),
        }
    }

    /// What the kernel makes of a label; it knows no other.
    async fn canonical(&self, label: &str) -> Result<String, Error> {
        let ask = async {
            let path = self.interface.join("context");
            let mut file = tokio::fs::File::options().read(true).write(true).open(path).await?;
            file.write_all(label.as_bytes()).await?;
            file.flush().await?;
            let mut answer = Vec::new();
            file.take(4096).read_to_end(&mut answer).await?;
            Ok(String::from_utf8_lossy(&answer).trim_end_matches(['\0', '\n']).to_owned())
        };
        ask.await.map_err(|source| Error::Unknown { label: label.to_owned(), source })
    }

    /// The directory of the policy that is in use.
    async fn policy(&self) -> Result<PathBuf, Error> {
        let path = self.policies.join("config");
        let failed = |source| Error::Policy { path: path.clone(), source };
        let text = tokio::fs::read_to_string(&path).await.map_err(failed)?;
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
    let failed = |source| Error::File { path: path.to_owned(), source };
    rustix::fs::lsetxattr(path, ATTRIBUTE, label.as_bytes(), XattrFlags::empty())
        .map_err(|errno| failed(errno.into()))?;
    let found = current(path).map_err(failed)?;
    if found == label {
        return Ok(());
    }
    Err(failed(io::Error::other(format!("it is {found:?} afterwards"))))
}

/// The label of a file, of a link itself.
fn current(path: &Path) -> io::Result<String> {
    let mut found = vec![0; 4096];
    let length = rustix::fs::lgetxattr(path, ATTRIBUTE, found.as_mut_slice())?;
    found.truncate(length);
    Ok(String::from_utf8_lossy(&found).trim_end_matches('\0').to_owned())
}

/// Labels what is in a directory, and not what links lead to or what is mounted there.
fn label_content(directory: &Path, label: &str) -> io::Result<()> {
    let label = CString::new(label)?;
    for entry in fs::read_dir(directory)? {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let tree = rustix::fs::open(entry?.path(), flags, Mode::empty())?;
        relabel(&tree, &label).map_err(io::Error::other)?;
    }
    Ok(())
}

/// The policy's list of labels for containers.
struct Contexts {
    path: PathBuf,
    text: String,
}

impl Contexts {
    fn get(&self, key: &str) -> Option<Parts> {
        self.text.lines().find_map(|line| value(line, key)).and_then(Parts::parse)
    }

    fn require(&self, key: &str) -> Result<Parts, Error> {
        let missing = || io::Error::other(format!("it has no {key}"));
        self.get(key).ok_or_else(|| Error::Policy { path: self.path.clone(), source: missing() })
    }
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

    #[tokio::test]
    async fn privileged_containers_have_a_type_of_theirs_unless_one_is_asked_for() {
        let (dir, selinux) = node(CONTEXTS);
        // What the kernel is asked stands in the file.
        let parts = || Parts::parse("system_u:system_r:container_t:s0").unwrap();
        let of = async |wanted| {
            fs::write(dir.path().join("fs/context"), "").unwrap();
            selinux.of_process(parts(), wanted).await.unwrap();
            fs::read_to_string(dir.path().join("fs/context")).unwrap()
        };
        let wanted = Wanted { level: "s0:c1,c2", is_privileged: true, ..Wanted::default() };
        assert_eq!(of(wanted).await, "system_u:system_r:spc_t:s0");
        assert_eq!(of(Wanted { kind: "x_t", ..wanted }).await, "system_u:system_r:x_t:s0:c1,c2");
        assert_eq!(
            of(Wanted { is_privileged: false, ..wanted }).await,
            "system_u:system_r:container_t:s0:c1,c2"
        );
        // A policy without it.
        fs::remove_file(dir.path().join("fs/context")).unwrap();
        assert_eq!(selinux.of_process(parts(), wanted).await.unwrap(), None);
    }

    /// A kernel whose SELinux is off keeps these attributes for who may set any, as root, who runs all of these, may.
    #[tokio::test]
    async fn a_shared_directory_is_labelled_once_with_all_that_is_in_it() {
        const SHARED: &str = "system_u:object_r:container_ro_file_t:s0";
        let (dir, selinux) = node(&format!("ro_file = \"{SHARED}\"\n"));
        let tree = dir.path().join("layers");
        fs::create_dir_all(tree.join("1/etc")).unwrap();
        fs::write(tree.join("1/etc/file"), "").unwrap();
        let places = ["", "1", "1/etc", "1/etc/file"].map(|place| tree.join(place));
        for place in &places {
            label(place, "system_u:object_r:var_lib_t:s0").unwrap();
        }
        // A kernel that knows every label.
        let ask = async || {
            fs::write(dir.path().join("fs/context"), "").unwrap();
            selinux.share(&tree).await.unwrap();
        };
        ask().await;
        assert!(places.iter().all(|place| current(place).unwrap() == SHARED));
        // Whoever made it meanwhile: it is the type that counts, and nothing in it is looked at again.
        label(&tree, "staff_u:object_r:container_ro_file_t:s0").unwrap();
        label(&places[3], "system_u:object_r:other_t:s0").unwrap();
        ask().await;
        assert_eq!(current(&places[3]).unwrap(), "system_u:object_r:other_t:s0");
    }

    #[tokio::test]
    async fn a_policy_without_containers_has_no_labels() {
        for (text, reason) in [("", "it has no process"), ("process = \"a:b:c\"\n", "it has no file")] {
            let (_dir, selinux) = node(text);
            let Err(Error::Policy { source, .. }) = selinux.labels(Wanted::default()).await else {
                panic!("{text}")
            };
            assert_eq!(source.to_string(), reason);
        }
        let (_dir, mut selinux) = node(CONTEXTS);
        selinux.policies = "/no/such/directory".into();
        assert!(matches!(selinux.labels(Wanted::default()).await, Err(Error::Policy { .. })));
    }

    #[tokio::test]
    async fn a_label_that_the_kernel_does_not_know_is_an_error() {
        let (_dir, selinux) = node(CONTEXTS);
        // There is no such file, as there is no such label.
        let wanted = Wanted { level: "s0:c5", ..Wanted::default() };
        let error = selinux.labels(wanted).await.unwrap_err();
        assert!(error.to_string().contains("system_u:system_r:container_t:s0:c5"), "{error}");
    }

    #[test]
    fn a_line_has_a_name_and_a_quoted_value() {
        assert_eq!(value("process = \"a:b:c:s0\"", "process"), Some("a:b:c:s0"));
        assert_eq!(value("processes = \"a\"", "process"), None);
        assert_eq!(value("# process", "process"), None);
    }
}
