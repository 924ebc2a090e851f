//! `freezer.state`. Follows freezer-subsystem.rst; used only where there is no v2 hierarchy.

use std::thread;
use std::time::{Duration, Instant};

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;

const STATE: &str = "freezer.state";
/// v1 tells nobody when a cgroup is frozen.
const INTERVAL: Duration = Duration::from_millis(1);

/// Whether the processes stand still before the deadline.
pub(in crate::cgroup) fn freeze(directory: &Directory, deadline: Instant) -> Result<bool, Error> {
    loop {
        // Written again each time, since a process that was just forked may have been missed.
        directory.write(STATE, "FROZEN")?;
        if directory.read(STATE)? == "FROZEN" {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(INTERVAL);
    }
}

pub(in crate::cgroup) fn thaw(directory: &Directory) -> Result<(), Error> {
    directory.write(STATE, "THAWED")
}
