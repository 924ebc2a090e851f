//! A command's streams in this program's own: its output is shown, keys and sizes go to it, its exit code comes back.

use std::io::Write;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Deserialize;
use tokio::io::AsyncReadExt;
use tokio::signal::unix::{SignalKind, signal};

use super::exec::exit_code;
use super::output;
use super::remote::{Remote, Wanted};
use super::terminal::{self, Keys, Raw};
use crate::stream::client::{Inbound, Outbound};

/// The longest text about the end of a command.
const OUTCOME_BYTES: usize = 1 << 20;

/// `metav1.Status`, as far as it says how a command ended.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    status: String,
    reason: String,
    message: String,
    details: Details,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    message: String,
}

/// Shows a command until it ends, or until the person leaves.
pub(crate) async fn follow(remote: Remote, wanted: Wanted) -> anyhow::Result<ExitCode> {
    let Remote { stdin, stdout, stderr, resize, error, connection: _connection } = remote;
    let own_terminal = wanted.tty && wanted.stdin && terminal::is_there();
    let raw = own_terminal.then(Raw::enter).transpose().context("take the terminal")?;
    let outputs = async {
        let stdout = show(Some(stdout), output::stdout());
        let stderr = show(stderr, std::io::stderr());
        let outcome = async { Ok(read(error).await) };
        // Who cannot show what comes does not wait for its end.
        let ((), (), outcome) = tokio::try_join!(stdout, stderr, outcome)?;
        anyhow::Ok(outcome)
    };
    let inputs = async {
        let keys = own_terminal.then(Keys::default);
        let left = tokio::join!(give(stdin, keys), sizes(resize.filter(|_| own_terminal))).0?;
        if !left {
            // The command may go on for long without input.
            std::future::pending::<()>().await;
        }
        anyhow::Ok(())
    };
    let outcome = tokio::select! {
        outcome = outputs => outcome?,
        left = inputs => return left.map(|()| ExitCode::SUCCESS),
    };
    drop(raw);
    end(&outcome)
}

async fn show(from: Option<Inbound>, mut to: impl Write) -> anyhow::Result<()> {
    let Some(mut from) = from else { return Ok(()) };
    while let Some(bytes) = from.next().await {
        to.write_all(&bytes)?;
        to.flush()?;
    }
    Ok(())
}

async fn read(mut from: Inbound) -> Vec<u8> {
    let mut text = Vec::new();
    while let Some(bytes) = from.next().await {
        if text.len() + bytes.len() <= OUTCOME_BYTES {
            text.extend_from_slice(&bytes);
        }
    }
    text
}

/// Sends what is typed or piped, and then its end; says whether the person has left.
async fn give(to: Option<Outbound>, mut keys: Option<Keys>) -> anyhow::Result<bool> {
    let Some(to) = to else { return Ok(false) };
    let mut stdin = tokio::io::stdin();
    let mut buffer = vec![0; 32 << 10];
    loop {
        let count = stdin.read(&mut buffer).await.context("read standard input")?;
        let typed = buffer.get(..count).unwrap_or_default();
        let (bytes, leaves) = match &mut keys {
            Some(keys) => keys.press(typed),
            None => (typed.to_vec(), false),
        };
        if to.text(&bytes).await.is_err() {
            return Ok(false);
        }
        if leaves {
            return Ok(true);
        }
        if count == 0 {
            // Who is gone needs no end.
            drop(to.end().await);
            return Ok(false);
        }
    }
}

/// Tells the terminal's size now and whenever it changes.
async fn sizes(to: Option<Outbound>) -> anyhow::Result<()> {
    let Some(to) = to else { return Ok(()) };
    let mut changes = signal(SignalKind::window_change())?;
    loop {
        let size = terminal::size()?;
        if to.text(size.as_bytes()).await.is_err() || changes.recv().await.is_none() {
            return Ok(());
        }
    }
}

fn end(outcome: &[u8]) -> anyhow::Result<ExitCode> {
    if outcome.is_empty() {
        bail!("the server ended the session without saying how the command ended");
    }
    let status: Status = serde_json::from_slice(outcome)
        .with_context(|| format!("understand {:?}", String::from_utf8_lossy(outcome)))?;
    if status.status == "Success" {
        return Ok(ExitCode::SUCCESS);
    }
    let code = status.details.causes.iter().find(|cause| cause.reason == "ExitCode");
    match code.and_then(|cause| cause.message.parse().ok()) {
        Some(code) if status.reason == "NonZeroExitCode" => Ok(exit_code(code)),
        _ => bail!("{}", status.message),
    }
}
