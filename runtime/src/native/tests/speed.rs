//! How long it takes. The ceilings are far above what is usual, so that a busy machine does not fail them.

use std::time::{Duration, Instant};

use serde_json::json;

use super::fixture::alone;

const ROUNDS: usize = 40;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}

#[test]
fn create_and_start() {
    alone("speed::create_and_start", |pod| {
        let mut spec = pod.spec("");
        spec["process"]["args"] = json!(["true"]);
        let (mut create, mut start) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            let mut container = pod.create(&spec).unwrap();
            let ready = Instant::now();
            container.start().unwrap();
            let started = Instant::now();
            assert_eq!(container.wait().0, 0);
            create.push(ready - begin);
            start.push(started - ready);
        }
        let (create, start) = (median(create), median(start));
        println!("create {create:?}, start {start:?}");
        assert!(create + start < Duration::from_millis(100));
    });
}

#[test]
fn exec() {
    alone("speed::exec", |pod| {
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        let mut process = container.spec["process"].clone();
        process["args"] = json!(["true"]);
        let mut times = Vec::new();
        for _ in 0..ROUNDS {
            let begin = Instant::now();
            assert_eq!(pod.exec(&container, &process).unwrap().0, 0);
            times.push(begin.elapsed());
        }
        let time = median(times);
        println!("exec {time:?}");
        container.kill();
        assert!(time < Duration::from_millis(50));
    });
}
