//! The benchmark: the same work against several CRI runtimes, in turn, in one run.
//!
//! Machines are noisy, so what counts are the ratios within one run, medians over rounds that
//! alternate between the contestants, and counts (executions, processes, syncs, mounts) that no noise
//! can blur. `hack/bench` prepares everything and runs this. With `--socket` only rows are measured
//! that need no hold of the daemon.

mod contestant;
mod counts;
mod cpu;
mod density;
mod lifecycle;
mod pulls;
mod report;
mod restart;
mod streams;
mod work;

use std::path::PathBuf;

use anyhow::{Context, ensure};
use clap::Parser;
use corten_tests::registry::Registry;
use corten_tests::{Result, host};

use crate::contestant::Contestant;
use crate::report::Report;

#[derive(Debug, Parser)]
#[command(name = "bench", about = "Measures CRI runtimes against each other")]
struct Args {
    /// Rounds of each row; the contestants take turns.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Pods a round, of the rows for single pods.
    #[arg(long, default_value_t = 10)]
    pods: usize,
    /// Only these groups of rows: host, cni, streams, density, restart, counts,
    /// pulls.
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Instead of Corten and containerd: running servers, NAME=SOCKET.
    #[arg(long, value_name = "NAME=SOCKET")]
    socket: Vec<String>,
    /// Writes all samples to this file, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
}

impl Args {
    fn wants(&self, group: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|wanted| wanted == group)
    }
}

#[tokio::main]
async fn main() -> Result {
    let args = Args::parse();
    host::require_root()?;
    let scratch = tempfile::Builder::new()
        .prefix("corten-bench-")
        .tempdir_in("/var/tmp")
        .context("make a directory")?;
    let registry = Registry::start(scratch.path())?;
    let mut contestants = contestants(&args, &registry, scratch.path())?;
    let mut report = Report::new(contestants.iter().map(|contestant| contestant.name.clone()).collect());
    let result = measure(&args, &mut contestants, &mut report).await;
    for contestant in &mut contestants {
        contestant.close().await?;
    }
    report.print();
    if let Some(path) = &args.json {
        std::fs::write(path, report.json()?).with_context(|| format!("write {}", path.display()))?;
    }
    result
}

fn contestants(args: &Args, registry: &Registry, scratch: &std::path::Path) -> Result<Vec<Contestant>> {
    if args.socket.is_empty() {
        return Ok(vec![
            Contestant::corten(&scratch.join("corten"), registry)?,
            Contestant::containerd(&scratch.join("containerd"), registry)?,
        ]);
    }
    let foreign = args.socket.iter().map(|text| {
        let (name, socket) = text.split_once('=').with_context(|| format!("{text:?} is not NAME=SOCKET"))?;
        Contestant::foreign(name, socket.strip_prefix("unix://").unwrap_or(socket).as_ref())
    });
    let foreign = foreign.collect::<Result<Vec<_>>>()?;
    ensure!(!foreign.is_empty(), "nobody to measure");
    Ok(foreign)
}

async fn measure(args: &Args, contestants: &mut [Contestant], report: &mut Report) -> Result {
    for contestant in contestants.iter_mut() {
        contestant.start().await?;
        contestant.pull(work::IMAGE).await?;
    }
    for (group, network) in [("host", work::Network::Host), ("cni", work::Network::Cni)] {
        if args.wants(group) {
            lifecycle::measure(contestants, report, network, args).await?;
        }
    }
    if args.wants("streams") {
        streams::measure(contestants, report, args).await?;
    }
    if args.wants("density") {
        density::measure(contestants, report).await?;
    }
    let own = contestants.iter().all(Contestant::is_own);
    if args.wants("restart") && own {
        restart::measure(contestants, report, args.rounds).await?;
    }
    if args.wants("counts") && own {
        counts::measure(contestants, report).await?;
    }
    if args.wants("pulls") {
        pulls::measure(contestants, report, args.rounds).await?;
    }
    Ok(())
}
