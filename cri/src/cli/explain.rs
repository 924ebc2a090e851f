//! `explain`: which hosts a pull asks, in which order, with which credentials and why. It reads the server's files
//! itself and asks nobody, so that it works where a pull does not, and where no server runs.

use std::path::PathBuf;

use clap::Args;
use image::{Credentials, Explained, Explanation};

use super::output::print_line;
use crate::config::Config;

/// `explain`
#[derive(Debug, Args)]
pub(crate) struct Explain {
    /// The server's configuration file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Explain a pull that brings credentials, as with an image pull secret; the host that they are for
    #[arg(long, value_name = "SERVER", num_args = 0..=1, default_missing_value = "")]
    with_secret: Option<String>,
    /// The images' names
    #[arg(required = true)]
    images: Vec<String>,
}

impl Explain {
    /// Prints what the files say.
    pub(crate) fn run(self) -> anyhow::Result<()> {
        let config = Config::load(self.config.as_deref())?;
        let credentials = self.with_secret.map(|server_address| Credentials {
            username: "a user".to_owned(),
            server_address,
            ..Credentials::default()
        });
        for image in &self.images {
            let explanation = image::explain(&config.image, image, credentials.as_ref())?;
            print_line(text(&explanation).trim_end())?;
        }
        Ok(())
    }
}

fn text(explanation: &Explanation) -> String {
    let mut text = String::new();
    for name in &explanation.names {
        text.push_str(&format!("{}\n  ({})\n", name.reference, explanation.why));
        text.push_str(&routes(name));
        text.push_str(&format!("  signatures: {}\n", name.signatures));
    }
    text
}

fn routes(name: &Explained) -> String {
    let refused = name.refused.iter().map(|reason| format!("  nobody is asked: {reason}\n"));
    let routes = name.routes.iter().zip(1..).map(|(route, number)| {
        format!(
            "  {number}. {}\n     for          {}\n     because      {}\n     connection   {}\n     credentials  {}\n",
            route.address, route.role, route.why, route.security, route.credentials
        )
    });
    refused.chain(routes).collect()
}
