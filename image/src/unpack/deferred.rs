//! Owner, mode and times of directories, kept until everything inside of them is written.
//!
//! The records move to an unnamed file when they grow, so that a layer of directories alone takes no memory.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{Mode, OFlags, openat};

use super::archive::Entry;
use super::failure::Failure;
use super::pax::Time;
use super::tree;

/// How much of the records stays in memory.
const MEMORY: usize = 2 << 20;

/// The directories whose metadata is still to be set.
#[derive(Default)]
pub(super) struct Deferred {
    records: Vec<u8>,
    file: Option<File>,
}

struct Record {
    path: Vec<u8>,
    mode: u32,
    uid: u32,
    gid: u32,
    mtime: Time,
}

impl Deferred {
    /// Keeps what `entry` says for the directory at `path`. A later record of the same directory wins.
    pub(super) fn push(&mut self, root: BorrowedFd<'_>, path: &[u8], entry: &Entry) -> Result<(), Failure> {
        let length = u16::try_from(path.len()).map_err(|_| Failure::refused("", "a name is too long"))?;
        self.records.extend_from_slice(&length.to_ne_bytes());
        self.records.extend_from_slice(path);
        for word in [entry.mode, entry.uid, entry.gid, entry.mtime.nanoseconds] {
            self.records.extend_from_slice(&word.to_ne_bytes());
        }
        self.records.extend_from_slice(&entry.mtime.seconds.to_ne_bytes());
        if self.records.len() >= MEMORY {
            self.spill(root).map_err(Failure::write("keep the metadata of directories of", b""))?;
        }
        Ok(())
    }

    /// Sets everything. Directories that were replaced in the meantime are passed over.
    pub(super) fn apply(self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        let failed = || Failure::write("read back the metadata of directories of", b"");
        if let Some(mut file) = self.file {
            file.seek(SeekFrom::Start(0)).map_err(failed())?;
            let mut file = BufReader::with_capacity(1 << 16, file);
            while let Some(record) = Record::read(&mut file).map_err(failed())? {
                record.apply(root)?;
            }
        }
        let mut rest = &self.records[..];
        while let Some(record) = Record::read(&mut rest).map_err(failed())? {
            record.apply(root)?;
        }
        Ok(())
    }

    fn spill(&mut self, root: BorrowedFd<'_>) -> io::Result<()> {
        let file = match &mut self.file {
            Some(file) => file,
            none => {
                let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
                none.insert(File::from(openat(root, c".", flags, Mode::RUSR | Mode::WUSR)?))
            }
        };
        file.write_all(&self.records)?;
        self.records.clear();
        Ok(())
    }
}

impl Record {
    fn read(from: &mut impl Read) -> io::Result<Option<Self>> {
        let mut length = [0; 2];
        if from.read(&mut length[..1])? == 0 {
            return Ok(None);
        }
        from.read_exact(&mut length[1..])?;
        let mut path = vec![0; usize::from(u16::from_ne_bytes(length))];
        from.read_exact(&mut path)?;
        let mut words = [0; 4];
        for word in &mut words {
            let mut bytes = [0; 4];
            from.read_exact(&mut bytes)?;
            *word = u32::from_ne_bytes(bytes);
        }
        let mut seconds = [0; 8];
        from.read_exact(&mut seconds)?;
        let [mode, uid, gid, nanoseconds] = words;
        Ok(Some(Self {
            path,
            mode,
            uid,
            gid,
            mtime: Time { seconds: i64::from_ne_bytes(seconds), nanoseconds },
        }))
    }

    fn apply(&self, root: BorrowedFd<'_>) -> Result<(), Failure> {
        use rustix::io::Errno;
        let directory = match tree::open_directory(root, &self.path) {
            Ok(directory) => directory,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(()),
            Err(e) => return Err(Failure::write("open", &self.path)(e)),
        };
        tree::own(directory.as_fd(), self.uid, self.gid)
            .map_err(Failure::write("change the owner of", &self.path))?;
        rustix::fs::fchmod(&directory, Mode::from_raw_mode(self.mode))
            .map_err(Failure::write("change the mode of", &self.path))?;
        rustix::fs::futimens(&directory, &tree::timestamps(self.mtime))
            .map_err(Failure::write("set the times of", &self.path))
    }
}
