//! Standard input, output and error: a terminal of the container's own, or what the monitor gave.

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FileType, Mode, OFlags, Uid};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;

use super::detached;
use super::failure::{Context, Failure};
use super::link::{self, FromStage};
use crate::plan::steps::{Size, Terminal};

/// Numbers of devices that are ends of terminals, `UNIX98_PTY_SLAVE_MAJOR` of the kernel.
const TERMINALS: std::ops::RangeInclusive<u32> = 136..=143;

/// Makes a terminal in a devpts of the container and gives its master away.
///
/// The device is the one that the kernel made with the master, whatever names there are below `/dev/pts`.
pub(super) fn make(devpts: &OwnedFd, terminal: Terminal, to: &OwnedFd) -> Result<OwnedFd, Failure> {
    const DEVPTS: i64 = 0x1cd1;
    let what = || "make a terminal".to_owned();
    if rustix::fs::fstatfs(devpts).during(what)?.f_type != DEVPTS {
        return Err(Failure::new("make a terminal: /dev/pts is not a devpts"));
    }
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let master = rustix::fs::openat(devpts, c"ptmx", flags, Mode::empty()).during(what)?;
    rustix::pty::unlockpt(&master).during(what)?;
    let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
    let peer = rustix::pty::ioctl_tiocgptpeer(&master, flags).during(what)?;
    if let Some(Size { rows, columns }) = terminal.size {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(&master, size).during(what)?;
    }
    link::send(to, &FromStage::Console, Some(master.as_fd())).during(|| "hand over the terminal".into())?;
    Ok(peer)
}

/// Shows the terminal as `/dev/console`.
pub(super) fn attach(peer: &OwnedFd, devices: &OwnedFd) -> Result<(), Failure> {
    let what = || "bind /dev/console".to_owned();
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let console = rustix::fs::openat(devices, c"console", flags, Mode::empty()).during(what)?;
    let clone = detached::clone_fd(peer, false).during(what)?;
    detached::attach(clone, console).during(what)
}

/// Uses the descriptor for those of the three that the monitor did not give.
pub(super) fn fill(given: &[Option<OwnedFd>; 3], with: &OwnedFd) -> Result<(), Failure> {
    let dup = [rustix::stdio::dup2_stdin, rustix::stdio::dup2_stdout, rustix::stdio::dup2_stderr];
    for (dup, _) in dup.into_iter().zip(given).filter(|(_, given)| given.is_none()) {
        dup(with).during(|| "set up standard input, output and error".into())?;
    }
    Ok(())
}

/// Gives the user the pipes and terminals, so that it can open `/dev/stdout` and the like.
///
/// Anything else may be a file of the host and is left alone.
pub(super) fn own(uid: u32) -> Result<(), Failure> {
    for fd in [rustix::stdio::stdin(), rustix::stdio::stdout(), rustix::stdio::stderr()] {
        let what = || "own standard input, output and error".to_owned();
        let stat = rustix::fs::fstat(fd).during(what)?;
        let ours = match FileType::from_raw_mode(stat.st_mode) {
            FileType::Fifo => true,
            FileType::CharacterDevice => TERMINALS.contains(&rustix::fs::major(stat.st_rdev)),
            _ => false,
        };
        if ours && stat.st_uid != uid {
            rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), None).during(what)?;
        }
    }
    Ok(())
}

/// Begins a session, with the terminal on standard input as its own if there is one.
pub(super) fn begin_session(terminal: Option<Terminal>) -> Result<(), Failure> {
    rustix::process::setsid().during(|| "begin a session".into())?;
    if terminal.is_some() {
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin()).during(|| "take the terminal".into())?;
    }
    Ok(())
}
