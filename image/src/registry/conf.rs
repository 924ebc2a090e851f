//! `registries.conf`: which hosts serve a name. Follows containers-registries.conf(5), version 2, and its drop-ins.
//!
//! Version 1 is refused by name. Prompts and recorded aliases have no place in a daemon; credential helpers are
//! the credentials file's business.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use serde::Deserialize;

use crate::{Error, Reference};

/// Where the content of a reference is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name there; its registry is the host to connect to.
    pub(crate) name: Reference,
    /// Whether plain HTTP and unknown certificates are allowed.
    pub(crate) insecure: bool,
    /// A mirror, or the registry itself.
    pub(crate) role: Role,
}

/// Why a place is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// It holds copies.
    Mirror,
    /// It is the registry that the name means.
    Primary,
}

/// The file with its drop-ins, read again when one of them changes.
#[derive(Debug)]
pub(crate) struct Conf {
    path: PathBuf,
    state: Mutex<(Stamp, Arc<Rules>)>,
}

/// What the files say together.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rules {
    search: Vec<String>,
    mode: ShortNames,
    aliases: BTreeMap<String, String>,
    registries: BTreeMap<String, Registry>,
}

#[derive(Clone, Debug, PartialEq)]
struct Registry {
    location: String,
    insecure: bool,
    blocked: bool,
    mirrors: Vec<Mirror>,
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

/// The files as they were read: path, time of change, size.
type Stamp = Vec<(PathBuf, Option<SystemTime>, u64)>;

impl Conf {
    /// Reads the files; none at all is fine.
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let stamp = stamp(path);
        let rules = Arc::new(read(&stamp)?);
        Ok(Self { path: path.to_owned(), state: Mutex::new((stamp, rules)) })
    }

    /// Returns the rules, fresh from the files if those changed. Files that cannot be used change nothing: the
    /// rules before them go on.
    pub(crate) fn current(&self) -> Arc<Rules> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let stamp = stamp(&self.path);
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

impl Rules {
    /// Returns the full names that `text` may mean, in the order to try them.
    pub(crate) fn names(&self, text: &str) -> Result<Vec<Reference>, Error> {
        let plain: Reference = text.parse()?;
        if !Reference::is_short(text) {
            return Ok(vec![plain]);
        }
        let end = text.find(['@', ':']).unwrap_or(text.len());
        if let Some(target) = self.aliases.get(&text[..end]) {
            return Ok(vec![format!("{target}{}", &text[end..]).parse()?]);
        }
        match self.search.as_slice() {
            [] => Ok(vec![plain]),
            [_, _, ..] if self.mode == ShortNames::Enforcing => Err(Error::InvalidReference {
                reference: text.to_owned(),
                reason: "a short name may mean several registries (short-name-mode is enforcing): write it in full"
                    .to_owned(),
            }),
            hosts => hosts.iter().map(|host| format!("{host}/{text}").parse()).collect(),
        }
    }

    /// Returns where to ask for `reference`, in order.
    pub(crate) fn places(&self, reference: &Reference) -> Result<Vec<Place>, Error> {
        let full = reference.to_string();
        let matched = self
            .registries
            .iter()
            .filter_map(|(prefix, registry)| Some((match_end(prefix, &full)?, prefix, registry)))
            .max_by_key(|(_, prefix, _)| prefix.trim_start_matches('*').len());
        let Some((end, prefix, registry)) = matched else {
            return Ok(vec![Place { name: reference.clone(), insecure: false, role: Role::Primary }]);
        };
        if registry.blocked {
            return Err(Error::Blocked { reference: full, prefix: prefix.clone() });
        }
        let moved = |location: &str| format!("{location}{}", &full[end..]).parse::<Reference>();
        let mut places = Vec::with_capacity(registry.mirrors.len() + 1);
        for mirror in &registry.mirrors {
            let wanted = match mirror.pull {
                PullFrom::All => true,
                PullFrom::DigestOnly => reference.digest().is_some(),
                PullFrom::TagOnly => reference.digest().is_none(),
            };
            if wanted {
                let name = moved(&mirror.location)?;
                places.push(Place { name, insecure: mirror.insecure, role: Role::Mirror });
            }
        }
        let name = if registry.location.is_empty() { reference.clone() } else { moved(&registry.location)? };
        places.push(Place { name, insecure: registry.insecure, role: Role::Primary });
        Ok(places)
    }

