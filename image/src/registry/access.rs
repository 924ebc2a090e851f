//! Who asks: which credentials go to which host.
//!
//! The credentials of a request are for the registry that the image names. They go there, or to the location that
//! the configuration gives for it, and not to mirrors, unless their `server_address` names the very host. One that
//! names another host keeps them from going anywhere else. Where they do not go, the node's own are asked for.

use std::time::Duration;

use super::Registries;
use super::authfile::{self, Stored};
use super::conf::AUTH_FILE_HELPER;
use super::credential_helper::Helper;
use super::place::{Place, Role};
use crate::credentials::{Login, registry_of};
use crate::{Credentials, Error, Reference};

/// Who asks, and how we know.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) login: Login,
    /// For errors: which credentials these are, or why there are none.
    pub(super) note: String,
}

/// Who asks, before anyone is asked for it.
#[derive(Debug)]
pub(super) enum Source {
    /// These.
    Known(Access),
    /// What the first of these programs has that has something, else this.
    Helpers(Vec<Helper>, Access),
}

impl Source {
    fn new(helpers: Vec<Helper>, otherwise: Access) -> Self {
        if helpers.is_empty() { Self::Known(otherwise) } else { Self::Helpers(helpers, otherwise) }
    }

    /// Asks the programs, if need be. A helper that fails is no reason not to try: a public image needs none.
    pub(super) async fn known(self, limit: Duration) -> Access {
        let (helpers, fallback) = match self {
            Self::Known(access) => return access,
            Self::Helpers(helpers, fallback) => (helpers, fallback),
        };
        let mut failures = String::new();
        for helper in helpers {
            match helper.ask(limit).await {
                Ok(Login::Anonymous) => {}
                Ok(login) => {
                    let note = format!("the {} of {helper:?}", login.describe());
                    return Access { login, note };
                }
                Err(failure) => failures.push_str(&format!("; {failure}")),
            }
        }
        Access { note: format!("{}{failures}", fallback.note), ..fallback }
    }
}

impl Registries {
    /// Decides what a place is told about who asks.
    pub(super) fn access(
        &self,
        reference: &Reference,
        place: &Place,
        credentials: Option<&Credentials>,
    ) -> Result<Source, Error> {
        let registry = place.name.registry();
        let mut note = format!("there are none for {registry}");
        if let Some(credentials) = credentials {
            let login = credentials.login()?;
            let applies = match credentials.registry() {
                Some(named) => named == registry_of(registry),
                None => place.role == Role::Primary,
            };
            if applies && login != Login::Anonymous {
                let note = format!("the {} of the request", login.describe());
                return Ok(Source::Known(Access { login, note }));
            }
            if login != Login::Anonymous {
                let owner = credentials.registry().unwrap_or_else(|| reference.registry().to_owned());
                note = format!("the request's credentials are for {owner} and are not sent to {registry}");
            }
        }
        let mut helpers = Vec::new();
        for name in self.conf.current().helpers() {
            let stored = match &self.auth_file {
                Some(path) if name == AUTH_FILE_HELPER => authfile::find(path, &place.name)?,
                None if name == AUTH_FILE_HELPER => Stored::Nothing,
                _ => {
                    let helper = Helper::new(name, &place.name, "credential-helpers of registries.conf");
                    Stored::Helper(helper.map_err(|reason| Error::Config { path: self.conf.path(), reason })?)
                }
            };
            match stored {
                Stored::Nothing => {}
                Stored::Helper(helper) => helpers.push(helper),
                Stored::Login(login, place) => {
                    let note = format!("the {} in {place}", login.describe());
                    return Ok(Source::new(helpers, Access { login, note }));
                }
            }
        }
        Ok(Source::new(helpers, Access { login: Login::Anonymous, note }))
    }
}
