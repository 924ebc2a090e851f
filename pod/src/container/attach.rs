//! Attach: a container's own process, followed from now on.
//!
//! The monitor passes output on and input in ([`runtime::Monitor::attach`]); to a terminal the client writes
//! itself.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use runtime::{AttachOrder, Detachment};
use tokio::net::unix::pipe;

use crate::error::{Error, Result};
use crate::node::Node;
use crate::stream::{End, Input, Session, Stdio, Work, output};

/// How far a client may be behind before it is dropped; of this only what is used is memory.
const BACKLOG_BYTES: usize = 1 << 20;

impl Node {
    /// Follows the process of a running container.
    pub(crate) async fn attach_to(self: &Arc<Self>, id: &str, wanted: Stdio) -> Result<Session> {
        let container = self.running(id)?;
        let monitor = container.pod.monitor().ok_or_else(|| Error::container_not_found(id))?;
        let wants_stdin = wanted.stdin && container.config.stdin;
        let terminal = if container.config.tty {
            let terminal = monitor.terminal(&container.id).await;
            Some(terminal.map_err(Error::runtime("attach to", "container", &container.id))?)
        } else {
            None
        };
        let (stdin, stdin_end) = match &terminal {
            Some(terminal) => (wants_stdin.then(|| Input::Terminal(terminal.clone())), None),
            None => split(wants_stdin, Input::pipe)?,
        };
        let (stdout, stdout_end) = split(wanted.stdout, long_pipe)?;
        let (stderr, stderr_end) = split(wanted.stderr && terminal.is_none(), long_pipe)?;
        let order = AttachOrder {
            container: container.id.clone(),
            stdin: stdin_end,
            stdout: stdout_end,
            stderr: stderr_end,
        };
        let work = Work::spawn(async move {
            if order.stdin.is_none() && order.stdout.is_none() && order.stderr.is_none() {
                container.ended().await;
                return Ok(End::Detached);
            }
            match monitor.attach(order).await {
                Ok(Detachment::TooSlow) => Err(Error::TooSlow { id: container.id.clone() }),
                // A container ends with its monitor.
                Ok(Detachment::Ended | Detachment::Left) | Err(runtime::Error::Lost { .. }) => {
                    Ok(End::Detached)
                }
                Err(error) => Err(Error::runtime("attach to", "container", &container.id)(error)),
            }
        });
        Ok(Session {
            stdin: stdin.map(|stdin| Box::new(stdin) as _),
            stdout: stdout.map(|stdout| Box::new(stdout) as _),
            stderr: stderr.map(|stderr| Box::new(stderr) as _),
            terminal,
            end: Box::pin(work.end()),
        })
    }
}

/// A pipe if it is wanted.
fn split<T>(is_wanted: bool, make: fn() -> Result<(T, OwnedFd)>) -> Result<(Option<T>, Option<OwnedFd>)> {
    Ok(if is_wanted { make().map(|(ours, theirs)| (Some(ours), Some(theirs)))? } else { (None, None) })
}

/// A pipe with room for bursts; as it comes where no more is allowed.
fn long_pipe() -> Result<(pipe::Receiver, OwnedFd)> {
    let (ours, theirs) = output::pipe()?;
    rustix::pipe::fcntl_setpipe_size(&theirs, BACKLOG_BYTES).ok();
    Ok((ours, theirs))
}