    fn merge(&mut self, file: File) -> Result<(), String> {
        if file.registries.is_some() {
            return Err("this is version 1 of the format: write [[registry]] tables".to_owned());
        }
        if let Some(search) = file.unqualified_search_registries {
            search.iter().try_for_each(|host| check_location("unqualified-search-registries", host))?;
            self.search = search;
        }
        if let Some(mode) = file.short_name_mode {
            self.mode = mode;
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
            self.aliases.insert(name, target);
        }
        for table in file.registry {
            let (prefix, registry) = table.check()?;
            self.registries.insert(prefix, registry);
        }
        Ok(())
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct File {
    unqualified_search_registries: Option<Vec<String>>,
    short_name_mode: Option<ShortNames>,
    aliases: BTreeMap<String, String>,
    registry: Vec<RegistryTable>,
    registries: Option<toml::Table>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "kebab-case")]
struct RegistryTable {
    prefix: String,
    location: String,
    insecure: bool,
    blocked: bool,
    mirror_by_digest_only: bool,
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
    fn check(self) -> Result<(String, Registry), String> {
        let trim = |text: &str| text.trim_end_matches('/').to_owned();
        let (mut prefix, mut location) = (trim(&self.prefix), trim(&self.location));
        if prefix.is_empty() {
            prefix.clone_from(&location);
        }
        if prefix.is_empty() {
            return Err("a [[registry]] needs a prefix or a location".to_owned());
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
        Ok((prefix, Registry { location, insecure: self.insecure, blocked: self.blocked, mirrors }))
    }
}

/// Checks that a location begins with a host, so that it cannot be read as a path of `docker.io`.
fn check_location(key: &str, text: &str) -> Result<(), String> {
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

fn stamp(path: &Path) -> Stamp {
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
    let known = files.into_iter().filter_map(|file| {
        let data = std::fs::metadata(&file).ok()?;
        data.is_file().then(|| (file, data.modified().ok(), data.len()))
    });
    known.collect()
}

fn read(files: &Stamp) -> Result<Rules, Error> {
    let mut rules = Rules::default();
    for (path, ..) in files {
        let text = std::fs::read_to_string(path).map_err(|e| Error::store("read", path, e))?;
        let fail = |reason: String| Error::Config { path: path.clone(), reason };
        let file = toml::from_str(&text).map_err(|e| fail(e.to_string().trim_end().to_owned()))?;
        rules.merge(file).map_err(fail)?;
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(text: &str) -> Result<Rules, String> {
        let mut rules = Rules::default();
        rules.merge(toml::from_str(text).map_err(|e| e.to_string())?)?;
        Ok(rules)
    }

    fn places(rules: &Rules, name: &str) -> Vec<String> {
        let places = rules.places(&name.parse().unwrap()).unwrap();
        places.iter().map(|p| format!("{}{}", p.name, if p.insecure { " insecure" } else { "" })).collect()
    }

    #[test]
    fn the_example_of_the_man_page() {
        let rules = rules(
            r#"
            unqualified-search-registries = ["example.com"]
            [[registry]]
            prefix = "example.com/foo"
            location = "internal-registry-for-example.com/bar"
            [[registry.mirror]]
            location = "example-mirror-0.local/mirror-for-foo"
            [[registry.mirror]]
            location = "example-mirror-1.local/mirrors/foo"
            insecure = true
            [[registry]]
            location = "registry.com"
            [[registry.mirror]]
            location = "mirror.registry.com"
            "#,
        )
        .unwrap();
        assert_eq!(
            places(&rules, "example.com/foo/image:latest"),
            [
                "example-mirror-0.local/mirror-for-foo/image:latest",
                "example-mirror-1.local/mirrors/foo/image:latest insecure",
                "internal-registry-for-example.com/bar/image:latest",
            ]
        );
        assert_eq!(places(&rules, "example.com/foobar:1"), ["example.com/foobar:1"]);
        assert_eq!(
            places(&rules, "registry.com/image:latest"),
            ["mirror.registry.com/image:latest", "registry.com/image:latest"]
        );
        assert_eq!(rules.names("img:1").unwrap()[0].to_string(), "example.com/img:1");
    }

    #[test]
    fn the_longest_prefix_wins_and_wildcards_cover_subdomains() {
        let rules = rules(
            r#"
            [[registry]]
            prefix = "*.example.com"
            insecure = true
            [[registry]]
            prefix = "a.example.com"
            location = "other.net/a"
            [[registry]]
            prefix = "a.example.com/secret"
            blocked = true
            [[registry]]
            prefix = "docker.io/library"
            location = "127.0.0.1:5000/hub"
            "#,
        )
        .unwrap();
        assert_eq!(places(&rules, "b.example.com/x:1"), ["b.example.com/x:1 insecure"]);
        assert_eq!(places(&rules, "c.b.example.com:5000/x:1"), ["c.b.example.com:5000/x:1 insecure"]);
        assert_eq!(places(&rules, "example.com/x:1"), ["example.com/x:1"]);
        assert_eq!(places(&rules, "a.example.com/x:1"), ["other.net/a/x:1"]);
        assert_eq!(places(&rules, "busybox"), ["127.0.0.1:5000/hub/busybox:latest"]);
        let blocked = rules.places(&"a.example.com/secret/x".parse().unwrap());
        assert!(matches!(blocked, Err(Error::Blocked { prefix, .. }) if prefix == "a.example.com/secret"));
    }

    #[test]
    fn mirrors_for_tags_and_digests() {
        let rules = rules(
            r#"
            [[registry]]
            location = "q.io"
            [[registry.mirror]]
            location = "digests.q.io"
            pull-from-mirror = "digest-only"
            [[registry.mirror]]
            location = "tags.q.io"
            pull-from-mirror = "tag-only"
            [[registry]]
            location = "r.io"
            mirror-by-digest-only = true
            [[registry.mirror]]
            location = "m.r.io"
            "#,
        )
        .unwrap();
        let digest = format!("@sha256:{}", "0".repeat(64));
        assert_eq!(places(&rules, "q.io/x:1"), ["tags.q.io/x:1", "q.io/x:1"]);
        let by_digest = places(&rules, &format!("q.io/x{digest}"));
        assert_eq!(by_digest, [format!("digests.q.io/x{digest}"), format!("q.io/x{digest}")]);
        assert_eq!(places(&rules, "r.io/x:1"), ["r.io/x:1"]);
        assert_eq!(places(&rules, &format!("r.io/x{digest}")).len(), 2);
    }

    #[test]
    fn short_names() {
        let text = r#"
            unqualified-search-registries = ["a.io", "b.io:5000"]
            [aliases]
            "app" = "q.io/team/app"
        "#;
        let mut rules = rules(text).unwrap();
        let names = |rules: &Rules, text: &str| -> Vec<String> {
            rules.names(text).unwrap().iter().map(ToString::to_string).collect()
        };
        assert_eq!(names(&rules, "x:1"), ["a.io/x:1", "b.io:5000/x:1"]);
        assert_eq!(names(&rules, "app:2"), ["q.io/team/app:2"]);
        assert_eq!(names(&rules, "docker.io/x"), ["docker.io/library/x:latest"]);
        assert_eq!(names(&Rules::default(), "x"), ["docker.io/library/x:latest"]);
        rules
            .merge(toml::from_str("short-name-mode = \"enforcing\"\n[aliases]\napp = \"\"").unwrap())
            .unwrap();
        assert!(rules.names("app:2").is_err());
    }

    #[test]
    fn mistakes_are_named() {
        let check = |text: &str, part: &str| {
            let error = rules(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        };
        check("[[registry]]\ninsecure = true", "needs a prefix");
        check("[[registry]]\nprefix = \"*.a.com/foo\"", "wildcard is written");
        check("[[registry]]\nprefix = \"a.*.com\"", "no host name");
        check("[[registry]]\nlocation = \"https://a.io\"", "without a scheme");
        check("[[registry]]\nlocation = \"team/app\"", "begin with a host");
        check("[[registry]]\nlocation = \"a.io\"\n[[registry.mirror]]", "location of a mirror");
        check(
            "[[registry]]\nlocation=\"a.io\"\nmirror-by-digest-only=true\n[[registry.mirror]]\nlocation=\"b.io\"\npull-from-mirror=\"all\"",
            "cannot set pull-from-mirror",
        );
        check("[registries.search]\nregistries = ['a.io']", "version 1");
        check("short-name-mode = \"sometimes\"", "unknown variant");
        check("[aliases]\n\"a.io/x\" = \"b.io/x\"", "alias");
    }

    #[test]
    fn files_are_read_again_when_they_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("registries.conf");
        let conf = Conf::open(&path).unwrap();
        assert_eq!(*conf.current(), Rules::default());

        std::fs::write(&path, "[[registry]]\nlocation = \"a.io\"\ninsecure = true").unwrap();
        std::fs::create_dir(dir.path().join("registries.conf.d")).unwrap();
        let drop_in = dir.path().join("registries.conf.d/10.conf");
        std::fs::write(&drop_in, "[[registry]]\nlocation = \"a.io\"\nblocked = true").unwrap();
        std::fs::write(dir.path().join("registries.conf.d/readme"), "not = [toml").unwrap();
        assert!(conf.current().places(&"a.io/x".parse().unwrap()).is_err());

        std::fs::write(&drop_in, "no toml at all").unwrap();
        assert!(conf.current().places(&"a.io/x".parse().unwrap()).is_err(), "the old rules go on");
        assert!(Conf::open(&path).is_err());

        std::fs::remove_file(&drop_in).unwrap();
        assert_eq!(places(&conf.current(), "a.io/x:1"), ["a.io/x:1 insecure"]);
    }
}
