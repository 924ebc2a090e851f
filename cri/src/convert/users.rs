//! User namespaces: one range of ids that begins with 0, the same for users and groups, as the kubelet has it.

use pod::config::IdMap;

use super::{Invalid, field};
use crate::wire::cri;

/// Parses whose user namespace it is; none is the node's.
pub(super) fn parse(at: &str, options: Option<cri::UserNamespace>) -> Result<Option<IdMap>, Invalid> {
    let Some(options) = options else { return Ok(None) };
    match field::one_of(format_args!("{at}.mode"), options.mode)? {
        cri::NamespaceMode::Node if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        cri::NamespaceMode::Node => Err(Invalid::new(at, "the node's user namespace takes no mappings")),
        cri::NamespaceMode::Pod => match ids(&format!("{at}.uids"), &options.uids, &options.gids)? {
            None => Err(Invalid::new(format_args!("{at}.uids"), "missing: a user namespace needs its ids")),
            ids => Ok(ids),
        },
        mode => {
            let reason = format!("{} is not possible: POD or NODE", mode.as_str_name());
            Err(Invalid::new(format_args!("{at}.mode"), reason))
        }
    }
}

/// Parses the ids of users and of groups; none where there are none of either.
pub(super) fn ids(
    at: &str,
    users: &[cri::IdMapping],
    groups: &[cri::IdMapping],
) -> Result<Option<IdMap>, Invalid> {
    let refuse = |reason: &str| Err(Invalid::new(at, reason));
    let range = match (users, groups) {
        ([], []) => return Ok(None),
        ([range], [same]) if range == same => range,
        ([_], [_]) => return refuse("groups must have the same mapping as users"),
        ([], _) | (_, []) => return refuse("users and groups need a mapping each"),
        _ => return refuse("more than one mapping: exactly one is possible"),
    };
    if range.container_id != 0 {
        return refuse("0 of the container must be mapped: the mapping must begin with it");
    }
    // The last number means "none" to the kernel.
    if range.length == 0 || range.host_id.checked_add(range.length).is_none() {
        return refuse("the mapping leads nowhere: its ids must lie between 0 and 4294967294");
    }
    Ok(Some(IdMap { host: range.host_id, length: range.length }))
}

/// The options that make such a user namespace, for a pod's status.
pub(super) fn report(ids: IdMap) -> cri::UserNamespace {
    let mode = cri::NamespaceMode::Pod.into();
    cri::UserNamespace { mode, uids: vec![mapping(ids)], gids: vec![mapping(ids)] }
}

/// The ids as a mapping.
pub(super) fn mapping(ids: IdMap) -> cri::IdMapping {
    cri::IdMapping { host_id: ids.host, container_id: 0, length: ids.length }
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    const IDS: cri::IdMapping = cri::IdMapping { host_id: 1000, container_id: 0, length: 100_000 };

    fn check(
        mode: cri::NamespaceMode,
        uids: &[cri::IdMapping],
        gids: &[cri::IdMapping],
    ) -> Result<Option<IdMap>, Invalid> {
        let (uids, gids) = (uids.to_vec(), gids.to_vec());
        parse("u", Some(cri::UserNamespace { mode: mode.into(), uids, gids }))
    }

    #[test]
    fn a_pod_has_one_range_or_is_in_the_nodes_user_namespace() {
        use cri::NamespaceMode::{Container, Node, Pod, Target};
        assert_eq!(parse("u", None).unwrap(), None);
        assert_eq!(check(Node, &[], &[]).unwrap(), None);
        let ids = check(Pod, &[IDS], &[IDS]).unwrap().unwrap();
        assert_eq!(ids, IdMap { host: 1000, length: 100_000 });
        assert_eq!(parse("u", Some(report(ids))).unwrap(), Some(ids));
        refused(check(Node, &[IDS], &[]), "u");
        for mode in [Container, Target] {
            refused(check(mode, &[], &[]), "u.mode");
            refused(check(mode, &[IDS], &[IDS]), "u.mode");
        }
        let other = |change: fn(&mut cri::IdMapping)| {
            let mut ids = IDS;
            change(&mut ids);
            ids
        };
        let other_host = other(|ids| ids.host_id = 2000);
        for (uids, gids) in [
            (vec![], vec![]),
            (vec![IDS], vec![]),
            (vec![], vec![IDS]),
            (vec![IDS, other_host], vec![IDS, other_host]),
            (vec![IDS], vec![other_host]),
        ] {
            refused(check(Pod, &uids, &gids), "u.uids");
        }
        for bad in [
            other(|ids| ids.container_id = 1),
            other(|ids| ids.length = 0),
            other(|ids| ids.host_id = u32::MAX),
            other(|ids| (ids.host_id, ids.length) = (u32::MAX - 1, 2)),
        ] {
            refused(check(Pod, &[bad], &[bad]), "u.uids");
        }
    }
}
