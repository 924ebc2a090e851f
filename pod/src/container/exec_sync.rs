//! ExecSync: a command in a running container, its output collected.

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use runtime::{ExecExit, ExecStdio};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

use super::exec::null_device;
use crate::error::{Error, Result};
use crate::node::{Node, blocking};
use crate::status::ExecOutput;
use crate::stream::output;

/// Both streams of an answer together, below gRPC's 16 MiB (CVE-2022-1708, CVE-2022-31030).
const MAX_OUTPUT_BYTES: usize = (16 << 20) - (64 << 10);

impl Node {
    /// Runs a command to its end, or until `timeout`, which the monitor keeps.
    pub(crate) async fn exec_sync(
        self: &Arc<Self>,
        id: &str,
        command: Vec<String>,
        timeout: Option<Duration>,
    ) -> Result<ExecOutput> {
        let container = self.running(id)?;
        let monitor = container.pod.monitor().ok_or_else(|| Error::container_not_found(id))?;
        let (stdout, stdout_end) = output::pipe()?;
        let (stderr, stderr_end) = output::pipe()?;
        let (node, executed) = (self.clone(), container.clone());
        let order = blocking(move || {
            let plan = node.exec_plan(&executed, command, false)?;
            let stdio = ExecStdio::Streams([null_device()?, stdout_end, stderr_end]);
            node.exec_order(&executed, plan, stdio, timeout)
        })
        .await?;
        let mut streams = Streams { stdout: Stream::new(stdout), stderr: Stream::new(stderr) };
        let exit = streams.collect_during(monitor.exec(order)).await;
        match exit.map_err(Error::runtime("run a command in", "container", &container.id))? {
            ExecExit::Exited(exit_code) => {
                Ok(ExecOutput { stdout: streams.stdout.bytes, stderr: streams.stderr.bytes, exit_code })
            }
            ExecExit::TimedOut => {
                let seconds = timeout.unwrap_or_default().as_secs();
                Err(Error::ExecTimeout { id: container.id.clone(), seconds })
            }
        }
    }
}

#[derive(Debug)]
struct Streams {
    stdout: Stream,
    stderr: Stream,
}

#[derive(Debug)]
struct Stream {
    pipe: Option<pipe::Receiver>,
    bytes: Vec<u8>,
}

impl Streams {
    /// Reads while `exec` runs, and then what is there: a process left behind that keeps the pipe open
    /// does not keep the answer.
    async fn collect_during<T>(&mut self, exec: impl Future<Output = T>) -> T {
        let mut exec = std::pin::pin!(exec);
        let result = loop {
            let room = MAX_OUTPUT_BYTES - self.stdout.bytes.len() - self.stderr.bytes.len();
            tokio::select! {
                result = &mut exec => break result,
                () = self.stdout.read_some(room), if self.stdout.pipe.is_some() => (),
                () = self.stderr.read_some(room), if self.stderr.pipe.is_some() => (),
            }
        };
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.read_rest();
        }
        self.limit();
        result
    }

    /// The last reads may have gone over the limit by what a pipe holds.
    fn limit(&mut self) {
        self.stdout.bytes.truncate(MAX_OUTPUT_BYTES);
        self.stderr.bytes.truncate(MAX_OUTPUT_BYTES - self.stdout.bytes.len());
    }
}

impl Stream {
    fn new(pipe: pipe::Receiver) -> Self {
        Self { pipe: Some(pipe), bytes: Vec::new() }
    }

    /// Keeps up to `room` bytes of what comes next and throws away the rest.
    async fn read_some(&mut self, room: usize) {
        let Some(pipe) = &mut self.pipe else { return };
        let kept = self.bytes.len();
        match pipe.read_buf(&mut self.bytes).await {
            Ok(0) | Err(_) => self.pipe = None,
            Ok(_) => self.bytes.truncate(kept + room),
        }
    }

    /// What the ended process wrote is in the pipe already.
    fn read_rest(&mut self) {
        let Some(pipe) = self.pipe.take() else { return };
        let Ok(fd) = pipe.into_nonblocking_fd() else { return };
        let mut file = std::fs::File::from(fd).take(MAX_OUTPUT_BYTES as u64);
        // Ends with WouldBlock when somebody else still holds the pipe; what was read is kept.
        drop(file.read_to_end(&mut self.bytes));
    }
}
