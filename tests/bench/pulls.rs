//! Pulls, each onto a fresh file system: ext4 avoids inodes freed in the last minutes at ten times the cost.
//!
//! Somebody else's server keeps its file system; there the images are removed before.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::Result;
use futures_util::future;

use crate::contestant::Contestant;
use crate::cpu;
use crate::lifecycle::order;
use crate::report::{Report, Unit};

/// How often the memory of a daemon and its helpers is looked at while they pull.
const LOOK: Duration = Duration::from_millis(10);

/// What is pulled at once.
struct Load {
    name: &'static str,
    references: &'static [&'static str],
}

/// What `hack/images bench` makes.
const LOADS: [Load; 5] = [
    Load { name: "one layer of 192 MiB", references: &["quay.io/corten/large:gzip"] },
    Load { name: "24 layers of 4 MiB", references: &["quay.io/corten/layers:gzip"] },
    Load { name: "30,000 small files", references: &["quay.io/corten/files:gzip"] },
    Load { name: "1 GiB in 8 layers", references: &["quay.io/corten/gibibyte:gzip"] },
    Load {
        name: "8 images of 36 MiB at once",
        references: &[
            "quay.io/corten/eight-1:gzip",
            "quay.io/corten/eight-2:gzip",
            "quay.io/corten/eight-3:gzip",
            "quay.io/corten/eight-4:gzip",
            "quay.io/corten/eight-5:gzip",
            "quay.io/corten/eight-6:gzip",
            "quay.io/corten/eight-7:gzip",
            "quay.io/corten/eight-8:gzip",
        ],
    },
];

pub(crate) async fn measure(contestants: &mut [Contestant], report: &mut Report, rounds: usize) -> Result {
    for round in 0..rounds {
        for load in &LOADS {
            for number in order(contestants.len(), round) {
                eprintln!("pull of {}, round {}: {}", load.name, round + 1, contestants[number].name);
                one(&mut contestants[number], number, report, load).await?;
            }
        }
    }
    for load in &LOADS {
        for (number, contestant) in contestants.iter_mut().enumerate() {
            if contestant.is_own() {
                eprintln!("memory of a pull of {}: {}", load.name, contestant.name);
                memory(contestant, number, report, load).await?;
            }
        }
    }
    Ok(())
}

async fn one(contestant: &mut Contestant, number: usize, report: &mut Report, load: &Load) -> Result {
    prepare(contestant, load).await?;
    let before = cpu::used_ns(&contestant.groups());
    let began = Instant::now();
    pull(contestant, load).await?;
    let took = began.elapsed().as_secs_f64() * 1000.0;
    report.add(&format!("pull, {}", load.name), Unit::Milliseconds, number, took);
    if contestant.is_own() {
        let used = cpu::used_ns(&contestant.groups()).saturating_sub(before);
        let row = format!("processor of a pull, {}", load.name);
        report.add(&row, Unit::CpuMilliseconds, number, used as f64 / 1e6);
    }
    Ok(())
}

/// Apart from the time: looking is not free.
async fn memory(contestant: &mut Contestant, number: usize, report: &mut Report, load: &Load) -> Result {
    prepare(contestant, load).await?;
    let processes = cpu::processes_file(&contestant.daemon_group());
    let watch = tokio::task::spawn_blocking(move || peak(&processes));
    let pulled = pull(contestant, load).await;
    // The end of the daemon is the end of watching.
    contestant.stop().await?;
    let peak = watch.await.context("watch the memory")??;
    pulled?;
    report.add(&format!("peak memory of a pull, {}", load.name), Unit::Kibibytes, number, peak);
    Ok(())
}

async fn prepare(contestant: &mut Contestant, load: &Load) -> Result {
    if !contestant.is_own() {
        for reference in load.references {
            contestant.remove_image(reference).await?;
        }
        return Ok(());
    }
    contestant.stop().await?;
    contestant.fresh_data()?;
    contestant.start().await
}

async fn pull(contestant: &Contestant, load: &Load) -> Result {
    future::try_join_all(load.references.iter().map(|reference| contestant.pull(reference))).await?;
    Ok(())
}

/// The most that the processes of a cgroup had of their own (anonymous and shared memory, in KiB) at any
/// look, until there are none. What a fork shares counts once.
fn peak(processes: &Path) -> Result<f64> {
    let mut peak: Option<f64> = None;
    loop {
        let pids = fs::read_to_string(processes).context("list the daemon's processes")?;
        if pids.is_empty() {
            return peak.with_context(|| format!("{} never had a process", processes.display()));
        }
        let sum = pids.lines().filter_map(own_kib).sum();
        peak = Some(peak.map_or(sum, |peak| peak.max(sum)));
        std::thread::sleep(LOOK);
    }
}

/// None for a process that has ended.
fn own_kib(pid: &str) -> Option<f64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let field = |name: &str| -> Option<f64> {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().trim_end_matches("kB").trim().parse().ok()
    };
    Some(field("Pss_Anon:")? + field("Pss_Shmem:")?)
}
