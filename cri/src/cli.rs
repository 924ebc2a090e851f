//! The client commands: crictl's words and flags where crictl has one, against any CRI socket.
//!
//! One file a subject: what a command asks of the server and how the answer looks. Tables are for
//! people, `-o json` and `-o yaml` for programs.

mod archive;
mod attach;
mod check;
mod client;
mod configs;
mod containers;
pub(crate) mod ctr;
mod events;
mod exec;
mod explain;
mod follow;
mod forward;
mod images;
mod info;
mod logs;
mod metrics;
pub(crate) mod output;
mod pods;
mod pull;
mod remote;
mod run;
mod stats;
mod terminal;
mod trust;
mod update;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

pub(crate) use self::client::Client;
pub(crate) use self::explain::Explain;
use self::output::Format;
use crate::message;

/// Where the server is.
#[derive(Debug, Args)]
pub(crate) struct Endpoint {
    /// The CRI socket to talk to
    #[arg(
        short,
        long,
        value_name = "SOCKET",
        env = "CONTAINER_RUNTIME_ENDPOINT",
        default_value = "unix:///run/corten/corten.sock"
    )]
    pub(crate) runtime_endpoint: String,
}

/// What a person can ask.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command in a new pod, show its output, and remove everything
    Run(run::Run),
    /// Pull an image
    Pull(pull::Pull),
    /// List images
    #[command(visible_alias = "image")]
    Images(images::List),
    /// Remove images
    Rmi(images::Remove),
    /// Show what is known of images
    Inspecti(images::Inspect),
    /// Take images in from an archive
    Import(archive::Import),
    /// Write images into an archive
    Export(archive::Export),
    /// Compare the layers of all images with what they were pulled as
    CheckImages(check::CheckImages),
    /// Run a pod from its configuration
    Runp(pods::Run),
    /// List pods
    Pods(pods::List),
    /// Show what is known of pods
    Inspectp(pods::Inspect),
    /// Stop pods
    Stopp(pods::Stop),
    /// Remove pods
    Rmp(pods::Remove),
    /// Create a container in a pod from their configurations
    Create(containers::Create),
    /// Start created containers
    Start(containers::Start),
    /// List containers
    Ps(containers::List),
    /// Show what is known of containers
    Inspect(containers::Inspect),
    /// Stop containers
    Stop(containers::Stop),
    /// Remove containers
    Rm(containers::Remove),
    /// Run a command in a running container
    Exec(exec::Exec),
    /// Follow a running container's own process
    Attach(attach::Attach),
    /// Lead local ports into a pod
    PortForward(forward::PortForward),
    /// Show a container's log
    Logs(logs::Logs),
    /// Change the limits of running containers
    Update(update::Update),
    /// Show what containers use
    Stats(stats::Stats),
    /// Show what pods use
    Statsp(stats::PodStats),
    /// Show the metrics of pods
    Metricsp(metrics::PodMetrics),
    /// Show what the metrics of pods are
    Metricdescs(metrics::Descriptors),
    /// Show what happens to pods and containers, as it happens
    Events(events::Events),
    /// Show what images take on the disk
    Imagefsinfo(images::Filesystem),
    /// Show what the kubelet is told of the runtime's configuration
    RuntimeConfig(info::RuntimeConfig),
    /// Show the server's state
    Info(info::Info),
    /// Show the server's version
    Version(info::Version),
}

/// How an answer is shown.
#[derive(Debug, Args)]
pub(crate) struct Output {
    /// Show it as this
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

impl Output {
    /// What a program wants to read; none for a person.
    fn format(&self) -> Option<Format> {
        self.output.filter(|format| *format != Format::Table)
    }
}

/// Which objects a command is about.
#[derive(Debug, Args)]
pub(crate) struct Ids {
    /// Their ids, or the beginnings of these
    #[arg(required = true)]
    ids: Vec<String>,
}

/// A file with a configuration, JSON or YAML as for crictl.
type ConfigFile = PathBuf;

impl Command {
    /// Asks the server and prints what it says.
    pub(crate) async fn execute(self, endpoint: &Endpoint) -> anyhow::Result<ExitCode> {
        let mut client = Client::connect(&endpoint.runtime_endpoint).await?;
        let client = &mut client;
        match self {
            Self::Run(command) => return command.execute(client).await,
            Self::CheckImages(command) => return command.execute(client).await,
            Self::Exec(command) => return command.execute(client).await,
            Self::Attach(command) => return command.execute(client).await,
            Self::PortForward(command) => command.execute(client).await,
            Self::Pull(command) => command.execute(client).await,
            Self::Import(command) => command.execute(client).await,
            Self::Export(command) => command.execute(client).await,
            Self::Images(command) => command.execute(client).await,
            Self::Rmi(command) => command.execute(client).await,
            Self::Inspecti(command) => command.execute(client).await,
            Self::Runp(command) => command.execute(client).await,
            Self::Pods(command) => command.execute(client).await,
            Self::Inspectp(command) => command.execute(client).await,
            Self::Stopp(command) => command.execute(client).await,
            Self::Rmp(command) => command.execute(client).await,
            Self::Create(command) => command.execute(client).await,
            Self::Start(command) => command.execute(client).await,
            Self::Ps(command) => command.execute(client).await,
            Self::Inspect(command) => command.execute(client).await,
            Self::Stop(command) => command.execute(client).await,
            Self::Rm(command) => command.execute(client).await,
            Self::Logs(command) => command.execute(client).await,
            Self::Update(command) => command.execute(client).await,
            Self::Stats(command) => command.execute(client).await,
            Self::Statsp(command) => command.execute(client).await,
            Self::Metricsp(command) => command.execute(client).await,
            Self::Metricdescs(command) => command.execute(client).await,
            Self::Events(command) => command.execute(client).await,
            Self::Imagefsinfo(command) => command.execute(client).await,
            Self::RuntimeConfig(command) => command.execute(client).await,
            Self::Info(command) => command.execute(client).await,
            Self::Version(command) => command.execute(client).await,
        }?;
        Ok(ExitCode::SUCCESS)
    }
}
