//! A command's session over either transport.

use std::collections::BTreeMap;

use anyhow::{Context, bail};
use k8s_cri::v1 as wire;
use serde_json::Value;

use super::spdy::{Event, Spdy};
use super::{Link, Transport};
use crate::{Container, Result};

/// What a client asks for, in Exec's and Attach's own words.
#[derive(Debug, Clone, Copy, Default)]
#[allow(clippy::struct_excessive_bools, reason = "these are the words of the request")]
pub struct Wanted {
    /// Standard input.
    pub stdin: bool,
    /// Standard output.
    pub stdout: bool,
    /// Standard error.
    pub stderr: bool,
    /// A terminal.
    pub tty: bool,
}

impl Wanted {
    /// Input and both outputs.
    pub const ALL: Self = Self { stdin: true, stdout: true, stderr: true, tty: false };
    /// Both outputs.
    pub const OUTPUT: Self = Self { stdin: false, ..Self::ALL };
    /// A terminal.
    pub const TERMINAL: Self = Self { stderr: false, tty: true, ..Self::ALL };
}

/// The channels of a command, with their numbers in WebSocket.
pub const STDIN: u8 = 0;
/// Standard output.
pub const STDOUT: u8 = 1;
/// Standard error.
pub const STDERR: u8 = 2;
/// How it ended.
pub const ERROR: u8 = 3;
/// The terminal's size.
pub const RESIZE: u8 = 4;

/// A session.
#[derive(Debug)]
pub struct Session {
    carrier: Carrier,
    /// What came and was not looked at.
    came: BTreeMap<u8, Vec<u8>>,
}

#[derive(Debug)]
enum Carrier {
    Spdy(Box<Spdy>, BTreeMap<u8, u32>),
    WebSocket(Link),
}

/// All of a session that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Standard output.
    pub stdout: Vec<u8>,
    /// Standard error.
    pub stderr: Vec<u8>,
    /// What the error channel said.
    pub error: Vec<u8>,
}

impl Ended {
    /// The exit code that the error channel tells.
    pub fn code(&self) -> Result<i32> {
        let status: Value = serde_json::from_slice(&self.error)
            .with_context(|| format!("{:?}", String::from_utf8_lossy(&self.error)))?;
        if status["status"] == "Success" {
            return Ok(0);
        }
        let cause = &status["details"]["causes"][0];
        match (&status["reason"], &cause["reason"]) {
            (reason, kind) if reason == "NonZeroExitCode" && kind == "ExitCode" => {
                Ok(cause["message"].as_str().context("a code")?.parse()?)
            }
            _ => bail!("{status}"),
        }
    }
}

