//! `cgroup.subtree_control`: gives the controllers to a cgroup's children.

use crate::cgroup::Error;
use crate::cgroup::directory::Directory;
use crate::cgroup::hierarchy::{Controller, listed};

const AVAILABLE: &str = "cgroup.controllers";
const ENABLED: &str = "cgroup.subtree_control";

/// Enables what can be enabled of `wanted`; whether a limit can go without is seen where it is set.
pub(in crate::cgroup) fn enable(directory: &Directory, wanted: &[Controller]) -> Result<(), Error> {
    let enabled = listed(&directory.read(ENABLED)?);
    let missing: Vec<Controller> =
        wanted.iter().copied().filter(|controller| !enabled.contains(controller)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let available = listed(&directory.read(AVAILABLE)?);
    let names: Vec<String> = missing
        .iter()
        .filter(|controller| available.contains(controller))
        .map(|controller| format!("+{}", controller.name()))
        .collect();
    if names.is_empty() || directory.write(ENABLED, &names.join(" ")).is_ok() {
        return Ok(());
    }
    // All or nothing failed, so one at a time: a realtime task, say, refuses the cpu controller alone.
    for name in names {
        if let Err(error) = directory.write(ENABLED, &name) {
            tracing::debug!(error = &error as &dyn std::error::Error, "a controller is not enabled");
        }
    }
    Ok(())
}

/// The controllers that a cgroup has.
pub(in crate::cgroup) fn available(directory: &Directory) -> Result<Vec<Controller>, Error> {
    Ok(listed(&directory.read(AVAILABLE)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    fn check(available: &str, enabled: &str, expected: &str) {
        let (_root, directory) = directory_of(&[(AVAILABLE, available), (ENABLED, enabled)]);
        enable(&directory, &[Controller::Cpu, Controller::Memory, Controller::Pids]).unwrap();
        assert_eq!(directory.read(ENABLED).unwrap(), expected);
    }

    #[test]
    fn enables_what_is_missing_and_there() {
        check("cpuset cpu io memory hugetlb pids rdma misc", "cpu", "+memory +pids");
        check("cpu memory", "", "+cpu +memory");
        check("cpu memory pids", "cpu memory pids", "cpu memory pids");
        check("hugetlb", "", "");
    }
}
