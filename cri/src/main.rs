//! Corten: the server of the Container Runtime Interface, and the command line for people.
//!
//! One program with subcommands: `serve` is the server (`serve.rs` puts its parts together), `config` looks at the
//! configuration, everything else is a client of the server's socket (`cli.rs`).
#![forbid(unsafe_code)]
// These panic when nobody reads: `cli::output` has what does not.
#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod config;
mod convert;
mod deadline;
mod generate;
mod message;
mod metrics;
mod notify;
mod reload;
mod serve;
mod server;
mod service;
mod status;
mod stream;
mod telemetry;
mod watchdog;
mod wire;

use std::io::Write;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};

use crate::cli::output::{ReaderLeft, complain, print_line, stdout};
use crate::config::Config;

/// Corten runs Kubernetes' pods.
#[derive(Debug, Parser)]
#[command(name = "corten", version)]
struct Arguments {
    #[command(flatten)]
    endpoint: cli::Endpoint,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the server
    Serve(serve::Serve),
    /// Print or check the server's configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Print a script that completes the command line in a shell
    Completion(generate::Completion),
    /// Write what a package has beside the programs: manual pages, completions, configuration, seccomp profile
    #[command(hide = true)]
    Generate(generate::Generate),
    /// Show which hosts a pull of an image asks, with which credentials, and why
    Explain(cli::Explain),
    /// What the server executes in an empty directory, to unpack a layer into it
    #[command(hide = true)]
    UnpackLayer {
        /// The control group to do it in
        #[arg(long)]
        cgroup: Option<String>,
    },
    #[command(flatten)]
    Client(cli::Command),
}

#[derive(Debug, Subcommand)]
enum ConfigCommand {
    /// Print a configuration file with every option at its default
    Default,
    /// Check a configuration file and its drop-ins
    Check {
        /// The file; the server's own when not given
        file: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    let name = std::env::args_os().next().map(PathBuf::from).unwrap_or_default();
    if name.file_name().is_some_and(|name| name == "ctr") {
        let ctr = cli::ctr::Ctr::parse();
        return told(wait(ctr.execute()).map(|()| ExitCode::SUCCESS));
    }
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Command::Serve(command) => command.run().map(|()| ExitCode::SUCCESS),
        Command::Config(command) => command.run().map(|()| ExitCode::SUCCESS),
        Command::Completion(command) => command.run(Arguments::command()).map(|()| ExitCode::SUCCESS),
        Command::Generate(command) => command.run(Arguments::command()).map(|()| ExitCode::SUCCESS),
        Command::Explain(command) => command.run().map(|()| ExitCode::SUCCESS),
        Command::UnpackLayer { cgroup } => Ok(unpack_layer(cgroup.as_deref())),
        Command::Client(command) => wait(command.execute(&arguments.endpoint)),
    };
    told(done)
}

/// Says what went wrong; a reader that has had enough is nothing wrong.
fn told(done: anyhow::Result<ExitCode>) -> ExitCode {
    done.unwrap_or_else(|error| {
        if ReaderLeft::is_behind(&error) {
            return ExitCode::from(ReaderLeft::EXIT_CODE);
        }
        complain(format_args!("{error:#}"));
        ExitCode::FAILURE
    })
}

/// Runs a client command; one thread is enough for it.
fn wait<T>(command: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("start the event loop")?;
    let code = runtime.block_on(command);
    // A thread that waits for a key must not keep the program.
    runtime.shutdown_background();
    code
}

/// Closes this process in its working directory, before it has a second thread, and unpacks a layer there. What is
/// needed to make the archive again goes to standard error, which the server has made a file.
fn unpack_layer(cgroup: Option<&str>) -> ExitCode {
    // The server tells of it in its answer.
    let failed = |reason| image::unpack::failed(reason, std::io::stdout());
    std::panic::set_hook(Box::new(move |panic| {
        failed(panic.to_string());
    }));
    let skeleton = match std::io::stderr().as_fd().try_clone_to_owned() {
        Ok(skeleton) => skeleton.into(),
        Err(e) => return failed(format!("use the standard error: {e}")),
    };
    if let Some(path) = cgroup
        && let Err(e) = enter_cgroup(path)
    {
        return failed(format!("{:#}", anyhow::Error::from(e)));
    }
    match runtime::jail::enter() {
        Ok(runtime::jail::Side::Inside) => image::unpack::main(std::io::stdin(), std::io::stdout(), skeleton),
        Ok(runtime::jail::Side::Outside(code)) => code,
        Err(e) => failed(format!("{:#}", anyhow::Error::from(e))),
    }
}

fn enter_cgroup(path: &str) -> Result<(), runtime::cgroup::Error> {
    use runtime::cgroup::{Cgroups, Driver, DriverChoice};
    Cgroups::detect(DriverChoice::Driver(Driver::Cgroupfs))?.open(&path.parse()?).enter()
}

impl ConfigCommand {
    fn run(self) -> anyhow::Result<()> {
        match self {
            Self::Default => Ok(stdout().write_all(config::default_file()?.as_bytes())?),
            Self::Check { file } => {
                let config = Config::load(file.as_deref())?;
                config.streaming.check().context("set up TLS for streaming")?;
                let path = file.unwrap_or_else(|| config::DEFAULT_PATH.into());
                let found =
                    if path.exists() { "no mistakes" } else { "not there: every option is at its default" };
                print_line(&format!("{}: {found}", path.display()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
