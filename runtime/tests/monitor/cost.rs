//! What a pod costs in memory. The program of the tests is not the one that is shipped, so the ceiling is wide; to
//! measure another, name it in `CORTEN_RUNTIME` and read what is printed.

use std::fs;

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

#[tokio::test]
async fn a_pod_is_cheap() {
    let node = node();
    let mut pods = Vec::new();
    for _ in 0..PODS {
        pods.push(node.pod().await);
    }
    let idle: Vec<_> = pods.iter().map(|pod| memory(pod.monitor.pid())).collect();
    let pauses: Vec<_> = pods.iter().map(|pod| memory(pod.monitor.pause_pid())).collect();
    for pod in &mut pods {
        let id = pod.run(Container::new("echo hello; exec sleep 1000")).await;
        for _ in 0..3 {
            pod.exec(&id, "true").await.0.unwrap();
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
    assert!(mean(&busy).0 + mean(&pauses).0 < 2048);
    for pod in pods {
        pod.end().await;
    }
}
