//! Registries: which hosts hold an image, and how they are asked. Follows the OCI distribution spec.
//!
//! What oci-client serves here are its manifest and index types and its error envelope. Its `Client` does no
//! requests, because it cannot be told what they must hold to: it reads manifests, token answers and error bodies
//! without a limit and keeps the `Content-Type` to itself, sends credentials to whatever realm a challenge names,
//! follows redirects by its own rules (ten of them, from https to http too), renews no token in mid-pull, knows one
//! TLS configuration for all hosts and falls back to the default one when that is wrong, and has no hook for any of
//! it. So requests are made with reqwest (`client`, `exchange`, `auth`, `tls`); see `reference` for why its
//! `Reference` is not used either.

mod auth;
mod authfile;
mod body;
mod client;
mod conf;
mod exchange;
mod failure;
mod guard;
pub(crate) mod manifest;
pub(crate) mod platform;
mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use client::{Host, Wanted};
pub(crate) use failure::{Again, Failure};

use crate::credentials::{Login, registry_of};
use crate::{Config, Credentials, Error, Reference};
use conf::{Conf, Place, Role};
use tls::Clients;

/// How long to be patient.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// For the head of an answer.
    pub(crate) answer: Duration,
    /// For [`Patience::stall_bytes`] of a body, counting only the time spent waiting for it.
    pub(crate) stall: Duration,
    /// See [`Patience::stall`].
    pub(crate) stall_bytes: u64,
    /// Before each further attempt; their number is the number of further attempts.
    pub(crate) pauses: Vec<Duration>,
    /// The longest pause that a host may ask for.
    pub(crate) longest_pause: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            stall_bytes: 64 << 10,
            pauses: [200, 1000, 3000].map(Duration::from_millis).to_vec(),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// The registries that the configuration knows.
#[derive(Debug)]
pub(crate) struct Registries {
    conf: Conf,
    auth_file: Option<PathBuf>,
    clients: Arc<Clients>,
    patience: Arc<Patience>,
}

impl Registries {
    /// Reads the configuration.
    pub(crate) fn open(config: &Config, patience: Patience) -> Result<Self, Error> {
        Ok(Self {
            conf: Conf::open(&config.registries_conf)?,
            auth_file: config.auth_file.clone(),
            clients: Arc::new(Clients::new(&config.certs_dir)),
            patience: Arc::new(patience),
        })
    }

    /// Returns the full names that `text` may mean, in the order to try them.
    pub(crate) fn names(&self, text: &str) -> Result<Vec<Reference>, Error> {
        self.conf.current().names(text)
    }

    /// Returns the hosts to ask for `reference`, in order, each with the credentials that are for it.
    pub(crate) fn hosts(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<Arc<Host>>, Error> {
        let places = self.conf.current().places(reference)?;
        let host = |place: Place| {
            let access = self.access(reference, &place, credentials)?;
            Ok(Arc::new(Host::new(place, access, &self.clients, &self.patience)))
        };
        places.into_iter().map(host).collect()
    }

    /// Returns how long to wait before each further attempt.
    pub(crate) fn patience(&self) -> &Patience {
        &self.patience
    }

    /// Decides what a place is told about who asks.
    ///
    /// The request's credentials are for the registry that the image names. They go there, or to the location that
    /// `registries.conf` gives for it, and not to mirrors, unless their `server_address` names the very host. One
    /// that names another host keeps them from going anywhere else.
    fn access(
        &self,
        reference: &Reference,
        place: &Place,
        credentials: Option<&Credentials>,
    ) -> Result<Access, Error> {
        let registry = place.name.registry();
        let mut withheld = None;
        if let Some(credentials) = credentials {
            let login = credentials.login()?;
            let applies = match credentials.registry() {
                Some(named) => named == registry_of(registry),
                None => place.role == Role::Primary,
            };
            if applies && login != Login::Anonymous {
                let note = format!("the {} of the request", login.describe());
                return Ok(Access { login, note });
            }
            if login != Login::Anonymous {
                let owner = credentials.registry().unwrap_or_else(|| reference.registry().to_owned());
                withheld =
                    Some(format!("the request's credentials are for {owner} and are not sent to {registry}"));
            }
        }
        if let Some(path) = &self.auth_file {
            let login = authfile::find(path, &place.name)?;
            if login != Login::Anonymous {
                let note = format!("the {} in {}", login.describe(), path.display());
                return Ok(Access { login, note });
            }
        }
        let note = withheld.unwrap_or_else(|| format!("there are none for {registry}"));
        Ok(Access { login: Login::Anonymous, note })
    }
}

/// Who asks, and how we know.
#[derive(Debug)]
struct Access {
    login: Login,
    /// For errors: which credentials these are, or why there are none.
    note: String,
}

#[cfg(test)]
pub(crate) mod tests;
