//! The moment in which a runtime's init becomes the container's command.
//!
//! `start` ends before that: a signal that came in between would be lost, since the init of a PID namespace
//! ignores what it has no handler for.

use std::time::{Duration, Instant};

/// After this whoever waits is told that the command runs, whatever it is doing.
const LIMIT: Duration = Duration::from_secs(2);

const STEP: Duration = Duration::from_micros(500);

/// A runtime's process, and what it executes.
#[derive(Debug)]
pub(super) struct Init {
    pid: i32,
    program: Option<(u64, u64)>,
}

impl Init {
    pub(super) fn new(pid: i32) -> Self {
        Self { pid, program: program(pid) }
    }

    /// Waits until it executes something else, or is gone.
    pub(super) fn wait(&self) {
        let end = Instant::now() + LIMIT;
        while self.program.is_some() && program(self.pid) == self.program && Instant::now() < end {
            std::thread::sleep(STEP);
        }
    }
}

/// The file that a process executes; none when it has ended.
fn program(pid: i32) -> Option<(u64, u64)> {
    let stat = rustix::fs::stat(format!("/proc/{pid}/exe")).ok()?;
    Some((stat.st_dev, stat.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_noticed() {
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "read x; exec sleep 0"])
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let init = Init::new(child.id().cast_signed());
        drop(child.stdin.take());
        init.wait();
        child.wait().unwrap();
        assert_ne!(program(init.pid), init.program);
    }
}
