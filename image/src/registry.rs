//! Registries: which hosts hold an image, and how they are asked. Follows the OCI distribution spec.
//!
//! What oci-client serves here are its manifest and index types and its error envelope. Its `Client` does no
//! requests, because it cannot be told what they must hold to: it reads manifests, token answers and error bodies
//! without a limit and keeps the `Content-Type` to itself, sends credentials to whatever realm a challenge names,
//! follows redirects by its own rules (ten of them, from https to http too), renews no token in mid-pull, knows one
//! TLS configuration for all hosts and falls back to the default one when that is wrong, and has no hook for any of
//! it. So requests are made with reqwest (`client`, `exchange`, `auth`, `tls`); see `reference` for why its
//! `Reference` is not used either.

mod access;
mod auth;
mod authfile;
mod body;
mod client;
mod conf;
mod credential_helper;
mod exchange;
pub(crate) mod explain;
mod failure;
pub(crate) mod fuzzing;
mod guard;
mod hosts;
pub(crate) mod manifest;
mod place;
mod refusal;
mod signatures;
mod stamp;
mod tls;
mod tokens;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use client::{Host, Wanted};
pub(crate) use failure::{Again, Failure};
pub(crate) use signatures::Signature;

use crate::{Config, Credentials, Error, Reference};
use access::Access;
use conf::Conf;
use hosts::Hosts;
use place::Place;
use tls::Clients;
use tokens::Tokens;

/// How long to be patient.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// For a connection.
    pub(crate) connect: Duration,
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
    /// For the answer of a credential helper.
    pub(crate) helper: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(60),
            stall: Duration::from_secs(60),
            stall_bytes: 64 << 10,
            pauses: [200, 1000, 3000].map(Duration::from_millis).to_vec(),
            longest_pause: Duration::from_secs(30),
            helper: Duration::from_secs(20),
        }
    }
}

impl Patience {
    /// As the configuration says.
    pub(crate) fn of(config: &Config) -> Self {
        Self { stall: Duration::from_secs(config.stall_timeout_seconds.max(1)), ..Self::default() }
    }
}

/// The registries that the configuration knows.
#[derive(Debug)]
pub(crate) struct Registries {
    conf: Conf,
    hosts: Hosts,
    auth_file: Option<PathBuf>,
    means: Arc<Means>,
}

/// What all hosts share.
#[derive(Debug)]
struct Means {
    clients: Clients,
    patience: Arc<Patience>,
    tokens: Tokens,
}

impl Registries {
    /// Reads the configuration.
    pub(crate) fn open(config: &Config, patience: Patience) -> Result<Self, Error> {
        let clients = Clients::new(&config.certs_dir, patience.connect);
        Ok(Self {
            conf: Conf::open(&config.registries_conf)?,
            hosts: Hosts::new(config.hosts_dir.as_deref()),
            auth_file: config.auth_file.clone(),
            means: Arc::new(Means { clients, patience: Arc::new(patience), tokens: Tokens::default() }),
        })
    }

    /// Returns the full names that `text` may mean, in the order to try them.
    pub(crate) fn names(&self, text: &str) -> Result<Vec<Reference>, Error> {
        self.conf.current().names(text)
    }

    /// Returns the hosts to ask for `reference`, in order, each with the credentials that are for it.
    pub(crate) async fn hosts(
        &self,
        reference: &Reference,
        credentials: Option<&Credentials>,
    ) -> Result<Vec<Arc<Host>>, Error> {
        let places = self.places(reference)?;
        let mut hosts = Vec::with_capacity(places.len());
        for place in places {
            let access = self.access(reference, &place, credentials)?.known(self.means.patience.helper).await;
            hosts.push(Arc::new(Host::new(place, access, &self.means)));
        }
        Ok(hosts)
    }

    /// Returns how long to wait before each further attempt.
    pub(crate) fn patience(&self) -> &Patience {
        &self.means.patience
    }

    /// Decides where to ask: by a table of `registries.conf`, else by a `hosts.toml`, else as the name says.
    fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let mut places = self.conf.current().places(reference)?;
        if places.is_empty() {
            places = self.hosts.places(reference)?;
        }
        if places.is_empty() {
            let why = "no file says anything else".to_owned();
            places.push(Place::plain(reference, reference.clone(), why));
        }
        Ok(places)
    }
}

#[cfg(test)]
pub(crate) mod tests;
