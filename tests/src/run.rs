//! How a test runs: on a node, as a kubelet, with what it made removed at the end.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use anyhow::Context;

use crate::wait::slowness;
use crate::{Kubelet, Node, Result};

/// No test may take longer.
const LIMIT: Duration = Duration::from_secs(180);

/// The node that tests share which do nothing to the daemon; it lives as long as one of them runs.
static SHARED: Mutex<Weak<Node>> = Mutex::new(Weak::new());

/// Why a test cannot run here. It counts as skipped.
#[derive(Debug)]
struct Skip(String);

impl fmt::Display for Skip {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "skipped: {}", self.0)
    }
}

impl std::error::Error for Skip {}

/// Ends a test that this machine, or this CRI runtime, cannot run.
pub fn skip<T>(reason: impl Into<String>) -> Result<T> {
    Err(Skip(reason.into()).into())
}

/// How a test's own node is to be.
#[derive(Debug, Default, Clone)]
pub struct Setup {
    /// A drop-in beside the daemon's configuration file.
    pub config: String,
}

/// Runs a test on the shared node, or against the runtime that `CRI_SOCKET` names.
pub fn on_node(test: impl AsyncFnOnce(&Kubelet) -> Result) {
    finish(shared().and_then(|node| run(&node, test)));
}

/// Runs a test on a node of its own, whose daemon it may kill, stop and start.
pub fn on_own_node(setup: &Setup, test: impl AsyncFnOnce(&Kubelet) -> Result) {
    if std::env::var_os("CRI_SOCKET").is_some() {
        return finish(skip("it needs a daemon of its own, and CRI_SOCKET names a foreign one"));
    }
    finish(Node::start(&setup.config).map(Arc::new).and_then(|node| run(&node, test)));
}

fn shared() -> Result<Arc<Node>> {
    let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(node) = shared.upgrade() {
        return Ok(node);
    }
    let node = Arc::new(match std::env::var_os("CRI_SOCKET") {
        Some(socket) => {
            let path = socket.to_string_lossy();
            Node::foreign(Path::new(path.strip_prefix("unix://").unwrap_or(&path)))?
        }
        None => Node::start("")?,
    });
    *shared = Arc::downgrade(&node);
    Ok(node)
}

fn run(node: &Arc<Node>, test: impl AsyncFnOnce(&Kubelet) -> Result) -> Result {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("make a runtime")?;
    let position = node.log_position();
    // The channel belongs to the runtime, and connects when it is first used.
    let kubelet = {
        let _entered = runtime.enter();
        Kubelet::new(node.clone())?
    };
    let outcome = catch_unwind(AssertUnwindSafe(|| {
        runtime.block_on(async {
            let limit = LIMIT * slowness();
            let limited = tokio::time::timeout(limit, test(&kubelet)).await;
            limited.with_context(|| format!("the test took longer than {limit:?}"))?
        })
    }));
    let cleaned = runtime.block_on(kubelet.remove_all());
    if !matches!(&outcome, Ok(Ok(()))) || cleaned.is_err() {
        // Told here, since what is left of the node may be told instead of it further up.
        for err in [outcome.as_ref().ok().and_then(|result| result.as_ref().err()), cleaned.as_ref().err()] {
            println!("{}", err.map(|err| format!("{err:#}{}", place(err))).unwrap_or_default());
        }
        println!("--- the daemon's log since the test began ---\n{}", node.log_since(position));
    }
    match outcome {
        Ok(result) => result.and(cleaned),
        Err(panic) => resume_unwind(panic),
    }
}

fn finish(result: Result) {
    match result {
        Ok(()) => {}
        Err(err) if err.is::<Skip>() => record(&err.to_string()),
        Err(err) => panic!("{err:#}{}", place(&err)),
    }
}

/// The line of the test that gave the error, when `RUST_LIB_BACKTRACE` is set: the rest of the
/// backtrace is the harness.
fn place(err: &anyhow::Error) -> String {
    let backtrace = err.backtrace().to_string();
    let line = backtrace.lines().find(|line| line.contains("/e2e/"));
    line.map(|line| format!("\n{}", line.trim())).unwrap_or_default()
}

/// Tells hack/test that a test was skipped, since the harness counts it as passed.
fn record(reason: &str) {
    let name = std::thread::current().name().unwrap_or("a test").to_owned();
    println!("{name} {reason}");
    if let Some(path) = std::env::var_os("CORTEN_TEST_SKIPPED") {
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(format!("{name} {reason}\n").as_bytes()));
        written.unwrap_or_else(|err| panic!("record a skipped test in {}: {err}", path.display()));
    }
}
