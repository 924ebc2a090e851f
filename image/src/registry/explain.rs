//! What a pull of a name would ask, of whom, with which credentials, and why. Nobody is asked anything.

use crate::registry::access::Source;
use crate::registry::tls::Security;
use crate::registry::{Host, Patience, Registries};
use crate::trust::Trust;
use crate::{Config, Credentials, Error};

/// What a pull of a name would do.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// The full names that are tried, in order.
    pub names: Vec<Explained>,
    /// Why these.
    pub why: String,
}

/// One full name.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explained {
    /// The name.
    pub reference: String,
    /// The hosts that are asked, in order.
    pub routes: Vec<Route>,
    /// Why none is.
    pub refused: Option<String>,
    /// Which signatures it needs.
    pub signatures: String,
}

/// One host.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Route {
    /// Where the repository is.
    pub address: String,
    /// What the host is asked for.
    pub role: String,
    /// Which entry of which file says so.
    pub why: String,
    /// How the connection is protected.
    pub security: String,
    /// Which credentials it gets; never a secret.
    pub credentials: String,
}

/// Explains a name under these settings, read anew from the files.
pub fn explain(config: &Config, text: &str, credentials: Option<&Credentials>) -> Result<Explanation, Error> {
    let registries = Registries::open(config, Patience::default())?;
    let trust = Trust::open(config)?;
    let (names, why) = registries.conf.current().named(text)?;
    let explained = names.iter().map(|name| {
        let routes = registries.places(name).and_then(|places| {
            let route = |place| {
                let source = registries.access(name, &place, credentials)?;
                let (access, asked) = match source {
                    Source::Known(access) => (access, Vec::new()),
                    Source::Helpers(helpers, access) => (access, helpers),
                };
                let asked: String =
                    asked.iter().map(|helper| format!("what {helper:?} has, else ")).collect();
                let host = Host::new(place, access, &registries.means);
                Ok(host.route(&asked))
            };
            places.into_iter().map(route).collect()
        });
        let (routes, refused) = match routes {
            Ok(routes) => (routes, None),
            Err(error) => (Vec::new(), Some(super::failure::chain(&error))),
        };
        Explained { reference: name.to_string(), routes, refused, signatures: trust.describe(name) }
    });
    Ok(Explanation { names: explained.collect(), why })
}

impl Host {
    fn route(&self, asked: &str) -> Route {
        let place = self.place();
        let role = match (self.resolves(), self.pulls()) {
            (true, _) => "manifests and layers",
            (false, true) => "layers only",
            (false, false) => "nothing: hosts.toml gives it neither pull nor resolve",
        };
        let access = self.access();
        let credentials = match access.login {
            crate::credentials::Login::Anonymous => format!("{asked}none: {}", access.note),
            _ => format!("{asked}{}", access.note),
        };
        let ways: Vec<_> = self.ways().into_iter().map(|security| self.describe(security)).collect();
        Route {
            address: self.address(),
            role: role.to_owned(),
            why: place.why.clone(),
            security: ways.join(", else "),
            credentials,
        }
    }

    fn describe(&self, security: Security) -> String {
        let files = || {
            let way = self.own_way(security);
            let material = self.clients().material(&way);
            let roots = material.roots.iter().map(|path| format!(" and {}", path.display()));
            let pair = material.pairs.first().map(|(path, _)| format!(", shows {}", path.display()));
            (roots.collect::<String>(), pair.unwrap_or_default())
        };
        match security {
            Security::Plain => "plain http".to_owned(),
            Security::Verified => {
                let (roots, pair) = files();
                format!("TLS by the system's authorities{roots}{pair}")
            }
            Security::Unverified => format!("TLS with any certificate{}", files().1),
        }
    }
}
