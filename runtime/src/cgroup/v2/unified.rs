//! The OCI spec's `unified`: files of v2 by name, such as `memory.oom.group`.

use crate::cgroup::directory::Write;
use crate::cgroup::hierarchy::Controller;
use crate::cgroup::{Error, Limits};

/// The controllers whose files may be named.
const PREFIXES: [&str; 9] = ["cpu", "cpuset", "hugetlb", "io", "memory", "misc", "pids", "rdma", "dmem"];

/// The writes in the order of the names.
pub(in crate::cgroup) fn plan(limits: &Limits) -> Result<Vec<Write>, Error> {
    limits.unified.iter().map(|(file, value)| write(file, value)).collect()
}

/// The controllers that the files belong to.
pub(in crate::cgroup) fn needs(limits: &Limits) -> impl Iterator<Item = (&str, &str)> {
    limits.unified.keys().filter_map(|file| Some((file.split_once('.')?.0, file.as_str())))
}

/// Whether one of the files belongs to the controller.
pub(in crate::cgroup) fn needs_controller(limits: &Limits, controller: Controller) -> bool {
    needs(limits).any(|(name, _)| name == controller.name())
}

fn write(file: &str, value: &str) -> Result<Write, Error> {
    let refuse =
        |reason| Err(Error::InvalidLimit { limit: "unified".to_owned(), value: file.to_owned(), reason });
    if !file.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-')) {
        return refuse("it is not the name of a file of a cgroup");
    }
    // cgroup.procs, cgroup.subtree_control and their like are not limits.
    if !file.split_once('.').is_some_and(|(prefix, rest)| PREFIXES.contains(&prefix) && !rest.is_empty()) {
        return refuse("it belongs to no known controller");
    }
    if value.contains('\0') {
        return refuse("its value has a NUL");
    }
    Ok(Write::new(file.to_owned(), value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_files_of_controllers_only() {
        assert_eq!(write("memory.oom.group", "1").unwrap().to_string(), "memory.oom.group=1");
        assert_eq!(write("hugetlb.2MB.rsvd.max", "0").unwrap().to_string(), "hugetlb.2MB.rsvd.max=0");
        for file in [
            "",
            ".",
            "..",
            "memory",
            "memory.",
            "../memory.max",
            "memory.max/x",
            "cgroup.procs",
            "x.y",
            "cpu.m\n",
        ] {
            assert!(write(file, "1").is_err(), "{file:?}");
        }
        assert!(write("cpu.weight", "1\0").is_err());
    }
}
