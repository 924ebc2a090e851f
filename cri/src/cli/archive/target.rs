//! What images are written to: a directory, or a tar archive, which takes its name when it is whole.

use std::fs::{self, File, OpenOptions};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use image::ustar;

use crate::cli::output;

/// Takes files, one after the other.
pub(super) struct Target {
    kind: Kind,
    /// Bytes that the file that was begun still needs.
    missing: u64,
    padding: usize,
}

enum Kind {
    Directory { root: PathBuf, file: Option<File> },
    Archive { output: BufWriter<Box<dyn Write>>, place: Option<(PathBuf, PathBuf)> },
}

impl Target {
    /// Writes into a directory, which must be empty or not there.
    pub(super) fn directory(root: &Path) -> anyhow::Result<Self> {
        let context = || format!("make directory {}", root.display());
        fs::create_dir_all(root).with_context(context)?;
        ensure!(
            fs::read_dir(root).with_context(context)?.next().is_none(),
            "{} is not empty",
            root.display()
        );
        Ok(Self::new(Kind::Directory { root: root.to_owned(), file: None }))
    }

    /// Writes an archive to a file, or to standard output (`-`).
    pub(super) fn archive(path: &Path) -> anyhow::Result<Self> {
        let context = || format!("write {}", path.display());
        let (output, place): (Box<dyn Write>, _) = if path == Path::new("-") {
            (Box::new(output::stdout()), None)
        } else if fs::metadata(path).is_ok_and(|metadata| !metadata.is_file()) {
            // A pipe or a device is written to, not replaced.
            (Box::new(OpenOptions::new().write(true).open(path).with_context(context)?), None)
        } else {
            let mut unfinished = path.as_os_str().to_owned();
            unfinished.push(format!(".{}.new", std::process::id()));
            let unfinished = PathBuf::from(unfinished);
            let file = File::create_new(&unfinished).with_context(context)?;
            (Box::new(file), Some((unfinished, path.to_owned())))
        };
        Ok(Self::new(Kind::Archive { output: BufWriter::with_capacity(1 << 20, output), place }))
    }

    fn new(kind: Kind) -> Self {
        Self { kind, missing: 0, padding: 0 }
    }

    /// Begins a file of so many bytes.
    pub(super) fn begin(&mut self, name: &str, size: u64) -> anyhow::Result<()> {
        self.end()?;
        (self.missing, self.padding) = (size, ustar::padding(size));
        match &mut self.kind {
            Kind::Directory { root, file } => {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap_or(root))?;
                *file = Some(File::create(&path).with_context(|| format!("write {}", path.display()))?);
            }
            Kind::Archive { output, .. } => output.write_all(&ustar::start(name.as_bytes(), size))?,
        }
        Ok(())
    }

    /// Writes the next bytes of the file.
    pub(super) fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        let left = self.missing.checked_sub(bytes.len() as u64);
        self.missing = left.context("the server sent more of a layer than it said")?;
        match &mut self.kind {
            Kind::Directory { file: Some(file), .. } => file.write_all(bytes)?,
            Kind::Directory { .. } => {}
            Kind::Archive { output, .. } => output.write_all(bytes)?,
        }
        Ok(())
    }

    /// Writes a whole file.
    pub(super) fn file(&mut self, name: &str, bytes: &[u8]) -> anyhow::Result<()> {
        self.begin(name, bytes.len() as u64)?;
        self.write(bytes)
    }

    /// Ends the archive and puts it in its place.
    pub(super) fn finish(mut self) -> anyhow::Result<()> {
        self.end()?;
        if let Kind::Archive { output, place } = &mut self.kind {
            output.write_all(&ustar::END)?;
            output.flush()?;
            if let Some((unfinished, path)) = place.take() {
                fs::rename(&unfinished, &path).with_context(|| format!("write {}", path.display()))?;
            }
        }
        Ok(())
    }

    fn end(&mut self) -> anyhow::Result<()> {
        ensure!(self.missing == 0, "the server sent less of a layer than it said");
        if let Kind::Archive { output, .. } = &mut self.kind {
            output.write_all(&vec![0; self.padding])?;
        }
        self.padding = 0;
        Ok(())
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Kind::Archive { place: Some((unfinished, _)), .. } = &self.kind {
            // The reason why it is not whole has been told.
            drop(fs::remove_file(unfinished));
        }
    }
}
