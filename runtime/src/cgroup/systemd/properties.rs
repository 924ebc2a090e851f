//! Limits in systemd's words, systemd.resource-control(5). What it has no word for is in the cgroup's files alone:
//! bursts, huge pages, device rules, rates of block devices.

use zbus::zvariant::Value;

use super::super::v2::cpu::weight;
use super::super::{Error, Limits};
use super::interface::Property;

const UNLIMITED: u64 = u64::MAX;

/// The kernel's period where none is given, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// systemd keeps quotas as whole percents of a processor.
const PERCENT_USEC: u64 = 10_000;

/// No kernel has more processors or memory nodes.
const MAX_NUMBER: usize = 1 << 16;

/// The properties of what is limited.
pub(super) fn of(limits: &Limits) -> Result<Vec<Property<'static>>, Error> {
    let mut properties: Vec<Property<'static>> = Vec::new();
    let mut put = |name, value: Option<u64>| properties.extend(value.map(|value| (name, Value::from(value))));
    put("CPUWeight", limits.cpu_shares.map(weight));
    if let Some(quota) = limits.cpu_quota {
        let period = limits.cpu_period.filter(|period| *period > 0).unwrap_or(DEFAULT_PERIOD);
        put("CPUQuotaPeriodUSec", Some(period));
        put("CPUQuotaPerSecUSec", Some(quota_a_second(quota, period)));
    }
    put("MemoryMax", limits.memory_limit.map(bytes));
    put("MemorySwapMax", swap(limits));
    put("MemoryLow", limits.memory_reservation.map(bytes));
    put(
        "TasksMax",
        limits.pids.map(|pids| u64::try_from(pids).ok().filter(|pids| *pids > 0).unwrap_or(UNLIMITED)),
    );
    for (file, property) in [
        ("memory.min", "MemoryMin"),
        ("memory.low", "MemoryLow"),
        ("memory.high", "MemoryHigh"),
        ("memory.max", "MemoryMax"),
        ("memory.swap.max", "MemorySwapMax"),
        ("cpu.weight", "CPUWeight"),
        ("pids.max", "TasksMax"),
    ] {
        let value = limits.unified.get(file).map(|text| text.trim());
        put(property, value.and_then(|text| if text == "max" { Some(UNLIMITED) } else { text.parse().ok() }));
    }
    if let Some((quota, period)) = limits.unified.get("cpu.max").map(|text| cpu_max(text)) {
        put("CPUQuotaPeriodUSec", Some(period));
        put("CPUQuotaPerSecUSec", Some(quota_a_second(quota, period)));
    }
    for (name, list, file) in [
        ("AllowedCPUs", &limits.cpuset_cpus, "cpuset.cpus"),
        ("AllowedMemoryNodes", &limits.cpuset_mems, "cpuset.mems"),
    ] {
        if let Some(list) = list.as_ref().or_else(|| limits.unified.get(file)) {
            properties.push((name, Value::from(mask(name, list)?)));
        }
    }
    Ok(properties)
}

/// The file of this name: quota, negative for `max`, and period.
fn cpu_max(text: &str) -> (i64, u64) {
    let mut fields = text.split_ascii_whitespace();
    let quota = fields.next().and_then(|quota| quota.parse().ok()).unwrap_or(-1);
    (
        quota,
        fields.next().and_then(|period| period.parse().ok()).filter(|it| *it > 0).unwrap_or(DEFAULT_PERIOD),
    )
}

fn quota_a_second(quota: i64, period: u64) -> u64 {
    let Ok(quota) = u64::try_from(quota) else { return UNLIMITED };
    let exact = quota.saturating_mul(1_000_000) / period;
    // Rounded up: less than was asked for would be wrong, and the file has the exact value.
    exact.div_ceil(PERCENT_USEC).saturating_mul(PERCENT_USEC)
}

/// The OCI spec counts memory and swap together, systemd swap alone.
fn swap(limits: &Limits) -> Option<u64> {
    let swap = limits.memory_swap?;
    let Ok(swap) = u64::try_from(swap) else { return Some(UNLIMITED) };
    let memory = u64::try_from(limits.memory_limit?).ok()?;
    swap.checked_sub(memory)
}

fn bytes(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(UNLIMITED)
}

/// A list of cpuset(7) as a mask, least significant byte first.
fn mask(limit: &str, list: &str) -> Result<Vec<u8>, Error> {
    let refuse = || Error::InvalidLimit {
        limit: limit.to_owned(),
        value: list.to_owned(),
        reason: "it is not a list of numbers and ranges, cpuset(7)",
    };
    let mut mask = Vec::new();
    for part in list.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let first: usize = first.trim().parse().map_err(|_| refuse())?;
        let last: usize = last.trim().parse().map_err(|_| refuse())?;
        if first > last || last >= MAX_NUMBER {
            return Err(refuse());
        }
        mask.resize(mask.len().max(last / 8 + 1), 0);
        for number in first..=last {
            mask[number / 8] |= 1 << (number % 8);
        }
    }
    Ok(mask)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(limits: Limits, expected: &[(&str, Value<'static>)]) {
        assert_eq!(of(&limits).unwrap(), expected);
    }

    #[test]
    fn the_kubelets_limits() {
        check(
            Limits {
                cpu_shares: Some(512),
                cpu_quota: Some(15_500),
                cpu_period: Some(100_000),
                memory_limit: Some(1 << 20),
                memory_swap: Some(1 << 20),
                pids: Some(-1),
                cpuset_cpus: Some("0-1,9".into()),
                ..Limits::default()
            },
            &[
                ("CPUWeight", Value::from(59_u64)),
                ("CPUQuotaPeriodUSec", Value::from(100_000_u64)),
                ("CPUQuotaPerSecUSec", Value::from(160_000_u64)),
                ("MemoryMax", Value::from(1_u64 << 20)),
                ("MemorySwapMax", Value::from(0_u64)),
                ("TasksMax", Value::from(UNLIMITED)),
                ("AllowedCPUs", Value::from(vec![0b11_u8, 0b10])),
            ],
        );
        check(Limits::default(), &[]);
    }

    #[test]
    fn no_limits_and_unified_ones() {
        let unified = [("memory.high", "4096"), ("memory.swap.max", "max"), ("memory.oom.group", "1")];
        check(
            Limits {
                cpu_quota: Some(-1),
                memory_limit: Some(-1),
                unified: unified.map(|(file, value)| (file.to_owned(), value.to_owned())).into(),
                ..Limits::default()
            },
            &[
                ("CPUQuotaPeriodUSec", Value::from(100_000_u64)),
                ("CPUQuotaPerSecUSec", Value::from(UNLIMITED)),
                ("MemoryMax", Value::from(UNLIMITED)),
                ("MemoryHigh", Value::from(4096_u64)),
                ("MemorySwapMax", Value::from(UNLIMITED)),
            ],
        );
    }

    #[test]
    fn lists_that_are_none() {
        for list in ["a", "3-1", "1-", "-", "1;2", "99999999"] {
            assert!(mask("AllowedCPUs", list).is_err(), "{list}");
        }
        assert_eq!(mask("AllowedCPUs", "").unwrap(), Vec::<u8>::new());
    }
}
