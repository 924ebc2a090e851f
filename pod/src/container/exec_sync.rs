//! ExecSync: a command in a running container, its output collected.

use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
/// What each answer may hold in any case: more than a probe ever says.
const OWN_BYTES: usize = 64 << 10;
/// What all answers in the making may hold together beyond that: the rest of their output is thrown away.
const POOL_BYTES: usize = 96 << 20;
/// What is taken from the pool at a time.
const SHARE_BYTES: usize = 1 << 20;

/// How much of the pool is taken.
static TAKEN: AtomicUsize = AtomicUsize::new(0);

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
        let share = Share { pool: &TAKEN, bytes: 0 };
        let mut streams = Streams { stdout: Stream::new(stdout), stderr: Stream::new(stderr), share };
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
    share: Share,
}

/// What an answer has of the pool; given back when it is made.
#[derive(Debug)]
struct Share {
    pool: &'static AtomicUsize,
    bytes: usize,
}

impl Share {
    /// Makes room for an answer of so many bytes, as far as there is some, and returns how many it may have.
    fn cover(&mut self, wanted: usize) -> usize {
        while OWN_BYTES + self.bytes < wanted {
            let more = |taken: usize| Some(taken + SHARE_BYTES).filter(|taken| *taken <= POOL_BYTES);
            if self.pool.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).is_err() {
                break;
            }
            self.bytes += SHARE_BYTES;
        }
        wanted.min(OWN_BYTES + self.bytes)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.pool.fetch_sub(self.bytes, Ordering::Relaxed);
    }
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
            let before = self.lengths();
            let room = MAX_OUTPUT_BYTES - before[0] - before[1];
            tokio::select! {
                result = &mut exec => break result,
                () = self.stdout.read_some(room), if self.stdout.pipe.is_some() => (),
                () = self.stderr.read_some(room), if self.stderr.pipe.is_some() => (),
            }
            self.fit(before);
        };
        let before = self.lengths();
        for stream in [&mut self.stdout, &mut self.stderr] {
            stream.read_rest();
        }
        self.limit();
        self.fit(before);
        result
    }

    fn lengths(&self) -> [usize; 2] {
        [self.stdout.bytes.len(), self.stderr.bytes.len()]
    }

    /// Throws away what came after `before` and what the pool has no room for.
    fn fit(&mut self, before: [usize; 2]) {
        let now: usize = self.lengths().iter().sum();
        let mut excess = now - self.share.cover(now);
        for (stream, before) in [&mut self.stdout, &mut self.stderr].into_iter().zip(before) {
            let cut = excess.min(stream.bytes.len().saturating_sub(before));
            stream.bytes.truncate(stream.bytes.len() - cut);
            excess -= cut;
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    static POOL: AtomicUsize = AtomicUsize::new(0);

    #[test]
    fn answers_share_a_pool_and_each_has_something_of_its_own() {
        let share = || Share { pool: &POOL, bytes: 0 };
        let mut small = share();
        assert_eq!(small.cover(OWN_BYTES), OWN_BYTES);
        assert_eq!(POOL.load(Ordering::Relaxed), 0, "a probe takes nothing of it");
        let mut greedy = share();
        assert_eq!(greedy.cover(POOL_BYTES / 2), POOL_BYTES / 2);
        let mut second = share();
        assert!(second.cover(POOL_BYTES) < POOL_BYTES);
        assert_eq!(small.cover(2 * OWN_BYTES), OWN_BYTES, "nothing is left");
        drop(greedy);
        assert_eq!(small.cover(2 * OWN_BYTES), 2 * OWN_BYTES);
        drop((small, second));
        assert_eq!(POOL.load(Ordering::Relaxed), 0);
    }
}
