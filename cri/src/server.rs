//! The server's socket: made so that nobody is cut off, served until it is told to stop.

use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::Stream;
use rustix::fs::{CWD, Mode, OFlags};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::watch;
use tonic::service::Routes;
use tonic::transport::Server;
use tracing::{info, warn};

use crate::deadline::Deadlines;
use crate::telemetry::Telemetry;

/// The largest message either way: what the kubelet takes.
pub(crate) const MESSAGE_BYTES: usize = 16 << 20;
/// Calls on one connection at a time.
const CALLS: u32 = 1024;
/// All headers of a call together.
const HEADER_BYTES: u32 = 32 << 10;
/// How long calls may go on after the signal to stop. What they began goes on without them.
const DRAIN: Duration = Duration::from_secs(5);
/// How long the accept loop rests when there are no descriptors left.
const REST: Duration = Duration::from_millis(100);

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Somebody serves there already.
    #[error("another server answers at {}: stop it first, or give this one another --listen", path.display())]
    InUse {
        /// The socket.
        path: PathBuf,
    },
    /// Something is in the socket's place.
    #[error("{} is not a socket: take it away, or give another --listen", path.display())]
    NotASocket {
        /// What is there.
        path: PathBuf,
    },
    /// A step of making the socket.
    #[error("{operation} {}", path.display())]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// The socket or its directory.
        path: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// gRPC.
    #[error("serve {}", path.display())]
    Serve {
        /// The socket.
        path: PathBuf,
        /// The cause.
        source: tonic::transport::Error,
    },
}

/// A socket that clients can connect to; they wait until it is served.
#[derive(Debug)]
pub(crate) struct Listener {
    place: Place,
    socket: UnixListener,
}

/// The socket's file; dropping this removes it, if it is still the same.
#[derive(Debug)]
struct Place {
    path: PathBuf,
    inode: (u64, u64),
}

impl Listener {
    /// Makes the socket, mode 0660, and its directory, mode 0711, if that is not there. A socket that nobody
    /// answers at is replaced. To be called within a tokio runtime.
    pub(crate) fn bind(path: &Path) -> Result<Self, Error> {
        let failed = |operation| move |source| Error::Socket { operation, path: path.to_owned(), source };
        let directory = path.parent().unwrap_or_else(|| Path::new("/"));
        make_directory(directory).map_err(failed("make the directory of"))?;
        refuse_living(path)?;
        let socket = bind_and_place(directory, path).map_err(failed("make socket"))?;
        let found = fs::symlink_metadata(path).map_err(failed("look at socket"))?;
        let socket = UnixListener::from_std(socket).map_err(failed("listen at"))?;
        Ok(Self { place: Place { path: path.to_owned(), inode: (found.dev(), found.ino()) }, socket })
    }

    /// The next client, for those who serve something else than gRPC.
    pub(crate) async fn accept(&self) -> io::Result<UnixStream> {
        Ok(self.socket.accept().await?.0)
    }

    /// Serves until `stop` resolves, then lets calls finish for a while, and removes the socket.
    pub(crate) async fn serve(
        self,
        routes: Routes,
        telemetry: Telemetry,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Error> {
        let Self { place, socket } = self;
        let path = place.path.clone();
        let (stopping, mut stopped) = watch::channel(false);
        let mut drain = stopped.clone();
        let server = Server::builder()
            .layer(telemetry)
            .layer(Deadlines)
            .max_concurrent_streams(CALLS)
            .http2_max_header_list_size(HEADER_BYTES)
            .serve_with_incoming_shutdown(routes, connections(socket), async move {
                // The sender lives until the server has ended.
                drop(stopped.wait_for(|stop| *stop).await);
            });
        let stopper = async {
            stop.await;
            // Before the last connection: as long as the socket lives, nobody takes its place.
            drop(place);
            stopping.send_replace(true);
            std::future::pending::<()>().await;
        };
        let deadline = async {
            drop(drain.wait_for(|stop| *stop).await);
            tokio::time::sleep(DRAIN).await;
        };
        tokio::select! {
            result = server => result.map_err(|source| Error::Serve { path: path.clone(), source }),
            () = stopper => Ok(()),
            () = deadline => {
                info!("calls are still going on after {} s: they are left", DRAIN.as_secs());
                Ok(())
            }
        }
    }
}

/// Everybody may pass through on the way to the socket; who may connect is the socket's mode.
fn make_directory(directory: &Path) -> io::Result<()> {
    match fs::symlink_metadata(directory) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            fs::DirBuilder::new().recursive(true).mode(0o711).create(directory)?;
            // The umask may have taken bits away.
            fs::set_permissions(directory, fs::Permissions::from_mode(0o711))
        }
        Err(error) => Err(error),
    }
}

