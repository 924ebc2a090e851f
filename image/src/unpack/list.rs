//! Lists an archive without unpacking it: what is in an archive of images, and where.

use std::io::BufRead;

use super::archive::{Archive, Kind};
use super::name::Name;
use super::report::chain;

/// The most members that an archive of images may have.
const MAX_MEMBERS: usize = 100_000;

/// A file or link of an archive.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name: components joined by single slashes, without `..`.
    pub name: String,
    /// Where its data begins.
    pub offset: u64,
    /// How long that is.
    pub size: u64,
    /// What it leads to, when it is a link: as it stands there, and whether that begins at the archive's root.
    pub link: Option<(String, bool)>,
}

/// Lists the files and links of an uncompressed archive.
pub fn list(input: impl BufRead) -> Result<Vec<Member>, String> {
    let mut archive = Archive::new(input, None);
    let mut members = Vec::new();
    while let Some(entry) = archive.next().map_err(|e| chain(&e))? {
        let link = match entry.kind {
            Kind::File => None,
            Kind::HardLink(target) => Some((text(&target), true)),
            Kind::Symlink(target) => Some((text(&target), false)),
            Kind::Device | Kind::Directory | Kind::Fifo => continue,
        };
        if members.len() == MAX_MEMBERS {
            return Err(format!("it has more than {MAX_MEMBERS} members"));
        }
        let name = Name::parse(&entry.name).map_err(str::to_owned)?;
        members.push(Member { name: text(name.as_bytes()), offset: archive.bytes(), size: entry.size, link });
    }
    Ok(members)
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
