//! The pod's user namespace: its ids, and what must have one of them.

use oci_spec::runtime::{Linux, LinuxIdMapping, LinuxNamespaceType};

use super::Error;
use super::steps::{Namespaces, Pid, Process};
use crate::IdMap;

/// The ids of the user namespace that the spec joins; none when it is the host's.
pub(super) fn compile(linux: &Linux) -> Result<Option<IdMap>, Error> {
    let joined =
        linux.namespaces().iter().flatten().any(|namespace| namespace.typ() == LinuxNamespaceType::User);
    match (joined, parse("linux.uidMappings", linux.uid_mappings(), linux.gid_mappings())?) {
        (true, Some(ids)) => Ok(Some(ids)),
        (true, None) => Err(Error::Missing("linux.uidMappings of the user namespace")),
        (false, None) => Ok(None),
        (false, Some(_)) => {
            Err(Error::invalid("linux.uidMappings", "the user namespace is the host's: it takes none"))
        }
    }
}

/// One range that begins with 0, the same for users and groups; none where there is none.
pub(super) fn parse(
    field: &str,
    uids: &Option<Vec<LinuxIdMapping>>,
    gids: &Option<Vec<LinuxIdMapping>>,
) -> Result<Option<IdMap>, Error> {
    let (uids, gids) = (uids.as_deref().unwrap_or_default(), gids.as_deref().unwrap_or_default());
    match (uids, gids) {
        ([], []) => Ok(None),
        ([uids], [gids])
            if uids == gids
                && uids.container_id() == 0
                && uids.size() > 0
                && uids.host_id().checked_add(uids.size()).is_some() =>
        {
            Ok(Some(IdMap { host: uids.host_id(), length: uids.size() }))
        }
        _ => Err(Error::invalid(field, "one range is supported, from 0 on and the same for groups")),
    }
}

/// The process must be somebody whom the pod knows.
pub(super) fn check(users: Option<IdMap>, process: &Process) -> Result<(), Error> {
    let groups = [process.gid].into_iter().chain(process.groups.iter().copied());
    users.map_or(Ok(()), |ids| known(ids, process.uid, groups).map(drop))
}

/// Who somebody is on the host whose user and groups the pod knows.
pub(super) fn known(ids: IdMap, uid: u32, groups: impl Iterator<Item = u32>) -> Result<u32, Error> {
    let known = |field: &str, id| {
        let unknown = || Error::invalid(field, format!("the pod's user namespace has no id {id}"));
        ids.on_host(id).ok_or_else(unknown)
    };
    let owner = known("process.user.uid", uid)?;
    for (number, gid) in groups.enumerate() {
        known(if number == 0 { "process.user.gid" } else { "process.user.additionalGids" }, gid)?;
    }
    Ok(owner)
}

/// procfs is mounted by the owner of its PID namespace only.
pub(super) fn check_namespaces(users: Option<IdMap>, namespaces: Namespaces) -> Result<(), Error> {
    if users.is_some() && namespaces.pid == Pid::Host {
        return Err(Error::invalid("linux.namespaces", "a user namespace needs a PID namespace of its own"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use oci_spec::runtime::LinuxIdMappingBuilder;

    use super::*;

    fn range(container: u32, host: u32, size: u32) -> LinuxIdMapping {
        LinuxIdMappingBuilder::default().container_id(container).host_id(host).size(size).build().unwrap()
    }

    #[test]
    fn one_range_from_0_on_for_both() {
        let good = vec![range(0, 1000, 65536)];
        let check = |uids: &[LinuxIdMapping], gids: &[LinuxIdMapping]| {
            parse("f", &Some(uids.to_vec()), &Some(gids.to_vec())).map_err(|error| error.to_string())
        };
        assert_eq!(parse("f", &None, &None).unwrap(), None);
        assert_eq!(check(&good, &good), Ok(Some(IdMap { host: 1000, length: 65536 })));
        for (uids, gids) in [
            (vec![], good.clone()),
            (good.clone(), vec![range(0, 2000, 65536)]),
            ([good.clone(), vec![range(65536, 100_000, 1)]].concat(), good.clone()),
            (vec![range(1, 1000, 10)], vec![range(1, 1000, 10)]),
            (vec![range(0, 1000, 0)], vec![range(0, 1000, 0)]),
            (vec![range(0, u32::MAX, 2)], vec![range(0, u32::MAX, 2)]),
        ] {
            assert!(check(&uids, &gids).is_err(), "{uids:?} {gids:?}");
        }
    }

    #[test]
    fn ids_outside_have_no_number_on_the_host() {
        let ids = IdMap { host: 1000, length: 10 };
        assert_eq!((ids.on_host(0), ids.on_host(9), ids.on_host(10)), (Some(1000), Some(1009), None));
    }
}
