//! Deletes layers in the background.
//!
//! A directory is gone from the store when it was renamed into the trash; a thread empties that, one tree at a
//! time. What a crash leaves there is deleted at the next start.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::fs::{CWD, renameat};

use crate::Error;
use crate::unpack::{open_directory, remove_tree};

/// The place of deleted layers. Clones share one thread, which ends with the last of them.
#[derive(Clone, Debug)]
pub(super) struct Trash {
    names: Sender<Order>,
    directory: PathBuf,
}

#[derive(Debug)]
enum Order {
    Delete(String),
    #[cfg(test)]
    Answer(Sender<()>),
}

impl Trash {
    /// Opens the trash in `directory`, and starts to delete what is in there.
    pub(super) fn open(directory: PathBuf) -> Result<Self, Error> {
        let failed = |operation| {
            let directory = directory.clone();
            move |e: io::Error| Error::store(operation, directory, e)
        };
        let trash = open_path(&directory).map_err(failed("open"))?;
        let (names, orders) = channel();
        for entry in directory.read_dir().map_err(failed("read"))? {
            let name = entry.map_err(failed("read"))?.file_name().to_string_lossy().into_owned();
            // The receiver is still here.
            drop(names.send(Order::Delete(name)));
        }
        thread::Builder::new()
            .name("trash".into())
            .spawn(move || empty(&trash, &orders))
            .map_err(failed("start the thread that empties"))?;
        Ok(Self { names, directory })
    }

    /// Moves a directory to the trash, to be deleted soon.
    pub(super) fn take(&self, path: &Path) -> io::Result<()> {
        let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        match renameat(CWD, path, CWD, self.directory.join(name)) {
            Ok(()) => {}
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            Err(e) => return Err(e.into()),
        }
        // When the thread is gone, the next start deletes it.
        drop(self.names.send(Order::Delete(name.to_string_lossy().into_owned())));
        Ok(())
    }

    /// Waits until everything taken so far is deleted.
    #[cfg(test)]
    pub(super) fn wait(&self) {
        let (answer, done) = channel();
        self.names.send(Order::Answer(answer)).unwrap();
        done.recv().unwrap();
    }
}

fn empty(trash: &OwnedFd, orders: &Receiver<Order>) {
    for order in orders {
        match order {
            Order::Delete(name) => {
                if let Err(e) = remove_tree(trash.as_fd(), name.as_bytes()) {
                    tracing::warn!(layer = name, error = %e, "a deleted layer stays in the trash until the next start");
                }
            }
            #[cfg(test)]
            Order::Answer(answer) => drop(answer.send(())),
        }
    }
}

fn open_path(path: &Path) -> io::Result<OwnedFd> {
    let parent = std::fs::File::open(path)?;
    Ok(open_directory(parent.as_fd(), b"")?)
}
