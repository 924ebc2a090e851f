//! What goes to a process: a pipe that can be closed, or a terminal that cannot.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use runtime::Terminal;
use tokio::io::AsyncWrite;
use tokio::net::unix::pipe;

use crate::error::{Error, Result};

/// The writing end of standard input.
#[derive(Debug)]
pub(crate) enum Input {
    /// Closed, or nobody reads it: what comes is thrown away.
    Gone,
    Pipe(pipe::Sender),
    Terminal(Terminal),
}

impl Input {
    /// A pipe, and the end that the process gets.
    pub(crate) fn pipe() -> Result<(Self, OwnedFd)> {
        let make = || {
            let (reader, writer) = io::pipe()?;
            Ok((Self::Pipe(pipe::Sender::from_owned_fd(writer.into())?), reader.into()))
        };
        make().map_err(Error::file("make", std::path::Path::new("pipe")))
    }
}

impl AsyncWrite for Input {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut *self {
            Self::Gone => return Poll::Ready(Ok(bytes.len())),
            Self::Pipe(pipe) => Pin::new(pipe).poll_write(context, bytes),
            Self::Terminal(terminal) => Pin::new(terminal).poll_write(context, bytes),
        };
        match written {
            Poll::Ready(Err(error)) if nobody_reads(&error) => {
                *self = Self::Gone;
                Poll::Ready(Ok(bytes.len()))
            }
            other => other,
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // Nothing is kept back.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A terminal stays: its output and size have nothing to do with the end of what is typed.
        if matches!(*self, Self::Pipe(_)) {
            *self = Self::Gone;
        }
        Poll::Ready(Ok(()))
    }
}

/// EIO is a terminal's word for it.
fn nobody_reads(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::BrokenPipe || error.raw_os_error() == Some(nix::libc::EIO)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[tokio::test]
    async fn a_shutdown_is_the_end_of_the_other_side() {
        let (mut input, theirs) = Input::pipe().unwrap();
        input.write_all(b"all").await.unwrap();
        input.shutdown().await.unwrap();
        assert_eq!(io::read_to_string(std::fs::File::from(theirs)).unwrap(), "all");
        input.write_all(b"more").await.unwrap();
    }

    #[tokio::test]
    async fn what_nobody_reads_is_thrown_away() {
        let (mut input, theirs) = Input::pipe().unwrap();
        let more = vec![0; 1 << 20];
        let writing = tokio::spawn(async move { input.write_all(&more).await });
        tokio::task::yield_now().await;
        drop(theirs);
        writing.await.unwrap().unwrap();
    }
}