/// The URL for a command.
pub async fn exec_url(
    container: &Container<'_>,
    command: &[&str],
    wanted: Wanted,
) -> Result<String, tonic::Status> {
    let request = wire::ExecRequest {
        container_id: container.id.clone(),
        cmd: command.iter().map(|word| (*word).to_owned()).collect(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    Ok(container.kubelet.cri().runtime.exec(request).await?.into_inner().url)
}

/// The URL for a container's own process.
pub async fn attach_url(container: &Container<'_>, wanted: Wanted) -> Result<String, tonic::Status> {
    let request = wire::AttachRequest {
        container_id: container.id.clone(),
        tty: wanted.tty,
        stdin: wanted.stdin,
        stdout: wanted.stdout,
        stderr: wanted.stderr,
    };
    Ok(container.kubelet.cri().runtime.attach(request).await?.into_inner().url)
}

impl Session {
    /// Runs a command.
    pub async fn exec(
        transport: Transport,
        container: &Container<'_>,
        command: &[&str],
        wanted: Wanted,
    ) -> Result<Self> {
        Self::connect(transport, &exec_url(container, command, wanted).await?, wanted).await
    }

    /// Joins a container's own process.
    pub async fn attach(transport: Transport, container: &Container<'_>, wanted: Wanted) -> Result<Self> {
        Self::connect(transport, &attach_url(container, wanted).await?, wanted).await
    }

    /// Opens the streams that were asked for.
    pub async fn connect(transport: Transport, url: &str, wanted: Wanted) -> Result<Self> {
        let carrier = match transport {
            Transport::WebSocket => {
                Carrier::WebSocket(Link::websocket(url, &["v5.channel.k8s.io"]).await?.link()?)
            }
            Transport::Spdy => {
                let offers = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
                let mut spdy = Spdy::new(Link::spdy(url, &offers).await?.link()?);
                let kinds = [
                    (ERROR, "error", true),
                    (STDIN, "stdin", wanted.stdin),
                    (STDOUT, "stdout", wanted.stdout),
                    (STDERR, "stderr", wanted.stderr),
                    (RESIZE, "resize", wanted.tty),
                ];
                let mut streams = BTreeMap::new();
                for (channel, kind, _) in kinds.into_iter().filter(|(_, _, wanted)| *wanted) {
                    streams.insert(channel, spdy.open(&[("streamtype", kind)]).await?);
                }
                Carrier::Spdy(Box::new(spdy), streams)
            }
        };
        Ok(Self { carrier, came: BTreeMap::new() })
    }

    /// Sends on a channel.
    pub async fn send(&mut self, channel: u8, bytes: &[u8]) -> Result {
        match &mut self.carrier {
            Carrier::Spdy(spdy, streams) => {
                spdy.send(*streams.get(&channel).context("no such stream")?, bytes).await
            }
            Carrier::WebSocket(link) => link.send(&[&[channel], bytes].concat()).await,
        }
    }

    /// Sends on standard input.
    pub async fn input(&mut self, bytes: &[u8]) -> Result {
        self.send(STDIN, bytes).await
    }

    /// Ends standard input.
    pub async fn end_input(&mut self) -> Result {
        match &mut self.carrier {
            Carrier::Spdy(spdy, streams) => {
                spdy.end(*streams.get(&STDIN).context("no standard input")?).await
            }
            Carrier::WebSocket(link) => link.send(&[255, STDIN]).await,
        }
    }

    /// Tells the terminal's size.
    pub async fn resize(&mut self, columns: u16, rows: u16) -> Result {
        let size = format!("{{\"Width\":{columns},\"Height\":{rows}}}\n");
        self.send(RESIZE, size.as_bytes()).await
    }

    /// Takes what comes next; false at the session's end.
    pub async fn more(&mut self) -> Result<bool> {
        let (channel, bytes) = match &mut self.carrier {
            Carrier::WebSocket(link) => match link.message().await? {
                Some(mut message) if !message.is_empty() => (message.remove(0), message),
                Some(_) => bail!("a message without a channel"),
                None => return Ok(false),
            },
            Carrier::Spdy(spdy, streams) => match spdy.next().await? {
                Event::Data(stream, bytes) => {
                    let known = streams.iter().find(|(_, number)| **number == stream);
                    (*known.context("bytes of an unknown stream")?.0, bytes)
                }
                Event::End(_) => return Ok(true),
                Event::Closed => return Ok(false),
                // containerd gives its streams up when all is said.
                Event::Reset(_) if self.came.contains_key(&ERROR) => return Ok(false),
                other => bail!("{other:?} in a session"),
            },
        };
        self.came.entry(channel).or_default().extend(bytes);
        Ok(true)
    }

    /// Reads until a text has come on standard output, and forgets what came until there.
    pub async fn until(&mut self, text: &str) -> Result<String> {
        loop {
            let came = self.came.entry(STDOUT).or_default();
            let read = String::from_utf8_lossy(came).into_owned();
            if let Some(at) = read.find(text) {
                came.clear();
                came.extend(&read.as_bytes()[at + text.len()..]);
                return Ok(read[..at + text.len()].to_owned());
            }
            let more =
                tokio::time::timeout(crate::wait::PATIENCE * crate::wait::slowness(), self.more()).await;
            let more = more.with_context(|| format!("no {text:?} after {read:?}"))??;
            if !more {
                bail!("the session ended without {text:?}: {:?}", self.came);
            }
        }
    }

    /// Reads to the end.
    pub async fn ended(mut self) -> Result<Ended> {
        let all = async {
            while self.more().await? {}
            anyhow::Ok(())
        };
        tokio::time::timeout(crate::wait::PATIENCE * crate::wait::slowness() * 3, all)
            .await
            .context("the session does not end")??;
        let mut take = |channel| self.came.remove(&channel).unwrap_or_default();
        Ok(Ended { stdout: take(STDOUT), stderr: take(STDERR), error: take(ERROR) })
    }
}
