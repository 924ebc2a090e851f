//! What images are read from: a directory, or a tar archive, also a compressed one or one from a pipe.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, anyhow, bail, ensure};
use flate2::read::MultiGzDecoder;
use image::unpack::Member;
use rustix::fs::{CWD, Mode, OFlags, openat};

/// How many links may lead to a member.
const MAX_LINKS: usize = 8;

/// A directory or an archive.
#[derive(Debug)]
pub(super) enum Source {
    Directory(PathBuf),
    Archive { file: File, members: HashMap<String, Member> },
}

/// A member that is being read.
pub(super) struct Opened {
    pub(super) content: Box<dyn Read>,
    pub(super) size: u64,
}

impl Source {
    /// Opens a directory, an archive, or standard input (`-`).
    pub(super) fn open(name: &str) -> anyhow::Result<Self> {
        if name != "-" && Path::new(name).is_dir() {
            return Ok(Self::Directory(name.into()));
        }
        let context = || format!("read the archive {name}");
        let input = if name == "-" { standard_input() } else { File::open(name) };
        let file = seekable(input.with_context(context)?).and_then(plain).with_context(context)?;
        let listed = image::unpack::list(BufReader::with_capacity(1 << 20, &file));
        let members = listed.map_err(|reason| anyhow!("{}: {reason}", context()))?;
        let members = members.into_iter().map(|member| (member.name.clone(), member)).collect();
        Ok(Self::Archive { file, members })
    }

    /// Tells whether there is a member of this name.
    pub(super) fn has(&self, name: &str) -> bool {
        match self {
            Self::Directory(root) => checked(name).is_ok_and(|name| root.join(name).exists()),
            Self::Archive { .. } => self.member(name).is_ok(),
        }
    }

    /// Opens a member.
    pub(super) fn member_content(&self, name: &str) -> anyhow::Result<Opened> {
        match self {
            Self::Directory(root) => {
                let path = root.join(checked(name)?);
                let file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
                let size = file.metadata()?.len();
                Ok(Opened { content: Box::new(file), size })
            }
            Self::Archive { file, .. } => {
                let member = self.member(name)?;
                let mut file = reopened(file)?;
                file.seek(SeekFrom::Start(member.offset))?;
                Ok(Opened { content: Box::new(file.take(member.size)), size: member.size })
            }
        }
    }

    /// Reads a small member whole.
    pub(super) fn read(&self, name: &str, limit: u64) -> anyhow::Result<Vec<u8>> {
        let opened = self.member_content(name)?;
        ensure!(opened.size <= limit, "{name} in the archive is larger than {limit} bytes");
        let mut bytes = Vec::new();
        opened.content.take(limit).read_to_end(&mut bytes).with_context(|| format!("read {name}"))?;
        Ok(bytes)
    }

    fn member(&self, name: &str) -> anyhow::Result<&Member> {
        let Self::Archive { members, .. } = self else { bail!("{name} is in no archive") };
        let mut name = name.to_owned();
        for _ in 0..MAX_LINKS {
            let member = members.get(&name).with_context(|| format!("{name} is not in the archive"))?;
            let Some((target, from_root)) = &member.link else { return Ok(member) };
            let parent = Path::new(&name).parent().filter(|_| !from_root).unwrap_or_else(|| Path::new(""));
            name = normal(&parent.join(target));
        }
        bail!("{name}: too many links lead to it")
    }
}

/// A descriptor with a position of its own.
fn reopened(file: &File) -> io::Result<File> {
    use std::os::fd::AsRawFd;
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// A name that stays below the directory that it is joined to.
fn checked(name: &str) -> anyhow::Result<&Path> {
    let path = Path::new(name);
    let plain = path.components().all(|component| matches!(component, Component::Normal(_)));
    ensure!(plain, "{name:?} leads out of the directory");
    Ok(path)
}

/// A path without `.` and `..`, as text.
fn normal(path: &Path) -> String {
    let mut parts: Vec<String> = Vec::new();
    for component in path.components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    parts.join("/")
}

fn standard_input() -> io::Result<File> {
    use std::os::fd::AsFd;
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// The input, if one can seek in it; otherwise all of it in a file without a name.
fn seekable(input: File) -> anyhow::Result<File> {
    if input.metadata()?.is_file() {
        return Ok(input);
    }
    let mut file = unnamed()?;
    io::copy(&mut BufReader::with_capacity(1 << 20, input), &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// The archive itself, when it was compressed as a whole.
fn plain(mut file: File) -> anyhow::Result<File> {
    let mut magic = [0; 2];
    let length = file.read(&mut magic)?;
    file.rewind()?;
    if magic[..length] != [0x1f, 0x8b] {
        return Ok(file);
    }
    let mut whole = unnamed()?;
    io::copy(&mut MultiGzDecoder::new(BufReader::with_capacity(1 << 20, file)), &mut whole)?;
    whole.flush()?;
    whole.rewind()?;
    Ok(whole)
}

/// A file without a name, on disk if there is a place for large ones.
fn unnamed() -> anyhow::Result<File> {
    let places = std::env::var_os("TMPDIR").map(PathBuf::from).into_iter();
    let places = places.chain(["/var/tmp".into(), "/tmp".into()]);
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let made = places.filter_map(|place| openat(CWD, &place, flags, Mode::RUSR | Mode::WUSR).ok()).next();
    Ok(made.context("make a temporary file: set TMPDIR to a directory with room for the archive")?.into())
}
