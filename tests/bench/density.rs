//! Forty pods: how fast they come with eight at a time, what they cost, how fast lists are.

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use corten_tests::Result;
use corten_tests::cri::Cri;
use k8s_cri::v1 as wire;
use tokio::sync::Semaphore;

use crate::contestant::Contestant;
use crate::cpu;
use crate::report::{Report, Unit};
use crate::work::{self, Network, Running};

const PODS: u32 = 40;
const WORKERS: usize = 8;
const CALLS: usize = 50;
const IDLE: Duration = Duration::from_secs(20);

pub(crate) async fn measure(contestants: &mut [Contestant], report: &mut Report) -> Result {
    for (number, contestant) in contestants.iter().enumerate() {
        eprintln!("{PODS} pods: {}", contestant.name);
        let running = bring_up(contestant, number, report).await?;
        lists(contestant, number, report, &running).await?;
        if contestant.is_own() {
            memory(contestant, number, report)?;
            idle(contestant, number, report).await;
        }
        let began = Instant::now();
        let cri = contestant.cri()?;
        for pod in &running {
            work::down(&cri, pod).await?;
        }
        let rate = f64::from(PODS) / began.elapsed().as_secs_f64();
        report.add("40 pods stopped and removed, one by one", Unit::PerSecond, number, rate);
    }
    Ok(())
}

async fn bring_up(contestant: &Contestant, number: usize, report: &mut Report) -> Result<Vec<Running>> {
    let places = Arc::new(Semaphore::new(WORKERS));
    let began = Instant::now();
    let mut tasks = Vec::new();
    for _ in 0..PODS {
        let (places, cri) = (places.clone(), contestant.cri()?);
        let (dir, cgroup) = (contestant.dir.clone(), contestant.cgroup.clone());
        tasks.push(tokio::spawn(async move {
            let _place = places.acquire().await?;
            work::up(&cri, &dir, Network::Cni, &cgroup).await
        }));
    }
    let mut running = Vec::new();
    for task in tasks {
        running.push(task.await.context("a worker")??);
    }
    let rate = f64::from(PODS) / began.elapsed().as_secs_f64();
    report.add("40 pods by 8 workers, CNI bridge", Unit::PerSecond, number, rate);
    Ok(running)
}

async fn lists(contestant: &Contestant, number: usize, report: &mut Report, running: &[Running]) -> Result {
    let Cri { mut runtime, .. } = contestant.cri()?;
    for call in 0..CALLS {
        let mut add = |row: &str, began: Instant| {
            report.add(row, Unit::Milliseconds, number, began.elapsed().as_secs_f64() * 1000.0);
        };
        let began = Instant::now();
        runtime.list_containers(wire::ListContainersRequest::default()).await?;
        add("ListContainers, 40 pods", began);
        let began = Instant::now();
        let pod_sandbox_id = running[call % running.len()].pod.clone();
        runtime.pod_sandbox_status(wire::PodSandboxStatusRequest { pod_sandbox_id, verbose: false }).await?;
        add("PodSandboxStatus, 40 pods", began);
        let began = Instant::now();
        runtime.list_container_stats(wire::ListContainerStatsRequest::default()).await?;
        add("ListContainerStats, 40 pods", began);
        let began = Instant::now();
        let request = wire::ListPodSandboxStatsRequest::default();
        match runtime.list_pod_sandbox_stats(request).await {
            Ok(_) => add("ListPodSandboxStats, 40 pods", began),
            // Older ones do not have it.
            Err(status) if status.code() == tonic::Code::Unimplemented => {}
            Err(status) => return Err(status.into()),
        }
    }
    Ok(())
}

/// The daemon, and what it runs for each pod besides the containers' own processes.
fn memory(contestant: &Contestant, number: usize, report: &mut Report) -> Result {
    let daemon = contestant.pid().context("the daemon's pid")?;
    report.add(
        "daemon's memory (PSS), 40 pods",
        Unit::Kibibytes,
        number,
        pss_kib(daemon).unwrap_or_default(),
    );
    let helpers = processes().into_iter().filter(|pid| contestant.is_helper(*pid));
    let sum: f64 = helpers.filter_map(pss_kib).sum();
    report.add("helpers' memory (PSS) a pod, pause included", Unit::Kibibytes, number, sum / f64::from(PODS));
    Ok(())
}

async fn idle(contestant: &Contestant, number: usize, report: &mut Report) {
    tokio::time::sleep(Duration::from_secs(2)).await;
    let (began, before) = (Instant::now(), cpu::used_ns(&contestant.groups()));
    tokio::time::sleep(IDLE).await;
    let used = cpu::used_ns(&contestant.groups()).saturating_sub(before);
    let percent = used as f64 / began.elapsed().as_nanos() as f64 * 100.0;
    report.add("processor while idle, 40 pods", Unit::Percent, number, percent);
}

fn processes() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect()
}

fn pss_kib(pid: u32) -> Option<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}
