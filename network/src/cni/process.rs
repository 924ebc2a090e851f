//! One execution of a plugin: JSON in, JSON out, bounded in time and size.
//!
//! The plugin leads a process group of its own, which is killed at the time limit and when the caller goes
//! away. It gets nothing of the daemon's environment but PATH, which plugins find iptables and the like by.

use std::ffi::OsString;
use std::io;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};

use crate::error::PluginError;

/// The largest answer that is read.
const ANSWER_BYTES: usize = 1 << 20;
/// How much of the end of standard error is kept.
const STDERR_BYTES: usize = 4096;
/// How long a plugin's answer is waited for that has ended, but left its output open in a child.
const AFTERMATH: Duration = Duration::from_millis(100);
/// How long a killed plugin may take to be gone.
const DEATH: Duration = Duration::from_secs(1);
/// How long a program that is being written is waited for, and how often it is tried.
const BUSY: Duration = Duration::from_millis(100);
const BUSY_TRIES: usize = 50;
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What a plugin is run with.
#[derive(Debug)]
pub(super) struct Request<'a> {
    /// The program.
    pub(super) program: &'a Path,
    /// Its environment, PATH aside.
    pub(super) env: Vec<(&'static str, OsString)>,
    /// Its standard input.
    pub(super) input: Vec<u8>,
    /// The time it may take.
    pub(super) limit: Duration,
}

/// What it said so far.
#[derive(Default)]
struct Output {
    answer: Vec<u8>,
    stderr: Vec<u8>,
}

/// The specification's error object.
#[derive(Deserialize)]
struct Report {
    #[serde(default)]
    code: u64,
    #[serde(default)]
    msg: String,
    #[serde(default)]
    details: String,
}

/// A plugin, killed with its process group when this value goes before the plugin has ended.
struct Running(Child);

/// Runs a plugin to its end and returns its answer, and what it wrote to standard error.
pub(super) async fn run(request: Request<'_>) -> Result<(Vec<u8>, String), PluginError> {
    let limit = request.limit;
    let mut running = Running(spawn(&request).await?);
    let mut output = Output::default();
    let finished = timeout(limit, converse(&mut running.0, request, &mut output)).await;
    match finished {
        Ok(Ok(status)) if status.success() => Ok((std::mem::take(&mut output.answer), output.stderr())),
        Ok(Ok(status)) => Err(failure(status, &output)),
        Ok(Err(error)) => {
            running.end().await;
            Err(error)
        }
        Err(_) => {
            running.end().await;
            Err(PluginError::TimedOut { limit, stderr: output.stderr() })
        }
    }
}

async fn spawn(request: &Request<'_>) -> Result<Child, PluginError> {
    let path = std::env::var_os("PATH").unwrap_or_else(|| DEFAULT_PATH.into());
    let mut command = Command::new(request.program);
    command
        .env_clear()
        .env("PATH", path)
        .envs(request.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    let mut tries = BUSY_TRIES;
    loop {
        tries -= 1;
        match command.spawn() {
            // The program is being installed: it can be run as soon as the writer has closed it.
            Err(error) if error.kind() == io::ErrorKind::ExecutableFileBusy && tries > 0 => sleep(BUSY).await,
            spawned => return spawned.map_err(failed("run", request.program)),
        }
    }
}

/// Feeds the plugin, reads it, and waits for it. The output is the caller's, so that it outlives a time limit.
async fn converse(
    child: &mut Child,
    request: Request<'_>,
    output: &mut Output,
) -> Result<ExitStatus, PluginError> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let Output { answer, stderr: said } = output;
    let feed = async {
        if let Some(mut stdin) = stdin {
            match stdin.write_all(&request.input).await {
                // A plugin need not read what it does not need.
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(failed("write to", request.program)(error))
                }
                _ => Ok(()),
            }
        } else {
            Ok(())
        }
    };
    let listen = async {
        let Some(stdout) = stdout else { return Ok(()) };
        // One byte more than allowed tells that there is more.
        let read = stdout.take(ANSWER_BYTES as u64 + 1).read_to_end(answer).await;
        read.map_err(failed("read from", request.program))?;
        if answer.len() > ANSWER_BYTES {
            return Err(PluginError::TooMuchOutput { limit_bytes: ANSWER_BYTES });
        }
        Ok(())
    };
    let overhear = async {
        let Some(stderr) = stderr else { return Ok(()) };
        read_end(stderr, said).await.map_err(failed("read from", request.program))
    };
    let talk = async { tokio::try_join!(feed, listen, overhear) };
    tokio::pin!(talk);
    let ended = failed("wait for", request.program);
    tokio::select! {
        talked = &mut talk => {
            talked?;
            child.wait().await.map_err(ended)
        }
        status = child.wait() => {
            // What the plugin wrote is in the pipes by now; a child that it left may hold them open for ever.
            match timeout(AFTERMATH, talk).await {
                Ok(Err(error)) => Err(error),
                _ => status.map_err(ended),
            }
        }
    }
}

/// Reads all, and keeps the end.
async fn read_end(mut from: impl AsyncRead + Unpin, kept: &mut Vec<u8>) -> io::Result<()> {
    while from.read_buf(kept).await? > 0 {
        if kept.len() > 2 * STDERR_BYTES {
            kept.drain(..kept.len() - STDERR_BYTES);
        }
    }
    Ok(())
}

fn failure(status: ExitStatus, output: &Output) -> PluginError {
    match serde_json::from_slice::<Report>(&output.answer) {
        Ok(Report { code, msg, details }) if code != 0 || !msg.is_empty() => {
            PluginError::Reported { code, msg, details, stderr: output.stderr() }
        }
        _ if output.stderr.is_empty() => PluginError::Failed { status, stderr: text(&output.answer) },
        _ => PluginError::Failed { status, stderr: output.stderr() },
    }
}

/// The end of what a plugin wrote.
fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(STDERR_BYTES)..]).trim().to_owned()
}

fn failed(operation: &'static str, path: &Path) -> impl Fn(io::Error) -> PluginError {
    move |source| PluginError::Io { operation, path: path.to_owned(), source }
}

// === impl Output ===

impl Output {
    fn stderr(&self) -> String {
        text(&self.stderr)
    }
}

// === impl Running ===

impl Running {
    /// Kills what is left, and waits a moment for its end, so that what follows does not meet it.
    async fn end(mut self) {
        self.kill();
        // One that does not die sits in the kernel; it is reaped when it comes back.
        let _gone = timeout(DEATH, self.0.wait()).await;
    }

    fn kill(&self) {
        // There is an id as long as the leader is not reaped: until then the number is its group's and nobody else's.
        let leader = self.0.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        if let Some(leader) = leader {
            // It may have ended by itself just now, which is as well.
            let _ended = kill_process_group(leader, Signal::KILL);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests;
