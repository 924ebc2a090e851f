//! The skeleton of a layer: its archive without the data of its files, from which, together with the files, the
//! archive can be made again byte by byte.
//!
//! It is what lets an image leave the node with its layers' digests, and a layer be checked against its digest. A
//! zstd stream of pieces, each with a tag: bytes that stand in the archive, the name and size of a file whose content
//! comes next, the content of such a file that a later entry replaced, and the end with the archive's length.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, fstat, openat};
use zstd::stream::read::Decoder;
use zstd::stream::write::Encoder;

use super::limits::Limits;
use super::name::Name;
use super::tree::open_directory;

const RAW: u8 = 0;
const CONTENT: u8 = 1;
const END: u8 = 2;
const LOST: u8 = 3;

/// The size of a piece of bytes, unless one record of the archive is larger.
const PIECE: usize = 64 << 10;

/// The longest piece: an extended header with what is gathered before it.
const MAX_PIECE: u32 = 2 << 20;

/// The most that replaced files take in memory: their names, and what goes with each.
const MAX_LOST_BYTES: usize = 8 << 20;
const LOST_BYTES: usize = 64;

/// Headers compress well at any level.
const LEVEL: i32 = 1;

/// Writes a skeleton while its layer is unpacked.
pub(super) struct Skeleton {
    file: Encoder<'static, File>,
    piece: Vec<u8>,
    /// Bytes of files that may still be kept as lost. A content is lost once; that of a file with several names may
    /// be kept for each of them, but not without end.
    unlost: u64,
}

impl Skeleton {
    pub(super) fn create(file: File) -> io::Result<Self> {
        Ok(Self { file: Encoder::new(file, LEVEL)?, piece: Vec::with_capacity(PIECE), unlost: 0 })
    }

