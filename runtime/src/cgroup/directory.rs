//! One cgroup's directory in one hierarchy: small files, read and written whole.

use std::borrow::Cow;
use std::fmt;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use super::Error;

/// One cgroup in one hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Directory(PathBuf);

/// A value for one file of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Write {
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
    pub(super) missing: Missing,
    /// What restores the old state; none: what the file held before.
    pub(super) undo: Option<Undo>,
}

/// A write that takes another one back, where reading the file does not tell what was there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Undo {
    pub(super) file: Cow<'static, str>,
    pub(super) value: String,
}

/// What a file that does not exist means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Missing {
    Fail,
    Skip,
}

/// The writes that were done, to be undone should a later one fail.
#[derive(Debug, Default)]
pub(super) struct Applied(Vec<(Directory, Undo)>);

// === impl Directory ===

impl Directory {
    pub(super) fn new(path: PathBuf) -> Self {
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    pub(super) fn has(&self, file: &str) -> bool {
        rustix::fs::access(self.0.join(file), rustix::fs::Access::EXISTS).is_ok()
    }

    /// The content without the newline at its end.
    pub(super) fn read(&self, file: &str) -> Result<String, Error> {
        let path = self.0.join(file);
        match fs::read_to_string(&path) {
            Ok(mut content) => {
                content.truncate(content.trim_end().len());
                Ok(content)
            }
            Err(source) => Err(Error::Io { operation: "read".to_owned(), path, source }),
        }
    }

    /// Like [`Self::read`]; none when the file or the directory does not exist.
    pub(super) fn read_if_there(&self, file: &str) -> Result<Option<String>, Error> {
        match self.read(file) {
            Ok(content) => Ok(Some(content)),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(super) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let path = self.0.join(file);
        // An empty write never reaches the kernel's handler; a newline does and means the same.
        let bytes = if value.is_empty() { "\n" } else { value };
        fs::OpenOptions::new()
            .write(true)
            .truncate(true)
            .open(&path)
            .and_then(|mut open| open.write_all(bytes.as_bytes()))
            .map_err(|source| Error::Io { operation: format!("write {value:?} to"), path, source })
    }

    /// Makes the directory; false when it was there.
    pub(super) fn make(&self) -> Result<bool, Error> {
        match fs::create_dir(&self.0) {
            Ok(()) => Ok(true),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(source) => Err(self.error("mkdir", source)),
        }
    }

    pub(super) fn error(&self, operation: &str, source: io::Error) -> Error {
        Error::Io { operation: operation.to_owned(), path: self.0.clone(), source }
    }
}

// === impl Write ===

impl Write {
    pub(super) fn new(file: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self { file: file.into(), value: value.into(), missing: Missing::Fail, undo: None }
    }

    pub(super) fn or_skip(self) -> Self {
        Self { missing: Missing::Skip, ..self }
    }

    pub(super) fn undone_by(self, file: impl Into<Cow<'static, str>>, value: impl Into<String>) -> Self {
        Self { undo: Some(Undo { file: file.into(), value: value.into() }), ..self }
    }

    /// Writes into a cgroup that is thrown away should anything fail.
    pub(super) fn set(&self, directory: &Directory) -> Result<(), Error> {
        match directory.write(&self.file, &self.value) {
            Err(error) if self.missing == Missing::Skip && error.is_missing() => Ok(()),
            result => result,
        }
    }
}

impl fmt::Display for Write {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={}", self.file, self.value)
    }
}

// === impl Applied ===

impl Applied {
    /// Writes and remembers what was there before.
    pub(super) fn write(&mut self, directory: &Directory, write: &Write) -> Result<(), Error> {
        let undo = match &write.undo {
            Some(undo) => undo.clone(),
            None => match directory.read(&write.file) {
                Ok(value) => Undo { file: write.file.clone(), value },
                Err(error) if write.missing == Missing::Skip && error.is_missing() => return Ok(()),
                Err(error) => return Err(error),
            },
        };
        write.set(directory)?;
        self.0.push((directory.clone(), undo));
        Ok(())
    }

    /// The files that were written and what they held.
    pub(super) fn old(&self) -> impl Iterator<Item = (String, String)> + '_ {
        self.0.iter().map(|(_, undo)| (undo.file.clone().into_owned(), undo.value.clone()))
    }

    /// Restores the old values, last first.
    pub(super) fn undo(self) {
        for (directory, undo) in self.0.iter().rev() {
            if let Err(error) = directory.write(&undo.file, &undo.value) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "an old cgroup value could not be restored"
                );
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undoes_in_reverse_order() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path().to_owned());
        for (file, value) in [("a", "1\n"), ("b", "max 100000\n"), ("c", "\n")] {
            fs::write(root.path().join(file), value).unwrap();
        }
        let mut applied = Applied::default();
        for write in [
            Write::new("a", "2"),
            Write::new("b", "5 10"),
            Write::new("c", "0-1"),
            Write::new("a", "3"),
            Write::new("gone", "1").or_skip(),
        ] {
            applied.write(&directory, &write).unwrap();
        }
        assert_eq!(directory.read("a").unwrap(), "3");
        let error = applied.write(&directory, &Write::new("gone", "1")).unwrap_err();
        assert!(error.is_missing());
        assert!(error.to_string().starts_with("read /"), "{error}");
        applied.undo();
        assert_eq!(directory.read("a").unwrap(), "1");
        assert_eq!(directory.read("b").unwrap(), "max 100000");
        assert_eq!(directory.read("c").unwrap(), "");
    }

    #[test]
    fn does_not_create_files() {
        let root = tempfile::tempdir().unwrap();
        let directory = Directory::new(root.path().to_owned());
        let error = directory.write("pids.max", "5").unwrap_err();
        assert!(error.to_string().starts_with("write \"5\" to /"), "{error}");
        assert!(!directory.has("pids.max"));
        assert_eq!(directory.read_if_there("pids.max").unwrap(), None);
    }
}
