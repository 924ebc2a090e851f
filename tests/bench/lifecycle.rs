//! One pod at a time: up, commands in it, down.

use std::time::Duration;

use corten_tests::Result;

use crate::Args;
use crate::contestant::Contestant;
use crate::cpu;
use crate::report::{Report, Unit};
use crate::work::{self, Network};

/// Commands run back to back in each pod.
const EXECS: u32 = 10;
/// Commands run with a pause before each.
const SPACED_EXECS: u32 = 5;

pub(crate) async fn measure(
    contestants: &mut [Contestant],
    report: &mut Report,
    network: Network,
    args: &Args,
) -> Result {
    for round in 0..args.rounds {
        for number in order(contestants.len(), round) {
            eprintln!("{}, round {}: {}", network.name(), round + 1, contestants[number].name);
            batch(&contestants[number], number, report, network, args.pods).await?;
        }
    }
    Ok(())
}

/// Forth and back, so that what drifts hits all alike.
pub(crate) fn order(count: usize, round: usize) -> Vec<usize> {
    let forth = 0..count;
    if round.is_multiple_of(2) { forth.collect() } else { forth.rev().collect() }
}

async fn batch(
    contestant: &Contestant,
    number: usize,
    report: &mut Report,
    network: Network,
    pods: usize,
) -> Result {
    let label = network.name();
    let cri = contestant.cri()?;
    let before = cpu::used_ns(&contestant.groups());
    let mut add = |row: &str, took: Duration| {
        report.add(row, Unit::Milliseconds, number, took.as_secs_f64() * 1000.0);
    };
    for _ in 0..pods {
        let running = work::up(&cri, &contestant.dir, network, &contestant.cgroup).await?;
        add(&format!("RunPodSandbox, {label}"), running.run);
        add(&format!("CreateContainer, {label}"), running.create);
        add(&format!("StartContainer, {label}"), running.start);
        add(&format!("pod and container up, {label}"), running.run + running.create + running.start);
        if network == Network::Host {
            for _ in 0..EXECS {
                add("ExecSync, back to back", work::exec(&cri, &running.container).await?);
            }
            for _ in 0..SPACED_EXECS {
                tokio::time::sleep(Duration::from_millis(100)).await;
                add("ExecSync, with 100 ms between", work::exec(&cri, &running.container).await?);
            }
        }
        let began = std::time::Instant::now();
        work::down(&cri, &running).await?;
        add(&format!("stop and remove all, {label}"), began.elapsed());
    }
    let used = cpu::used_ns(&contestant.groups()).saturating_sub(before);
    if contestant.is_own() {
        let each = used as f64 / 1e6 / pods as f64;
        let commands = if network == Network::Host { " and 15 commands" } else { "" };
        report.add(
            &format!("processor time of a pod life{commands}, {label}"),
            Unit::CpuMilliseconds,
            number,
            each,
        );
    }
    Ok(())
}
