//! The rules of CONTRIBUTING.md that the compiler does not check.

use std::fs;
use std::path::{Path, PathBuf};

/// The crates, with those of ours that each may use.
const ARROWS: [(&str, &[&str]); 6] = [
    ("cri", &["corten-image", "corten-network", "corten-pod", "corten-runtime"]),
    ("pod", &["corten-image", "corten-network", "corten-runtime"]),
    ("image", &[]),
    ("network", &[]),
    ("runtime", &[]),
    ("tests", &[]),
];

/// What only the crates named here may use: the wire stays in one place.
const WIRE: [&str; 4] = ["prost", "tonic", "tonic-prost", "k8s-cri"];

/// Names that say nothing of what is inside.
const EMPTY_NAMES: [&str; 8] = ["utils", "util", "helpers", "common", "misc", "types", "manager", "base"];

const CODE_LINES: usize = 400;
const ALL_LINES: usize = 600;

/// rustfmt leaves comments as they are.
const COMMENT_COLUMNS: usize = 120;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"))
}

/// One Rust file.
struct Source {
    /// Relative to the repository.
    path: PathBuf,
    text: String,
}

impl Source {
    /// Lines with what is neither comment nor the content of a string.
    fn code(&self) -> impl Iterator<Item = (usize, String)> {
        self.text.lines().enumerate().map(|(at, line)| (at + 1, bare(line)))
    }
}

/// The line without comments and strings, roughly: enough to find a keyword.
fn bare(line: &str) -> String {
    let mut bare = String::new();
    let mut chars = line.chars().peekable();
    let mut quoted = false;
    while let Some(char) = chars.next() {
        match (char, quoted) {
            ('\\', true) => drop(chars.next()),
            ('"', _) => quoted = !quoted,
            ('/', false) if chars.peek() == Some(&'/') => break,
            (char, false) => bare.push(char),
            _ => {}
        }
    }
    bare
}

fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    for (name, _) in ARROWS {
        collect(&repository().join(name), &mut sources);
    }
    collect(&repository().join("hack"), &mut sources);
    assert!(sources.len() > 50, "only {} files found", sources.len());
    sources
}

fn collect(dir: &Path, sources: &mut Vec<Source>) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                collect(&path, sources);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(&path).expect("a readable file");
            let path = path.strip_prefix(repository()).expect("a file of the repository").to_owned();
            sources.push(Source { path, text });
        }
    }
}

/// Fails with all complaints at once.
fn none(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}\n", complaints.join("\n"));
}

#[test]
fn every_file_says_first_what_it_is() {
    let silent = sources().into_iter().filter(|source| !source.text.starts_with("//! "));
    let complaints: Vec<_> =
        silent.map(|source| format!("{}: no //! header", source.path.display())).collect();
    none(&complaints);
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        let all = text.lines().count();
        let code = text.lines().position(|line| line == "#[cfg(test)]").unwrap_or(all);
        let is_test =
            path.components().any(|part| matches!(part.as_os_str().to_str(), Some("tests" | "tests.rs")));
        if all > ALL_LINES || (code > CODE_LINES && !is_test) {
            complaints.push(format!("{}: {code} lines of code, {all} in all", path.display()));
        }
    }
    none(&complaints);
}

#[test]
fn no_name_is_empty() {
    let mut complaints = Vec::new();
    for Source { path, .. } in sources() {
        let mut parts = path.iter().filter_map(|part| part.to_str());
        if parts.any(|part| EMPTY_NAMES.contains(&part.trim_end_matches(".rs"))) {
            complaints.push(format!("{}: the name says nothing", path.display()));
        }
    }
    none(&complaints);
}

#[test]
fn unsafe_code_is_in_one_place() {
    let mut complaints = Vec::new();
    for source in sources() {
        if source.path.starts_with("runtime/src/sys") {
            continue;
        }
        for (at, line) in source.code() {
            let mut words = line.split(|char: char| !char.is_alphanumeric() && char != '_');
            if words.any(|word| word == "unsafe") {
                complaints.push(format!("{}:{at}: unsafe outside runtime/src/sys", source.path.display()));
            }
        }
    }
    none(&complaints);
}

