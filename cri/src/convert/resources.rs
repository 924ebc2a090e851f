//! Limits of pods and containers.

use std::collections::BTreeSet;

use pod::config::Resources;

use super::{Invalid, field};
use crate::wire::cri::{HugepageLimit, LinuxContainerResources};

/// Parses limits; a message that is not there sets none.
pub(super) fn parse(at: &str, wire: Option<LinuxContainerResources>) -> Result<Resources, Invalid> {
    let wire = wire.unwrap_or_default();
    let resources = Resources {
        cpu_period: positive(format_args!("{at}.cpu_period"), wire.cpu_period)?,
        cpu_quota: limit(format_args!("{at}.cpu_quota"), wire.cpu_quota)?,
        cpu_shares: shares(format_args!("{at}.cpu_shares"), wire.cpu_shares)?,
        memory_limit_bytes: limit(format_args!("{at}.memory_limit_in_bytes"), wire.memory_limit_in_bytes)?,
        memory_swap_limit_bytes: limit(
            format_args!("{at}.memory_swap_limit_in_bytes"),
            wire.memory_swap_limit_in_bytes,
        )?,
        oom_score_adj: oom_score_adj(format_args!("{at}.oom_score_adj"), wire.oom_score_adj)?,
        cpuset_cpus: cpuset(format_args!("{at}.cpuset_cpus"), wire.cpuset_cpus)?,
        cpuset_mems: cpuset(format_args!("{at}.cpuset_mems"), wire.cpuset_mems)?,
        hugepage_limits: hugepages(&format!("{at}.hugepage_limits"), wire.hugepage_limits)?,
        unified: unified(&format!("{at}.unified"), wire.unified)?,
    };
    if let (Some(memory @ 1..), Some(both @ 1..)) =
        (resources.memory_limit_bytes, resources.memory_swap_limit_bytes)
        && both < memory
    {
        let reason = format!("{both} is less than the memory limit {memory}, which it includes");
        return Err(Invalid::new(format_args!("{at}.memory_swap_limit_in_bytes"), reason));
    }
    Ok(resources)
}

/// The limits in force, for ContainerStatus.
pub(super) fn report(resources: &Resources) -> LinuxContainerResources {
    let signed = |number: Option<u64>| number.map_or(0, |number| i64::try_from(number).unwrap_or(i64::MAX));
    LinuxContainerResources {
        cpu_period: signed(resources.cpu_period),
        cpu_quota: resources.cpu_quota.unwrap_or_default(),
        cpu_shares: signed(resources.cpu_shares),
        memory_limit_in_bytes: resources.memory_limit_bytes.unwrap_or_default(),
        memory_swap_limit_in_bytes: resources.memory_swap_limit_bytes.unwrap_or_default(),
        oom_score_adj: resources.oom_score_adj.into(),
        cpuset_cpus: resources.cpuset_cpus.clone().unwrap_or_default(),
        cpuset_mems: resources.cpuset_mems.clone().unwrap_or_default(),
        hugepage_limits: resources
            .hugepage_limits
            .iter()
            .map(|(page_size, limit)| HugepageLimit { page_size: page_size.clone(), limit: *limit })
            .collect(),
        unified: resources.unified.clone(),
    }
}

/// 0 is none.
fn positive(at: std::fmt::Arguments<'_>, number: i64) -> Result<Option<u64>, Invalid> {
    match u64::try_from(number) {
        Ok(0) => Ok(None),
        Ok(number) => Ok(Some(number)),
        Err(_) => Err(Invalid::new(at, format!("{number} is negative"))),
    }
}

/// 0 is none, -1 is no limit.
fn limit(at: std::fmt::Arguments<'_>, number: i64) -> Result<Option<i64>, Invalid> {
    match number {
        0 => Ok(None),
        -1 | 1.. => Ok(Some(number)),
        _ => Err(Invalid::new(at, format!("{number} is negative; -1 means no limit"))),
    }
}

fn shares(at: std::fmt::Arguments<'_>, number: i64) -> Result<Option<u64>, Invalid> {
    match positive(at, number)? {
        None => Ok(None),
        Some(shares @ 2..=262_144) => Ok(Some(shares)),
        Some(shares) => Err(Invalid::new(at, format!("{shares} is not between 2 and 262144"))),
    }
}

fn oom_score_adj(at: std::fmt::Arguments<'_>, number: i64) -> Result<i32, Invalid> {
    i32::try_from(number)
        .ok()
        .filter(|number| (-1000..=1000).contains(number))
        .ok_or_else(|| Invalid::new(at, format!("{number} is not between -1000 and 1000")))
}

/// cpuset(7)'s list form: `0-3,7`.
fn cpuset(at: std::fmt::Arguments<'_>, list: String) -> Result<Option<String>, Invalid> {
    let number = |text: &str| text.len() <= 6 && text.parse::<u32>().is_ok() && !text.starts_with('+');
    let range = |range: &str| match range.split_once('-') {
        Some((first, last)) => number(first) && number(last),
        None => number(range),
    };
    if list.is_empty() {
        return Ok(None);
    }
    if !list.split(',').all(range) {
        return Err(Invalid::new(at, format!("{list:?} is not a list such as 0-3,7")));
    }
    Ok(Some(list))
}

