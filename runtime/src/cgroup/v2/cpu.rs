//! `cpu.weight` and `cpu.max`.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, Limits};

const WEIGHT: &str = "cpu.weight";
const MAX: &str = "cpu.max";
const BURST: &str = "cpu.max.burst";

/// The kernel's own period, in microseconds.
const DEFAULT_PERIOD: u64 = 100_000;

/// The writes in an order that the kernel takes, whatever is set now.
pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    writes.extend(limits.cpu_shares.map(|shares| Write::new(WEIGHT, weight(shares).to_string())));
    if limits.cpu_quota.is_some() || limits.cpu_period.is_some() {
        let (old_quota, old_period) = match directory.read_if_there(MAX)? {
            Some(content) => parse(&content),
            None => (None, DEFAULT_PERIOD),
        };
        let quota = limits.cpu_quota.map_or(old_quota, |quota| u64::try_from(quota).ok());
        let period = limits.cpu_period.unwrap_or(old_period);
        let quota = quota.map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        writes.push(Write::new(MAX, format!("{quota} {period}")));
    }
    if let Some(burst) = limits.cpu_burst {
        // A burst may not exceed the quota: it shrinks before the quota does and grows after it.
        let old = directory.read_if_there(BURST)?.and_then(|old| old.parse().ok()).unwrap_or(0);
        let at = if burst < old { 0 } else { writes.len() };
        writes.insert(at, Write::new(BURST, burst.to_string()));
    }
    Ok(writes)
}

/// `cpu.max`: quota, none for `max`, and period.
fn parse(content: &str) -> (Option<u64>, u64) {
    let mut fields = content.split_ascii_whitespace();
    let quota = fields.next().and_then(|quota| quota.parse().ok());
    let period = fields.next().and_then(|period| period.parse().ok()).unwrap_or(DEFAULT_PERIOD);
    (quota, period)
}

/// v1's shares (2 to 262144, 1024 by default) as v2's weight (1 to 10000, 100 by default).
///
/// The quadratic in the logarithm that runc since 1.3.2 and crun since 1.23 use; it meets all three points.
pub(in crate::cgroup) fn weight(shares: u64) -> u64 {
    const SHARES_MIN: u64 = 2;
    const SHARES_MAX: u64 = 1 << 18;
    if shares <= SHARES_MIN {
        return 1;
    }
    if shares >= SHARES_MAX {
        return 10_000;
    }
    #[allow(clippy::cast_precision_loss, reason = "below 2^18")]
    let log = (shares as f64).log2();
    let exponent = (log * log + 125.0 * log) / 612.0 - 7.0 / 34.0;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and 10000")]
    let weight = 10_f64.powf(exponent).ceil() as u64;
    weight.clamp(1, 10_000)
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
    fn converts_shares() {
        let pairs = [(0, 1), (2, 1), (3, 2), (1024, 100), (2000, 170), (102_400, 4429), (262_144, 10_000)];
        for (shares, expected) in pairs {
            let got = weight(shares);
            assert_eq!(got, expected, "{shares}");
        }
        assert_eq!(weight(u64::MAX), 10_000);
        assert!((2..262_144).all(|shares| weight(shares) <= weight(shares + 1)));
    }

    #[test]
    fn keeps_what_is_not_given() {
        let max = |content| [(MAX, content)];
        let quota = |quota| Limits { cpu_quota: Some(quota), ..Limits::default() };
        let period = |period| Limits { cpu_period: Some(period), ..Limits::default() };
        check(&max("max 100000"), quota(50_000), &["cpu.max=50000 100000"]);
        check(&max("50000 20000"), quota(-1), &["cpu.max=max 20000"]);
        check(&max("50000 20000"), period(40_000), &["cpu.max=50000 40000"]);
        check(&[], period(40_000), &["cpu.max=max 40000"]);
        check(&[], Limits { cpu_shares: Some(1024), ..Limits::default() }, &["cpu.weight=100"]);
        check(&[], Limits::default(), &[]);
    }

    #[test]
    fn orders_the_burst() {
        let limits =
            |quota, burst| Limits { cpu_quota: Some(quota), cpu_burst: Some(burst), ..Limits::default() };
        check(&[(BURST, "0")], limits(9000, 5000), &["cpu.max=9000 100000", "cpu.max.burst=5000"]);
        check(&[(BURST, "8000")], limits(2000, 1000), &["cpu.max.burst=1000", "cpu.max=2000 100000"]);
    }
}
