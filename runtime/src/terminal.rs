//! The daemon's end of a process' terminal: the master of a pty, whose other end is in the container.
//!
//! With the last clone of it the terminal hangs up: who has it as its controlling terminal gets SIGHUP, see
//! pty(7) and termios(3).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use rustix::termios::Winsize;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};

use crate::native::link::{self, FromStage};
use crate::sys::watch::watch;

/// A terminal's master; cheap to clone, one clone to read from and one to write to at a time.
#[derive(Debug, Clone)]
pub struct Terminal {
    master: Arc<AsyncFd<OwnedFd>>,
}

/// Where a terminal arrives that a process makes in its container.
#[derive(Debug)]
pub struct Handover {
    socket: AsyncFd<OwnedFd>,
}

// === impl Terminal ===

impl Terminal {
    pub(crate) fn new(master: OwnedFd) -> io::Result<Self> {
        rustix::io::ioctl_fionbio(&master, true)?;
        let master = watch(master, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Self { master: Arc::new(master) })
    }

    /// Changes the size of the window; the foreground process is told by SIGWINCH.
    pub fn resize(&self, columns: u16, rows: u16) -> io::Result<()> {
        let size = Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        Ok(rustix::termios::tcsetwinsize(self.master.get_ref(), size)?)
    }
}

impl AsFd for Terminal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.master.get_ref().as_fd()
    }
}

impl AsyncRead for Terminal {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        loop {
            let mut ready = ready!(self.master.poll_read_ready(context))?;
            let unfilled = buffer.initialize_unfilled();
            match ready.try_io(|master| Ok(rustix::io::read(master.get_ref(), unfilled)?)) {
                Ok(Ok(count)) => {
                    buffer.advance(count);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                // Nobody has the other end open any more.
                Ok(Err(error)) if error.raw_os_error() == Some(libc::EIO) => return Poll::Ready(Ok(())),
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                Err(_would_block) => {}
            }
        }
    }
}

impl AsyncWrite for Terminal {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut ready = ready!(self.master.poll_write_ready(context))?;
            match ready.try_io(|master| Ok(rustix::io::write(master.get_ref(), bytes)?)) {
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(result) => return Poll::Ready(result),
                Err(_would_block) => {}
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A terminal has no half-close.
    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

// === impl Handover ===

impl Handover {
    /// Makes a handover; the other end goes with the order, [`crate::ExecStdio::Terminal`].
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        rustix::io::ioctl_fionbio(&ours, true)?;
        Ok((Self { socket: watch(ours, Interest::READABLE)? }, theirs))
    }

    /// Waits for the terminal; none when the process came to nothing.
    pub async fn receive(self) -> io::Result<Option<Terminal>> {
        let received = self.socket.async_io(Interest::READABLE, |socket| Ok(link::receive(socket)?)).await?;
        match received {
            Some((FromStage::Console, Some(master))) => Terminal::new(master).map(Some),
            Some(_) => Err(io::ErrorKind::InvalidData.into()),
            None => Ok(None),
        }
    }
}
