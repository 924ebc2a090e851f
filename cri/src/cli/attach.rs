//! `attach`: the streams of a container's own process, from now on.

use std::process::ExitCode;

use clap::Args;

use super::client::{Client, answer};
use super::follow::follow;
use super::remote::{By, Wanted, command};
use crate::wire::cri::AttachRequest;

/// `attach`
#[derive(Debug, Args)]
pub(crate) struct Attach {
    /// Give it this program's standard input
    #[arg(short = 'i', long)]
    stdin: bool,
    /// Its terminal, for a container that was made with one
    #[arg(short, long)]
    tty: bool,
    #[command(flatten)]
    by: By,
    /// The container's id
    container: String,
}

impl Attach {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let wanted = Wanted { stdin: self.stdin, tty: self.tty };
        let request = AttachRequest {
            container_id: self.container,
            stdin: self.stdin,
            tty: self.tty,
            stdout: true,
            stderr: !self.tty,
        };
        let url = answer(client.runtime.attach(request).await)?.url;
        follow(command(&url, &self.by, wanted).await?, wanted).await
    }
}
