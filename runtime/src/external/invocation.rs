//! Runs of a runtime's program by the daemon, bounded in time; what has to do with processes is the driver's.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::process::Command;

use super::{Error, LIMIT};

/// Runs the program to its end; its output, or none when it refused.
pub(super) async fn run(program: &Path, words: &[&OsStr]) -> Result<Option<String>, Error> {
    let mut command = Command::new(program);
    command
        .args(words)
        .env_clear()
        .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true);
    let output = match tokio::time::timeout(LIMIT, command.output()).await {
        Ok(output) => output.map_err(|source| Error::Program { program: program.to_owned(), source })?,
        Err(_) => return Err(Error::Slow { program: program.to_owned() }),
    };
    Ok(output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned()))
}
