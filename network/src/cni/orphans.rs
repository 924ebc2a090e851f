//! Plugins that a killed daemon left running: what they still do is waited for before it is undone.

use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep};

/// How often the processes are looked at; nothing tells of the end of another's child.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits until no plugin works on this container any more, but not longer than `limit`.
pub(crate) async fn ended(id: &str, limit: Duration) {
    let mark = format!("CNI_CONTAINERID={id}");
    let deadline = Instant::now() + limit;
    while is_any(&mark) && Instant::now() < deadline {
        sleep(INTERVAL).await;
    }
}

/// Whether a process has this in its environment, see proc_pid_environ(5).
fn is_any(mark: &str) -> bool {
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    processes
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(|c: char| c.is_ascii_digit()))
        .any(|entry| {
            // A process may end while it is looked at.
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|word| word == mark.as_bytes())
        })
}
