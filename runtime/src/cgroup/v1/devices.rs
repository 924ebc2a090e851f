//! `devices.allow` and `devices.deny`. Follows cgroup-v1/devices.rst.
//!
//! The kernel keeps one default and a list of exceptions to it, so rules in order are first reduced to that.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{DeviceAccess, DeviceKind, DeviceRule, Error};

const ALLOW: &str = "devices.allow";
const DENY: &str = "devices.deny";
const LIST: &str = "devices.list";

/// What the kernel keeps.
#[derive(Debug, PartialEq, Eq)]
struct State {
    /// What is done with a device that is no exception.
    allow: bool,
    /// Never of kind `All`.
    exceptions: Vec<DeviceRule>,
}

/// The writes for a cgroup that nothing runs in yet.
pub(in crate::cgroup) fn plan(rules: &[DeviceRule]) -> Result<Vec<Write>, Error> {
    Ok(State::reduce(rules)?.in_full())
}

/// The writes that never take away, not even for a moment, what was and stays allowed.
pub(in crate::cgroup) fn plan_update(
    rules: &[DeviceRule],
    directory: &Directory,
) -> Result<Vec<Write>, Error> {
    let new = State::reduce(rules)?;
    let old = directory.read(LIST)?;
    if new.allow || old.starts_with('a') {
        let undo = if old.starts_with('a') { ALLOW } else { DENY };
        return Ok(new.in_full().into_iter().map(|write| write.undone_by(undo, "a")).collect());
    }
    let old: Vec<DeviceRule> = old.lines().filter_map(parse).collect();
    let added = difference(&new.exceptions, &old);
    let removed = difference(&old, &new.exceptions);
    let allow = added.map(|rule| Write::new(ALLOW, entry(&rule)).undone_by(DENY, entry(&rule)));
    let deny = removed.map(|rule| Write::new(DENY, entry(&rule)).undone_by(ALLOW, entry(&rule)));
    Ok(allow.chain(deny).collect())
}

// === impl State ===

impl State {
    fn reduce(rules: &[DeviceRule]) -> Result<Self, Error> {
        let mut state = Self { allow: false, exceptions: Vec::new() };
        for rule in rules {
            if rule.is_all() {
                state = Self { allow: rule.allow, exceptions: Vec::new() };
                continue;
            }
            match rule.kind {
                DeviceKind::All => {
                    state.add(&DeviceRule { kind: DeviceKind::Block, ..rule.clone() })?;
                    state.add(&DeviceRule { kind: DeviceKind::Char, ..rule.clone() })?;
                }
                DeviceKind::Block | DeviceKind::Char => state.add(rule)?,
            }
        }
        Ok(state)
    }

    fn add(&mut self, rule: &DeviceRule) -> Result<(), Error> {
        if rule.allow != self.allow {
            match self.exceptions.iter_mut().find(|known| known.same_devices(rule)) {
                Some(known) => known.access = known.access.union(rule.access),
                None => self.exceptions.push(rule.clone()),
            }
            return Ok(());
        }
        for known in &mut self.exceptions {
            if !known.touches(rule) {
                continue;
            }
            if !rule.covers(known) {
                return Err(Error::InvalidLimit {
                    limit: "devices".to_owned(),
                    value: rule.to_string(),
                    reason: "cgroup v1 cannot take a part out of what a rule before it names",
                });
            }
            known.access = known.access.without(rule.access);
        }
        self.exceptions.retain(|known| known.access != DeviceAccess::NONE);
        Ok(())
    }

    fn in_full(&self) -> Vec<Write> {
        let (default, exception) = if self.allow { (ALLOW, DENY) } else { (DENY, ALLOW) };
        let exceptions = self.exceptions.iter().map(|rule| Write::new(exception, entry(rule)));
        std::iter::once(Write::new(default, "a")).chain(exceptions).collect()
    }
}

