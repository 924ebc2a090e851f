//! Logs of real containers.

use std::fs;

use crate::fixture::{Container, node, open_log, records, until};

#[tokio::test]
async fn a_log_is_complete_when_the_exit_is_announced() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("seq 100000; echo -n no newline");
    let id = container.id.clone();
    pod.finish(container).await;
    let log = pod.log(&id);
    assert_eq!(log.len(), 100_001);
    for (number, line) in log[..100_000].iter().enumerate() {
        assert_eq!(*line, format!("stdout F {}", number + 1));
    }
    assert_eq!(log[100_000], "stdout P no newline");
    pod.end().await;
}

#[tokio::test]
async fn long_lines_are_split() {
    let node = node();
    let mut pod = node.pod().await;
    let mut container = Container::new("head -c 2500 /dev/zero | tr '\\0' x; echo; echo short");
    container.spec["process"]["args"] = serde_json::json!([
        "busybox",
        "sh",
        "-c",
        "yes x | head -n 2500 | busybox tr -d '\\n'; echo; echo short"
    ]);
    container.log_line_bytes = 1000;
    let id = container.id.clone();
    pod.finish(container).await;
    let x = |count| "x".repeat(count);
    assert_eq!(
        pod.log(&id),
        [
            format!("stdout P {}", x(1000)),
            format!("stdout P {}", x(1000)),
            format!("stdout F {}", x(500)),
            "stdout F short".into()
        ]
    );
    pod.end().await;
}

#[tokio::test]
async fn a_log_that_is_reopened_loses_no_line() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("i=0; while test $i -lt 3000; do echo $i; i=$((i+1)); done");
    let id = pod.run(container).await;
    let path = pod.log_path(&id);
    let mut rotated = Vec::new();
    for number in 0..20 {
        until(|| fs::metadata(&path).unwrap().len() > 0 || !rotated.is_empty()).await;
        let old = pod.dir().join(format!("old.{number}"));
        fs::rename(&path, &old).unwrap();
        pod.monitor.reopen_log(&id, open_log(&path)).await.unwrap();
        // Nothing goes into the old file from here on.
        rotated.push((old.clone(), fs::metadata(&old).unwrap().len()));
    }
    pod.exit_of(&id).await;
    let mut lines = Vec::new();
    for (old, bytes) in rotated {
        assert_eq!(fs::metadata(&old).unwrap().len(), bytes);
        lines.extend(records(&old));
    }
    lines.extend(pod.log(&id));
    let expected: Vec<_> = (0..3000).map(|number| format!("stdout F {number}")).collect();
    assert!(lines == expected, "{} lines", lines.len());
    pod.end().await;
}

#[tokio::test]
async fn who_holds_the_output_is_not_waited_for_but_heard() {
    let node = node();
    let mut sandbox = node.sandbox();
    sandbox.pid = runtime::NamespaceMode::Node;
    let mut pod = node.launch(sandbox).await.unwrap();
    // Its output goes into the first one's log: the reader of the other is a process of the first.
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let output = open_log(&pod.log_path("other"));
    let order = pod.exec_order(&id, &["sh", "-c", "echo hello > /proc/1/fd/1"], output, None);
    pod.monitor.exec(order).await.unwrap();
    until(|| !pod.log(&id).is_empty()).await;
    assert_eq!(pod.log(&id), ["stdout F hello"]);
    pod.end().await;
}

#[tokio::test]
async fn a_stuck_disk_stops_no_container_for_long() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("yes 0123456789 | head -n 200000; echo done > /done; exec sleep 1000");
    let id = container.id.clone();
    let mut order = pod.order(container);
    // A pipe that nobody reads stands for the disk.
    let (disk, stuck) = std::io::pipe().unwrap();
    order.log = Some(stuck.into());
    let root = pod.upper(&id);
    pod.monitor.create(order).await.unwrap();
    pod.monitor.start(&id).await.unwrap();
    until(|| root.join("done").exists()).await;
    // Its end is not held up either.
    let begin = std::time::Instant::now();
    let exit = pod.monitor.stop(&id, libc::SIGKILL, std::time::Duration::ZERO).await.unwrap();
    assert_eq!(exit.code, 128 + libc::SIGKILL);
    assert!(begin.elapsed() < std::time::Duration::from_secs(20), "{:?}", begin.elapsed());
    // The disk comes back, and what it did not get is counted.
    let reader = tokio::task::spawn_blocking(move || std::io::read_to_string(disk).unwrap());
    pod.end().await;
    let log = reader.await.unwrap();
    let lines = log.lines().filter(|line| line.ends_with("stdout F 0123456789")).count();
    let note = log.lines().find(|line| line.contains("stderr F corten: ")).unwrap();
    let lost: usize = note.split_whitespace().find_map(|word| word.parse().ok()).unwrap();
    assert_eq!(lines * 11 + lost, 200_000 * 11, "{note}");
}

#[tokio::test]
async fn a_quick_writer_loses_nothing_to_a_disk_that_moves() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("yes 0123456789 | head -n 150000");
    let id = container.id.clone();
    pod.finish(container).await;
    let log = pod.log(&id);
    assert_eq!(log.len(), 150_000);
    assert!(log.iter().all(|line| line == "stdout F 0123456789"));
    pod.end().await;
}
