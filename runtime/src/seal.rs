//! A copy of the runtime's program that nobody can change, for all monitors of this daemon.
//!
//! A container that gets hold of `/proc/PID/exe` of a stage holds this memfd and can write it no more than
//! read-only memory (CVE-2019-5736). All monitors share its pages.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{MemfdFlags, Mode, SealFlags};

use crate::Error;

/// Copies the program at `path`.
pub(crate) fn program(path: &Path) -> Result<OwnedFd, Error> {
    let failed = |operation| move |source| Error::Program { operation, path: path.to_owned(), source };
    let mut source = File::open(path).map_err(failed("open"))?;
    executable("corten-runtime", &mut source, Mode::RUSR | Mode::XUSR)
        .map_err(failed("copy into sealed memory"))
}

/// Makes a sealed, executable memfd of what `source` reads.
pub(crate) fn executable(name: &str, source: &mut impl io::Read, mode: Mode) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Linux before 6.3 does not know EXEC and makes every memfd executable.
    let memfd = rustix::fs::memfd_create(name, flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create(name, flags))?;
    let mut copy = File::from(memfd);
    io::copy(source, &mut copy)?;
    rustix::fs::fchmod(&copy, mode)?;
    let seals = SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals | SealFlags::EXEC)
        .or_else(|_| rustix::fs::fcntl_add_seals(&copy, seals))?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::SEAL)?;
    Ok(copy.into())
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_copy_is_the_same_and_cannot_be_changed() {
        let path = std::env::current_exe().unwrap();
        let sealed = File::from(program(&path).unwrap());
        let mut original = Vec::new();
        File::open(&path).unwrap().read_to_end(&mut original).unwrap();
        let mut copy = vec![0; original.len() + 1];
        assert_eq!(sealed.read_at(&mut copy, 0).unwrap(), original.len());
        assert!(copy[..original.len()] == original);
        assert_eq!(sealed.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(sealed.set_len(1).unwrap_err().raw_os_error(), Some(libc::EPERM));
        assert_eq!(sealed.set_len(1 << 30).unwrap_err().raw_os_error(), Some(libc::EPERM));
        let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&sealed));
        let reopened = File::options().write(true).open(again);
        if let Ok(file) = reopened {
            assert_eq!(file.write_at(b"x", 0).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
        let seals = rustix::fs::fcntl_get_seals(&sealed).unwrap();
        assert!(seals.contains(SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE));
    }

    #[test]
    fn a_missing_program_is_named() {
        let error = program(Path::new("/no/such/program")).unwrap_err();
        assert_eq!(error.to_string(), "open /no/such/program");
    }
}
