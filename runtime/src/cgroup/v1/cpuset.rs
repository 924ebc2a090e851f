//! `cpuset.cpus` and `cpuset.mems`. Follows cpusets.rst: nothing can enter a set that is empty.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, Limits};

const CPUS: &str = "cpuset.cpus";
const MEMS: &str = "cpuset.mems";

pub(in crate::cgroup) fn plan(limits: &Limits) -> Vec<Write> {
    let cpus = limits.cpuset_cpus.as_ref().map(|cpus| Write::new(CPUS, cpus));
    let mems = limits.cpuset_mems.as_ref().map(|mems| Write::new(MEMS, mems));
    cpus.into_iter().chain(mems).collect()
}

/// Gives a new cgroup what its parent has, as v2 does by itself.
pub(in crate::cgroup) fn inherit(parent: &Directory, child: &Directory) -> Result<(), Error> {
    for file in [CPUS, MEMS] {
        if child.read(file)?.is_empty() {
            child.write(file, &parent.read(file)?)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn inherits_only_what_is_empty() {
        let (_parent, parent) = directory_of(&[(CPUS, "0-3"), (MEMS, "0")]);
        let (_child, child) = directory_of(&[(CPUS, "1"), (MEMS, "")]);
        inherit(&parent, &child).unwrap();
        assert_eq!(child.read(CPUS).unwrap(), "1");
        assert_eq!(child.read(MEMS).unwrap(), "0");
    }

    #[test]
    fn writes_what_is_given() {
        let limits =
            Limits { cpuset_cpus: Some("0-1".into()), cpuset_mems: Some("0".into()), ..Limits::default() };
        let writes: Vec<String> = plan(&limits).iter().map(Write::to_string).collect();
        assert_eq!(writes, ["cpuset.cpus=0-1", "cpuset.mems=0"]);
        assert!(plan(&Limits::default()).is_empty());
    }
}
