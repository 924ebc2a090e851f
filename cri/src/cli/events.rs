//! `events`: what happens to pods and containers, as it happens.

use clap::Args;

use super::client::{Client, answer, said};
use super::output::{Format, print_line, print_value};
use super::{Output, message};
use crate::wire::cri::GetEventsRequest;

/// `events`
#[derive(Debug, Args)]
pub(crate) struct Events {
    #[command(flatten)]
    output: Output,
}

impl Events {
    /// Prints each event, one JSON object a line or one YAML document, until the server ends.
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let mut events = answer(client.runtime.get_container_events(GetEventsRequest {}).await)?;
        loop {
            let event = events.message().await.map_err(|status| said(&status))?;
            let Some(event) = event else { return Ok(()) };
            let value = message::to_json("ContainerEventResponse", &event)?;
            match self.output.format() {
                Some(Format::Yaml) => {
                    print_line("---")?;
                    print_value(&value, Format::Yaml)?;
                }
                _ => print_line(&value.to_string())?,
            }
        }
    }
}
