//! Reads a tar archive as a stream of entries.
//!
//! A reader of our own, and not the `tar` crate: its entries share the stream behind a cell and copy their data
//! once more, while this one lets the writer take data straight from the decompressor's buffers; and nearly every
//! field would have to be read a second time beside it, because it is lenient where a layer must be refused.
//! Anything that readers are known to disagree over ends the archive with an error: see `header` and `pax`.

use std::fs::File;
use std::io::{self, BufRead};
use std::os::fd::BorrowedFd;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, openat, statat};

use super::failure::{Failure, shown};
use super::header::{BLOCK, Header};
use super::pax::{self, Extended, Time};
use super::skeleton::Skeleton;

/// The longest extended header.
const MAX_EXTENDED_BYTES: u64 = 1 << 20;

/// What the archive says of one entry. Names are as they stand there.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) name: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: Time,
    pub(super) size: u64,
    pub(super) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// The kinds of entries, with the target of links.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Device,
    Directory,
    Fifo,
    File,
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
}

/// The archive. [`Archive::next`] gives an entry, [`Archive::data`] and [`Archive::consume`] its data.
pub(super) struct Archive<R> {
    input: R,
    skeleton: Option<Skeleton>,
    offset: u64,
    data: u64,
    padding: u64,
}

impl<R: BufRead> Archive<R> {
    /// Reads `input`. Everything but the data that [`Archive::keep`] is told of goes to the skeleton.
    pub(super) fn new(input: R, skeleton: Option<Skeleton>) -> Self {
        Self { input, skeleton, offset: 0, data: 0, padding: 0 }
    }

    /// Returns the stream, for what it knows when it has ended, once the skeleton is whole.
    pub(super) fn finish(self) -> Result<R, Failure> {
        self.skeleton.map_or(Ok(()), |skeleton| skeleton.finish(self.offset)).map_err(failed())?;
        Ok(self.input)
    }

    /// Returns how many bytes were read.
    pub(super) fn bytes(&self) -> u64 {
        self.offset
    }

    /// Says that the data of the entry, none of which was read yet, will be found in the file `name` of the layer.
    pub(super) fn keep(&mut self, name: &[u8]) -> Result<(), Failure> {
        let Some(skeleton) = &mut self.skeleton else { return Ok(()) };
        skeleton.content(name, self.data).map_err(failed())
    }

    /// Returns the next entry, after what is left of the one before. None: the end, with nothing behind it.
    pub(super) fn next(&mut self) -> Result<Option<Entry>, Failure> {
        let mut extended = Extended::default();
        loop {
            self.skip()?;
            let place = self.offset;
            let refused = |reason| Failure::refused(format!("header at byte {place}"), reason);
            let mut block = [0; BLOCK];
            if !self.block(&mut block)? || block == [0; BLOCK] {
                if extended.expects_entry() {
                    return Err(refused("an extended header has no entry"));
                }
                return self.end().map(|()| None);
            }
            let header = Header::parse(&block).map_err(refused)?;
            let size = header.size().map_err(refused)?;
            match header.kind() {
                b'x' => extended.records(&self.extended(size)?),
                b'L' => extended.long_name(&self.extended(size)?),
                b'K' => extended.long_link(&self.extended(size)?),
                b'g' if extended.expects_entry() => Err("an extended header has no entry"),
                b'g' => pax::check_global(&self.extended(size)?),
                _ => return self.entry(&header, size, extended).map(Some),
            }
            .map_err(refused)?;
        }
    }

    /// Keeps the content of the file `name` of the layer, which is about to make room for something else.
    pub(super) fn give_up(&mut self, parent: BorrowedFd<'_>, base: &[u8], name: &[u8]) -> io::Result<()> {
        let Some(skeleton) = &mut self.skeleton else { return Ok(()) };
        let Ok(found) = statat(parent, base, AtFlags::SYMLINK_NOFOLLOW) else { return Ok(()) };
        let size = found.st_size.cast_unsigned();
        if FileType::from_raw_mode(found.st_mode) != FileType::RegularFile || !skeleton.has_room(size) {
            return Ok(());
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(parent, base, flags, Mode::empty())?;
        skeleton.lost(name, size, &mut File::from(file))
    }

    /// Returns the next of the entry's data, empty at its end.
    pub(super) fn data(&mut self) -> Result<&[u8], Failure> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let buffer = self.input.fill_buf().map_err(Failure::Input)?;
        if buffer.is_empty() {
            return Err(Failure::Input(io::ErrorKind::UnexpectedEof.into()));
        }
        let end = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
        Ok(&buffer[..end])
    }

    /// Takes bytes that [`Archive::data`] gave.
    pub(super) fn consume(&mut self, bytes: usize) {
        self.input.consume(bytes);
        self.data -= bytes as u64;
        self.offset += bytes as u64;
    }