/// What is in `left` and not in `right`, access by access.
fn difference(left: &[DeviceRule], right: &[DeviceRule]) -> impl Iterator<Item = DeviceRule> {
    left.iter().filter_map(|rule| {
        let known = right.iter().find(|known| known.same_devices(rule));
        let access = known.map_or(rule.access, |known| rule.access.without(known.access));
        (access != DeviceAccess::NONE).then(|| DeviceRule { access, ..rule.clone() })
    })
}

/// `c 1:3 rwm`
fn entry(rule: &DeviceRule) -> String {
    let text = rule.to_string();
    text.split_once(' ').map_or_else(|| text.clone(), |(_, entry)| entry.to_owned())
}

/// A line of `devices.list`.
fn parse(line: &str) -> Option<DeviceRule> {
    let mut fields = line.split([' ', ':']);
    let kind = match fields.next()? {
        "b" => DeviceKind::Block,
        "c" => DeviceKind::Char,
        _ => return None,
    };
    let number = |field: &str| if field == "*" { Some(None) } else { field.parse().ok().map(Some) };
    let major = number(fields.next()?)?;
    let minor = number(fields.next()?)?;
    let access = DeviceAccess::parse(fields.next()?)?;
    Some(DeviceRule { allow: true, kind, major, minor, access })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    fn rule(text: &str) -> DeviceRule {
        let (verb, line) = text.split_once(' ').unwrap();
        let kind_is_all = line.starts_with('a');
        let parsed = parse(&if kind_is_all { line.replacen('a', "c", 1) } else { line.to_owned() }).unwrap();
        let kind = if kind_is_all { DeviceKind::All } else { parsed.kind };
        DeviceRule { allow: verb == "allow", kind, ..parsed }
    }

    fn rules(texts: &[&str]) -> Vec<DeviceRule> {
        texts.iter().map(|text| rule(text)).collect()
    }

    fn texts(writes: &[Write]) -> Vec<String> {
        writes.iter().map(Write::to_string).collect()
    }

    #[test]
    fn denies_first() {
        let writes =
            plan(&rules(&["deny a *:* rwm", "allow c 1:3 rw", "allow c *:* m", "allow c 1:3 m"])).unwrap();
        assert_eq!(texts(&writes), ["devices.deny=a", "devices.allow=c 1:3 rwm", "devices.allow=c *:* m"]);
        assert_eq!(texts(&plan(&[]).unwrap()), ["devices.deny=a"]);
    }

    #[test]
    fn allows_all_but_what_is_taken() {
        let writes = plan(&rules(&["allow c 1:3 rw", "allow a *:* rwm", "deny a 8:0 w"])).unwrap();
        assert_eq!(texts(&writes), ["devices.allow=a", "devices.deny=b 8:0 w", "devices.deny=c 8:0 w"]);
    }

    #[test]
    fn takes_back_what_a_rule_covers() {
        let writes =
            plan(&rules(&["allow c 1:3 rwm", "allow b 8:0 r", "deny c *:* w", "deny b 8:* r"])).unwrap();
        assert_eq!(texts(&writes), ["devices.deny=a", "devices.allow=c 1:3 rm"]);
        let error = plan(&rules(&["allow c *:* rwm", "deny c 1:3 w"])).unwrap_err();
        assert!(error.to_string().contains("\"deny c 1:3 w\""), "{error}");
    }

    #[test]
    fn updates_by_difference() {
        let (_root, directory) = directory_of(&[(LIST, "c 1:3 rwm\nb *:* m\nc 136:* rw\n")]);
        let new = rules(&["allow c 1:3 rw", "allow b *:* m", "allow c 1:5 r", "allow c 136:* rwm"]);
        let writes = plan_update(&new, &directory).unwrap();
        let expected = ["devices.allow=c 1:5 r", "devices.allow=c 136:* m", "devices.deny=c 1:3 m"];
        assert_eq!(texts(&writes), expected);
        let undo = writes[2].undo.as_ref().unwrap();
        assert_eq!((&*undo.file, &*undo.value), (ALLOW, "c 1:3 m"));
        let (_root, directory) = directory_of(&[(LIST, "a *:* rwm\n")]);
        assert_eq!(texts(&plan_update(&[], &directory).unwrap()), ["devices.deny=a"]);
    }
}
