//! `pull`, with a bar for each layer on a terminal.

use std::io::IsTerminal;
use std::time::Duration;

use clap::Args;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::client::{Client, answer};
use super::output::print_line;
use crate::wire::corten::{PullPhase, PullProgress, WatchRequest};
use crate::wire::cri::{AuthConfig, ImageSpec, PullImageRequest};

/// `pull`
#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// User and password for the registry
    #[arg(long, value_name = "USER[:PASSWORD]", env = "CORTEN_PULL_CREDS", hide_env_values = true)]
    creds: Option<String>,
    /// User and password for the registry, base64
    #[arg(
        long,
        value_name = "BASE64",
        conflicts_with = "creds",
        env = "CORTEN_PULL_AUTH",
        hide_env_values = true
    )]
    auth: Option<String>,
    /// Show no progress
    #[arg(short, long)]
    quiet: bool,
    /// The images' names
    #[arg(required = true)]
    images: Vec<String>,
}

impl Pull {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        for image in &self.images {
            let id = pull(client, image, self.credentials(), self.quiet).await?;
            print_line(&format!("Image is up to date for {id}"))?;
        }
        Ok(())
    }

    fn credentials(&self) -> Option<AuthConfig> {
        if let Some(auth) = &self.auth {
            return Some(AuthConfig { auth: auth.clone(), ..Default::default() });
        }
        let (username, password) = self.creds.as_ref()?.split_once(':').unwrap_or((self.creds.as_ref()?, ""));
        Some(AuthConfig {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Default::default()
        })
    }
}

/// Pulls an image and returns its id; progress is drawn on standard error when that is a terminal.
pub(crate) async fn pull(
    client: &mut Client,
    image: &str,
    auth: Option<AuthConfig>,
    quiet: bool,
) -> anyhow::Result<String> {
    let spec = ImageSpec { image: image.to_owned(), ..Default::default() };
    let request = PullImageRequest { image: Some(spec), auth, sandbox_config: None };
    let mut images = client.images.clone();
    let pull = images.pull_image(request);
    if quiet || !std::io::stderr().is_terminal() {
        return Ok(answer(pull.await)?.image_ref);
    }
    let bars = Bars::new(image);
    let result = tokio::select! {
        result = pull => result,
        () = bars.follow(client, image) => std::future::pending().await,
    };
    bars.finish();
    Ok(answer(result)?.image_ref)
}

struct Bars {
    screen: MultiProgress,
    head: ProgressBar,
}

impl Bars {
    fn new(image: &str) -> Self {
        let screen = MultiProgress::new();
        let head = screen.add(ProgressBar::new_spinner().with_message(format!("{image}: waiting")));
        head.enable_steady_tick(Duration::from_millis(100));
        Self { screen, head }
    }

    /// Draws until the server says that the pull is over; a server that has no progress gets a spinner.
    async fn follow(&self, client: &mut Client, image: &str) {
        let request = WatchRequest { reference: image.to_owned() };
        let mut layers = Vec::new();
        if let Ok(response) = client.pulls.watch(request).await {
            let mut stream = response.into_inner();
            while let Ok(Some(progress)) = stream.message().await {
                self.draw(image, &progress, &mut layers);
            }
        }
        // PullImage's answer is what ends the command.
        std::future::pending().await
    }

    fn draw(&self, image: &str, progress: &PullProgress, layers: &mut Vec<ProgressBar>) {
        let phase = match progress.phase() {
            PullPhase::Waiting => "waiting",
            PullPhase::Resolving => "resolving",
            PullPhase::Fetching => "fetching",
            PullPhase::Committing => "committing",
            PullPhase::Done => "done",
            PullPhase::Failed => "failed",
        };
        self.head.set_message(format!("{image}: {phase}"));
        for layer in progress.layers.iter().skip(layers.len()) {
            layers.push(self.add_layer(&layer.digest, layer.total));
        }
        for (layer, bar) in progress.layers.iter().zip(layers) {
            bar.set_position(layer.done);
            if layer.unpacked && !bar.is_finished() {
                bar.finish();
            }
        }
    }

    fn add_layer(&self, digest: &str, total: u64) -> ProgressBar {
        let short: String = digest.rsplit(':').next().unwrap_or(digest).chars().take(12).collect();
        let style = ProgressStyle::with_template(
            "{prefix} [{bar:30}] {bytes:>10}/{total_bytes:<10} {binary_bytes_per_sec}",
        );
        let bar = ProgressBar::new(total).with_prefix(short);
        // The template is a constant; without it the bar has indicatif's own style.
        let bar = if let Ok(style) = style { bar.with_style(style.progress_chars("=> ")) } else { bar };
        self.screen.add(bar)
    }

    fn finish(&self) {
        self.head.finish_and_clear();
    }
}
