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

/// Sets the limits of a living cgroup; on an error the old ones are back.
pub(super) fn update(host: &Hierarchies, path: &CgroupPath, limits: &Limits) -> Result<(), Error> {
    let mut applied = Applied::default();
    let result = try_update(host, path, limits, &mut applied);
    if result.is_err() {
        applied.undo();
    }
    result.map_err(|error| match host.place(path, Controller::Memory) {
        Some(Place::V1(directory)) => v1::memory::explain(error, limits, &directory),
        _ => error,
    })
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
    Ok(writes.into_iter().map(|write| (directory.clone(), write)).collect())
}
