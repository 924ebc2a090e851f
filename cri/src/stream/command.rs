//! Exec and attach: a command's streams on one side, a client's channels on the other.

use std::collections::HashMap;
use std::time::Duration;

use pod::stream::{End, Session, Stdio, Terminal};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite};
use tracing::debug;

use super::channel::{Gone, Inbound, Outbound};
use super::negotiate::Version;
use super::node::Node;
use super::spdy::{Opened, Streams};
use super::status::Outcome;

/// How long a client may take to open the streams that it asked for.
pub(super) const STREAM_CREATION: Duration = Duration::from_secs(30);
/// The longest message about a terminal's size.
const SIZE_BYTES: usize = 1024;

/// What is to be run or joined.
#[derive(Debug)]
pub(crate) struct Command {
    /// The container's id.
    pub(crate) container: String,
    /// What to run in it; nothing to join what runs.
    pub(crate) command: Option<Vec<String>>,
    /// The streams that the client asked for.
    pub(crate) stdio: Stdio,
}

/// A client's channels for a command.
#[derive(Debug)]
pub(super) struct Channels {
    pub(super) stdin: Option<Inbound>,
    pub(super) stdout: Option<Outbound>,
    pub(super) stderr: Option<Outbound>,
    pub(super) resize: Option<Inbound>,
    pub(super) error: Outbound,
    /// The other directions of streams that have two. Clients take the end of these for the end of the command.
    pub(super) unused: Vec<Outbound>,
}

impl Command {
    /// Takes the streams that a SPDY client opens, until all are there; none when they do not come.
    pub(super) async fn gather(&self, mut streams: Streams, version: Version) -> Option<Channels> {
        let Stdio { stdin, stdout, stderr, tty } = self.stdio;
        let kinds = [
            ("error", true),
            ("stdin", stdin),
            ("stdout", stdout),
            ("stderr", stderr),
            ("resize", tty && version >= Version::V3),
        ];
        let mut wanted: Vec<&str> =
            kinds.into_iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| kind).collect();
        let mut found = HashMap::new();
        while !wanted.is_empty() {
            let Opened { headers, inbound, outbound, .. } = streams.next().await?;
            let kind = headers.value("streamtype").unwrap_or_default();
            if let Some(index) = wanted.iter().position(|wanted| *wanted == kind) {
                outbound.accept().await.ok()?;
                found.insert(wanted.swap_remove(index), (inbound, outbound));
            } else {
                debug!("a client opens a stream {kind:?} that it did not ask for");
                outbound.reset(true).await.ok()?;
            }
        }
        let mut unused = Vec::new();
        let mut read = |kind| {
            let (inbound, outbound) = found.remove(kind)?;
            unused.push(outbound);
            Some(inbound)
        };
        let (stdin, resize) = (read("stdin"), read("resize"));
        let mut write = |kind| found.remove(kind).map(|(_, outbound)| outbound);
        let (stdout, stderr, error) = (write("stdout"), write("stderr"), write("error")?);
        Some(Channels { stdin, stdout, stderr, resize, error, unused })
    }

    /// Runs or joins the command until it ends, and says how.
    pub(super) async fn carry_out(self, node: &dyn Node, channels: Channels, version: Version) {
        let Self { container, command, stdio } = self;
        let (what, session) = match command {
            Some(command) => ("executing command in container", node.exec(&container, command, stdio).await),
            None => ("attaching to container", node.attach(&container, stdio).await),
        };
        let Channels { stdin, stdout, stderr, resize, error, unused } = channels;
        let outcome = match session {
            Ok(session) => converse(session, (stdin, resize), (&stdout, &stderr)).await,
            Err(error) => Err(error),
        };
        let outcome =
            outcome.unwrap_or_else(|e| Outcome::Failed(format!("error {what}: {}", pod::chain(&e))));
        // Who is gone hears nothing.
        for output in [stdout, stderr].into_iter().flatten() {
            drop(output.end().await);
        }
        drop(error.text(&outcome.encode(version)).await);
        drop(error.end().await);
        for stream in unused {
            drop(stream.end().await);
        }
    }
}

