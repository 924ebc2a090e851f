//! `exec`: a command in a running container, without a terminal.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::client::{Client, answer};
use crate::wire::cri::ExecSyncRequest;

/// `exec`
#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Accepted for crictl's sake: this is always so
    #[arg(short, long)]
    sync: bool,
    /// Seconds until it is killed, 0 for never
    #[arg(long, default_value_t = 0)]
    timeout: i64,
    /// The container's id
    container: String,
    /// The command
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    command: Vec<String>,
}

impl Exec {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let request =
            ExecSyncRequest { container_id: self.container, cmd: self.command, timeout: self.timeout };
        let output = answer(client.runtime.exec_sync(request).await)?;
        std::io::stdout().write_all(&output.stdout)?;
        std::io::stderr().write_all(&output.stderr)?;
        Ok(exit_code(output.exit_code))
    }
}

/// The program's own exit code for that of a container.
pub(crate) fn exit_code(code: i32) -> ExitCode {
    u8::try_from(code).map_or(ExitCode::FAILURE, ExitCode::from)
}
