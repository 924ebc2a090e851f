//! HTTP clients: one for each way of connecting, made when first needed.
//!
//! rustls trusts the system's roots and, for a host with a directory in `certs_dir` or settings in a `hosts.toml`,
//! what those hold; follows containers-certs.d(5). Redirects are never followed here: `client` does, because it must
//! decide what goes along. Proxies are those of the environment; hosts on loopback are reached without.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, ClientBuilder, Identity};

use super::guard::{GuardedResolver, is_loopback};
use super::place::Material;
use super::stamp::{Stamp, stamp};
use crate::Error;

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
    /// Certificates, besides those in `certs_dir`.
    pub(crate) tls: Arc<Material>,
    /// How long to wait for a connection, if not as long as usual.
    pub(crate) connect: Option<Duration>,
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
    connect: Duration,
    /// Guards a map; nothing is awaited under it.
    made: Mutex<HashMap<Key, (Stamp, Client)>>,
}

/// What tells one client from another.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    security: Security,
    origin: Origin,
    loopback: bool,
    material: Material,
    connect: Duration,
}

impl Clients {
    /// `connect` is how long a connection may take.
    pub(crate) fn new(certs_dir: &Path, connect: Duration) -> Self {
        Self { certs_dir: certs_dir.to_owned(), connect, made: Mutex::default() }
    }

    /// Says whether the host has certificates of its own, and so speaks TLS.
    pub(crate) fn has_certificates(&self, host: &str) -> bool {
        !Material::of_directory(&self.directory(host)).is_empty()
    }

    /// Returns the client for a way.
    pub(crate) fn client(&self, way: &Way) -> Result<Client, Error> {
        let material = self.material(way);
        let stamp = stamp(material.files().cloned());
        let key = Key {
            security: way.security,
            origin: way.origin,
            loopback: is_loopback(&way.host),
            material,
            connect: way.connect.unwrap_or(self.connect),
        };
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        match made.get(&key) {
            Some((known, client)) if *known == stamp => return Ok(client.clone()),
            _ => {}
        }
        let client = build(&key).map_err(|reason| Error::Tls { host: way.host.clone(), reason })?;
        made.insert(key, (stamp, client.clone()));
        Ok(client)
    }

    /// Returns the files that the certificates for a way are in.
    pub(crate) fn material(&self, way: &Way) -> Material {
        match way.security {
            Security::Plain => Material::default(),
            Security::Verified | Security::Unverified => {
                Material::of_directory(&self.directory(&way.host)).with(&way.tls)
            }
        }
    }

    /// Returns where the certificates of a host are, or would be.
    pub(crate) fn directory(&self, host: &str) -> PathBuf {
        self.certs_dir.join(host)
    }
}

fn build(key: &Key) -> Result<Client, String> {
    let mut builder = Client::builder()
        .redirect(Policy::none())
        .connect_timeout(key.connect)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .user_agent(AGENT);
    if key.loopback {
        builder = builder.no_proxy();
    }
    if key.origin == Origin::Foreign {
        builder = builder.dns_resolver(Arc::new(GuardedResolver));
    }
    let builder = match key.security {
        // Without this reqwest would read the system's roots for nothing.
        Security::Plain => builder.tls_certs_only([]),
        Security::Verified => certificates(builder, &key.material)?,
        Security::Unverified => certificates(builder, &key.material)?.tls_danger_accept_invalid_certs(true),
    };
    builder.build().map_err(|e| {
        let reason = super::failure::chain(&e);
        format!("{reason} (are there system roots? Debian has them in ca-certificates)")
    })
}

fn certificates(mut builder: ClientBuilder, material: &Material) -> Result<ClientBuilder, String> {
    let read = |path: &Path| std::fs::read(path).map_err(|e| format!("read {}: {e}", path.display()));
    for path in &material.roots {
        let roots = Certificate::from_pem_bundle(&read(path)?)
            .map_err(|_| format!("{} holds no PEM certificates", path.display()))?;
        builder = builder.tls_certs_merge(roots);
    }
    // TLS shows one certificate; the first is as good as any.
    if let Some((certificate, key)) = material.pairs.first() {
        let mut pem = read(certificate)?;
        if key != certificate {
            pem.push(b'\n');
            pem.extend(read(key)?);
        }
        let identity = Identity::from_pem(&pem)
            .map_err(|_| format!("{} and {} are no PEM pair", certificate.display(), key.display()))?;
        builder = builder.identity(identity);
    }
    Ok(builder)
}
