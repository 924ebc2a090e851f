//! Who a container runs as: the request, the image's `USER`, and the image's `/etc/passwd` and
//! `/etc/group` (passwd(5), group(5)).
//!
//! A word of digits is a number and never looked up as a name, and one that is out of range is an
//! error (CVE-2024-40635, CVE-2026-46680).

use crate::config::{RunAs, SecurityContext, SupplementalGroupsPolicy};
use crate::error::{Error, Result};
use crate::status::User;

/// Ids above this are refused, as runc and containerd do.
const MAX_ID: u32 = i32::MAX.unsigned_abs();

/// The image's two files; empty where it has none.
#[derive(Debug, Default)]
pub(crate) struct Databases {
    pub passwd: String,
    pub group: String,
}

/// The user of a container and the home directory that the image names for it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Resolved {
    pub user: User,
    pub home: String,
}

#[derive(Debug)]
struct Account<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

/// Finds out who the container runs as.
pub(crate) fn resolve(
    security: &SecurityContext,
    image_user: &str,
    databases: &Databases,
) -> Result<Resolved> {
    let (wanted, image_group) = wanted(security, image_user)?;
    let account = find_account(&wanted, databases)?;
    let uid = match (&wanted, &account) {
        (RunAs::Uid(uid), _) => *uid,
        (RunAs::Name(_), Some(account)) => account.uid,
        (RunAs::Name(name), None) => return Err(no_such_user(name)),
    };
    let gid = match (security.run_as_group, image_group) {
        (Some(gid), _) => gid,
        (None, Some(group)) => find_group(group, databases)?,
        (None, None) => account.as_ref().map_or(0, |account| account.gid),
    };
    let mut groups = vec![gid];
    if security.supplemental_groups_policy == SupplementalGroupsPolicy::Merge {
        let name = account.as_ref().map_or("", |account| account.name);
        groups.extend(memberships(name, databases));
    }
    groups.extend(&security.supplemental_groups);
    let mut seen = Vec::new();
    groups.retain(|gid| {
        !seen.contains(gid) && {
            seen.push(*gid);
            true
        }
    });
    let home = account.map_or("", |account| account.home);
    let home = if is_plain(home) && !home.is_empty() { home } else { "/" };
    Ok(Resolved { user: User { uid, gid, supplemental_groups: groups }, home: home.to_owned() })
}

/// The request goes before the image, whose group then does not count either.
fn wanted<'a>(security: &SecurityContext, image_user: &'a str) -> Result<(RunAs, Option<&'a str>)> {
    if let Some(run_as) = &security.run_as {
        return Ok((run_as.clone(), None));
    }
    let (user, group) = match image_user.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (image_user, None),
    };
    if user.is_empty() {
        return Ok((RunAs::Uid(0), group));
    }
    Ok((parse(user)?, group))
}

fn parse(user: &str) -> Result<RunAs> {
    if user.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(user).map(RunAs::Uid);
    }
    // What others may read as a number is no name here either (CVE-2026-46680).
    let unsigned = user.trim_start_matches(['+', '-']);
    if unsigned.len() != user.len() || user.starts_with("0x") || user.starts_with("0X") {
        let reason = "not a user: give a plain number, or a name of the image's /etc/passwd".to_owned();
        return Err(Error::User { user: user.to_owned(), reason });
    }
    Ok(RunAs::Name(user.to_owned()))
}

fn number(text: &str) -> Result<u32> {
    let id: Option<u32> = text.parse().ok().filter(|id| *id <= MAX_ID);
    id.ok_or_else(|| Error::User { user: text.to_owned(), reason: format!("ids go from 0 to {MAX_ID}") })
}

fn find_account<'a>(wanted: &RunAs, databases: &'a Databases) -> Result<Option<Account<'a>>> {
    if let RunAs::Name(name) = wanted
        && !is_plain(name)
    {
        return Err(Error::User { user: name.clone(), reason: "not a user name".to_owned() });
    }
    Ok(databases.passwd.lines().filter_map(account).find(|account| match wanted {
        RunAs::Uid(uid) => account.uid == *uid,
        RunAs::Name(name) => account.name == name,
    }))
}

fn account(line: &str) -> Option<Account<'_>> {
    let mut fields = line.split(':');
    let name = fields.next().filter(|name| !name.is_empty())?;
    let uid = number(fields.nth(1)?).ok()?;
    let gid = number(fields.next()?).ok()?;
    let home = fields.nth(1).unwrap_or_default();
    Some(Account { name, uid, gid, home })
}

