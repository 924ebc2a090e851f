//! What comes from a process: all that it wrote until it ended, and nothing that is waited for after that.

use std::fmt;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::task::{Context, Poll};

use rustix::io::Errno;
use tokio::io::{AsyncRead, ReadBuf};
use tokio::net::unix::pipe;

use crate::error::{Error, Result};

/// More cannot be on its way when a process ends: the capacity of a pipe.
const LAST_BYTES: usize = 64 << 10;

/// The reading end of an output of a process that tells of its end.
///
/// A process left in the background may hold the other end for ever, so that its end is not waited for.
pub(crate) struct Output<T> {
    inner: T,
    /// None once it is over.
    end: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
    left: usize,
}

impl<T> Output<T> {
    /// `end` is ready when the process has ended.
    pub(crate) fn until(inner: T, end: impl Future<Output = ()> + Send + 'static) -> Self {
        Self { inner, end: Some(Box::pin(end)), left: LAST_BYTES }
    }
}

/// A pipe, and the end that a process gets.
pub(crate) fn pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let make = || {
        let (reader, writer) = io::pipe()?;
        Ok((pipe::Receiver::from_owned_fd(reader.into())?, writer.into()))
    };
    make().map_err(Error::file("make", std::path::Path::new("pipe")))
}

impl<T: AsyncRead + AsFd + Unpin> Output<T> {
    /// Reads what is there, whatever tokio knows of it; its end is where there is nothing.
    fn read_rest(&mut self, buffer: &mut ReadBuf<'_>) -> io::Result<()> {
        let room = self.left.min(buffer.remaining());
        let count = loop {
            match rustix::io::read(self.inner.as_fd(), &mut buffer.initialize_unfilled_to(room)[..]) {
                Err(Errno::INTR) => {}
                // EIO is the end of a terminal.
                Err(Errno::AGAIN | Errno::IO) => break 0,
                result => break result?,
            }
        };
        buffer.advance(count);
        self.left = if count == 0 { 0 } else { self.left - count };
        Ok(())
    }
}

impl<T: AsyncRead + AsFd + Unpin> AsyncRead for Output<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(end) = &mut self.end {
            if end.as_mut().poll(context).is_pending() {
                return Pin::new(&mut self.inner).poll_read(context, buffer);
            }
            self.end = None;
        }
        Poll::Ready(self.read_rest(buffer))
    }
}

impl<T: fmt::Debug> fmt::Debug for Output<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output").field("inner", &self.inner).field("left", &self.left).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use tokio::io::AsyncReadExt;
    use tokio::sync::oneshot;

    use super::*;

    fn output() -> (Output<pipe::Receiver>, File, oneshot::Sender<()>) {
        let (receiver, theirs) = pipe().unwrap();
        let (end, ended) = oneshot::channel();
        (Output::until(receiver, async { ended.await.unwrap_or(()) }), theirs.into(), end)
    }

    #[tokio::test]
    async fn what_was_written_before_the_end_is_read() {
        let (mut output, mut theirs, end) = output();
        theirs.write_all(&[7; 40_000]).unwrap();
        end.send(()).unwrap();
        let mut bytes = Vec::new();
        // The other end stays open.
        assert_eq!(output.read_to_end(&mut bytes).await.unwrap(), 40_000);
        drop(theirs);
    }

    #[tokio::test]
    async fn the_end_wakes_who_waits_for_more() {
        let (mut output, _theirs, end) = output();
        let reading = tokio::spawn(async move { output.read_to_end(&mut Vec::new()).await.unwrap() });
        tokio::task::yield_now().await;
        end.send(()).unwrap();
        assert_eq!(reading.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn one_who_goes_on_writing_is_not_followed_for_ever() {
        let (mut output, mut theirs, end) = output();
        end.send(()).unwrap();
        let writing = std::thread::spawn(move || while theirs.write_all(b"more").is_ok() {});
        let mut bytes = Vec::new();
        assert!(output.read_to_end(&mut bytes).await.unwrap() <= LAST_BYTES);
        drop(output);
        writing.join().unwrap();
    }

    #[tokio::test]
    async fn a_closed_pipe_is_an_end_too() {
        let (mut output, mut theirs, _end) = output();
        theirs.write_all(b"all").unwrap();
        drop(theirs);
        let mut text = String::new();
        output.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all");
    }
}
