//! `logs`: reads a container's log file, whose lines are `TIME stdout|stderr P|F TEXT`.

use std::io::{SeekFrom, Write};
use std::path::Path;

use anyhow::{Context, ensure};
use clap::Args;
use rustix::fs::inotify;
use tokio::fs::File;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

use super::client::{Client, answer};
use super::output::stdout;
use crate::wire::cri::{ContainerState, ContainerStatus, ContainerStatusRequest};

/// `logs`
#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(short, long)]
    follow: bool,
    /// Only the last lines
    #[arg(long, value_name = "LINES")]
    tail: Option<usize>,
    /// With the time of each line
    #[arg(short, long)]
    timestamps: bool,
    /// The container's id
    container: String,
}

impl Logs {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let status = status(client, &self.container).await?;
        ensure!(!status.log_path.is_empty(), "container {} has no log", self.container);
        let mut log = Log::open(Path::new(&status.log_path), self.timestamps).await?;
        if let Some(lines) = self.tail {
            log.seek_tail(lines).await?;
        }
        if self.follow { log.follow(client, &self.container).await } else { log.copy().await }
    }
}

/// What the server knows of a container.
pub(crate) async fn status(client: &mut Client, id: &str) -> anyhow::Result<ContainerStatus> {
    let request = ContainerStatusRequest { container_id: id.to_owned(), verbose: false };
    answer(client.runtime.container_status(request).await)?.status.context("the server sent no status")
}

/// An open log file.
pub(crate) struct Log {
    file: File,
    watch: AsyncFd<std::os::fd::OwnedFd>,
    timestamps: bool,
    /// The beginning of a line whose end is not written yet.
    rest: Vec<u8>,
}

impl Log {
    pub(crate) async fn open(path: &Path, timestamps: bool) -> anyhow::Result<Self> {
        let file = File::open(path).await.with_context(|| format!("open log {}", path.display()))?;
        let fd = inotify::init(inotify::CreateFlags::NONBLOCK | inotify::CreateFlags::CLOEXEC)?;
        let events = inotify::WatchFlags::MODIFY | inotify::WatchFlags::MOVE_SELF;
        inotify::add_watch(&fd, path, events)?;
        #[allow(
            deprecated,
            reason = "its successor is unsafe to call; this descriptor is owned until it is deregistered"
        )]
        let watch = AsyncFd::new(fd)?;
        Ok(Self { file, watch, timestamps, rest: Vec::new() })
    }

    /// Goes to the beginning of the last `lines` lines.
    async fn seek_tail(&mut self, lines: usize) -> anyhow::Result<()> {
        let mut bytes = Vec::new();
        self.file.read_to_end(&mut bytes).await?;
        let ends = bytes.iter().enumerate().filter(|(_, byte)| **byte == b'\n').map(|(at, _)| at + 1);
        let mut starts: Vec<usize> = std::iter::once(0).chain(ends).collect();
        // After the last line's end nothing begins yet.
        starts.pop_if(|start| *start == bytes.len());
        let start = starts.len().checked_sub(lines).and_then(|at| starts.get(at)).copied();
        let start = if lines == 0 { bytes.len() } else { start.unwrap_or(0) };
        self.file.seek(SeekFrom::Start(u64::try_from(start)?)).await?;
        Ok(())
    }

    /// Shows what is there.
    pub(crate) async fn copy(&mut self) -> anyhow::Result<()> {
        let mut buffer = vec![0; 64 << 10];
        loop {
            let count = self.file.read(&mut buffer).await?;
            if count == 0 {
                return Ok(stdout().flush()?);
            }
            self.rest.extend_from_slice(&buffer[..count]);
            while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                show(&line, self.timestamps)?;
            }
        }
    }

    /// Shows what is there and what comes, until the container has ended.
    pub(crate) async fn follow(&mut self, client: &mut Client, id: &str) -> anyhow::Result<()> {
        let mut alive = tokio::time::interval(std::time::Duration::from_millis(100));
        loop {
            tokio::select! {
                ready = self.watch.readable() => {
                    let mut ready = ready?;
                    drain(ready.get_inner());
                    ready.clear_ready();
                }
                _ = alive.tick() => {
                    let ended = status(client, id).await?.state() == ContainerState::ContainerExited;
                    if ended {
                        return self.copy().await;
                    }
                }
            }
            self.copy().await?;
        }
    }
}

/// Takes all events from an inotify descriptor: that there were some is all that matters.
fn drain(fd: &std::os::fd::OwnedFd) {
    let mut buffer = [0_u8; 1024];
    while rustix::io::read(fd, &mut buffer).is_ok_and(|count| count > 0) {}
}

/// Writes the text of a log line to the stream that it came from; a line that is not one as it is.
fn show(line: &[u8], timestamps: bool) -> anyhow::Result<()> {
    let mut fields = line.splitn(4, |byte| *byte == b' ');
    let (Some(time), Some(stream), Some(tags), Some(text)) =
        (fields.next(), fields.next(), fields.next(), fields.next())
    else {
        return Ok(stdout().write_all(line)?);
    };
    let is_partial = tags.split(|byte| *byte == b':').next() == Some(b"P");
    let text = if is_partial { text.strip_suffix(b"\n").unwrap_or(text) } else { text };
    let mut shown = Vec::with_capacity(line.len());
    if timestamps {
        shown.extend_from_slice(time);
        shown.push(b' ');
    }
    shown.extend_from_slice(text);
    match stream {
        b"stderr" => std::io::stderr().write_all(&shown)?,
        _ => stdout().write_all(&shown)?,
    }
    Ok(())
}
