//! The credentials of the node, in a file. Follows containers-auth.json(5); docker's `config.json` has the same form.
//!
//! A helper named for the registry goes before what the file holds, and the store named for all registries after it,
//! as with docker.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use zeroize::Zeroizing;

use super::credential_helper::Helper;
use crate::credentials::{Login, Secret, decode, registry_of};
use crate::{Error, Reference};

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
    #[serde(rename = "credsStore")]
    store: String,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: Secret,
    #[serde(rename = "identitytoken")]
    identity: Secret,
    #[serde(rename = "registrytoken")]
    token: Secret,
}

/// What a file says about a name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stored {
    /// Nothing.
    Nothing,
    /// These credentials, and where they are written.
    Login(Login, String),
    /// A program has them.
    Helper(Helper),
}

/// Finds what a file says about `name`. A file that does not exist says nothing.
pub(crate) fn find(path: &Path, name: &Reference) -> Result<Stored, Error> {
    match std::fs::read(path).map(Zeroizing::new) {
        Ok(text) => match parse(&text, name) {
            Ok(Stored::Login(login, key)) => {
                Ok(Stored::Login(login, format!("{} ({key:?})", path.display())))
            }
            Ok(other) => Ok(other),
            Err(reason) => Err(Error::Config { path: path.to_owned(), reason }),
        },
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Stored::Nothing),
        Err(e) => Err(Error::store("read", path, e)),
    }
}

fn parse(text: &[u8], name: &Reference) -> Result<Stored, String> {
    // The text of serde's errors may quote the file, and the file holds passwords.
    let file: File = serde_json::from_slice(text)
        .map_err(|e| format!("line {}: no credentials file in JSON ({:?} error)", e.line(), e.classify()))?;
    if let Some((key, program)) = best(&file.helpers, name) {
        return Ok(Stored::Helper(Helper::new(program, name, &format!("credHelpers {key:?}"))?));
    }
    if let Some((key, entry)) = best(&file.auths, name) {
        let login = if !entry.token.is_empty() {
            Login::Bearer(entry.token.clone())
        } else if !entry.identity.is_empty() {
            Login::Refresh(entry.identity.clone())
        } else if !entry.auth.is_empty() {
            decode(&entry.auth)?
        } else {
            Login::Anonymous
        };
        if login != Login::Anonymous {
            return Ok(Stored::Login(login, key.clone()));
        }
    }
    match file.store.as_str() {
        "" => Ok(Stored::Nothing),
        store => Ok(Stored::Helper(Helper::new(store, name, "credsStore")?)),
    }
}

/// Finds the entry whose key covers most of the name.
fn best<'a, T>(entries: &'a BTreeMap<String, T>, name: &Reference) -> Option<(&'a String, &'a T)> {
    let full = name.name();
    let length = |key: &String| match key.split_once("://") {
        // Docker writes addresses, which name the whole registry.
        Some(_) => (registry_of(key) == name.registry()).then_some(name.registry().len()),
        None if registry_of(key) == "docker.io" && name.registry() == "docker.io" && !key.contains('/') => {
            Some(name.registry().len())
        }
        None => {
            let rest = full.strip_prefix(key.trim_end_matches('/'))?;
            (rest.is_empty() || rest.starts_with('/')).then_some(full.len() - rest.len())
        }
    };
    let found = entries.iter().filter_map(|(key, entry)| Some((length(key)?, (key, entry))));
    // The first of equals.
    found.rev().max_by_key(|(length, _)| *length).map(|(_, found)| found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, name: &str, expected: &str) {
        let login = parse(file.as_bytes(), &name.parse().unwrap());
        let found = match login {
            Ok(Stored::Login(Login::Password { user, password }, _)) => format!("{user}:{}", &*password),
            Ok(Stored::Login(Login::Refresh(token), _)) => format!("refresh {}", &*token),
            Ok(Stored::Login(Login::Bearer(token), _)) => format!("bearer {}", &*token),
            Ok(Stored::Login(Login::Anonymous, _) | Stored::Nothing) => "none".to_owned(),
            Ok(Stored::Helper(helper)) => format!("{helper:?}"),
            Err(error) => error,
        };
        assert_eq!(found, expected, "{name}");
    }

    #[test]
    fn the_longest_path_wins() {
        let file = r#"{"auths": {
            "q.io": {"auth": "aG9zdDox"},
            "q.io/team": {"auth": "dGVhbTox"},
            "q.io/team/app": {"identitytoken": "t"},
            "other.io:5000": {},
            "https://index.docker.io/v1/": {"auth": "aHViOjE="}
        }}"#;
        check(file, "q.io/x", "host:1");
        check(file, "q.io/team/x", "team:1");
        check(file, "q.io/teams/x", "host:1");
        check(file, "q.io/team/app:1", "refresh t");
        check(file, "other.io:5000/x", "none");
        check(file, "other.io/x", "none");
        check(file, "busybox", "hub:1");
    }

    #[test]
    fn a_bad_file_is_not_quoted() {
        check(
            "{\"auths\": {\"q.io\": \"secret\"}}",
            "q.io/x",
            "line 1: no credentials file in JSON (Data error)",
        );
        check("{\"auths\": {\"q.io\": {\"auth\": \"secretsecret\"}}}", "q.io/x", "auth is not UTF-8");
    }

    #[test]
    fn helpers_and_stores_have_their_place() {
        let file = r#"{
            "auths": {"q.io": {"auth": "aG9zdDox"}, "r.io": {}, "https://index.docker.io/v1/": {}},
            "credHelpers": {"q.io/team": "team", "docker.io": "hub"},
            "credsStore": "all"
        }"#;
        check(file, "q.io/x", "host:1");
        check(file, "q.io/team/x", "docker-credential-team for q.io (credHelpers \"q.io/team\")");
        check(file, "r.io/x", "docker-credential-all for r.io (credsStore)");
        check(
            file,
            "busybox",
            "docker-credential-hub for https://index.docker.io/v1/ (credHelpers \"docker.io\")",
        );
        check(
            r#"{"credsStore": "../sh"}"#,
            "q.io/x",
            "credsStore: \"../sh\" is no name of a credential helper",
        );
        check(r#"{"auths": {"q.io": {"registrytoken": "t"}}}"#, "q.io/x", "bearer t");
    }

    #[test]
    fn no_file_is_no_credentials() {
        let login = find(Path::new("/nonexistent/auth.json"), &"q.io/x".parse().unwrap());
        assert_eq!(login.unwrap(), Stored::Nothing);
    }
}
