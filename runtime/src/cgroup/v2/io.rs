//! `io.weight` and `io.max`.

use crate::cgroup::directory::{Directory, Write};
use crate::cgroup::{Error, IoLimit, Limits};

const MAX: &str = "io.max";
const WEIGHT: &str = "io.weight";
/// The weight of the BFQ scheduler, which keeps v1's range.
const BFQ_WEIGHT: &str = "io.bfq.weight";

pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Result<Vec<Write>, Error> {
    let mut writes = Vec::new();
    if let Some(weight) = limits.io_weight {
        if directory.has(BFQ_WEIGHT) {
            writes.push(Write::new(BFQ_WEIGHT, weight.to_string()));
        }
        if directory.has(WEIGHT) || writes.is_empty() {
            // 10 to 1000 becomes 1 to 10000.
            let converted = 1 + u32::from(weight.clamp(10, 1000) - 10) * 9999 / 990;
            writes.push(Write::new(WEIGHT, converted.to_string()));
        }
    }
    if !limits.io_limits.is_empty() {
        let old = directory.read_if_there(MAX)?.unwrap_or_default();
        for limit in &limits.io_limits {
            let device = format!("{}:{}", limit.major, limit.minor);
            let old = old.lines().find(|line| line.split(' ').next() == Some(device.as_str()));
            let old =
                old.map_or_else(|| format!("{device} rbps=max wbps=max riops=max wiops=max"), str::to_owned);
            writes.push(Write::new(MAX, line(&device, limit)).undone_by(MAX, old));
        }
    }
    Ok(writes)
}

fn line(device: &str, limit: &IoLimit) -> String {
    let rates = [
        ("rbps", limit.read_bps),
        ("wbps", limit.write_bps),
        ("riops", limit.read_iops),
        ("wiops", limit.write_iops),
    ];
    let mut line = device.to_owned();
    for (name, rate) in rates {
        match rate {
            // v1 and the OCI spec say 0 for no limit.
            Some(0) => line.push_str(&format!(" {name}=max")),
            Some(rate) => line.push_str(&format!(" {name}={rate}")),
            None => {}
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::fixture::directory_of;

    fn limit(minor: u32, read_bps: Option<u64>, write_iops: Option<u64>) -> IoLimit {
        IoLimit { major: 8, minor, read_bps, write_bps: None, read_iops: None, write_iops }
    }

    #[test]
    fn one_line_a_device() {
        let (_root, directory) = directory_of(&[(MAX, "8:16 rbps=2 wbps=max riops=max wiops=120\n")]);
        let io_limits = vec![limit(16, Some(100), None), limit(0, Some(0), Some(9))];
        let writes = plan(&Limits { io_limits, ..Limits::default() }, &directory).unwrap();
        let texts: Vec<String> = writes.iter().map(Write::to_string).collect();
        assert_eq!(texts, ["io.max=8:16 rbps=100", "io.max=8:0 rbps=max wiops=9"]);
        let undo = |at: usize| writes[at].undo.as_ref().unwrap().value.as_str();
        assert_eq!(undo(0), "8:16 rbps=2 wbps=max riops=max wiops=120");
        assert_eq!(undo(1), "8:0 rbps=max wbps=max riops=max wiops=max");
    }

    #[test]
    fn converts_the_weight() {
        let weights = |old: &[(&str, &str)], weight| {
            let (_root, directory) = directory_of(old);
            let limits = Limits { io_weight: Some(weight), ..Limits::default() };
            plan(&limits, &directory).unwrap().iter().map(Write::to_string).collect::<Vec<_>>()
        };
        assert_eq!(weights(&[], 10), ["io.weight=1"]);
        assert_eq!(weights(&[], 1000), ["io.weight=10000"]);
        assert_eq!(weights(&[(BFQ_WEIGHT, "")], 500), ["io.bfq.weight=500"]);
        assert_eq!(weights(&[(BFQ_WEIGHT, ""), (WEIGHT, "")], 10), ["io.bfq.weight=10", "io.weight=1"]);
    }
}