/// Moves bytes until the command has ended and its output was taken.
async fn converse(
    session: Session,
    (input, sizes): (Option<Inbound>, Option<Inbound>),
    (stdout, stderr): (&Option<Outbound>, &Option<Outbound>),
) -> pod::Result<Outcome> {
    let inputs = async {
        tokio::join!(take_in(input, session.stdin), resize(sizes, session.terminal));
        // The command may go on for long without input.
        std::future::pending().await
    };
    let outputs = async {
        // A session that was lost has no end of its output either.
        let given = async {
            tokio::join!(
                give_out(session.stdout, stdout.as_ref()),
                give_out(session.stderr, stderr.as_ref())
            );
            Ok(())
        };
        tokio::try_join!(session.end, given)
    };
    let (end, ()) = tokio::select! {
        ended = outputs => ended?,
        never = inputs => never,
    };
    Ok(match end {
        End::Exited(0) | End::Detached => Outcome::Success,
        End::Exited(code) => Outcome::Exited(code),
    })
}

async fn take_in(from: Option<Inbound>, to: Option<Box<dyn AsyncWrite + Send + Unpin>>) {
    if let (Some(from), Some(mut to)) = (from, to) {
        // When the command reads no more, the rest is thrown away, as a shell's pipe does.
        drop(from.copy_to(&mut to).await);
    }
}

async fn give_out(from: Option<Box<dyn AsyncRead + Send + Unpin>>, to: Option<&Outbound>) {
    if let (Some(mut from), Some(to)) = (from, to)
        && let Err(Gone) = to.copy_from(&mut from).await
    {
        debug!("a client does not read a stream to its end");
    }
}

/// What a client says of its terminal's size.
#[derive(Debug, Deserialize)]
struct Size {
    #[serde(rename = "Width")]
    width: u16,
    #[serde(rename = "Height")]
    height: u16,
}

async fn resize(sizes: Option<Inbound>, terminal: Option<Terminal>) {
    let (Some(mut sizes), Some(terminal)) = (sizes, terminal) else { return };
    let mut text = Vec::new();
    while let Some(chunk) = sizes.next().await {
        text.extend_from_slice(&chunk);
        let (size, rest) = last_size(&text);
        text = rest;
        if let Some(Size { width, height }) = size
            && let Err(error) = terminal.resize(width, height)
        {
            debug!("resize a terminal: {error}");
        }
    }
}

/// The last whole size in a text, and what comes after it. What is no size is thrown away.
fn last_size(text: &[u8]) -> (Option<Size>, Vec<u8>) {
    let mut sizes = serde_json::Deserializer::from_slice(text).into_iter::<Size>();
    let mut last = None;
    loop {
        let read = sizes.byte_offset();
        match sizes.next() {
            Some(Ok(size)) => last = Some(size),
            Some(Err(error)) if error.is_eof() && text.len() - read < SIZE_BYTES => {
                return (last, text[read..].to_vec());
            }
            Some(Err(_)) | None => return (last, Vec::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_come_in_pieces() {
        let check = |text: &str, expected: Option<(u16, u16)>, rest: &str| {
            let (size, left) = last_size(text.as_bytes());
            assert_eq!(size.map(|size| (size.width, size.height)), expected, "{text:?}");
            assert_eq!(String::from_utf8(left).unwrap(), rest);
        };
        check(r#"{"Width":80,"Height":24}"#, Some((80, 24)), "");
        check("{\"Width\":80,\"Height\":24}\n", Some((80, 24)), "");
        check(r#"{"Width":80,"Height":24}{"Width":1"#, Some((80, 24)), r#"{"Width":1"#);
        check(r#"{"Width":80,"Height":24}{"Width":100,"Height":30}"#, Some((100, 30)), "");
        check(r#"{"Width""#, None, r#"{"Width""#);
        check(r#"{"Width":-1,"Height":24}"#, None, "");
        check("nonsense", None, "");
        check(&"[".repeat(SIZE_BYTES), None, "");
    }
}
