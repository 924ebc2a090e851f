//! `check-images`.

use std::process::ExitCode;

use clap::Args;

use super::client::{Client, answer, said};
use super::output::print_line;
use crate::wire::corten::CheckRequest;

/// `check-images`
#[derive(Debug, Args)]
pub(crate) struct CheckImages {
    /// Pull damaged layers anew; only these, and none that containers run from
    #[arg(long)]
    repair: bool,
}

impl CheckImages {
    /// Shows what is damaged. Success: nothing is, or not any more.
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<ExitCode> {
        let (mut layers, mut damaged, mut left) = (0, 0, 0);
        let mut answers = answer(client.archives.check(CheckRequest { repair: self.repair }).await)?;
        while let Some(layer) = answers.message().await.map_err(|status| said(&status))? {
            layers += 1;
            if layer.damage.is_empty() {
                continue;
            }
            damaged += 1;
            print_line(&format!("{} (of {})", layer.damage, layer.images.join(", ")))?;
            if !self.repair || !layer.unrepaired.is_empty() {
                left += 1;
            }
            if self.repair {
                let what = if layer.unrepaired.is_empty() { "repaired" } else { &layer.unrepaired };
                print_line(&format!("  {what}"))?;
            }
        }
        print_line(&format!("{layers} layers, {damaged} damaged, {} repaired", damaged - left))?;
        Ok(if left == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}
