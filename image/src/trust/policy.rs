//! `policy.json`: which requirements are about a name. As strict as the format asks for.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use super::identity::Identity;
use crate::{Error, Reference};

/// A policy as it is written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Policy {
    default: Vec<Requirement>,
    #[serde(default)]
    transports: Unique<Unique<Vec<Requirement>>>,
}

/// What must hold; all of a scope's must.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "camelCase", deny_unknown_fields)]
pub(super) enum Requirement {
    InsecureAcceptAnything {},
    Reject {},
    /// Known by its name only.
    SignedBy,
    SigstoreSigned(Box<SigstoreSigned>),
}

/// A signature by one of some keys.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct SigstoreSigned {
    key_path: Option<PathBuf>,
    key_paths: Option<Vec<PathBuf>>,
    key_data: Option<String>,
    key_datas: Option<Vec<String>>,
    #[serde(rename = "signedIdentity")]
    pub(super) identity: Option<Identity>,
    // What follows needs authorities instead of keys, or a log.
    fulcio: Option<serde_json::Value>,
    pki: Option<serde_json::Value>,
    rekor_public_key_path: Option<PathBuf>,
    rekor_public_key_paths: Option<Vec<PathBuf>>,
    rekor_public_key_data: Option<String>,
    rekor_public_key_datas: Option<Vec<String>>,
}

/// Where the keys are.
pub(super) enum Keys<'a> {
    Files(Vec<&'a Path>),
    /// In PEM.
    Data(Vec<Vec<u8>>),
}

/// A map in which no key comes twice.
#[derive(Debug)]
struct Unique<V>(BTreeMap<String, V>);

impl Policy {
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read(path).map_err(|e| Error::store("read", path, e))?;
        Self::parse(&text).map_err(|reason| Error::Config { path: path.to_owned(), reason })
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let policy: Self = serde_json::from_slice(text).map_err(|e| format!("no signature policy: {e}"))?;
        let all = policy.transports.0.values().flat_map(|scopes| scopes.0.values()).chain([&policy.default]);
        for requirements in all {
            if requirements.is_empty() {
                return Err(
                    "a list of requirements is empty: insecureAcceptAnything says that there are none"
                        .to_owned(),
                );
            }
            for requirement in requirements {
                if let Requirement::SigstoreSigned(signed) = requirement
                    && !signed.is_unsupported()
                {
                    signed.keys()?;
                }
            }
        }
        Ok(policy)
    }

    /// Returns the requirements for a name, and the scope that they are from.
    pub(super) fn requirements(&self, reference: &Reference) -> (String, &[Requirement]) {
        let scopes = self.transports.0.get("docker");
        let found = scopes.and_then(|scopes| {
            let scope = super::attachments::scopes(reference)
                .chain(wildcards(reference.registry()))
                .chain([String::new()])
                .find(|scope| scopes.0.contains_key(scope))?;
            let requirements = scopes.0.get(&scope)?;
            Some((format!("scope {scope:?}"), requirements.as_slice()))
        });
        found.unwrap_or_else(|| ("the default".to_owned(), &self.default))
    }
}

/// Lists the wildcards that cover a host, the narrowest first.
fn wildcards(registry: &str) -> impl Iterator<Item = String> + '_ {
    let mut rest = registry.split(':').next().unwrap_or_default();
    std::iter::from_fn(move || {
        let (_, parent) = rest.split_once('.')?;
        rest = parent;
        Some(format!("*.{parent}"))
    })
}

impl SigstoreSigned {
    fn is_unsupported(&self) -> bool {
        let rekor = self.rekor_public_key_path.is_some()
            || self.rekor_public_key_paths.is_some()
            || self.rekor_public_key_data.is_some()
            || self.rekor_public_key_datas.is_some();
        rekor || self.fulcio.is_some() || self.pki.is_some()
    }

    /// Returns where the keys are; an error if that is not said once, or if something else than a key is asked for.
    pub(super) fn keys(&self) -> Result<Keys<'_>, String> {
        if self.is_unsupported() {
            return Err("sigstoreSigned with fulcio, pki or rekor is not supported: only keys are".to_owned());
        }
        let decode =
            |text: &String| STANDARD.decode(text.trim()).map_err(|_| "keyData is not base64".to_owned());
        match (&self.key_path, &self.key_paths, &self.key_data, &self.key_datas) {
            (Some(path), None, None, None) => Ok(Keys::Files(vec![path])),
            (None, Some(paths), None, None) if !paths.is_empty() => {
                Ok(Keys::Files(paths.iter().map(PathBuf::as_path).collect()))
            }
            (None, None, Some(data), None) => Ok(Keys::Data(vec![decode(data)?])),
            (None, None, None, Some(all)) if !all.is_empty() => {
                Ok(Keys::Data(all.iter().map(decode).collect::<Result<_, _>>()?))
            }
            _ => {
                Err("sigstoreSigned needs exactly one of keyPath, keyPaths, keyData and keyDatas".to_owned())
            }
        }
    }
}

impl<V> Default for Unique<V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<'de, V: Deserialize<'de>> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Entries<V> {
            type Value = Unique<V>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some((key, value)) = map.next_entry::<String, V>()? {
                    if entries.contains_key(&key) {
                        return Err(A::Error::custom(format!("{key:?} is there twice")));
                    }
                    entries.insert(key, value);
                }
                Ok(Unique(entries))
            }
        }
        deserializer.deserialize_map(Entries(PhantomData))
    }
}
