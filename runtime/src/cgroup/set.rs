//! Sets limits: of a new cgroup in one go, of a living one with a way back.

use super::directory::{Applied, Directory, Write};
use super::hierarchy::{Controller, Hierarchies, Place};
use super::{CgroupPath, Error, Limits, hugetlb, pids, v1, v2};

/// One write in one hierarchy.
type Step = (Directory, Write);

/// Sets the limits of a cgroup that nothing runs in yet and that is thrown away on an error.
pub(super) fn set(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
    for (directory, write) in steps(host, path, limits)? {
        write.set(&directory)?;
    }
    let Some(rules) = &limits.devices else { return Ok(()) };
    match devices(host, path)? {
        Place::V1(directory) => v1::devices::plan(rules)?.iter().try_for_each(|write| write.set(&directory)),
        Place::V2(directory) => v2::devices::set(path, &directory, rules),
    }
}

/// Sets the limits of a living cgroup and returns the way back; on an error the old ones are back.
pub(super) fn update(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<Applied, Error> {
    let mut applied = Applied::default();
    match try_update(host, path, limits, &mut applied) {
        Ok(()) => Ok(applied),
        Err(error) => {
            applied.undo();
            Err(match host.place(path, Controller::Memory) {
                Some(Place::V1(directory)) => v1::memory::explain(error, limits, &directory),
                _ => error,
            })
        }
    }
}

/// Writes limits again that were set before, and that systemd wrote the way it keeps them: quotas in percent.
pub(super) fn renew(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
    steps(host, path, limits)?.iter().try_for_each(|(directory, write)| write.set(directory))
}

fn try_update(
    host: &Hierarchies,
    path: &CgroupPath,
    limits: &Limits,
    applied: &mut Applied,
) -> Result<(), Error> {
    for (directory, write) in steps(host, path, limits)? {
        applied.write(&directory, &write)?;
    }
    let Some(rules) = &limits.devices else { return Ok(()) };
    match devices(host, path)? {
        Place::V1(directory) => v1::devices::plan_update(rules, &directory)?
            .iter()
            .try_for_each(|write| applied.write(&directory, write)),
        // Replaced in one step and last, so that there is nothing to undo.
        Place::V2(directory) => v2::devices::replace(path, &directory, rules),
    }
}

fn devices(host: &Hierarchies, path: &CgroupPath) -> Result<Place, Error> {
    host.place(path, Controller::Devices).ok_or_else(|| missing(path, "devices", "devices"))
}

fn missing(path: &CgroupPath, controller: &str, limit: &str) -> Error {
    Error::NoController { path: path.clone(), controller: controller.to_owned(), limit: limit.to_owned() }
}

/// All writes in order, before the first one is done: what cannot be is refused with nothing changed.
fn steps(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<Vec<Step>, Error> {
    let needs = limits.needs();
    let available = match host.unified(path) {
        Some(directory) => v2::enable::available(&directory)?,
        None => Vec::new(),
    };
    let mut steps = Vec::new();
    for controller in Controller::ENABLED {
        let place = host.place(path, controller).filter(|place| match place {
            Place::V1(_) => true,
            Place::V2(_) => available.contains(&controller),
        });
        let Some(place) = place else {
            match needs.iter().find(|(needed, _)| *needed == controller) {
                Some((_, limit)) => return Err(missing(path, controller.name(), limit)),
                None => continue,
            }
        };
        let writes = plan(controller, limits, &place)?;
        let (Place::V1(directory) | Place::V2(directory)) = place;
        steps.extend(writes.into_iter().map(|write| (directory.clone(), write)));
    }
    steps.extend(unified(host, path, limits)?);
    Ok(steps)
}

fn plan(controller: Controller, limits: &Limits, place: &Place) -> Result<Vec<Write>, Error> {
    Ok(match (controller, place) {
        (Controller::Cpu, Place::V1(directory)) => v1::cpu::plan(limits, directory)?,
        (Controller::Cpu, Place::V2(directory)) => v2::cpu::plan(limits, directory)?,
        (Controller::Cpuset, Place::V1(_)) => v1::cpuset::plan(limits),
        (Controller::Cpuset, Place::V2(_)) => v2::cpuset::plan(limits),
        (Controller::Memory, Place::V1(directory)) => v1::memory::plan(limits, directory)?,
        (Controller::Memory, Place::V2(directory)) => v2::memory::plan(limits, directory)?,
        (Controller::Io, Place::V1(directory)) => v1::io::plan(limits, directory),
        (Controller::Io, Place::V2(directory)) => v2::io::plan(limits, directory)?,
        (Controller::Pids, _) => pids::plan(limits),
        (Controller::Hugetlb, place) => hugetlb::plan(limits, place)?,
        // Not limits: time is only counted, devices and freezing are asked for elsewhere.
        (Controller::Cpuacct | Controller::Devices | Controller::Freezer, _) => Vec::new(),
    })
}

fn unified(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<Vec<Step>, Error> {
    let writes = v2::unified::plan(limits)?;
    if writes.is_empty() {
        return Ok(Vec::new());
    }
    let directory = host.unified(path).ok_or_else(|| missing(path, "cgroup v2", "unified"))?;
    let names = directory.read("cgroup.controllers")?;
    for (controller, file) in v2::unified::needs(limits) {
        if !names.split_ascii_whitespace().any(|name| name == controller) {
            return Err(missing(path, controller, &format!("unified {file}")));
        }
    }
    for write in &writes {
        if !directory.has(&write.file) {
            let reason = "this kernel has no such file";
            let value = write.file.to_string();
            return Err(Error::InvalidLimit { limit: "unified".to_owned(), value, reason });
        }
    }
    Ok(writes.into_iter().map(|write| (directory.clone(), write)).collect())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::cgroup::HugepageLimit;
    use crate::cgroup::fixture::v2_host;

    const FILES: [(&str, &str); 13] = [
        ("cgroup.controllers", "cpuset cpu io memory hugetlb pids\n"),
        ("cpu.max", "max 100000\n"),
        ("cpu.weight", "100\n"),
        ("cpuset.cpus", "\n"),
        ("hugetlb.2MB.max", "max\n"),
        ("hugetlb.2MB.rsvd.max", "max\n"),
        ("memory.current", "1000\n"),
        ("memory.max", "max\n"),
        ("memory.oom.group", "0\n"),
        ("memory.stat", "anon 1000\n"),
        ("memory.swap.max", "max\n"),
        ("io.max", ""),
        ("pids.max", "max\n"),
    ];

    fn limits() -> Limits {
        Limits {
            cpu_shares: Some(512),
            cpu_quota: Some(50_000),
            cpuset_cpus: Some("0-1".into()),
            memory_limit: Some(4096),
            memory_swap: Some(8192),
            pids: Some(10),
            hugepages: vec![HugepageLimit { size: "2MB".into(), limit: 0 }],
            unified: [("memory.oom.group".into(), "1".into())].into(),
            ..Limits::default()
        }
    }

    /// The files whose content is not what the fixture has, in the order of their names.
    fn changes(host: &Hierarchies, path: &CgroupPath) -> Vec<String> {
        let directory = host.unified(path).unwrap();
        let mut changes = Vec::new();
        for (file, old) in FILES {
            let new = directory.read(file).unwrap();
            if new != old.trim_end() {
                changes.push(format!("{file}={new}"));
            }
        }
        changes
    }

    #[test]
    fn writes_every_limit_of_v2() {
        let (_root, host, path) = v2_host(&FILES);
        update(&host, &path, &limits()).unwrap();
        let expected = [
            "cpu.max=50000 100000",
            "cpu.weight=59",
            "cpuset.cpus=0-1",
            "hugetlb.2MB.max=0",
            "hugetlb.2MB.rsvd.max=0",
            "memory.max=4096",
            "memory.oom.group=1",
            "memory.swap.max=4096",
            "pids.max=10",
        ];
        assert_eq!(changes(&host, &path), expected);
    }

    #[test]
    fn writes_nothing_or_everything() {
        let (root, host, path) = v2_host(&FILES);
        // Missing when its turn comes, after other limits are set.
        fs::remove_file(root.path().join("pod/one/pids.max")).unwrap();
        let error = update(&host, &path, &limits()).unwrap_err();
        assert!(error.to_string().ends_with("pids.max"), "{error}");
        fs::write(root.path().join("pod/one/pids.max"), "max\n").unwrap();
        assert!(changes(&host, &path).is_empty());

        let in_use = Limits { memory_limit: Some(999), ..limits() };
        assert!(matches!(update(&host, &path, &in_use), Err(Error::MemoryInUse { limit: 999, usage: 1000 })));
        assert!(changes(&host, &path).is_empty());
    }

    #[test]
    fn names_the_controller_that_a_limit_lacks() {
        let (root, host, path) = v2_host(&FILES);
        fs::write(root.path().join("pod/one/cgroup.controllers"), "memory\n").unwrap();
        let text = |limits: Limits| update(&host, &path, &limits).unwrap_err().to_string();
        let pids = Limits { pids: Some(10), ..Limits::default() };
        let expected = "set pids.limit of cgroup /pod/one: the pids controller is not available there";
        assert_eq!(text(pids), expected);
        let misc = Limits { unified: [("misc.max".into(), "res 1".into())].into(), ..Limits::default() };
        let expected = "set unified misc.max of cgroup /pod/one: the misc controller is not available there";
        assert_eq!(text(misc), expected);
        let unknown = Limits { unified: [("memory.wish".into(), "1".into())].into(), ..Limits::default() };
        let expected = "unified \"memory.wish\" is not valid: this kernel has no such file";
        assert_eq!(text(unknown), expected);
        // What is unlimited anyway, and pages that nobody gets.
        let tolerated = Limits {
            pids: Some(-1),
            cpu_quota: Some(-1),
            hugepages: vec![HugepageLimit { size: "2MB".into(), limit: 0 }],
            ..Limits::default()
        };
        update(&host, &path, &tolerated).unwrap();
        assert!(changes(&host, &path).len() == 1);
    }
}