#[test]
fn nothing_is_put_off_or_left_out() {
    let mut complaints = Vec::new();
    for source in sources() {
        if source.path.starts_with("tests/tidy") {
            continue;
        }
        for (at, line) in source.text.lines().enumerate() {
            let marks = ["TODO", "FIXME", "XXX:", "#[ignore", "unimplemented!("];
            for mark in marks.into_iter().filter(|mark| line.contains(mark)) {
                complaints.push(format!("{}:{}: {mark}", source.path.display(), at + 1));
            }
        }
    }
    none(&complaints);
}

#[test]
fn every_exception_to_a_lint_gives_its_reason() {
    let mut complaints = Vec::new();
    for source in sources() {
        let mut rest = source.text.as_str();
        while let Some(at) = rest.find("[allow(").or_else(|| rest.find("[expect(")) {
            let attribute = &rest[at..];
            let end = attribute.find(")]").unwrap_or(attribute.len());
            if !attribute[..end].contains("reason") && !source.path.starts_with("tests/tidy") {
                let line = source.text.len() - rest.len() + at;
                let line = source.text[..line].lines().count();
                complaints.push(format!("{}:{line}: no reason", source.path.display()));
            }
            rest = &attribute[end..];
        }
    }
    none(&complaints);
}

#[test]
fn lines_end_where_their_text_ends() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        let trailing = text.lines().position(|line| line.ends_with([' ', '\t']));
        if let Some(at) = trailing {
            complaints.push(format!("{}:{}: white space at the end", path.display(), at + 1));
        }
        if !text.ends_with('\n') || text.ends_with("\n\n") {
            complaints.push(format!("{}: one newline at the end", path.display()));
        }
    }
    none(&complaints);
}

#[test]
fn no_comment_is_too_wide() {
    let mut complaints = Vec::new();
    for Source { path, text } in sources() {
        for (at, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("//") && line.chars().count() > COMMENT_COLUMNS {
                complaints.push(format!("{}:{}: wider than {COMMENT_COLUMNS}", path.display(), at + 1));
            }
        }
    }
    none(&complaints);
}

/// Names of the dependencies in a manifest, those for tests alone left out.
fn dependencies(package: &str) -> Vec<String> {
    let manifest = fs::read_to_string(repository().join(package).join("Cargo.toml")).expect("a manifest");
    let mut names = Vec::new();
    let mut listed = false;
    for line in manifest.lines() {
        if let Some(section) = line.strip_prefix('[') {
            listed = section.starts_with("dependencies") || section.starts_with("build-dependencies");
        } else if listed {
            let name = line.split(['.', ' ', '=']).next().unwrap_or_default();
            names.extend((!name.is_empty() && !name.starts_with('#')).then(|| name.to_owned()));
        }
    }
    assert!(!names.is_empty(), "no dependencies of {package}");
    names
}

#[test]
fn arrows_between_the_crates_point_down_only() {
    let mut complaints = Vec::new();
    for (package, allowed) in ARROWS {
        for name in dependencies(package) {
            if name.starts_with("corten") && !allowed.contains(&name.as_str()) {
                complaints.push(format!("{package} must not use {name}"));
            }
            if WIRE.contains(&name.as_str()) && !matches!(package, "cri" | "tests") {
                complaints.push(format!("{package} must not use {name}: the wire belongs to cri"));
            }
        }
    }
    none(&complaints);
}

#[test]
fn scripts_stop_at_the_first_error_and_say_what_they_do() {
    let mut complaints = Vec::new();
    for entry in fs::read_dir(repository().join("hack")).unwrap().flatten() {
        if !entry.path().is_file() {
            continue;
        }
        let text = fs::read_to_string(entry.path()).unwrap();
        let mut lines = text.lines();
        let name = entry.file_name();
        if !lines.next().unwrap_or_default().starts_with("#!") {
            complaints.push(format!("{}: no interpreter", name.display()));
        }
        if !lines.next().unwrap_or_default().starts_with("# ") {
            complaints.push(format!("{}: no word on what it does", name.display()));
        }
        if !text.contains("pipefail") {
            complaints.push(format!("{}: no pipefail", name.display()));
        }
    }
    none(&complaints);
}