fn hugepages(at: &str, limits: Vec<HugepageLimit>) -> Result<Vec<(String, u64)>, Invalid> {
    let mut sizes = BTreeSet::new();
    for (index, limit) in limits.iter().enumerate() {
        let size = &limit.page_size;
        let digits = size.trim_end_matches(|c: char| c.is_ascii_uppercase());
        let known =
            ["KB", "MB", "GB"].contains(&&size[digits.len()..]) && digits.parse::<u32>().is_ok_and(|n| n > 0);
        if !known {
            let reason = format!("{size:?} is not a size such as 2MB");
            return Err(Invalid::new(format_args!("{at}[{index}].page_size"), reason));
        }
        if !sizes.insert(size) {
            return Err(Invalid::new(
                format_args!("{at}[{index}].page_size"),
                format!("{size} is there twice"),
            ));
        }
    }
    Ok(limits.into_iter().map(|limit| (limit.page_size, limit.limit)).collect())
}

/// Names of controllers' files. `cgroup.*` moves, freezes and kills processes: those are not limits.
fn unified(
    at: &str,
    files: std::collections::BTreeMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>, Invalid> {
    for (name, value) in &files {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'.';
        let controller = name.split_once('.').filter(|(controller, file)| {
            !controller.is_empty() && *controller != "cgroup" && !file.is_empty() && !file.starts_with('.')
        });
        if controller.is_none() || !name.bytes().all(allowed) {
            return Err(Invalid::new(at, format!("{name:?} is not a limit such as memory.high")));
        }
        field::plain(format_args!("{at}[{name}]"), value.clone())?;
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    fn check(change: impl FnOnce(&mut LinuxContainerResources)) -> Result<Resources, Invalid> {
        let mut wire = LinuxContainerResources::default();
        change(&mut wire);
        parse("r", Some(wire))
    }

    #[test]
    fn nothing_is_no_limit() {
        assert_eq!(parse("r", None).unwrap(), Resources::default());
        assert_eq!(parse("r", Some(LinuxContainerResources::default())).unwrap(), Resources::default());
    }

    #[test]
    fn limits_come_back_as_they_were() {
        let wire = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: -1,
            cpu_shares: 1024,
            memory_limit_in_bytes: 1 << 30,
            oom_score_adj: -997,
            cpuset_cpus: "0-3,7".to_owned(),
            cpuset_mems: "0".to_owned(),
            hugepage_limits: vec![HugepageLimit { page_size: "2MB".to_owned(), limit: 0 }],
            unified: [("memory.high".to_owned(), "max".to_owned())].into(),
            memory_swap_limit_in_bytes: 2 << 30,
        };
        assert_eq!(report(&parse("r", Some(wire.clone())).unwrap()), wire);
    }

    #[test]
    fn what_no_kernel_takes_is_refused() {
        refused(check(|r| r.cpu_period = -1), "r.cpu_period");
        refused(check(|r| r.cpu_quota = -2), "r.cpu_quota");
        refused(check(|r| r.cpu_shares = 1), "r.cpu_shares");
        refused(check(|r| r.cpu_shares = 262_145), "r.cpu_shares");
        refused(check(|r| r.cpu_shares = -1), "r.cpu_shares");
        refused(check(|r| r.memory_limit_in_bytes = -2), "r.memory_limit_in_bytes");
        refused(check(|r| r.memory_swap_limit_in_bytes = i64::MIN), "r.memory_swap_limit_in_bytes");
        refused(check(|r| r.oom_score_adj = 1001), "r.oom_score_adj");
        refused(check(|r| r.oom_score_adj = i64::MIN), "r.oom_score_adj");
        for list in ["a", "0-", "-1", "0,,1", "0;1", "0-1-2", "+1", "0\n", "99999999999"] {
            refused(check(|r| r.cpuset_cpus = list.to_owned()), "r.cpuset_cpus");
            refused(check(|r| r.cpuset_mems = list.to_owned()), "r.cpuset_mems");
        }
        let both = |r: &mut LinuxContainerResources| {
            (r.memory_limit_in_bytes, r.memory_swap_limit_in_bytes) = (2, 1);
        };
        refused(check(both), "r.memory_swap_limit_in_bytes");
    }

    #[test]
    fn hugepages_have_a_size_each() {
        let limits = |sizes: &[&str]| {
            let limit = |size: &&str| HugepageLimit { page_size: (*size).to_owned(), limit: 1 };
            sizes.iter().map(limit).collect::<Vec<_>>()
        };
        assert!(check(|r| r.hugepage_limits = limits(&["2MB", "1GB"])).is_ok());
        refused(check(|r| r.hugepage_limits = limits(&["2MB", "2MB"])), "r.hugepage_limits[1].page_size");
        for size in ["", "MB", "2", "2mb", "../2MB", "0KB", "2MBé"] {
            refused(check(|r| r.hugepage_limits = limits(&[size])), "r.hugepage_limits[0].page_size");
        }
    }

    #[test]
    fn unified_names_limits_only() {
        let unified = |name: &str, value: &str| {
            check(|r| {
                r.unified.insert(name.to_owned(), value.to_owned());
            })
        };
        assert!(unified("memory.oom.group", "1").is_ok());
        assert!(unified("io.max", "8:0 rbps=1").is_ok());
        for name in
            ["cgroup.procs", "cgroup.kill", "memory", "../memory.max", "memory/max", ".max", "memory.", ""]
        {
            refused(unified(name, "1"), "r.unified");
        }
        refused(unified("memory.max", "1\n2"), "r.unified[memory.max]");
    }
}