fn refuse_living(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(Error::NotASocket { path: path.to_owned() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(Error::Socket { operation: "look at", path: path.to_owned(), source }),
    }
    match connect(path) {
        // A child that a killed server was about to start has its sockets until it executes its own program.
        Ok(maker) if is_gone(maker) => Ok(()),
        Ok(_) => Err(Error::InUse { path: path.to_owned() }),
        // Its queue is full of clients that wait for an answer: somebody may live there.
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
            Err(Error::InUse { path: path.to_owned() })
        }
        Err(_) => Ok(()),
    }
}

/// Connects, and says which process listens there, or did.
fn connect(path: &Path) -> io::Result<rustix::process::Pid> {
    let (directory, name) = open_directory(path)?;
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::UNIX,
        rustix::net::SocketType::STREAM,
        rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK,
        None,
    )?;
    let address = rustix::net::SocketAddrUnix::new(short(&directory, &name))?;
    rustix::net::connect(&socket, &address)?;
    Ok(rustix::net::sockopt::socket_peercred(&socket)?.pid)
}

fn is_gone(process: rustix::process::Pid) -> bool {
    rustix::process::test_kill_process(process) == Err(rustix::io::Errno::SRCH)
}

/// Makes the socket in a directory that only root enters, and moves it to its place with its mode set: nobody
/// connects before that, and a stale socket is replaced in one step.
fn bind_and_place(directory: &Path, path: &Path) -> io::Result<net::UnixListener> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let private = directory.join(format!(".corten-{}", std::process::id()));
    fs::DirBuilder::new().mode(0o700).create(&private)?;
    let made = || -> io::Result<net::UnixListener> {
        let inside = private.join(name);
        let (opened, name) = open_directory(&inside)?;
        let listener = net::UnixListener::bind(short(&opened, &name))?;
        listener.set_nonblocking(true)?;
        fs::set_permissions(&inside, fs::Permissions::from_mode(0o660))?;
        fs::rename(&inside, path)?;
        Ok(listener)
    };
    let listener = made();
    let removed = fs::remove_dir_all(&private);
    let listener = listener?;
    removed?;
    Ok(listener)
}

/// A socket's address has 108 bytes; by its directory's descriptor any path fits.
fn open_directory(path: &Path) -> io::Result<(std::os::fd::OwnedFd, PathBuf)> {
    let directory = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok((rustix::fs::openat(CWD, directory, flags, Mode::empty())?, name.into()))
}

fn short(directory: &std::os::fd::OwnedFd, name: &Path) -> PathBuf {
    Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name)
}

impl Drop for Place {
    fn drop(&mut self) {
        let ours =
            fs::symlink_metadata(&self.path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode);
        if ours && let Err(error) = fs::remove_file(&self.path) {
            warn!("remove socket {}: {error}", self.path.display());
        }
    }
}

/// Clients as they connect. It never ends and never fails: when descriptors run out it rests and goes on.
fn connections(listener: UnixListener) -> impl Stream<Item = io::Result<UnixStream>> {
    futures_util::stream::unfold((listener, false), async |(listener, mut resting)| {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => return Some((Ok(stream), (listener, false))),
                Err(error) => {
                    if !resting {
                        warn!("accept a client: {error}; trying on");
                    }
                    resting = true;
                    tokio::time::sleep(REST).await;
                }
            }
        }
    })
}

#[cfg(test)]
mod tests;
