//! `kill -9` of the daemon with a pod running: how long until the next one shows it.

use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use corten_tests::Result;
use k8s_cri::v1 as wire;

use crate::contestant::Contestant;
use crate::lifecycle::order;
use crate::report::{Report, Unit};
use crate::work::{self, Network};

const LIMIT: Duration = Duration::from_secs(30);

pub(crate) async fn measure(contestants: &mut [Contestant], report: &mut Report, rounds: usize) -> Result {
    for round in 0..rounds {
        for number in order(contestants.len(), round) {
            let contestant = &mut contestants[number];
            eprintln!("kill -9, round {}: {}", round + 1, contestant.name);
            let running =
                work::up(&contestant.cri()?, &contestant.dir, Network::Host, &contestant.cgroup).await?;
            contestant.kill().await?;
            let began = Instant::now();
            contestant.spawn()?;
            until_listed(contestant, &running.pod).await?;
            let took = began.elapsed().as_secs_f64() * 1000.0;
            report.add("ready after kill -9, one pod", Unit::Milliseconds, number, took);
            work::down(&contestant.cri()?, &running).await?;
        }
    }
    Ok(())
}

async fn until_listed(contestant: &Contestant, pod: &str) -> Result {
    let deadline = Instant::now() + LIMIT;
    loop {
        // A new connection each time: one that was refused backs off.
        let mut runtime = contestant.cri()?.runtime;
        let listed = runtime.list_pod_sandbox(wire::ListPodSandboxRequest::default()).await;
        if listed
            .is_ok_and(|pods| pods.into_inner().items.iter().any(|item| item.id == pod && item.state == 0))
        {
            return work_again(contestant).await;
        }
        ensure!(Instant::now() < deadline, "{} does not show its pod after a restart", contestant.name);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn work_again(contestant: &Contestant) -> Result {
    let mut runtime = contestant.cri()?.runtime;
    runtime.version(wire::VersionRequest::default()).await.context("Version")?;
    Ok(())
}
