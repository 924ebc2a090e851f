//! Where the content of a name is asked for, as the configuration says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::HeaderMap;

use crate::Reference;

/// One host that may have the content of a reference.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The name there; its registry is the host to connect to.
    pub(crate) name: Reference,
    /// Whether plain HTTP and unknown certificates are allowed.
    pub(crate) insecure: bool,
    /// A mirror, or the registry itself.
    pub(crate) role: Role,
    /// How a `hosts.toml` says to connect.
    pub(crate) endpoint: Option<Arc<Endpoint>>,
    /// The registry that the reference names.
    pub(crate) registry: String,
    /// Which entry of which file makes it a place.
    pub(crate) why: String,
}

/// Why a place is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It holds copies.
    Mirror,
    /// It is the registry that the name means.
    Primary,
}

/// How to connect to a host, and what it is good for.
#[derive(Clone, Debug, Default)]
pub(crate) struct Endpoint {
    /// None: what is usual for the host.
    pub(crate) scheme: Option<Scheme>,
    /// `HOST[:PORT]`; empty: the registry that the name means.
    pub(crate) host: String,
    /// The root of the API on that host, without a slash at its end: `/v2`.
    pub(crate) path: String,
    /// Whether it may say what a tag means.
    pub(crate) resolves: bool,
    /// Whether it has manifests and blobs.
    pub(crate) pulls: bool,
    /// Whether any certificate will do.
    pub(crate) skip_verify: bool,
    /// Certificates, besides those that are there for every host of that name.
    pub(crate) tls: Arc<Material>,
    /// What is sent along to this host alone. Values are marked as secret.
    pub(crate) headers: HeaderMap,
    /// How long to wait for a connection.
    pub(crate) connect: Option<Duration>,
}

/// A scheme of the web.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// Without TLS, unless there are settings for TLS: then TLS is tried first.
    Http,
    /// With TLS.
    Https,
}

/// Files with certificates.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Material {
    /// Authorities that are trusted besides the system's.
    pub(crate) roots: Vec<PathBuf>,
    /// This client's certificates, each with the file of its key.
    pub(crate) pairs: Vec<(PathBuf, PathBuf)>,
}

impl Place {
    /// The registry itself, with nothing special about it.
    pub(crate) fn plain(reference: &Reference, name: Reference, why: String) -> Self {
        let registry = reference.registry().to_owned();
        Self { name, insecure: false, role: Role::Primary, endpoint: None, registry, why }
    }
}

impl Endpoint {
    /// Says whether anything is set that only matters with TLS.
    pub(crate) fn has_tls_settings(&self) -> bool {
        self.skip_verify || *self.tls != Material::default()
    }
}

impl Material {
    /// Lists the files of a directory in Docker's form: authorities in `*.crt`, certificates in `*.cert` with their
    /// keys in `*.key`. One that does not exist has none.
    pub(crate) fn of_directory(directory: &std::path::Path) -> Self {
        let Ok(entries) = std::fs::read_dir(directory) else { return Self::default() };
        let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        let mut material = Self::default();
        for file in files {
            match file.extension().and_then(|end| end.to_str()) {
                Some("crt") => material.roots.push(file),
                Some("cert") => material.pairs.push((file.clone(), file.with_extension("key"))),
                _ => {}
            }
        }
        material
    }

    /// Adds the files of another.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        self.roots.extend(other.roots.iter().cloned());
        self.pairs.extend(other.pairs.iter().cloned());
        self
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.roots.is_empty() && self.pairs.is_empty()
    }

    /// Returns all files.
    pub(crate) fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let pairs = self.pairs.iter().flat_map(|(certificate, key)| [certificate, key]);
        self.roots.iter().chain(pairs)
    }
}
