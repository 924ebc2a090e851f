//! `info`, `version`, `runtime-config`, and the `info` maps of verbose answers.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::{Map, Value, json};

use super::Output;
use super::client::{Client, answer};
use super::output::{Format, print_line, print_value};
use crate::message;
use crate::wire::cri::{RuntimeConfigRequest, StatusRequest, VersionRequest};

/// `info`
#[derive(Debug, Args)]
pub(crate) struct Info {
    /// Less: only the conditions and features
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: Output,
}

/// `version`
#[derive(Debug, Args)]
pub(crate) struct Version {
    #[command(flatten)]
    output: Output,
}

/// `runtime-config`
#[derive(Debug, Args)]
pub(crate) struct RuntimeConfig {
    #[command(flatten)]
    output: Output,
}

impl RuntimeConfig {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let config = answer(client.runtime.runtime_config(RuntimeConfigRequest {}).await)?;
        if let Some(format) = self.output.format() {
            return print_value(&message::to_json("RuntimeConfigResponse", &config)?, format);
        }
        match config.linux {
            Some(linux) => print_line(&format!("cgroup driver: {}", linux.cgroup_driver().as_str_name())),
            None => Ok(()),
        }
    }
}

impl Info {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let response = answer(client.runtime.status(StatusRequest { verbose: !self.quiet }).await)?;
        let Value::Object(mut answer) = message::to_json("StatusResponse", &response)? else {
            anyhow::bail!("the server's status is not an object");
        };
        answer.remove("info");
        answer.extend(parsed(&response.info));
        print_value(&Value::Object(answer), self.output.format().unwrap_or(Format::Json))
    }
}

impl Version {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let version = answer(client.runtime.version(VersionRequest { version: "v1".to_owned() }).await)?;
        if let Some(format) = self.output.format() {
            return print_value(&message::to_json("VersionResponse", &version)?, format);
        }
        for (name, value) in [
            ("Version", &version.version),
            ("RuntimeName", &version.runtime_name),
            ("RuntimeVersion", &version.runtime_version),
            ("RuntimeApiVersion", &version.runtime_api_version),
        ] {
            print_line(&format!("{name}:  {value}"))?;
        }
        Ok(())
    }
}

/// A status and what the server adds to it when it is asked to be verbose.
pub(crate) fn with_status(status: Value, info: &BTreeMap<String, String>) -> Value {
    let mut info = parsed(info);
    // What is under "info" is the object itself, as crictl shows it.
    match info.remove("info") {
        Some(Value::Object(inner)) if info.is_empty() => json!({ "status": status, "info": inner }),
        Some(inner) => {
            info.insert("info".to_owned(), inner);
            json!({ "status": status, "info": info })
        }
        None => json!({ "status": status, "info": info }),
    }
}

/// The values are JSON in strings.
fn parsed(info: &BTreeMap<String, String>) -> Map<String, Value> {
    let parse = |text: &String| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.clone()));
    info.iter().map(|(key, text)| (key.clone(), parse(text))).collect()
}