    fn entry(&mut self, header: &Header<'_>, size: u64, extended: Extended) -> Result<Entry, Failure> {
        let raw = header.name();
        let mut name = extended.path.unwrap_or(raw);
        if name.is_empty() {
            name.push(b'.');
        }
        let refused = |reason: &'static str| Failure::refused(shown(&name), reason);
        let size = match extended.size {
            None => size,
            // The field of the header holds less than 8 GiB; writers leave it empty or full beyond.
            Some(real) if real == size || real > 0o77_777_777_777 && matches!(size, 0 | 0o77_777_777_777) => {
                real
            }
            Some(_) => return Err(refused("the PAX header and the header disagree over the size")),
        };
        let link = extended.link.unwrap_or_else(|| header.link());
        let directory_name = name.ends_with(b"/");
        let kind = match header.kind() {
            0 if directory_name => Kind::Directory,
            0 | b'0' | b'7' if directory_name => return Err(refused("a file's name ends in a slash")),
            0 | b'0' | b'7' => Kind::File,
            b'1' => Kind::HardLink(link),
            b'2' => Kind::Symlink(link),
            b'3' | b'4' => Kind::Device,
            b'5' => Kind::Directory,
            b'6' => Kind::Fifo,
            b'S' => return Err(refused("sparse files are not supported")),
            other => return Err(refused_kind(&name, other)),
        };
        if kind != Kind::File && size != 0 {
            return Err(refused("an entry that has no data has a size"));
        }
        let time = Time { seconds: header.mtime().map_err(refused)?, nanoseconds: 0 };
        let entry = Entry {
            kind,
            mode: header.mode().map_err(refused)?,
            uid: extended.uid.map_or_else(|| header.uid(), Ok).map_err(refused)?,
            gid: extended.gid.map_or_else(|| header.gid(), Ok).map_err(refused)?,
            mtime: extended.mtime.unwrap_or(time),
            size,
            xattrs: extended.xattrs,
            name,
        };
        self.begin(size);
        Ok(entry)
    }

    fn begin(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
    }

    fn extended(&mut self, size: u64) -> Result<Vec<u8>, Failure> {
        if size > MAX_EXTENDED_BYTES {
            let place = format!("header at byte {}", self.offset - BLOCK as u64);
            return Err(Failure::refused(place, "an extended header is longer than 1 MiB"));
        }
        self.begin(size);
        let mut data = Vec::new();
        loop {
            let piece = self.data()?;
            let length = piece.len();
            if length == 0 {
                break;
            }
            data.extend_from_slice(piece);
            self.consume(length);
        }
        self.record(&data)?;
        Ok(data)
    }

    fn record(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.skeleton.as_mut().map_or(Ok(()), |skeleton| skeleton.raw(bytes)).map_err(failed())
    }

    fn skip(&mut self) -> Result<(), Failure> {
        self.data += self.padding;
        self.padding = 0;
        while self.data > 0 {
            let buffer = self.input.fill_buf().map_err(Failure::Input)?;
            if buffer.is_empty() {
                return Err(Failure::Input(io::ErrorKind::UnexpectedEof.into()));
            }
            let length = usize::try_from(self.data).unwrap_or(usize::MAX).min(buffer.len());
            self.skeleton.as_mut().map_or(Ok(()), |s| s.raw(&buffer[..length])).map_err(failed())?;
            self.consume(length);
        }
        Ok(())
    }

    /// Reads a block. False: the stream ended in good order before it.
    fn block(&mut self, block: &mut [u8; BLOCK]) -> Result<bool, Failure> {
        let mut filled = 0;
        while filled < BLOCK {
            let buffer = self.input.fill_buf().map_err(Failure::Input)?;
            if buffer.is_empty() {
                if filled == 0 {
                    return Ok(false);
                }
                return Err(Failure::Input(io::ErrorKind::UnexpectedEof.into()));
            }
            let length = buffer.len().min(BLOCK - filled);
            block[filled..filled + length].copy_from_slice(&buffer[..length]);
            self.input.consume(length);
            filled += length;
        }
        self.offset += BLOCK as u64;
        self.record(block)?;
        Ok(true)
    }

    /// Reads on behind the archive: only zeros may come.
    fn end(&mut self) -> Result<(), Failure> {
        loop {
            let buffer = self.input.fill_buf().map_err(Failure::Input)?;
            let length = buffer.len();
            if length == 0 {
                return Ok(());
            }
            if buffer.iter().any(|&b| b != 0) {
                let place = format!("byte {} and on", self.offset);
                return Err(Failure::refused(place, "data follows the end of the archive"));
            }
            self.skeleton.as_mut().map_or(Ok(()), |s| s.raw(buffer)).map_err(failed())?;
            self.input.consume(length);
            self.offset += length as u64;
        }
    }
}

fn failed<E: Into<io::Error>>() -> impl FnOnce(E) -> Failure {
    Failure::write("keep the headers of", b"")
}

fn refused_kind(name: &[u8], kind: u8) -> Failure {
    Failure::refused(shown(name), format!("entries of the kind {:?} are not supported", char::from(kind)))
}