fn no_such_user(name: &str) -> Error {
    let reason = "the image's /etc/passwd does not name it: use a number, or a name that is there".to_owned();
    Error::User { user: name.to_owned(), reason }
}

fn find_group(group: &str, databases: &Databases) -> Result<u32> {
    if group.bytes().all(|byte| byte.is_ascii_digit()) {
        return number(group);
    }
    groups(databases).find(|(name, _, _)| *name == group).map(|(_, gid, _)| gid).ok_or_else(|| Error::User {
        user: format!(":{group}"),
        reason: "the image's /etc/group does not name that group: use a number, or a name that is there"
            .to_owned(),
    })
}

fn memberships(user: &str, databases: &Databases) -> Vec<u32> {
    if user.is_empty() {
        return Vec::new();
    }
    groups(databases)
        .filter(|(_, _, members)| members.split(',').any(|member| member.trim() == user))
        .map(|(_, gid, _)| gid)
        .collect()
}

fn groups(databases: &Databases) -> impl Iterator<Item = (&str, u32, &str)> {
    databases.group.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let gid = number(fields.nth(1)?).ok()?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn is_plain(text: &str) -> bool {
    !text.chars().any(|c| c.is_control() || c == ':')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::container_config;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nwww:x:33:34::/srv:/bin/false\n1000:x:7:7::/odd:\nbad line\n";
    const GROUP: &str = "root:x:0:\nweb:x:34:\nstaff:x:50:www,other\nmore:x:51: www\n";

    fn check(run_as: Option<RunAs>, group: Option<u32>, image: &str) -> Result<(u32, u32, Vec<u32>, String)> {
        let mut security = container_config().security;
        security.run_as = run_as;
        security.run_as_group = group;
        security.supplemental_groups = vec![1234];
        let databases = Databases { passwd: PASSWD.to_owned(), group: GROUP.to_owned() };
        let Resolved { user, home } = resolve(&security, image, &databases)?;
        Ok((user.uid, user.gid, user.supplemental_groups, home))
    }

    fn name(name: &str) -> Option<RunAs> {
        Some(RunAs::Name(name.to_owned()))
    }

    #[test]
    fn the_request_the_image_and_its_files_are_combined() {
        let root = (0, 0, vec![0, 1234], "/root".to_owned());
        assert_eq!(check(None, None, "").unwrap(), root);
        assert_eq!(check(None, None, "root").unwrap(), root);
        let www = (33, 34, vec![34, 50, 51, 1234], "/srv".to_owned());
        assert_eq!(check(None, None, "www").unwrap(), www);
        assert_eq!(check(None, None, "33").unwrap(), www);
        assert_eq!(check(name("www"), None, "root").unwrap(), www);
        assert_eq!(check(None, None, "www:staff").unwrap().1, 50);
        assert_eq!(check(None, None, "1003:1004").unwrap(), (1003, 1004, vec![1004, 1234], "/".to_owned()));
        assert_eq!(
            check(Some(RunAs::Uid(5)), Some(6), "www:staff").unwrap(),
            (5, 6, vec![6, 1234], "/".to_owned())
        );
    }

    #[test]
    fn digits_are_never_a_name() {
        assert_eq!(check(None, None, "1000").unwrap().0, 1000);
    }

    #[test]
    fn what_cannot_be_an_id_is_refused() {
        for bad in [
            "2147483648",
            "4294967296",
            "4294967297",
            "1000000000000000000000000000000",
            "-1",
            "0x0",
            "+0",
            "nobody",
            "a\nb",
        ] {
            assert!(check(None, None, bad).is_err(), "{bad:?}");
        }
        assert!(check(None, None, "root:nogroup").is_err());
        assert!(check(name("nobody"), None, "").is_err());
    }

    #[test]
    fn strict_takes_only_what_the_request_names() {
        let mut security = container_config().security;
        security.supplemental_groups_policy = SupplementalGroupsPolicy::Strict;
        security.supplemental_groups = vec![9];
        let databases = Databases { passwd: PASSWD.to_owned(), group: GROUP.to_owned() };
        assert_eq!(resolve(&security, "www", &databases).unwrap().user.supplemental_groups, [34, 9]);
    }
}
