//! What a pod costs. The program of the tests is not the one that is shipped, so the ceilings are wide; to
//! measure another, name it in `CORTEN_RUNTIME` and read what is printed.

use std::fs;
use std::time::{Duration, Instant};

use crate::fixture::{Container, node};

const PODS: usize = 40;

#[derive(Debug, Default, Clone, Copy)]
struct Memory {
    pss: u64,
    private: u64,
}

fn memory(pid: i32) -> Memory {
    let mut memory = Memory::default();
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    for line in rollup.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        match words[0] {
            "Pss:" => memory.pss += words[1].parse::<u64>().unwrap(),
            "Private_Clean:" | "Private_Dirty:" => memory.private += words[1].parse::<u64>().unwrap(),
            _ => {}
        }
    }
    memory
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

#[tokio::test]
async fn a_pod_is_cheap() {
    let node = node();
    let (mut pods, mut launches, mut creates, mut starts, mut execs) =
        (vec![], vec![], vec![], vec![], vec![]);
    for _ in 0..PODS {
        let begin = Instant::now();
        pods.push(node.pod().await);
        launches.push(begin.elapsed());
    }
    let idle: Vec<_> = pods.iter().map(|pod| memory(pod.monitor.pid())).collect();
    let pauses: Vec<_> = pods.iter().map(|pod| memory(pod.monitor.pause_pid())).collect();
    for pod in &mut pods {
        let container = Container::new("echo hello; exec sleep 1000");
        let id = container.id.clone();
        let begin = Instant::now();
        pod.create(container).await.unwrap();
        creates.push(begin.elapsed());
        let begin = Instant::now();
        pod.monitor.start(&id).await.unwrap();
        starts.push(begin.elapsed());
        for _ in 0..3 {
            let begin = Instant::now();
            pod.exec(&id, "true").await.0.unwrap();
            execs.push(begin.elapsed());
        }
    }
    let busy: Vec<_> = pods.iter().map(|pod| memory(pod.monitor.pid())).collect();
    let mean = |memory: &[Memory]| {
        let count = memory.len() as u64;
        let sum = |of: fn(&Memory) -> u64| memory.iter().map(of).sum::<u64>() / count;
        (sum(|memory| memory.pss), sum(|memory| memory.private))
    };
    println!(
        "PSS and private memory in KiB, of {PODS} pods: monitor {:?}, after a container with a log and 3 execs {:?}, pause {:?}",
        mean(&idle),
        mean(&busy),
        mean(&pauses)
    );
    println!(
        "medians: launch {:?}, create {:?}, start {:?}, exec {:?}",
        median(launches),
        median(creates),
        median(starts),
        median(execs)
    );
    assert!(mean(&busy).0 + mean(&pauses).0 < 2048);
    for pod in pods {
        pod.end().await;
    }
}