    /// Takes bytes of the archive.
    pub(super) fn raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        for bytes in bytes.chunks(PIECE) {
            self.piece.extend_from_slice(bytes);
            if self.piece.len() >= PIECE {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Notes that the content of a file stands here.
    pub(super) fn content(&mut self, name: &[u8], size: u64) -> io::Result<()> {
        if size == 0 {
            return Ok(());
        }
        self.unlost = self.unlost.saturating_add(size).saturating_add(size);
        self.named(CONTENT, name, size)
    }

    /// Tells whether so much more is worth keeping of what goes.
    pub(super) fn has_room(&self, size: u64) -> bool {
        (1..=self.unlost).contains(&size)
    }

    /// Keeps the content of a file that goes, because a later entry has its name.
    pub(super) fn lost(&mut self, name: &[u8], size: u64, content: &mut impl Read) -> io::Result<()> {
        let space = rustix::fs::fstatvfs(self.file.get_ref())?;
        let full = |reason| io::Error::new(io::ErrorKind::StorageFull, reason);
        Limits::default().check_space(&space, size).map_err(full)?;
        self.unlost = self.unlost.saturating_sub(size);
        self.named(LOST, name, size)?;
        let copied = io::copy(&mut content.take(size), &mut self.file)?;
        if copied == size { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn named(&mut self, tag: u8, name: &[u8], size: u64) -> io::Result<()> {
        self.flush()?;
        let length = u16::try_from(name.len()).map_err(io::Error::other)?;
        self.file.write_all(&[tag])?;
        self.file.write_all(&size.to_le_bytes())?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(name)
    }

    /// Ends the skeleton of an archive of so many bytes.
    pub(super) fn finish(mut self, size: u64) -> io::Result<()> {
        self.flush()?;
        self.file.write_all(&[END])?;
        self.file.write_all(&size.to_le_bytes())?;
        self.file.finish().map(drop)
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.piece.is_empty() {
            return Ok(());
        }
        let length = u32::try_from(self.piece.len()).map_err(io::Error::other)?;
        self.file.write_all(&[RAW])?;
        self.file.write_all(&length.to_le_bytes())?;
        self.file.write_all(&self.piece)?;
        self.piece.clear();
        Ok(())
    }
}

/// Why an archive cannot be made again.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unrebuildable {
    /// A file is not as it was.
    #[error("{name}: {reason}")]
    Content {
        /// The file.
        name: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The skeleton is damaged.
    #[error("its skeleton is damaged: {0}")]
    Skeleton(&'static str),
}

/// The archive of a layer, made again from its skeleton and its files. Reads as the archive.
pub(crate) struct Rebuilt {
    skeleton: Pieces,
    root: OwnedFd,
    lost: Lost,
    /// How many contents of files came so far.
    contents: u64,
    buffer: Vec<u8>,
    taken: usize,
    content: Option<Content>,
    bytes: u64,
    ended: bool,
}

struct Content {
    file: File,
    name: Vec<u8>,
    left: u64,
}

impl Rebuilt {
    /// Opens the archive of the layer in the directory `root`.
    pub(crate) fn open(skeleton: File, root: OwnedFd) -> io::Result<Self> {
        let lost = Lost::find(&skeleton, root.as_fd())?;
        Ok(Self {
            skeleton: Pieces::open(&skeleton)?,
            root,
            lost,
            contents: 0,
            buffer: Vec::new(),
            taken: 0,
            content: None,
            bytes: 0,
            ended: false,
        })
    }

    /// Fills the empty buffer with what comes next.
    fn fill(&mut self) -> io::Result<()> {
        self.taken = 0;
        self.buffer.clear();
        if let Some(content) = &mut self.content {
            let wanted = content.left.min(PIECE as u64 * 4);
            (&mut content.file).take(wanted).read_to_end(&mut self.buffer)?;
            if self.buffer.len() as u64 != wanted {
                return Err(content_error(&content.name, "it is shorter than it was"));
            }
            content.left -= wanted;
            if content.left == 0 {
                self.content = None;
            }
        }
        while self.buffer.is_empty() && self.content.is_none() && !self.ended {
            self.piece()?;
        }
        if self.buffer.is_empty() && self.content.is_some() {
            return self.fill();
        }
        self.bytes += self.buffer.len() as u64;
        Ok(())
    }

    fn piece(&mut self) -> io::Result<()> {
        match self.skeleton.next()? {
            Piece::Raw(length) => self.skeleton.read(length, &mut self.buffer)?,
            Piece::Content { size, name } => {
                let lost = self.lost.open(self.contents, size)?;
                self.contents += 1;
                let file = lost.map_or_else(|| open_file(self.root.as_fd(), &name, size), Ok)?;
                self.content = (size > 0).then_some(Content { file, name, left: size });
            }
            Piece::Lost { size, .. } => self.skeleton.copy(size, &mut io::sink())?,
            Piece::End(bytes) if bytes == self.bytes => self.ended = true,
            Piece::End(_) => return Err(skeleton_error("its length is another")),
        }
        Ok(())
    }
}

/// The head of a piece.
enum Piece {
    Raw(u64),
    Content { size: u64, name: Vec<u8> },
    Lost { size: u64, name: Vec<u8> },
    End(u64),
}

/// The pieces of a skeleton in their order.
struct Pieces(BufReader<Decoder<'static, BufReader<File>>>);

impl Pieces {
    /// Reads from the beginning.
    fn open(file: &File) -> io::Result<Self> {
        let mut file = file.try_clone()?;
        file.rewind()?;
        let mut skeleton = Decoder::new(file)?;
        skeleton.window_log_max(23)?;
        Ok(Self(BufReader::with_capacity(PIECE, skeleton)))
    }

    fn next(&mut self) -> io::Result<Piece> {
        match u8::from_le_bytes(self.number()?) {
            RAW => match u32::from_le_bytes(self.number()?) {
                length if length > MAX_PIECE => Err(skeleton_error("a piece is too long")),
                length => Ok(Piece::Raw(length.into())),
            },
            CONTENT => self.named().map(|(size, name)| Piece::Content { size, name }),
            LOST => self.named().map(|(size, name)| Piece::Lost { size, name }),
            END => Ok(Piece::End(u64::from_le_bytes(self.number()?))),
            _ => Err(skeleton_error("an unknown piece")),
        }
    }

    /// Reads what follows the head of a piece.
    fn read(&mut self, length: u64, to: &mut Vec<u8>) -> io::Result<()> {
        let read = (&mut self.0).take(length).read_to_end(to)?;
        if read as u64 == length { Ok(()) } else { Err(skeleton_error("it ends early")) }
    }

    /// Copies what follows the head of a piece.
    fn copy(&mut self, length: u64, to: &mut impl Write) -> io::Result<()> {
        let copied = io::copy(&mut (&mut self.0).take(length), to)?;
        if copied == length { Ok(()) } else { Err(skeleton_error("it ends early")) }
    }

    fn named(&mut self) -> io::Result<(u64, Vec<u8>)> {
        let size = u64::from_le_bytes(self.number()?);
        let mut name = vec![0; u16::from_le_bytes(self.number()?).into()];
        self.0.read_exact(&mut name)?;
        Ok((size, name))
    }

    fn number<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut bytes = [0; N];
        self.0.read_exact(&mut bytes)?;
        Ok(bytes)
    }
}

/// The contents that later entries replaced, in an unnamed file. Layers rarely have any.
#[derive(Default)]
struct Lost {
    file: Option<File>,
    /// Where and how long each is, by how many contents come before it.
    places: HashMap<u64, (u64, u64)>,
}

impl Lost {
    /// Collects them. The names are gone through first, so that memory is taken for those alone that were replaced.
    fn find(skeleton: &File, root: BorrowedFd<'_>) -> io::Result<Self> {
        let mut names = HashSet::new();
        let (mut pieces, mut bytes) = (Pieces::open(skeleton)?, 0);
        loop {
            match pieces.next()? {
                Piece::Raw(length) => pieces.copy(length, &mut io::sink())?,
                Piece::Content { .. } => {}
                Piece::Lost { size, name } => {
                    pieces.copy(size, &mut io::sink())?;
                    bytes += name.len() + LOST_BYTES;
                    names.insert(name);
                }
                Piece::End(_) => break,
            }
            if bytes > MAX_LOST_BYTES {
                return Err(skeleton_error("too many files were replaced"));
            }
        }
        if names.is_empty() { Ok(Self::default()) } else { Self::collect(skeleton, root, &names) }
    }

    fn collect(skeleton: &File, root: BorrowedFd<'_>, names: &HashSet<Vec<u8>>) -> io::Result<Self> {
        let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
        let mut file = File::from(openat(root, c".", flags, Mode::RUSR | Mode::WUSR)?);
        let (mut places, mut last) = (HashMap::new(), HashMap::new());
        let (mut pieces, mut contents, mut offset) = (Pieces::open(skeleton)?, 0, 0);
        loop {
            match pieces.next()? {
                Piece::Raw(length) => pieces.copy(length, &mut io::sink())?,
                Piece::Content { name, .. } => {
                    if names.contains(&name) {
                        last.insert(name, contents);
                    }
                    contents += 1;
                }
                Piece::Lost { size, name } => match last.remove(&name) {
                    Some(content) => {
                        pieces.copy(size, &mut file)?;
                        places.insert(content, (offset, size));
                        offset += size;
                    }
                    // What was a hard link came under another name.
                    None => pieces.copy(size, &mut io::sink())?,
                },
                Piece::End(_) => return Ok(Self { file: Some(file), places }),
            }
        }
    }

    /// Opens the content that has so many before it, if it is one of these.
    fn open(&self, content: u64, size: u64) -> io::Result<Option<File>> {
        let (Some(file), Some((offset, length))) = (&self.file, self.places.get(&content)) else {
            return Ok(None);
        };
        if *length != size {
            return Err(skeleton_error("a replaced file had another size"));
        }
        let mut file = file.try_clone()?;
        file.seek(io::SeekFrom::Start(*offset))?;
        Ok(Some(file))
    }
}

impl Read for Rebuilt {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.fill_buf()?.read(buffer)?;
        self.consume(length);
        Ok(length)
    }
}

impl BufRead for Rebuilt {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.taken == self.buffer.len() && !self.ended {
            self.fill()?;
        }
        Ok(&self.buffer[self.taken..])
    }

    fn consume(&mut self, bytes: usize) {
        self.taken += bytes;
    }
}

/// Opens a regular file of the layer that has this size.
fn open_file(root: BorrowedFd<'_>, name: &[u8], size: u64) -> io::Result<File> {
    let parsed = Name::parse(name).map_err(skeleton_error)?;
    let (parent, base) = parsed.split();
    let missing = |_| content_error(name, "it is gone");
    let parent = open_directory(root, parent).map_err(missing)?;
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = openat(&parent, base, flags, Mode::empty()).map_err(missing)?;
    let found = fstat(&file)?;
    if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile {
        return Err(content_error(name, "it is no file any more"));
    }
    if u64::try_from(found.st_size).ok() != Some(size) {
        return Err(content_error(name, "its size is another"));
    }
    Ok(file.into())
}

fn content_error(name: &[u8], reason: &'static str) -> io::Error {
    io::Error::other(Unrebuildable::Content { name: super::failure::shown(name), reason })
}

fn skeleton_error(reason: &'static str) -> io::Error {
    io::Error::other(Unrebuildable::Skeleton(reason))
}
