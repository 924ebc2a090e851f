//! `cpu.shares` and `cpu.cfs_*`. Follows sched-bwc.rst.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, Limits};

const SHARES: &str = "cpu.shares";
const QUOTA: &str = "cpu.cfs_quota_us";
const PERIOD: &str = "cpu.cfs_period_us";
const BURST: &str = "cpu.cfs_burst_us";

/// The writes in an order that the kernel takes, whatever is set now.
pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    writes.extend(limits.cpu_shares.map(|shares| Write::new(SHARES, shares.to_string())));
    let quota = limits.cpu_quota.map(|quota| quota.max(-1));
    match (quota, limits.cpu_period) {
        (None, None) => {}
        (Some(quota), None) => writes.push(Write::new(QUOTA, quota.to_string())),
        (None, Some(period)) => writes.push(Write::new(PERIOD, period.to_string())),
        (Some(quota), Some(period)) => {
            let by_quota = Write::new(QUOTA, quota.to_string());
            let by_period = Write::new(PERIOD, period.to_string());
            let old_quota: i64 = number(directory, QUOTA)?.unwrap_or(-1);
            let old_period: u64 = number(directory, PERIOD)?.unwrap_or(100_000);
            if period_first((old_quota, old_period), (quota, period)) {
                writes.extend([by_period, by_quota]);
            } else {
                writes.extend([by_quota, by_period]);
            }
        }
    }
    if let Some(burst) = limits.cpu_burst {
        let write = Write::new(BURST, burst.to_string());
        // A burst may not exceed the quota: it shrinks before the quota does and grows after it.
        let old: u64 = number(directory, BURST)?.unwrap_or(0);
        let at = if burst < old { 0 } else { writes.len() };
        writes.insert(at, write);
    }
    Ok(writes)
}

/// Of the two states between old and new, takes the one with less bandwidth: it never exceeds the parent's.
fn period_first(old: (i64, u64), new: (i64, u64)) -> bool {
    let (Ok(old_quota), Ok(new_quota)) = (u64::try_from(old.0), u64::try_from(new.0)) else {
        // No quota fits with every period.
        return old.0 < 0;
    };
    u128::from(old_quota) * u128::from(old.1) <= u128::from(new_quota) * u128::from(new.1)
}

fn number<T: std::str::FromStr>(directory: &Directory, file: &str) -> Result<Option<T>, Error> {
    Ok(directory.read_if_there(file)?.and_then(|content| content.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    fn check(old: &[(&str, &str)], limits: Limits, expected: &[&str]) {
        let (_root, directory) = directory_of(old);
        let writes: Vec<String> = plan(&limits, &directory).unwrap().iter().map(Write::to_string).collect();
        assert_eq!(writes, expected);
    }

    #[test]
    fn writes_what_is_given() {
        check(&[], Limits::default(), &[]);
        check(&[], Limits { cpu_shares: Some(512), ..Limits::default() }, &["cpu.shares=512"]);
        check(&[], Limits { cpu_quota: Some(-5), ..Limits::default() }, &["cpu.cfs_quota_us=-1"]);
        check(&[], Limits { cpu_period: Some(50_000), ..Limits::default() }, &["cpu.cfs_period_us=50000"]);
    }

    #[test]
    fn orders_quota_and_period() {
        let old = |quota, period| [(QUOTA, quota), (PERIOD, period)];
        let new =
            |quota, period| Limits { cpu_quota: Some(quota), cpu_period: Some(period), ..Limits::default() };
        // Half a processor, then half of one at a tenth of the period: quota first, or it would be five.
        check(
            &old("50000", "100000"),
            new(5_000, 10_000),
            &["cpu.cfs_quota_us=5000", "cpu.cfs_period_us=10000"],
        );
        check(
            &old("5000", "10000"),
            new(50_000, 100_000),
            &["cpu.cfs_period_us=100000", "cpu.cfs_quota_us=50000"],
        );
        check(
            &old("-1", "100000"),
            new(5_000, 10_000),
            &["cpu.cfs_period_us=10000", "cpu.cfs_quota_us=5000"],
        );
        check(&old("5000", "10000"), new(-1, 100_000), &["cpu.cfs_quota_us=-1", "cpu.cfs_period_us=100000"]);
    }

    #[test]
    fn orders_the_burst() {
        let limits =
            |quota, burst| Limits { cpu_quota: Some(quota), cpu_burst: Some(burst), ..Limits::default() };
        check(&[(BURST, "0")], limits(9000, 5000), &["cpu.cfs_quota_us=9000", "cpu.cfs_burst_us=5000"]);
        check(&[(BURST, "8000")], limits(2000, 1000), &["cpu.cfs_burst_us=1000", "cpu.cfs_quota_us=2000"]);
    }
}
