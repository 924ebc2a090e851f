//! The credentials of the node, in a file. Follows containers-auth.json(5); docker's `config.json` has the same form.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::credentials::{Login, decode, registry_of};
use crate::{Error, Reference};

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    auths: BTreeMap<String, Entry>,
    #[serde(rename = "credHelpers")]
    helpers: BTreeMap<String, String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Entry {
    auth: String,
    #[serde(rename = "identitytoken")]
    identity: String,
}

/// Finds the credentials for `name` in a file. A file that does not exist holds none.
pub(crate) fn find(path: &Path, name: &Reference) -> Result<Login, Error> {
    match std::fs::read(path) {
        Ok(text) => parse(&text, name).map_err(|reason| Error::Config { path: path.to_owned(), reason }),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Login::Anonymous),
        Err(e) => Err(Error::store("read", path, e)),
    }
}

fn parse(text: &[u8], name: &Reference) -> Result<Login, String> {
    // The text of serde's errors may quote the file, and the file holds passwords.
    let file: File = serde_json::from_slice(text)
        .map_err(|e| format!("line {}: no credentials file in JSON ({:?} error)", e.line(), e.classify()))?;
    if let Some(helper) = file.helpers.get(name.registry()) {
        return Err(format!(
            "credential helper {helper:?} of {}: helpers are not supported",
            name.registry()
        ));
    }
    let full = name.name();
    let mut best: Option<(usize, &Entry)> = None;
    for (key, entry) in &file.auths {
        let length = match key.split_once("://") {
            // Docker writes addresses, which name the whole registry.
            Some(_) if registry_of(key) == name.registry() => name.registry().len(),
            None if key == "index.docker.io" && name.registry() == "docker.io" => name.registry().len(),
            None => match full.strip_prefix(key.trim_end_matches('/')) {
                Some(rest) if rest.is_empty() || rest.starts_with('/') => full.len() - rest.len(),
                _ => continue,
            },
            Some(_) => continue,
        };
        if best.is_none_or(|(longest, _)| length > longest) {
            best = Some((length, entry));
        }
    }
    match best {
        Some((_, entry)) if !entry.identity.is_empty() => Ok(Login::Refresh(entry.identity.clone())),
        Some((_, entry)) if !entry.auth.is_empty() => decode(&entry.auth).map_err(str::to_owned),
        _ => Ok(Login::Anonymous),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(file: &str, name: &str, expected: &str) {
        let login = parse(file.as_bytes(), &name.parse().unwrap());
        let found = match login {
            Ok(Login::Password { user, password }) => format!("{user}:{password}"),
            Ok(Login::Refresh(token)) => format!("refresh {token}"),
            Ok(Login::Anonymous) => "none".to_owned(),
            Ok(Login::Bearer(_)) => "bearer".to_owned(),
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
        check(
            "{\"credHelpers\": {\"q.io\": \"pass\"}}",
            "q.io/x",
            "credential helper \"pass\" of q.io: helpers are not supported",
        );
    }

    #[test]
    fn no_file_is_no_credentials() {
        let login = find(Path::new("/nonexistent/auth.json"), &"q.io/x".parse().unwrap());
        assert_eq!(login.unwrap(), Login::Anonymous);
    }
}
