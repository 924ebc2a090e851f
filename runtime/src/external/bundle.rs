//! A bundle: the directory with a container's `config.json` and the place of its root file system.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

use oci_spec::runtime::Spec;

use super::Error;
use super::steps::Target;
use crate::{mount, plan};

/// Below a pod's directory.
const BUNDLES: &str = "bundles";
const STATE: &str = "runtime";

/// The bundle of a container, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bundle {
    pod: PathBuf,
    id: String,
}

impl Bundle {
    /// The bundle of this container below the pod's state directory.
    pub fn new(pod: impl Into<PathBuf>, id: impl Into<String>) -> Self {
        Self { pod: pod.into(), id: id.into() }
    }

    /// The container's id.
    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// The pod's directory.
    pub(super) fn pod(&self) -> &Path {
        &self.pod
    }

    /// Where the pod's runtime keeps its state.
    pub(super) fn state(&self) -> PathBuf {
        self.pod.join(STATE)
    }

    pub(super) fn exists(&self) -> bool {
        self.dir().symlink_metadata().is_ok()
    }

    /// Writes it, for root alone; where a pod's own root is given, that may pass through, as far as it comes here.
    pub(super) fn write(&self, spec: &Spec, root: Option<u32>) -> Result<(), Error> {
        for dir in [self.state(), self.rootfs()] {
            fs::DirBuilder::new().recursive(true).mode(0o700).create(&dir).map_err(failed("make", &dir))?;
        }
        if root.is_some() {
            let dir = self.dir();
            let open = || {
                std::os::unix::fs::lchown(&dir, None, root)?;
                fs::set_permissions(&dir, fs::Permissions::from_mode(0o710))
            };
            open().map_err(failed("set mode and group of", &dir))?;
        }
        let path = self.dir().join("config.json");
        let write = || fs::write(&path, serde_json::to_vec(spec)?);
        write().map_err(failed("write", &path))
    }

    /// Puts a program into its root file system, which is nothing but this directory.
    pub(super) fn place(&self, name: &str, program: &[u8]) -> Result<(), Error> {
        let path = self.rootfs().join(name);
        let place = || {
            fs::write(&path, program)?;
            fs::set_permissions(&path, fs::Permissions::from_mode(0o555))?;
            // Who executes it may be anybody.
            fs::set_permissions(self.rootfs(), fs::Permissions::from_mode(0o755))
        };
        place().map_err(failed("write", &path))
    }

    /// Unmounts the root file system and removes all of it. Fine when nothing is there.
    ///
    /// # Errors
    /// What could not be taken down.
    pub fn remove(&self) -> Result<(), Error> {
        let rootfs = self.rootfs();
        mount::detach(&rootfs).map_err(failed("unmount", &rootfs))?;
        // What a runtime that refused has kept.
        let state = self.state().join(&self.id);
        remove_all(&state)?;
        remove_all(&self.dir())
    }

    /// Where the root file system is.
    pub(super) fn rootfs(&self) -> PathBuf {
        self.dir().join("rootfs")
    }

    pub(super) fn target(&self, program: &Path) -> Result<Target, plan::Error> {
        Ok(Target {
            program: plan::host_path("runtime", program)?,
            state: plan::host_path("state", &self.state())?,
            bundle: plan::host_path("bundle", &self.dir())?,
            id: plan::string("id", &self.id)?,
        })
    }

    fn dir(&self) -> PathBuf {
        self.pod.join(BUNDLES).join(&self.id)
    }
}

/// Unmounts what bundles have mounted below a pod's directory, before that is deleted; fine when there are none.
///
/// # Errors
/// When something stays mounted.
pub fn release_all(pod: &Path) -> io::Result<()> {
    let entries = match fs::read_dir(pod.join(BUNDLES)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        entries => entries?,
    };
    for entry in entries {
        mount::detach(&entry?.path().join("rootfs"))?;
    }
    Ok(())
}

fn remove_all(path: &Path) -> Result<(), Error> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result.map_err(failed("remove", path)),
    }
}

fn failed(operation: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |source| Error::Bundle { operation, path: path.to_owned(), source }
}
