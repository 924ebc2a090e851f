//! What is known of a client's connection besides its bytes: whether it is used, and whether the client hung up.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::time::Instant;

/// What a client that hung up may still have sent is passed on for this long, if somebody takes it.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes both ways.
pub(crate) trait Io: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Io for T {}

/// A connection, seen from outside.
#[derive(Debug)]
pub(crate) struct Line {
    began: Instant,
    /// When bytes moved last, in milliseconds since `began`.
    used: AtomicU64,
    /// A second descriptor of the socket, to learn of its end while nobody reads from it.
    watch: AsyncFd<OwnedFd>,
}

/// A connection's bytes, whose moving is noticed.
#[derive(Debug)]
pub(super) struct Metered<T> {
    inner: T,
    line: Arc<Line>,
}

impl Line {
    /// Watches a socket.
    pub(crate) fn watch(socket: &impl AsFd) -> io::Result<Arc<Self>> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe to call; this descriptor is owned until it is deregistered"
        )]
        let watch = AsyncFd::with_interest(socket, Interest::READABLE)?;
        Ok(Arc::new(Self { began: Instant::now(), used: AtomicU64::new(0), watch }))
    }

    /// A connection's bytes as this sees them.
    pub(super) fn meter<T>(self: &Arc<Self>, inner: T) -> Metered<T> {
        Metered { inner, line: self.clone() }
    }

    /// Comes to its end when no byte has moved for `limit`.
    pub(super) async fn idle(&self, limit: Duration) {
        loop {
            let used = Duration::from_millis(self.used.load(Ordering::Relaxed));
            let until = self.began + used + limit;
            if until <= Instant::now() {
                return;
            }
            tokio::time::sleep_until(until).await;
        }
    }

    /// Comes to its end a while after the client has hung up. Only for when nobody reads from the connection: its
    /// reader sees the end itself, and at the right place.
    pub(super) async fn hung_up(&self) {
        loop {
            let Ok(mut ready) = self.watch.readable().await else { return };
            if ready.ready().is_read_closed() {
                return tokio::time::sleep(GRACE).await;
            }
            ready.clear_ready();
        }
    }

    fn touch(&self) {
        // In millions of years it does not fit.
        let used = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.used.store(used, Ordering::Relaxed);
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Metered<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.inner).poll_read(context, buffer))?;
        self.line.touch();
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Metered<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write(context, bytes))?;
        self.line.touch();
        Poll::Ready(Ok(count))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let count = ready!(Pin::new(&mut self.inner).poll_write_vectored(context, slices))?;
        self.line.touch();
        Poll::Ready(Ok(count))
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn idle_counts_from_the_last_byte() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let line = Line::watch(&near).unwrap();
        let mut near = line.meter(near);
        let began = Instant::now();
        tokio::time::sleep(Duration::from_secs(5)).await;
        far.write_all(b"x").await.unwrap();
        near.read_u8().await.unwrap();
        line.idle(Duration::from_secs(10)).await;
        assert!(began.elapsed() >= Duration::from_secs(15), "{:?}", began.elapsed());
    }

    #[tokio::test]
    async fn a_client_that_hangs_up_is_noticed_with_its_bytes_unread() {
        let (near, mut far) = UnixStream::pair().unwrap();
        let line = Line::watch(&near).unwrap();
        far.write_all(b"never read").await.unwrap();
        let watched = tokio::spawn({
            let line = line.clone();
            async move { line.watch.readable().await.unwrap().ready().is_read_closed() }
        });
        assert!(!watched.await.unwrap());
        tokio::time::pause();
        let hung_up = tokio::spawn(async move { line.hung_up().await });
        tokio::task::yield_now().await;
        drop(far);
        hung_up.await.unwrap();
    }
}
