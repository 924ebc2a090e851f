//! `memory.max`, `memory.swap.max` and `memory.low`.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, Limits};

const MAX: &str = "memory.max";
/// Swap alone; not there when the kernel does not account swap.
const SWAP_MAX: &str = "memory.swap.max";
const LOW: &str = "memory.low";

/// The writes; a limit below what is in use is refused, since the kernel would meet it by killing.
pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Result<Vec<Write>, Error> {
    let memory = limits.memory_limit.map(bytes);
    let mut writes = Vec::new();
    if let Some(swap) = swap(limits, directory)? {
        writes.push(Write::new(SWAP_MAX, value(swap)).or_skip());
    }
    if let Some(memory) = memory {
        refuse_below_usage(memory, directory)?;
        writes.push(Write::new(MAX, value(memory)));
    }
    writes.extend(limits.memory_reservation.map(|low| Write::new(LOW, value(bytes(low)))));
    Ok(writes)
}

/// The OCI spec counts memory and swap together, v2 swap alone.
fn swap(limits: &Limits, directory: &Directory) -> Result<Option<u64>, Error> {
    let refuse = |swap: i64, reason| {
        Err(Error::InvalidLimit { limit: "memory.swap".to_owned(), value: swap.to_string(), reason })
    };
    let swap = match limits.memory_swap {
        Some(swap) if swap >= 0 => swap,
        Some(_) => return Ok(Some(u64::MAX)),
        // Without a limit of memory none of memory and swap can hold.
        None => return Ok(limits.memory_limit.filter(|memory| *memory < 0).map(|_| u64::MAX)),
    };
    let memory = match limits.memory_limit {
        Some(memory) => bytes(memory),
        None => directory.read(MAX)?.parse().unwrap_or(u64::MAX),
    };
    if memory == u64::MAX {
        return refuse(swap, "it needs a limit of memory");
    }
    match bytes(swap).checked_sub(memory) {
        Some(swap) => Ok(Some(swap)),
        None => refuse(swap, "it counts memory and swap together and is below the limit of memory"),
    }
}

/// Page cache that is not in active use goes away by itself when the limit falls.
fn refuse_below_usage(limit: u64, directory: &Directory) -> Result<(), Error> {
    let Some(usage) = directory.read_if_there("memory.current")? else { return Ok(()) };
    let usage: u64 = usage.parse().unwrap_or(0);
    if usage <= limit {
        return Ok(());
    }
    let stat = directory.read("memory.stat")?;
    let inactive = stat.lines().find_map(|line| line.strip_prefix("inactive_file ")?.parse().ok());
    let usage = usage.saturating_sub(inactive.unwrap_or(0));
    if usage > limit { Err(Error::MemoryInUse { limit, usage }) } else { Ok(()) }
}

/// A negative limit is none.
fn bytes(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn value(bytes: u64) -> String {
    if bytes == u64::MAX { "max".to_owned() } else { bytes.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    fn writes(old: &[(&str, &str)], memory: Option<i64>, swap: Option<i64>) -> Result<Vec<String>, Error> {
        let (_root, directory) = directory_of(old);
        let limits = Limits { memory_limit: memory, memory_swap: swap, ..Limits::default() };
        Ok(plan(&limits, &directory)?.iter().map(Write::to_string).collect())
    }

    #[test]
    fn takes_memory_from_memory_and_swap() {
        let none: &[&str] = &[];
        assert_eq!(writes(&[], None, None).unwrap(), none);
        assert_eq!(writes(&[], Some(4096), None).unwrap(), ["memory.max=4096"]);
        assert_eq!(writes(&[], Some(4096), Some(4096)).unwrap(), ["memory.swap.max=0", "memory.max=4096"]);
        assert_eq!(
            writes(&[], Some(4096), Some(12288)).unwrap(),
            ["memory.swap.max=8192", "memory.max=4096"]
        );
        assert_eq!(writes(&[], Some(4096), Some(-1)).unwrap(), ["memory.swap.max=max", "memory.max=4096"]);
        assert_eq!(writes(&[], Some(-1), None).unwrap(), ["memory.swap.max=max", "memory.max=max"]);
        assert_eq!(writes(&[("memory.max", "4096")], None, Some(4196)).unwrap(), ["memory.swap.max=100"]);
    }

    #[test]
    fn refuses_swap_that_cannot_be() {
        for (memory, swap) in [(Some(4096), 4095), (Some(-1), 4096), (None, 4096)] {
            let answer = writes(&[("memory.max", "max")], memory, Some(swap));
            assert!(matches!(answer, Err(Error::InvalidLimit { .. })), "{memory:?} {swap}");
        }
    }

    #[test]
    fn refuses_a_limit_below_usage() {
        let used = |current, inactive| {
            let stat = format!("anon 1\ninactive_file {inactive}\nactive_file 7\n");
            writes(&[("memory.current", current), ("memory.stat", &stat)], Some(4096), None)
        };
        assert_eq!(used("4096", 0).unwrap(), ["memory.max=4096"]);
        assert_eq!(used("8192", 4096).unwrap(), ["memory.max=4096"]);
        assert!(matches!(used("8192", 4095), Err(Error::MemoryInUse { limit: 4096, usage: 4097 })));
    }
}
