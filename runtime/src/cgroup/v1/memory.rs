//! `memory.limit_in_bytes` and `memory.memsw.limit_in_bytes`. Follows cgroup-v1/memory.rst.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, Limits};

const LIMIT: &str = "memory.limit_in_bytes";
/// Memory and swap together; not there when the kernel does not account swap.
const SWAP: &str = "memory.memsw.limit_in_bytes";
const RESERVATION: &str = "memory.soft_limit_in_bytes";
const USAGE: &str = "memory.usage_in_bytes";

/// No limit is shown as the largest multiple of the page size: anything near it.
pub(super) const UNLIMITED: u64 = i64::MAX as u64 / 2;

/// The writes in an order that keeps memory below memory and swap together, as the kernel demands.
pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Result<Vec<Write>, Error> {
    let memory = limits.memory_limit.map(bytes);
    let old_swap = directory.read_if_there(SWAP)?.map(|content| content.parse().unwrap_or(u64::MAX));
    let swap = match (limits.memory_swap, memory, old_swap) {
        (Some(swap), _, _) => Some(bytes(swap)),
        // As in v2, a new limit of memory leaves what may be swapped as it is.
        (None, Some(memory), Some(old_swap)) if memory != u64::MAX && old_swap < UNLIMITED => {
            let old_memory = directory.read(LIMIT)?.parse().unwrap_or(old_swap);
            Some(memory.saturating_add(old_swap.saturating_sub(old_memory)))
        }
        // Memory without a limit needs memory and swap without one.
        (None, Some(u64::MAX), _) => Some(u64::MAX),
        (None, _, _) => None,
    };
    let mut writes: Vec<Write> = memory.into_iter().map(|memory| Write::new(LIMIT, value(memory))).collect();
    if let Some(old_swap) = old_swap {
        check(limits, swap.unwrap_or(old_swap))?;
        if let Some(swap) = swap {
            let at = if swap > old_swap { 0 } else { writes.len() };
            writes.insert(at, Write::new(SWAP, value(swap)));
        }
    }
    let reservation = limits.memory_reservation.map(bytes);
    writes.extend(reservation.map(|reservation| Write::new(RESERVATION, value(reservation))));
    Ok(writes)
}

/// Says what the kernel means by EBUSY: more is in use than the new limit, and it cannot be reclaimed.
pub(in crate::cgroup) fn explain(error: Error, limits: &Limits, directory: &Directory) -> Error {
    let busy = matches!(&error, Error::Io { source, path, .. }
        if source.raw_os_error() == Some(libc::EBUSY)
            && path.file_name().is_some_and(|file| file == LIMIT || file == SWAP));
    let usage = directory.read(USAGE).ok().and_then(|usage| usage.parse().ok());
    match (limits.memory_limit, usage) {
        (Some(limit), Some(usage)) if busy => Error::MemoryInUse { limit: bytes(limit), usage },
        _ => error,
    }
}

fn check(limits: &Limits, swap: u64) -> Result<(), Error> {
    match (limits.memory_limit, limits.memory_swap) {
        (Some(memory), Some(given)) if bytes(memory) > swap => Err(Error::InvalidLimit {
            limit: "memory.swap".to_owned(),
            value: given.to_string(),
            reason: "it counts memory and swap together and is below the limit of memory",
        }),
        _ => Ok(()),
    }
}

/// A negative limit is none.
fn bytes(limit: i64) -> u64 {
    u64::try_from(limit).unwrap_or(u64::MAX)
}

fn value(bytes: u64) -> String {
    if bytes == u64::MAX { "-1".to_owned() } else { bytes.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;
    use crate::cgroup::fixture::directory_of;

    const UNLIMITED: &str = "9223372036854771712";

    fn writes(old: &[(&str, &str)], memory: Option<i64>, swap: Option<i64>) -> Result<Vec<String>, Error> {
        let (_root, directory) = directory_of(old);
        let limits = Limits { memory_limit: memory, memory_swap: swap, ..Limits::default() };
        Ok(plan(&limits, &directory)?.iter().map(Write::to_string).collect())
    }

    fn check_order(old_swap: &str, memory: Option<i64>, swap: Option<i64>, expected: &[&str]) {
        assert_eq!(writes(&[(SWAP, old_swap)], memory, swap).unwrap(), expected);
    }

    #[test]
    fn keeps_memory_below_memory_and_swap() {
        check_order(
            UNLIMITED,
            Some(4096),
            Some(4096),
            &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=4096"],
        );
        check_order(
            "4096",
            Some(8192),
            Some(8192),
            &["memory.memsw.limit_in_bytes=8192", "memory.limit_in_bytes=8192"],
        );
        check_order(
            "8192",
            Some(4096),
            Some(4096),
            &["memory.limit_in_bytes=4096", "memory.memsw.limit_in_bytes=4096"],
        );
        check_order("8192", Some(-1), None, &["memory.memsw.limit_in_bytes=-1", "memory.limit_in_bytes=-1"]);
        check_order(UNLIMITED, Some(4096), None, &["memory.limit_in_bytes=4096"]);
        check_order("4096", None, Some(-1), &["memory.memsw.limit_in_bytes=-1"]);
        check_order("4096", None, None, &[]);
    }

    #[test]
    fn refuses_memory_above_memory_and_swap() {
        assert!(matches!(writes(&[(SWAP, "4096")], Some(8192), Some(8191)), Err(Error::InvalidLimit { .. })));
    }

    #[test]
    fn keeps_what_may_be_swapped() {
        let old = [(LIMIT, "4096"), (SWAP, "5000")];
        let raised = ["memory.memsw.limit_in_bytes=9096", "memory.limit_in_bytes=8192"];
        assert_eq!(writes(&old, Some(8192), None).unwrap(), raised);
        let lowered = ["memory.limit_in_bytes=1024", "memory.memsw.limit_in_bytes=1928"];
        assert_eq!(writes(&old, Some(1024), None).unwrap(), lowered);
    }

    #[test]
    fn goes_without_swap_accounting() {
        assert_eq!(writes(&[], Some(4096), Some(4096)).unwrap(), ["memory.limit_in_bytes=4096"]);
    }

    #[test]
    fn explains_a_limit_below_usage() {
        let (_root, directory) = directory_of(&[(USAGE, "9000")]);
        let limits = Limits { memory_limit: Some(4096), ..Limits::default() };
        let busy = |file: &str| Error::Io {
            operation: "write".to_owned(),
            path: directory.path().join(file),
            source: io::Error::from_raw_os_error(libc::EBUSY),
        };
        let explained = explain(busy(LIMIT), &limits, &directory);
        assert!(matches!(explained, Error::MemoryInUse { limit: 4096, usage: 9000 }));
        assert!(matches!(explain(busy("cpuset.cpus"), &limits, &directory), Error::Io { .. }));
    }
}
