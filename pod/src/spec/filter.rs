//! seccomp profiles: which one a container gets, compiled once each (design decision 14).

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Component, Path};
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::{Capability, LinuxSeccomp, Spec};
use runtime::seccomp::{self, Program};

use crate::config::Profile;
use crate::error::{Error, Result};

const FIELD: &str = "linux.security_context.seccomp";

/// A profile of that size is no profile.
const MAX_PROFILE_BYTES: u64 = 4 << 20;

/// The compiled programs, by the profile's JSON.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    programs: Mutex<HashMap<String, Arc<Program>>>,
}

impl Filters {
    /// The program of a spec; none where it has no profile.
    pub(crate) fn program(&self, spec: &Spec) -> Result<Option<Arc<Program>>> {
        let Some(profile) = spec.linux().as_ref().and_then(|linux| linux.seccomp().as_ref()) else {
            return Ok(None);
        };
        let key = serde_json::to_string(profile).map_err(|error| Error::invalid(FIELD, error.to_string()))?;
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(program) = programs.get(&key) {
            return Ok(Some(program.clone()));
        }
        let program =
            seccomp::compile(profile).map_err(|error| Error::invalid(FIELD, crate::error::chain(&error)))?;
        let program = Arc::new(program);
        programs.insert(key, program.clone());
        Ok(Some(program))
    }
}

/// The profile that a container asks for, in the OCI's form; privileged containers have none.
pub(crate) fn profile(
    wanted: &Profile,
    capabilities: &[Capability],
    directory: &Path,
) -> Result<Option<LinuxSeccomp>> {
    match wanted {
        Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => Ok(Some(seccomp::default_profile(capabilities))),
        Profile::Localhost(name) => {
            let path = locate(name, directory)?;
            let json =
                read(&path).map_err(|error| Error::invalid(FIELD, format!("profile {name:?}: {error}")))?;
            let profile = seccomp::parse(&json, capabilities).map_err(|error| {
                Error::invalid(FIELD, format!("profile {name:?}: {}", crate::error::chain(&error)))
            })?;
            Ok(Some(profile))
        }
    }
}

/// Absolute as the kubelet sends it, or relative to the kubelet's directory.
fn locate(name: &str, directory: &Path) -> Result<std::path::PathBuf> {
    let path = Path::new(name.strip_prefix("localhost/").unwrap_or(name));
    if path.as_os_str().is_empty() || path.components().any(|part| part == Component::ParentDir) {
        return Err(Error::invalid(FIELD, format!("{name:?} does not name a profile: give its file")));
    }
    Ok(directory.join(path))
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut json = Vec::new();
    let file = File::open(path)?;
    if !file.metadata()?.is_file() {
        return Err(std::io::Error::other("not a regular file"));
    }
    file.take(MAX_PROFILE_BYTES).read_to_end(&mut json)?;
    Ok(json)
}
