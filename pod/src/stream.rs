//! Sessions: a command, or a container's own process, whose input and output someone follows.
//!
//! What travels is pipes and terminals that the process has at its other end; nothing passes through here but
//! the descriptors. When a session is dropped they are closed, and that is all that the process is told.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::task::JoinHandle;

pub use runtime::Terminal;

use crate::error::{Error, Result};

pub(crate) mod input;
pub(crate) mod output;

pub(crate) use self::input::Input;
pub(crate) use self::output::Output;

/// What a client asked for; already valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::struct_excessive_bools, reason = "these are the words of the request")]
pub struct Stdio {
    /// Whether it sends standard input.
    pub stdin: bool,
    /// Whether it wants standard output.
    pub stdout: bool,
    /// Whether it wants standard error; never with a terminal.
    pub stderr: bool,
    /// Whether the process has a terminal.
    pub tty: bool,
}

/// A running exec or attach.
///
/// Dropping it ends the session: the process sees the end of its input, and of a terminal of its own SIGHUP, and
/// otherwise runs on. Nothing of it stays behind.
pub struct Session {
    /// To the process; `shutdown` is the half-close. None when not asked for, or when an attached container was
    /// made without standard input. What the process does not read any more is taken and thrown away.
    pub stdin: Option<Box<dyn AsyncWrite + Send + Unpin>>,
    /// From the process, and from its terminal. It ends with the process, though others may hold its pipe.
    pub stdout: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// From the process; none with a terminal.
    pub stderr: Option<Box<dyn AsyncRead + Send + Unpin>>,
    /// The window, with a terminal.
    pub terminal: Option<Terminal>,
    /// How it ended. What was written before may still have to be read.
    pub end: Pin<Box<dyn Future<Output = Result<End>> + Send>>,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The command ended, with this code or 128 + signal.
    Exited(i32),
    /// The attached container ended, or the client closed the input of one that keeps its own open.
    Detached,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("terminal", &self.terminal).finish_non_exhaustive()
    }
}

/// The work of a session, which ends when nobody waits for it any more.
#[derive(Debug)]
pub(crate) struct Work(JoinHandle<Result<End>>);

impl Work {
    pub(crate) fn spawn(work: impl Future<Output = Result<End>> + Send + 'static) -> Self {
        Self(tokio::spawn(work))
    }

    pub(crate) async fn end(mut self) -> Result<End> {
        (&mut self.0).await.unwrap_or(Err(Error::TaskLost { operation: "a streaming session" }))
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.abort();
    }
}
