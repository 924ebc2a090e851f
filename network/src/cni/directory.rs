//! The directory of configurations: which network it says, and what is wrong with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use super::config::{ConfigError, NetworkConfig, PluginConfig};

/// Files larger than this are no configurations.
const FILE_BYTES: u64 = 1 << 20;
const LIST: &str = "conflist";
const SINGLE: [&str; 2] = ["conf", "json"];

/// What a directory says.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The first valid network, and its file.
    pub(super) network: Option<(PathBuf, NetworkConfig)>,
    /// What is wrong with the files before it.
    pub(super) problems: Vec<Problem>,
    /// Directories of further plugins, there or not: they matter as much as the directory itself.
    pub(super) further: Vec<PathBuf>,
}

/// A file, or the directory, that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Problem {
    /// The file.
    pub(super) path: PathBuf,
    /// What is wrong with it.
    pub(super) reason: String,
}

/// Why a file is no network.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error("{0}")]
    Config(ConfigError),
    #[error("{path}: {source}")]
    Further { path: String, source: ConfigError },
    #[error("{0}")]
    Read(io::Error),
    #[error("larger than {FILE_BYTES} bytes")]
    TooLarge,
}

/// Reads a directory; one that is not there has no files.
pub(super) fn list(dir: &Path) -> Listing {
    let mut listing = Listing::default();
    let files = match files(dir, |ending| ending == LIST || SINGLE.contains(&ending)) {
        Ok(files) => files,
        Err(error) => {
            listing.problems.push(Problem { path: dir.to_owned(), reason: error.to_string() });
            return listing;
        }
    };
    for path in files {
        match load(&path, &mut listing.further) {
            Ok(network) => {
                listing.network = Some((path, network));
                break;
            }
            Err(error) => listing.problems.push(Problem { path, reason: error.to_string() }),
        }
    }
    listing
}

fn load(path: &Path, further: &mut Vec<PathBuf>) -> Result<NetworkConfig, FileError> {
    let bytes = read(path)?;
    if path.extension().is_none_or(|ending| ending != LIST) {
        return NetworkConfig::parse_single(&bytes).map_err(FileError::Config);
    }
    let network = NetworkConfig::parse_list(&bytes).map_err(FileError::Config)?;
    if !network.open_ended {
        return Ok(network);
    }
    let dir = path.with_file_name(&network.name);
    further.push(dir.clone());
    let plugins = further_plugins(&dir)?;
    network.extend(plugins).map_err(FileError::Config)
}

/// The plugins that others put beside a list, in a directory with the network's name.
fn further_plugins(dir: &Path) -> Result<Vec<PluginConfig>, FileError> {
    let parse = |path: PathBuf| {
        PluginConfig::parse(&read(&path)?)
            .map_err(|source| FileError::Further { path: path.display().to_string(), source })
    };
    files(dir, |ending| ending == "conf").map_err(FileError::Read)?.into_iter().map(parse).collect()
}

/// The files of a directory with one of the endings, in the order of their names.
fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<Vec<PathBuf>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut files = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if path.extension().and_then(|ending| ending.to_str()).is_some_and(&wanted) && !path.is_dir() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    // A pipe would hold the reader up for ever.
    let metadata = fs::metadata(path).map_err(FileError::Read)?;
    if !metadata.is_file() {
        return Err(FileError::Read(io::Error::other("not a regular file")));
    }
    if metadata.len() > FILE_BYTES {
        return Err(FileError::TooLarge);
    }
    fs::read(path).map_err(FileError::Read)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST_TEXT: &str = r#"{"cniVersion": "1.0.0", "name": "NAME", "plugins": [{"type": "bridge"}]}"#;

    fn check(files: &[(&str, &str)], network: Option<&str>, problems: &[&str]) {
        let dir = tempfile::tempdir().expect("directory");
        for (name, text) in files {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            fs::write(path, text).expect("written");
        }
        let listing = list(dir.path());
        let found = listing.network.as_ref().map(|(_, network)| network.name.as_str());
        let wrong: Vec<_> = listing
            .problems
            .iter()
            .map(|problem| {
                format!("{}: {}", problem.path.file_name().unwrap_or_default().display(), problem.reason)
            })
            .collect();
        assert_eq!(
            (found, wrong.as_slice()),
            (network, problems.iter().map(|p| (*p).to_owned()).collect::<Vec<_>>().as_slice())
        );
    }

    fn named(name: &str) -> String {
        LIST_TEXT.replace("NAME", name)
    }

    #[test]
    fn the_first_valid_file_in_the_order_of_names() {
        check(&[], None, &[]);
        check(&[("20-b.conflist", &named("b")), ("10-a.conflist", &named("a"))], Some("a"), &[]);
        check(
            &[("10-x.conf", r#"{"name": "x", "type": "ptp"}"#), ("20-b.conflist", &named("b"))],
            Some("x"),
            &[],
        );
        check(
            &[("5.json", r#"{"name": "j", "type": "ptp"}"#), ("readme", "no"), ("0.txt", "no")],
            Some("j"),
            &[],
        );
    }

    #[test]
    fn bad_files_are_passed_over() {
        check(
            &[
                ("1.conflist", "{}"),
                ("2.conf", r#"{"name": "x"}"#),
                ("3.conflist", &named("c")),
                ("4.conflist", ""),
            ],
            Some("c"),
            &[
                "1.conflist: network name \"\" is not alphanumeric (with _ . - after the first character)",
                "2.conf: plugin type \"\" is not a plain file name",
            ],
        );
        check(&[("1.conflist", r#"{"name": "n"}"#)], None, &["1.conflist: no plugins"]);
    }

    #[test]
    fn plugins_beside_a_list_are_added() {
        let dir = tempfile::tempdir().expect("directory");
        fs::write(dir.path().join("1.conflist"), named("pods")).expect("written");
        fs::create_dir(dir.path().join("pods")).expect("made");
        fs::write(dir.path().join("pods/5.conf"), r#"{"type": "tuning"}"#).expect("written");
        let listing = list(dir.path());
        assert_eq!(listing.further, [dir.path().join("pods")]);
        let (_, network) = listing.network.expect("a network");
        let programs: Vec<_> = network.plugins.iter().map(|plugin| plugin.program.as_str()).collect();
        assert_eq!(programs, ["bridge", "tuning"]);
        let closed = named("pods").replacen('{', r#"{"loadOnlyInlinedPlugins": true, "#, 1);
        fs::write(dir.path().join("1.conflist"), closed).expect("written");
        assert_eq!(list(dir.path()).network.expect("a network").1.plugins.len(), 1);
    }

    #[test]
    fn what_is_no_directory_or_no_file() {
        let dir = tempfile::tempdir().expect("directory");
        let missing = list(&dir.path().join("missing"));
        assert!(missing.network.is_none() && missing.problems.is_empty());
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.path().join("1.conf"), rustix::fs::Mode::RWXU)
            .expect("made");
        fs::create_dir(dir.path().join("2.conf")).expect("made");
        assert_eq!(list(dir.path()).problems.len(), 1);
    }
}
