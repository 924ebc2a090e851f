//! The configuration file as a manual: every option with its text and its default.
//!
//! The texts are the doc comments of the structs, collected by build.rs.

use clap_mangen::roff::{Roff, bold, roman};
use toml::{Table, Value};

use super::Config;

const WIDTH: usize = 100;

/// A table of the file.
struct Section {
    name: &'static str,
    text: &'static str,
    keys: &'static [(&'static str, &'static str)],
}

static SECTIONS: &[Section] = &include!(concat!(env!("OUT_DIR"), "/manual.rs"));

const INTRODUCTION: &str = "Every option is here at its default; take the # away to change it. Files in the directory config.toml.d whose \
     names end in .toml are read after this one, in order, and win option by option. `corten config check` says what \
     is wrong with a file.";

/// A configuration file with every option, each commented out at its default.
pub(crate) fn default_file() -> Result<String, toml::ser::Error> {
    let defaults = Table::try_from(Config::default())?;
    let mut file = String::new();
    comment(&mut file, &format!("Corten's configuration. {INTRODUCTION}"));
    for section in SECTIONS {
        file.push('\n');
        if !section.name.is_empty() {
            comment(&mut file, section.text);
            file.push_str(&format!("[{}]\n", section.name));
        }
        for (index, (key, text, default)) in section.options(&defaults).enumerate() {
            if index > 0 {
                file.push('\n');
            }
            comment(&mut file, text);
            file.push_str(&format!("#{key} = {default}\n"));
        }
    }
    Ok(file)
}

/// The manual page corten.toml(5), in roff.
pub(crate) fn manual_page() -> Result<String, toml::ser::Error> {
    let defaults = Table::try_from(Config::default())?;
    let mut page = Roff::new();
    page.control("TH", ["corten.toml", "5", "", concat!("corten ", env!("CARGO_PKG_VERSION"))]);
    page.control("SH", ["NAME"]).text([roman("corten.toml - what can be configured of corten(1)")]);
    page.control("SH", ["DESCRIPTION"])
        .text([roman(format!("The file is {}. {INTRODUCTION}", super::DEFAULT_PATH))]);
    for section in SECTIONS {
        let title =
            if section.name.is_empty() { "OPTIONS".to_owned() } else { format!("[{}]", section.name) };
        page.control("SH", [title.as_str()]).text([roman(section.text)]);
        for (key, text, default) in section.options(&defaults) {
            page.control("TP", []).text([bold(key), roman(format!(" = {default}"))]).text([roman(text)]);
        }
    }
    Ok(page.render())
}

impl Section {
    /// Each option with its text and its default as it would be written.
    fn options(&self, defaults: &Table) -> impl Iterator<Item = (&'static str, &'static str, String)> {
        let mut path = self.name.split('.').filter(|part| !part.is_empty());
        let values = path.try_fold(defaults, |table, part| table.get(part)?.as_table());
        self.keys.iter().filter(|(key, _)| !is_section(self, key)).map(move |(key, text)| {
            let value = values.and_then(|values| values.get(*key));
            (*key, *text, value.map_or_else(|| "\"\"".to_owned(), Value::to_string))
        })
    }
}

/// Whether a key of the topmost table is a section of its own.
fn is_section(section: &Section, key: &str) -> bool {
    let own = |other: &Section| other.name.split('.').next() == Some(key);
    section.name.is_empty() && SECTIONS.iter().any(own)
}

/// Writes a text as comment lines.
fn comment(file: &mut String, text: &str) {
    let mut width = usize::MAX;
    for word in text.split_whitespace() {
        if width.saturating_add(word.len() + 1) > WIDTH {
            file.push_str(if width == usize::MAX { "#" } else { "\n#" });
            width = 1;
        }
        file.push(' ');
        file.push_str(word);
        width += word.len() + 1;
    }
    file.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The file as someone would have it who takes every option as it is.
    fn uncommented() -> String {
        let file = default_file().unwrap();
        let lines = file.lines().map(|line| match line.strip_prefix('#') {
            Some(option) if !option.starts_with(' ') => option,
            _ => line,
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn the_manual_is_complete_and_says_the_defaults() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config.toml");
        std::fs::write(&path, uncommented()).unwrap();
        assert_eq!(Config::load(Some(&path)).unwrap(), Config::default());
        let written: Table = toml::from_str(&uncommented()).unwrap();
        let defaults = Table::try_from(Config::default()).unwrap();
        contains(&written, &defaults, "");
        for section in SECTIONS {
            for (key, text) in section.keys {
                assert!(!text.is_empty(), "{}.{key} has no text", section.name);
            }
        }
    }

    fn contains(written: &Table, defaults: &Table, path: &str) {
        for (key, value) in defaults {
            let path = format!("{path}{key}.");
            match (written.get(key), value) {
                (Some(Value::Table(written)), Value::Table(defaults)) => contains(written, defaults, &path),
                (found, value) => assert_eq!(found, Some(value), "{path}"),
            }
        }
    }

    #[test]
    fn it_is_as_committed() {
        let golden = concat!(env!("CARGO_MANIFEST_DIR"), "/config.toml");
        let file = default_file().unwrap();
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(golden, &file).unwrap();
        }
        let committed = std::fs::read_to_string(golden).unwrap();
        for (now, then) in file.lines().zip(committed.lines()) {
            assert_eq!(now, then, "run with UPDATE=1 to accept the change");
        }
        assert_eq!(file.len(), committed.len(), "run with UPDATE=1 to accept the change");
    }
}
