//! What a pod's life takes, counted by strace: executions, processes, syncs, mounts.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::Context;
use corten_tests::{Result, eventually};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::contestant::Contestant;
use crate::report::{Report, Unit};
use crate::work::{self, Network};

const CALLS: &str = "execve,execveat,clone,clone3,fork,vfork,fsync,fdatasync,syncfs,sync,mount,move_mount";

pub(crate) async fn measure(contestants: &mut [Contestant], report: &mut Report) -> Result {
    for (number, contestant) in contestants.iter().enumerate() {
        eprintln!("counts: {}", contestant.name);
        for network in [Network::Host, Network::Cni] {
            let counts = count(contestant, network).await?;
            for kind in ["executions", "processes", "syncs", "mounts"] {
                let row = format!("{kind} of a pod life, {}", network.name());
                report.add(&row, Unit::Count, number, counts.get(kind).copied().unwrap_or_default());
            }
        }
    }
    Ok(())
}

async fn count(contestant: &Contestant, network: Network) -> Result<BTreeMap<&'static str, f64>> {
    let pid = contestant.pid().context("the daemon's pid")?;
    let output = contestant.dir.join("strace.out");
    let mut strace = attach(pid, &output).await?;
    let cri = contestant.cri()?;
    let life = async {
        let running = work::up(&cri, &contestant.dir, network, &contestant.cgroup).await?;
        work::down(&cri, &running).await
    };
    let result = life.await;
    // What is done behind the scenes belongs to it too.
    tokio::time::sleep(Duration::from_millis(500)).await;
    kill(Pid::from_raw(i32::try_from(strace.id())?), Signal::SIGINT).context("end strace")?;
    strace.wait().context("wait for strace")?;
    result?;
    Ok(tally(&fs::read_to_string(&output).context("read strace's output")?))
}

async fn attach(pid: u32, output: &Path) -> Result<Child> {
    let log = output.with_extension("err");
    let errors = fs::File::create(&log).context("make strace's log")?;
    let mut strace = Command::new("strace")
        .args(["-f", "-q", "-e", &format!("trace={CALLS}"), "-e", "signal=none", "-o"])
        .arg(output)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(errors)
        .spawn()
        .context("run strace")?;
    let traced = async || Ok(strace_is_attached(pid).then_some(()));
    if let Err(error) = eventually("strace attaches", traced).await {
        strace.kill().ok();
        strace.wait().ok();
        return Err(error.context(fs::read_to_string(&log).unwrap_or_default()));
    }
    Ok(strace)
}

fn strace_is_attached(pid: u32) -> bool {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    tasks.into_iter().all(|task| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        status.lines().any(|line| line.strip_prefix("TracerPid:").is_some_and(|tracer| tracer.trim() != "0"))
    })
}

fn tally(trace: &str) -> BTreeMap<&'static str, f64> {
    let mut counts = BTreeMap::new();
    for line in trace.lines() {
        let call = line.trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
        let name = call.split('(').next().unwrap_or_default();
        let kind = match name {
            "execve" | "execveat" if !call.contains("= -1") => "executions",
            "clone" | "clone3" | "fork" | "vfork" if !call.contains("CLONE_THREAD") => "processes",
            "fsync" | "fdatasync" | "syncfs" | "sync" => "syncs",
            "mount" | "move_mount" => "mounts",
            _ => continue,
        };
        *counts.entry(kind).or_insert(0.0) += 1.0;
    }
    counts
}
