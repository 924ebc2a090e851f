//! `registries.conf`: which hosts serve a name. Follows containers-registries.conf(5), version 2, and its drop-ins.
//!
//! Version 1 is refused by name. Prompts and recorded aliases have no place in a daemon.

mod file;

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::Deserialize;

use super::place::{Place, Role};
use super::stamp::{Stamp, stamp};
use crate::{Error, Reference};
use file::File;

/// The name that stands for the node's own file among `credential-helpers`.
pub(crate) const AUTH_FILE_HELPER: &str = "containers-auth.json";

/// The file with its drop-ins, read again when one of them changes.
#[derive(Debug)]
pub(crate) struct Conf {
    path: PathBuf,
    state: Mutex<(Stamp, Arc<Rules>)>,
}

/// What the files say together.
#[derive(Debug, PartialEq)]
pub(crate) struct Rules {
    search: Vec<String>,
    searched_in: Source,
    mode: ShortNames,
    aliases: BTreeMap<String, (String, Source)>,
    registries: BTreeMap<String, Registry>,
    /// Who is asked for credentials, in order.
    helpers: Vec<String>,
}

/// Where something is written.
#[derive(Clone, Debug, Default, PartialEq)]
struct Source {
    file: PathBuf,
    /// From 1; 0 for the file as a whole.
    line: usize,
}

#[derive(Clone, Debug, PartialEq)]
struct Registry {
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
    source: Source,
}

#[derive(Clone, Debug, PartialEq)]
struct Mirror {
    location: String,
    insecure: bool,
    pull: PullFrom,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum PullFrom {
    #[default]
    All,
    DigestOnly,
    TagOnly,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum ShortNames {
    Enforcing,
    #[default]
    Permissive,
    Disabled,
}

impl Conf {
    /// Reads the files; none at all is fine.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let stamp = stamp(files(path));
        let rules = Arc::new(read(&stamp)?);
        Ok(Self { path: path.to_owned(), state: Mutex::new((stamp, rules)) })
    }

    /// Returns the first of the files.
    pub(crate) fn path(&self) -> PathBuf {
        self.path.clone()
    }

    /// Returns the rules, fresh from the files if those changed. Files that cannot be used change nothing: the
    /// rules before them go on.
    pub(crate) fn current(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(files(&self.path));
        if stamp != state.0 {
            match read(&stamp) {
                Ok(rules) => state.1 = Arc::new(rules),
                Err(error) => tracing::warn!(%error, "registries keep their old settings"),
            }
            state.0 = stamp;
        }
        Arc::clone(&state.1)
    }
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            search: Vec::new(),
            searched_in: Source::default(),
            mode: ShortNames::default(),
            aliases: BTreeMap::new(),
            registries: BTreeMap::new(),
            helpers: vec![AUTH_FILE_HELPER.to_owned()],
        }
    }
}

impl Rules {
    /// Returns the full names that `text` may mean, in the order to try them.
    pub(crate) fn names(&self, text: &str) -> Result<Vec<Reference>, Error> {
        Ok(self.named(text)?.0)
    }

    /// Returns the full names that `text` may mean, and says why.
    pub(crate) fn named(&self, text: &str) -> Result<(Vec<Reference>, String), Error> {
        let plain: Reference = text.parse()?;
        if !Reference::is_short(text) {
            return Ok((vec![plain], "the name is written in full".to_owned()));
        }
        let end = text.find(['@', ':']).unwrap_or(text.len());
        if let Some((target, source)) = self.aliases.get(&text[..end]) {
            let name = format!("{target}{}", &text[end..]).parse()?;
            return Ok((vec![name], format!("alias {:?} in {source}", &text[..end])));
        }
        match self.search.as_slice() {
            [] => Ok((vec![plain], "short names are docker.io's where nothing else is said".to_owned())),
            [_, _, ..] if self.mode == ShortNames::Enforcing => Err(Error::InvalidReference {
                reference: text.to_owned(),
                reason: "a short name may mean several registries (short-name-mode is enforcing): write it in full"
                    .to_owned(),
            }),
            hosts => {
                let names = hosts.iter().map(|host| format!("{host}/{text}").parse());
                let why = format!("unqualified-search-registries in {}", self.searched_in);
                Ok((names.collect::<Result<_, _>>()?, why))
            }
        }
    }

