//! HTTP clients: one for each way of connecting, made when first needed.
//!
//! rustls trusts the system's roots and, for a host with a directory in `certs_dir`, what that directory holds;
//! follows containers-certs.d(5). Redirects are never followed here: `client` does, because it must decide what
//! goes along. Proxies are those of the environment; hosts on loopback are reached without.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use super::guard::{GuardedResolver, is_loopback};
use crate::Error;

const CONNECT: Duration = Duration::from_secs(10);
/// Connections that are idle keep memory here and a place there; a pull does not pause.
const IDLE: Duration = Duration::from_secs(5);
const AGENT: &str = concat!("corten/", env!("CARGO_PKG_VERSION"));

/// How to connect to a host.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Way {
    /// `HOST[:PORT]`.
    pub(crate) host: String,
    /// What protects the connection.
    pub(crate) security: Security,
    /// Whether somebody whom we trust named the host.
    pub(crate) origin: Origin,
}

/// What protects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// Nothing: plain HTTP.
    Plain,
    /// TLS with a certificate that is verified.
    Verified,
    /// TLS with whatever certificate.
    Unverified,
}

/// Who named a host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Origin {
    /// The user or the administrator.
    Named,
    /// A registry, by a redirect or as its token server.
    Foreign,
}

/// The clients that were made.
#[derive(Debug)]
pub(crate) struct Clients {
    certs_dir: PathBuf,
    made: Mutex<HashMap<Key, (Stamp, Client)>>,
}

/// What tells one client from another.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    security: Security,
    origin: Origin,
    loopback: bool,
    certs: Option<PathBuf>,
}

/// The files of a certificate directory, as they were read.
type Stamp = Vec<(PathBuf, Option<SystemTime>)>;

impl Clients {
    pub(crate) fn new(certs_dir: &Path) -> Self {
        Self { certs_dir: certs_dir.to_owned(), made: Mutex::default() }
    }

    /// Says whether the host has certificates of its own, and so speaks TLS.
    pub(crate) fn has_certificates(&self, host: &str) -> bool {
        !self.files(host).is_empty()
    }

    /// Returns the client for a way.
    pub(crate) fn client(&self, way: &Way) -> Result<Client, Error> {
        let files = match way.security {
            Security::Plain => Vec::new(),
            Security::Verified | Security::Unverified => self.files(&way.host),
        };
        let key = Key {
            security: way.security,
            origin: way.origin,
            loopback: is_loopback(&way.host),
            certs: (!files.is_empty()).then(|| self.directory(&way.host)),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get(&key) {
            Some((stamp, client)) if *stamp == files => return Ok(client.clone()),
            _ => {}
        }
        let client = build(way, key.loopback, &files)
            .map_err(|reason| Error::Tls { host: way.host.clone(), reason })?;
        made.insert(key, (files, client.clone()));
        Ok(client)
    }

    /// Returns where the certificates of a host are, or would be.
    pub(crate) fn directory(&self, host: &str) -> PathBuf {
        self.certs_dir.join(host)
    }

    fn files(&self, host: &str) -> Stamp {
        // Most hosts have no directory.
        let Ok(entries) = std::fs::read_dir(self.directory(host)) else { return Vec::new() };
        let mut files: Vec<_> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| {
                path.extension()
                    .and_then(|end| end.to_str())
                    .is_some_and(|end| matches!(end, "crt" | "cert" | "key"))
            })
            .map(|path| {
                let changed = std::fs::metadata(&path).and_then(|data| data.modified()).ok();
                (path, changed)
            })
            .collect();
        files.sort();
        files
    }
}

fn build(way: &Way, loopback: bool, files: &Stamp) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(CONNECT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .user_agent(AGENT);
    if loopback {
        builder = builder.no_proxy();
    }
    if way.origin == Origin::Foreign {
        builder = builder.dns_resolver(Arc::new(GuardedResolver));
    }
    let builder = match way.security {
        // Without this reqwest would read the system's roots for nothing.
        Security::Plain => builder.tls_certs_only([]),
        Security::Verified => certificates(builder, files)?,
        Security::Unverified => certificates(builder, files)?.tls_danger_accept_invalid_certs(true),
    };
    builder.build().map_err(|e| {
        let reason = super::failure::chain(&e);
        format!("{reason} (are there system roots? Debian has them in ca-certificates)")
    })
}

fn certificates(mut builder: ClientBuilder, files: &Stamp) -> Result<ClientBuilder, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()));
    for (path, _) in files {
        match path.extension().and_then(|end| end.to_str()) {
            Some("crt") => {
                let roots = Certificate::from_pem_bundle(&read(path)?)
                    .map_err(|_| format!("{} holds no PEM certificates", path.display()))?;
                builder = builder.tls_certs_merge(roots);
            }
            Some("cert") => {
                let key = path.with_extension("key");
                let mut pem = read(path)?;
                pem.push(b'\n');
                pem.extend(read(&key)?);
                let identity = Identity::from_pem(&pem)
                    .map_err(|_| format!("{} and {} are no PEM pair", path.display(), key.display()))?;
                builder = builder.identity(identity);
            }
            _ => {}
        }
    }
    Ok(builder)
}
