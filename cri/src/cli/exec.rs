//! `exec`: a command in a running container.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, answer};
use super::follow::follow;
use super::output::stdout;
use super::remote::{By, Wanted, command};
use crate::wire::cri::{ExecRequest, ExecSyncRequest};

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Wait for its end, and show all of its output then
    #[arg(short, long, conflicts_with_all = ["interactive", "tty"])]
    sync: bool,
    /// Seconds until it is killed, 0 for never; only with --sync
    #[arg(long, default_value_t = 0)]
    timeout: i64,
    /// Give it this program's standard input
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    by: By,
    /// The container's id
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        if self.sync || self.timeout > 0 {
            return self.wait(client).await;
        }
        let wanted = Wanted { stdin: self.interactive, tty: self.tty };
        let request = ExecRequest {
            container_id: self.container,
            cmd: self.command,
            tty: self.tty,
            stdin: self.interactive,
            stdout: true,
            stderr: !self.tty,
        };
        let url = answer(client.runtime.exec(request).await)?.url;
        follow(command(&url, &self.by, wanted).await?, wanted).await
    }

    async fn wait(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let request =
            ExecSyncRequest { container_id: self.container, cmd: self.command, timeout: self.timeout };
        let output = answer(client.runtime.exec_sync(request).await)?;
        stdout().write_all(&output.stdout)?;
        std::io::stderr().write_all(&output.stderr)?;
        Ok(exit_code(output.exit_code))
    }
}

/// The program's own exit code for that of a container.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
