//! Reading the configuration file and its drop-ins, with errors that say where a mistake is.

use std::fs;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Table;

use super::Config;

/// Why the configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The file or its directory cannot be read.
    #[error("read {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// A file says something that cannot be.
    #[error("{}:{line}: {key}{reason}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The option with its section and a colon, or nothing if the mistake belongs to none.
        key: String,
        /// What is wrong.
        reason: String,
    },
}

/// Reads a file, which may be missing unless it is `required`, and its drop-ins; later ones win key by key.
pub(super) fn load(path: &Path, required: bool) -> Result<Config, Error> {
    let mut merged = Table::new();
    let mut files = drop_ins(path)?;
    match fs::read_to_string(path) {
        Ok(text) => merge(&mut merged, parse(path, &text)?),
        Err(source) if required || source.kind() != io::ErrorKind::NotFound => {
            return Err(Error::Read { path: path.to_owned(), source });
        }
        Err(_) => {}
    }
    files.sort();
    for path in &files {
        let text = fs::read_to_string(path).map_err(|source| Error::Read { path: path.clone(), source })?;
        merge(&mut merged, parse(path, &text)?);
    }
    let mut config = Config::deserialize(merged).map_err(|error| Error::Invalid {
        path: path.to_owned(),
        line: 0,
        key: String::new(),
        reason: error.to_string(),
    })?;
    forget_empty(&mut config);
    Ok(config)
}

fn drop_ins(path: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut directory = path.as_os_str().to_owned();
    directory.push(".d");
    let directory = PathBuf::from(directory);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect::<io::Result<Vec<_>>>(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    };
    let mut files = entries.map_err(|source| Error::Read { path: directory, source })?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    Ok(files)
}

/// Checks one file by itself, so that a mistake is found where it was made.
fn parse(path: &Path, text: &str) -> Result<Table, Error> {
    let invalid = |line: usize, key: String, reason: &str| Error::Invalid {
        path: path.to_owned(),
        line,
        key: if key.is_empty() { key } else { format!("{key}: ") },
        reason: reason.trim_end().to_owned(),
    };
    let wrong = |error: toml::de::Error| {
        let (line, key) = place(text, error.span().unwrap_or_default());
        invalid(line, key, error.message())
    };
    let table: Table = toml::from_str(text).map_err(wrong)?;
    let mut config: Config = toml::from_str(text).map_err(wrong)?;
    forget_empty(&mut config);
    if let Some((key, reason)) = config.mistake() {
        let line = (1..=text.lines().count()).find(|line| key_at(text, *line) == key);
        return Err(invalid(line.unwrap_or_default(), key, reason));
    }
    Ok(table)
}

/// An empty path is one that is not given.
fn forget_empty(config: &mut Config) {
    let (image, streaming) = (&mut config.image, &mut config.streaming);
    for path in [
        &mut image.hosts_dir,
        &mut image.auth_file,
        &mut image.policy,
        &mut config.runtimes.corten.path,
        &mut streaming.tls_cert,
        &mut streaming.tls_key,
    ] {
        path.take_if(|path| path.as_os_str().is_empty());
    }
}

/// Tables are merged, everything else is replaced.
fn merge(into: &mut Table, from: Table) {
    for (key, value) in from {
        match (into.get_mut(&key), value) {
            (Some(toml::Value::Table(old)), toml::Value::Table(new)) => merge(old, new),
            (_, value) => {
                into.insert(key, value);
            }
        }
    }
}

/// The line of a place in the text, and the option that it belongs to.
fn place(text: &str, span: Range<usize>) -> (usize, String) {
    let before = text.get(..span.start).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    (line, key_at(text, line))
}

/// The option that a line (from 1) belongs to, with its section: a value may go over several lines.
fn key_at(text: &str, line: usize) -> String {
    let mut key = None;
    let mut lines: Vec<&str> = text.lines().take(line).map(str::trim).collect();
    while let Some(line) = lines.pop() {
        if let Some(section) = line.strip_prefix('[').and_then(|line| line.split(']').next()) {
            return match key {
                Some(key) => format!("{section}.{key}"),
                None => section.to_owned(),
            };
        }
        if key.is_none() && !line.starts_with('#') {
            key = line.split_once('=').map(|(key, _)| key.trim().to_owned());
        }
    }
    key.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mistakes_name_file_line_and_key() {
        let check = |text: &str, expected: &str| {
            let error = parse(Path::new("/c.toml"), text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error:?} does not begin with {expected:?}");
        };
        check("log = \"loud\"\n", "/c.toml:1: log: unknown variant `loud`");
        check("\n# x\nlok = \"info\"\n", "/c.toml:3: lok: unknown field `lok`");
        check("[image]\nmax_parallel_pulls = \"x\"\n", "/c.toml:2: image.max_parallel_pulls: invalid type");
        check("[image]\n\nmax_parallel_pulls = 0\n", "/c.toml:3: image.max_parallel_pulls: the number must");
        check("[cni]\nbin_dirs = [\n  \"/a\",\n  1,\n]\n", "/c.toml:4: cni.bin_dirs: invalid type");
        check("[cni]\nconf_dir = \"net.d\"\n", "/c.toml:2: cni.conf_dir: the path must be absolute");
        check("[nonsense]\n", "/c.toml:1: nonsense: unknown field");
        check("[runtimes.runc]\n", "/c.toml:1: runtimes.runc: a handler that is not native needs `path`");
        check(
            "[runtimes.runc]\ntype = \"oci\"\npath = \"runc\"\n",
            "/c.toml:3: runtimes.runc.path: the path must be absolute",
        );
        check("[cgroup]\ndriver = \"v1\"\n", "/c.toml:2: cgroup.driver: unknown variant `v1`");
        check(
            "listen = \"tcp://0.0.0.0:1\"\n",
            "/c.toml:1: listen: \"tcp://0.0.0.0:1\" is not a unix socket",
        );
        check("root = \n", "/c.toml:1: root: ");
    }

    #[test]
    fn drop_ins_come_in_order_and_win_key_by_key() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        let more = dir.path().join("config.toml.d");
        fs::create_dir(&more).unwrap();
        fs::write(&path, "root = \"/a\"\n[image]\npinned = [\"x\"]\nmax_parallel_pulls = 1\n").unwrap();
        fs::write(more.join("20.toml"), "[image]\nmax_parallel_pulls = 3\n").unwrap();
        fs::write(more.join("10.toml"), "[image]\nmax_parallel_pulls = 2\npolicy = \"\"\n").unwrap();
        fs::write(more.join("30.toml.off"), "nonsense").unwrap();
        let config = load(&path, true).unwrap();
        assert_eq!(config.root, Path::new("/a"));
        assert_eq!(config.image.max_parallel_pulls, 3);
        assert_eq!(config.image.pinned, ["x"]);
        assert_eq!(config.image.policy, None);
        assert_eq!(config.image.max_parallel_layers, Config::default().image.max_parallel_layers);
    }

    #[test]
    fn only_a_named_file_must_exist() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        assert_eq!(load(&path, false).unwrap(), Config::default());
        assert!(matches!(load(&path, true), Err(Error::Read { .. })));
    }
}
