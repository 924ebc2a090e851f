//! `hosts.toml` directories: which hosts serve a registry, as containerd reads them.
//!
//! The directory of a registry is `HOST_PORT_`, `HOST:PORT` or `_default`, the first that exists. One without a
//! `hosts.toml` may hold certificates in Docker's form. A file that cannot be used changes nothing: what was read
//! before it goes on, and where nothing was, the registry cannot be used.

mod file;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::place::{Endpoint, Material, Place, Role};
use super::stamp::{Stamp, stamp};
use crate::credentials::registry_of;
use crate::{Error, Reference};

const DEFAULT: &str = "_default";
const FILE: &str = "hosts.toml";

/// The directories, read again when they change.
#[derive(Debug)]
pub(crate) struct Hosts {
    roots: Vec<PathBuf>,
    /// What was read, by directory. Guards a map; nothing is awaited under it.
    read: Mutex<HashMap<PathBuf, (Stamp, Endpoints)>>,
}

/// The hosts of one registry, in the order to try them; the last is the registry itself.
type Endpoints = Arc<Vec<(Arc<Endpoint>, String)>>;

impl Hosts {
    /// Takes the directory, or several with colons between them.
    pub(crate) fn new(dir: Option<&Path>) -> Self {
        let roots = dir.into_iter().flat_map(std::env::split_paths).collect();
        Self { roots, read: Mutex::default() }
    }

    /// Returns where to ask for `reference`, in order; nothing if no directory is about its registry.
    pub(crate) fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let registry = reference.registry();
        let Some(directory) = self.directory(registry) else { return Ok(Vec::new()) };
        let endpoints = self.current(&directory)?;
        let place = |(endpoint, why): &(Arc<Endpoint>, String)| {
            let host =
                if endpoint.host.is_empty() { registry.to_owned() } else { registry_of(&endpoint.host) };
            let role = if host == registry { Role::Primary } else { Role::Mirror };
            let name = reference.at(host);
            let place = Place::plain(reference, name, why.clone());
            Place { role, endpoint: Some(Arc::clone(endpoint)), ..place }
        };
        Ok(endpoints.iter().map(place).collect())
    }

    fn directory(&self, registry: &str) -> Option<PathBuf> {
        let with_port = registry.rsplit_once(':').map(|(host, port)| format!("{host}_{port}_"));
        let names: Vec<_> = with_port.into_iter().chain([registry.to_owned(), DEFAULT.to_owned()]).collect();
        let paths = self.roots.iter().flat_map(|root| names.iter().map(|name| root.join(name)));
        paths.into_iter().find(|path| path.is_dir())
    }

    fn current(&self, directory: &Path) -> Result<Endpoints, Error> {
        let certificates = Material::of_directory(directory);
        let stamp = stamp(std::iter::once(directory.join(FILE)).chain(certificates.files().cloned()));
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match read.get(directory) {
            Some((known, endpoints)) if *known == stamp => return Ok(Arc::clone(endpoints)),
            before => before.map(|(_, endpoints)| Arc::clone(endpoints)),
        };
        let endpoints = match (load(directory, certificates), before) {
            (Ok(endpoints), _) => Arc::new(endpoints),
            (Err(error), Some(before)) => {
                tracing::warn!(%error, "a registry keeps its old hosts");
                before
            }
            (Err(error), None) => return Err(error),
        };
        read.insert(directory.to_owned(), (stamp, Arc::clone(&endpoints)));
        Ok(endpoints)
    }
}

/// Reads the text of one file.
pub(crate) fn parse(text: &str, directory: &Path) -> Result<Vec<Endpoint>, String> {
    Ok(file::parse(text, directory)?.into_iter().map(|(endpoint, _)| endpoint).collect())
}

fn load(directory: &Path, certificates: Material) -> Result<Vec<(Arc<Endpoint>, String)>, Error> {
    let path = directory.join(FILE);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(Error::store("read", path, e)),
    };
    if text.is_empty() {
        let endpoint = Endpoint { tls: Arc::new(certificates), ..Endpoint::usual() };
        return Ok(vec![(Arc::new(endpoint), format!("certificates in {}", directory.display()))]);
    }
    let parsed =
        file::parse(&text, directory).map_err(|reason| Error::Config { path: path.clone(), reason })?;
    let source = |(endpoint, entry)| (Arc::new(endpoint), format!("{entry} in {}", path.display()));
    Ok(parsed.into_iter().map(source).collect())
}

impl Endpoint {
    /// The registry as its name says.
    pub(super) fn usual() -> Self {
        Self { path: "/v2".to_owned(), resolves: true, pulls: true, ..Self::default() }
    }
}

#[cfg(test)]
mod tests;
