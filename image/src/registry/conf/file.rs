//! The tables of a file as they are written, and what is wrong with them.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::{Mirror, PullFrom, Registry, ShortNames, Source};
use crate::{Error, Reference};

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct File {
    pub(super) unqualified_search_registries: Option<Vec<String>>,
    pub(super) short_name_mode: Option<ShortNames>,
    pub(super) credential_helpers: Option<Vec<String>>,
    pub(super) aliases: BTreeMap<String, String>,
    pub(super) registry: Vec<Spanned<RegistryTable>>,
    /// Only in version 1.
    pub(super) registries: Option<toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
pub(super) struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
    /// Belongs to a mirror.
    pull_from_mirror: Option<PullFrom>,
    mirror: Vec<MirrorTable>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct MirrorTable {
    location: String,
    insecure: bool,
    pull_from_mirror: Option<PullFrom>,
}

impl RegistryTable {
    pub(super) fn check(self, source: Source) -> Result<(String, Registry), String> {
        let trim = |text: &str| text.trim_end_matches('/').to_owned();
        let (mut prefix, mut location) = (trim(&self.prefix), trim(&self.location));
        if prefix.is_empty() {
            prefix.clone_from(&location);
        }
        if prefix.is_empty() {
            return Err("a [[registry]] needs a prefix or a location".to_owned());
        }
        if self.pull_from_mirror.is_some() {
            return Err(format!("registry {prefix:?}: pull-from-mirror is a setting of a mirror"));
        }
        match prefix.strip_prefix("*.") {
            Some(domain) if domain.is_empty() || domain.contains(['*', '/', ':', '@']) => {
                return Err(format!("prefix {prefix:?}: a wildcard is written *.example.com"));
            }
            Some(_) => {}
            None => {
                check_location("prefix", &prefix)?;
                if location.is_empty() {
                    location.clone_from(&prefix);
                }
            }
        }
        if !location.is_empty() {
            check_location("location", &location)?;
        }
        let mirrors = self.mirror.into_iter().map(|mirror| {
            let location = trim(&mirror.location);
            check_location("location of a mirror", &location)?;
            let pull = match (self.mirror_by_digest_only, mirror.pull_from_mirror) {
                (false, pull) => pull.unwrap_or_default(),
                (true, None) => PullFrom::DigestOnly,
                (true, Some(_)) => {
                    return Err(format!(
                        "registry {prefix:?} sets mirror-by-digest-only: its mirrors cannot set pull-from-mirror"
                    ));
                }
            };
            Ok(Mirror { location, insecure: mirror.insecure, pull })
        });
        let mirrors = mirrors.collect::<Result<_, String>>()?;
        Ok((prefix, Registry { location, insecure: self.insecure, blocked: self.blocked, mirrors, source }))
    }
}

/// Checks that a location begins with a host, so that it cannot be read as a path of `docker.io`.
pub(super) fn check_location(key: &str, text: &str) -> Result<(), String> {
    if text.contains("://") {
        return Err(format!("{key} {text:?}: write it without a scheme (insecure = true allows http)"));
    }
    // A host alone, a path below it and a whole reference are all fine.
    let probe = if text.contains('/') { text.to_owned() } else { format!("{text}/x") };
    if Reference::is_short(&probe) {
        return Err(format!(
            "{key} {text:?}: it must begin with a host, which has a dot, a port or is localhost"
        ));
    }
    match probe.parse::<Reference>() {
        Ok(_) => Ok(()),
        Err(Error::InvalidReference { reason, .. }) => Err(format!("{key} {text:?}: {reason}")),
        Err(error) => Err(error.to_string()),
    }
}
