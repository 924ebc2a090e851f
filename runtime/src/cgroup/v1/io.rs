//! `blkio.weight` and `blkio.throttle.*`. Follows blkio-controller.rst.

use crate::cgroup::Limits;
use crate::cgroup::directory::{Directory, Write};

pub(in crate::cgroup) fn plan(limits: &Limits, directory: &Directory) -> Vec<Write> {
    let mut writes = Vec::new();
    if let Some(weight) = limits.io_weight {
        let file = if directory.has("blkio.bfq.weight") { "blkio.bfq.weight" } else { "blkio.weight" };
        writes.push(Write::new(file, weight.to_string()));
    }
    for limit in &limits.io_limits {
        let device = format!("{}:{}", limit.major, limit.minor);
        let files = [
            ("blkio.throttle.read_bps_device", limit.read_bps),
            ("blkio.throttle.write_bps_device", limit.write_bps),
            ("blkio.throttle.read_iops_device", limit.read_iops),
            ("blkio.throttle.write_iops_device", limit.write_iops),
        ];
        for (file, rate) in files {
            let Some(rate) = rate else { continue };
            let old = directory.read_if_there(file).ok().flatten();
            let old = old.as_deref().and_then(|old| old_rate(old, &device)).unwrap_or("0");
            writes.push(
                Write::new(file, format!("{device} {rate}")).undone_by(file, format!("{device} {old}")),
            );
        }
    }
    writes
}

fn old_rate<'a>(content: &'a str, device: &str) -> Option<&'a str> {
    content.lines().find_map(|line| line.strip_prefix(device)?.strip_prefix(' '))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::IoLimit;
    use crate::cgroup::fixture::directory_of;

    #[test]
    fn throttles_each_device() {
        let (_root, directory) = directory_of(&[("blkio.throttle.read_bps_device", "8:1 7\n8:0 5")]);
        let limit = IoLimit {
            major: 8,
            minor: 0,
            read_bps: Some(100),
            write_bps: None,
            read_iops: None,
            write_iops: Some(9),
        };
        let limits = Limits { io_weight: Some(300), io_limits: vec![limit], ..Limits::default() };
        let writes = plan(&limits, &directory);
        let expected = [
            "blkio.weight=300",
            "blkio.throttle.read_bps_device=8:0 100",
            "blkio.throttle.write_iops_device=8:0 9",
        ];
        assert_eq!(writes.iter().map(Write::to_string).collect::<Vec<_>>(), expected);
        assert_eq!(writes[1].undo.as_ref().unwrap().value, "8:0 5");
        assert_eq!(writes[2].undo.as_ref().unwrap().value, "8:0 0");
    }
}
