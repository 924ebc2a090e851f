//! Where signatures are looked for. Follows containers-registries.d(5), of which only attachments are used: what
//! stands in a separate store is for GPG signatures.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::{Error, Reference};

#[derive(Default, Deserialize)]
#[serde(default)]
struct File {
    #[serde(rename = "default-docker")]
    default: Option<Section>,
    docker: BTreeMap<String, Section>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct Section {
    use_sigstore_attachments: bool,
}

/// Says whether the registry of an image is asked for signatures.
pub(super) fn enabled(directory: &Path, reference: &Reference) -> Result<bool, Error> {
    let mut default = None;
    let mut sections = BTreeMap::new();
    let entries = match std::fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(e) => return Err(Error::store("read", directory, e)),
    };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.extension().is_none_or(|end| end != "yaml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).map_err(|e| Error::store("read", &path, e))?;
        let fail = |reason: String| Error::Config { path: path.clone(), reason };
        let file: Option<File> = serde_norway::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let file = file.unwrap_or_default();
        if let Some(section) = file.default
            && default.replace(section).is_some()
        {
            return Err(fail("default-docker is there in another file, too".to_owned()));
        }
        for (scope, section) in file.docker {
            if sections.insert(scope.clone(), section).is_some() {
                return Err(fail(format!("{scope:?} is there in another file, too")));
            }
        }
    }
    let found = scopes(reference).find_map(|scope| sections.get(&scope).copied());
    Ok(found.or(default).unwrap_or_default().use_sigstore_attachments)
}

/// Lists what a name is within, the narrowest first: itself, its repository, the parents of that, the host.
pub(super) fn scopes(reference: &Reference) -> impl Iterator<Item = String> {
    let name = reference.name();
    // A digest wins over a tag, so what the tag means is nothing here.
    let whole = match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("{name}@{digest}"),
        (None, tag) => format!("{name}:{}", tag.unwrap_or("latest")),
    };
    let parents = std::iter::successors(Some(name), |name| Some(name.rsplit_once('/')?.0.to_owned()));
    std::iter::once(whole).chain(parents)
}
