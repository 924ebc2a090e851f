//! What images are written to: a directory, or a tar archive. Nothing takes its name before it is whole.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};

use crate::cli::output;

const BLOCK: usize = 512;

/// Takes files, one after the other.
pub(super) struct Target {
    kind: Kind,
    /// Bytes that the file that was begun still needs.
    missing: u64,
    padding: u64,
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
        let (output, place): (Box<dyn Write>, _) = if path == Path::new("-") {
            (Box::new(output::stdout()), None)
        } else {
            let mut unfinished = path.as_os_str().to_owned();
            unfinished.push(format!(".{}.new", std::process::id()));
            let unfinished = PathBuf::from(unfinished);
            let file = File::create(&unfinished).with_context(|| format!("write {}", path.display()))?;
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
        (self.missing, self.padding) = (size, size.wrapping_neg() % BLOCK as u64);
        match &mut self.kind {
            Kind::Directory { root, file } => {
                let path = root.join(name);
                fs::create_dir_all(path.parent().unwrap_or(root))?;
                *file = Some(File::create(&path).with_context(|| format!("write {}", path.display()))?);
            }
            Kind::Archive { output, .. } => output.write_all(&header(name, size)?)?,
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
            output.write_all(&[0; 2 * BLOCK])?;
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
            output.write_all(&vec![0; usize::try_from(self.padding)?])?;
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

/// The header of a file in the ustar format; beyond 8 GiB the size is in GNU's base 256.
fn header(name: &str, size: u64) -> anyhow::Result<[u8; BLOCK]> {
    ensure!(name.len() < 100, "the name {name:?} is too long");
    let mut block = [0; BLOCK];
    let mut put = |at: usize, value: &[u8]| block[at..at + value.len()].copy_from_slice(value);
    put(0, name.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    if size < 1 << 33 {
        put(124, format!("{size:011o}").as_bytes());
    } else {
        put(124, &[0x80, 0, 0, 0]);
        put(128, &size.to_be_bytes());
    }
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, b"0");
    put(257, b"ustar\x0000");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