    /// Returns where to ask for `reference`, in order; nothing if no table is about it.
    pub(crate) fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let full = reference.to_string();
        let matched = self
            .registries
            .iter()
            .filter_map(|(prefix, registry)| Some((match_end(prefix, &full)?, prefix, registry)))
            .max_by_key(|(_, prefix, _)| prefix.trim_start_matches('*').len());
        let Some((end, prefix, registry)) = matched else { return Ok(Vec::new()) };
        let table = format!("[[registry]] {prefix:?} in {}", registry.source);
        if registry.blocked {
            return Err(Error::Blocked { reference: full, rule: table });
        }
        let moved = |location: &str| format!("{location}{}", &full[end..]).parse::<Reference>();
        let mut places = Vec::with_capacity(registry.mirrors.len() + 1);
        for (index, mirror) in registry.mirrors.iter().enumerate() {
            let wanted = match mirror.pull {
                PullFrom::All => true,
                PullFrom::DigestOnly => reference.digest().is_some(),
                PullFrom::TagOnly => reference.digest().is_none(),
            };
            if wanted {
                let name = moved(&mirror.location)?;
                let why = format!("mirror {} of {table}", index + 1);
                places.push(Place {
                    insecure: mirror.insecure,
                    role: Role::Mirror,
                    ..Place::plain(reference, name, why)
                });
            }
        }
        let name = if registry.location.is_empty() { reference.clone() } else { moved(&registry.location)? };
        let why = format!("location of {table}");
        places.push(Place { insecure: registry.insecure, ..Place::plain(reference, name, why) });
        Ok(places)
    }

    /// Returns who is asked for credentials, in order.
    pub(crate) fn helpers(&self) -> &[String] {
        &self.helpers
    }

    /// Reads one file alone.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let mut rules = Self::default();
        rules.merge(text, Path::new(""))?;
        Ok(rules)
    }

    fn merge(&mut self, text: &str, path: &Path) -> Result<(), String> {
        let file: File = toml::from_str(text).map_err(|e| e.to_string().trim_end().to_owned())?;
        if file.registries.is_some() {
            return Err("this is version 1 of the format: write [[registry]] tables".to_owned());
        }
        let source = |line| Source { file: path.to_owned(), line };
        if let Some(search) = file.unqualified_search_registries {
            search.iter().try_for_each(|host| file::check_location("unqualified-search-registries", host))?;
            self.search = search;
            self.searched_in = source(0);
        }
        self.mode = file.short_name_mode.unwrap_or(self.mode);
        if let Some(helpers) = file.credential_helpers {
            self.helpers = helpers;
        }
        for (name, target) in file.aliases {
            if target.is_empty() {
                self.aliases.remove(&name);
                continue;
            }
            let plain = |text: &str| text.parse::<Reference>().is_ok() && !text.contains(['@', ':']);
            if !Reference::is_short(&name) || Reference::is_short(&target) || !plain(&name) {
                return Err(format!("alias {name:?} = {target:?}: a short name may stand for a full name"));
            }
            self.aliases.insert(name, (target, source(0)));
        }
        let mut here: BTreeMap<String, (bool, bool)> = BTreeMap::new();
        for table in file.registry {
            let line = text[..table.span().start.min(text.len())].matches('\n').count() + 1;
            let (prefix, registry) =
                table.into_inner().check(source(line)).map_err(|reason| format!("line {line}: {reason}"))?;
            let settings = (registry.insecure, registry.blocked);
            if *here.entry(registry.location.clone()).or_insert(settings) != settings {
                let location = &registry.location;
                return Err(format!(
                    "line {line}: {location:?} is insecure or blocked in one table and not in another"
                ));
            }
            self.registries.insert(prefix, registry);
        }
        Ok(())
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.line > 0 { write!(f, " line {}", self.line) } else { Ok(()) }
    }
}

/// Returns how much of the full name `prefix` covers, if it matches.
fn match_end(prefix: &str, full: &str) -> Option<usize> {
    if let Some(domain) = prefix.strip_prefix('*') {
        let host = full.split('/').next()?;
        let name = host.split(':').next()?;
        return name.ends_with(domain).then_some(host.len());
    }
    let rest = full.strip_prefix(prefix)?;
    (rest.is_empty() || rest.starts_with(['/', ':', '@'])).then_some(prefix.len())
}

/// Lists the file and its drop-ins.
fn files(path: &Path) -> Vec<PathBuf> {
    let mut files = vec![path.to_owned()];
    let mut drop_ins = path.as_os_str().to_owned();
    drop_ins.push(".d");
    // Without the directory there are no drop-ins, whatever the reason.
    if let Ok(entries) = std::fs::read_dir(drop_ins) {
        let mut names: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
        names.retain(|name| name.extension().is_some_and(|end| end == "conf"));
        names.sort();
        files.append(&mut names);
    }
    files
}

fn read(files: &Stamp) -> Result<Rules, Error> {
    let mut rules = Rules::default();
    for path in files.paths() {
        let text = std::fs::read_to_string(path).map_err(|e| Error::store("read", path, e))?;
        rules.merge(&text, path).map_err(|reason| Error::Config { path: path.clone(), reason })?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests;
