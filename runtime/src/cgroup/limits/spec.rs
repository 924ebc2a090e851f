//! The OCI spec's `linux.resources`. Follows config-linux.md of the runtime spec.

use std::collections::BTreeMap;

use oci_spec::runtime::{
    LinuxBlockIo, LinuxCpu, LinuxDeviceCgroup, LinuxDeviceType, LinuxMemory, LinuxResources,
    LinuxThrottleDevice,
};

use super::{DeviceAccess, DeviceKind, DeviceRule, HugepageLimit, IoLimit, Limits};
use crate::cgroup::Error;

impl Limits {
    /// Reads the OCI form; what cannot be honoured is refused by name.
    ///
    /// Where device rules are given, the devices that every container has are allowed after them.
    pub fn from_spec(spec: &LinuxResources) -> Result<Self, Error> {
        if spec.network().is_some() {
            return Err(Error::Unsupported { limit: "network" });
        }
        if spec.rdma().as_ref().is_some_and(|rdma| !rdma.is_empty()) {
            return Err(Error::Unsupported { limit: "rdma" });
        }
        let mut limits = Self::default();
        if let Some(cpu) = spec.cpu() {
            limits.take_cpu(cpu)?;
        }
        if let Some(memory) = spec.memory() {
            limits.take_memory(memory)?;
        }
        if let Some(io) = spec.block_io() {
            limits.take_io(io)?;
        }
        limits.pids = spec.pids().map(|pids| pids.limit());
        for page in spec.hugepage_limits().iter().flatten() {
            limits.hugepages.push(hugepage(page.page_size(), page.limit())?);
        }
        limits.unified = spec.unified().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        if let Some(rules) = spec.devices() {
            let mut rules = rules.iter().map(device).collect::<Result<Vec<_>, _>>()?;
            rules.extend(DeviceRule::defaults());
            limits.devices = Some(rules);
        }
        Ok(limits)
    }

    fn take_cpu(&mut self, cpu: &LinuxCpu) -> Result<(), Error> {
        let refused = [
            (cpu.idle().is_some_and(|idle| idle != 0), "cpu.idle"),
            (cpu.realtime_runtime().is_some_and(|runtime| runtime != 0), "cpu.realtimeRuntime"),
            (cpu.realtime_period().is_some_and(|period| period != 0), "cpu.realtimePeriod"),
        ];
        refuse(&refused)?;
        // 0 is how callers without optional fields say nothing.
        self.cpu_shares = cpu.shares().filter(|shares| *shares != 0);
        self.cpu_quota = cpu.quota().filter(|quota| *quota != 0);
        self.cpu_period = cpu.period().filter(|period| *period != 0);
        self.cpu_burst = cpu.burst();
        self.cpuset_cpus = set("cpu.cpus", cpu.cpus().as_deref())?;
        self.cpuset_mems = set("cpu.mems", cpu.mems().as_deref())?;
        Ok(())
    }

    fn take_memory(&mut self, memory: &LinuxMemory) -> Result<(), Error> {
        // A limit of kernel memory is deprecated in the kernel, which ignores it, as every runtime does.
        let refused = [
            (memory.kernel_tcp().is_some_and(|limit| limit > 0), "memory.kernelTCP"),
            (memory.swappiness().is_some(), "memory.swappiness"),
            (memory.disable_oom_killer() == Some(true), "memory.disableOOMKiller"),
        ];
        refuse(&refused)?;
        self.memory_limit = memory.limit().filter(|limit| *limit != 0);
        self.memory_swap = memory.swap().filter(|limit| *limit != 0);
        self.memory_reservation = memory.reservation().filter(|limit| *limit != 0);
        Ok(())
    }

    fn take_io(&mut self, io: &LinuxBlockIo) -> Result<(), Error> {
        let refused = [
            (io.leaf_weight().is_some_and(|weight| weight != 0), "blockIO.leafWeight"),
            (io.weight_device().as_ref().is_some_and(|devices| !devices.is_empty()), "blockIO.weightDevice"),
        ];
        refuse(&refused)?;
        self.io_weight = io.weight().filter(|weight| *weight != 0);
        let mut limits: BTreeMap<(u32, u32), IoLimit> = BTreeMap::new();
        let mut each = |devices: &Option<Vec<LinuxThrottleDevice>>,
                        field: fn(&mut IoLimit) -> &mut Option<u64>| {
            for device in devices.iter().flatten() {
                let major = number("blockIO.throttle", device.major())?;
                let minor = number("blockIO.throttle", device.minor())?;
                let none = IoLimit {
                    major,
                    minor,
                    read_bps: None,
                    write_bps: None,
                    read_iops: None,
                    write_iops: None,
                };
                *field(limits.entry((major, minor)).or_insert(none)) = Some(device.rate());
            }
            Ok(())
        };
        each(io.throttle_read_bps_device(), |limit| &mut limit.read_bps)?;
        each(io.throttle_write_bps_device(), |limit| &mut limit.write_bps)?;
        each(io.throttle_read_iops_device(), |limit| &mut limit.read_iops)?;
        each(io.throttle_write_iops_device(), |limit| &mut limit.write_iops)?;
        self.io_limits = limits.into_values().collect();
        Ok(())
    }
}

fn refuse(fields: &[(bool, &'static str)]) -> Result<(), Error> {
    match fields.iter().find(|(is_set, _)| *is_set) {
        Some((_, limit)) => Err(Error::Unsupported { limit }),
        None => Ok(()),
    }
}

/// A list of numbers and ranges as cpuset(7) has it; an empty one says nothing.
fn set(limit: &str, list: Option<&str>) -> Result<Option<String>, Error> {
    let Some(list) = list.map(str::trim).filter(|list| !list.is_empty()) else { return Ok(None) };
    if list.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b',' | b'-' | b':' | b'/')) {
        return Ok(Some(list.to_owned()));
    }
    let reason = "it is not a list such as \"0-3,8\"";
    Err(Error::InvalidLimit { limit: limit.to_owned(), value: list.to_owned(), reason })
}

fn hugepage(size: &str, limit: i64) -> Result<HugepageLimit, Error> {
    let refuse =
        |value: String, reason| Error::InvalidLimit { limit: "hugepageLimits".to_owned(), value, reason };
    let digits = ["KB", "MB", "GB"].into_iter().find_map(|unit| size.strip_suffix(unit));
    if !digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())) {
        return Err(refuse(size.to_owned(), "it is not a page size such as \"2MB\""));
    }
    let limit =
        u64::try_from(limit).map_err(|_| refuse(format!("{size}={limit}"), "the limit is negative"))?;
    Ok(HugepageLimit { size: size.to_owned(), limit })
}

fn device(rule: &LinuxDeviceCgroup) -> Result<DeviceRule, Error> {
    let refuse =
        |reason| Error::InvalidLimit { limit: "devices".to_owned(), value: rule.to_string(), reason };
    let kind = match rule.typ() {
        None | Some(LinuxDeviceType::A) => DeviceKind::All,
        Some(LinuxDeviceType::B) => DeviceKind::Block,
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => DeviceKind::Char,
        Some(LinuxDeviceType::P) => return Err(refuse("a FIFO is no device")),
    };
    // -1 is how some callers say every one.
    let number = |number: Option<i64>| match number {
        None | Some(-1) => Ok(None),
        Some(number) => u32::try_from(number).map(Some).map_err(|_| refuse("a number is out of range")),
    };
    let access = match rule.access().as_deref() {
        None | Some("") => DeviceAccess::ALL,
        Some(letters) => {
            DeviceAccess::parse(letters).ok_or_else(|| refuse("the access is not of r, w and m"))?
        }
    };
    let (major, minor) = (number(rule.major())?, number(rule.minor())?);
    Ok(DeviceRule { allow: rule.allow(), kind, major, minor, access })
}

fn number(limit: &str, number: i64) -> Result<u32, Error> {
    let reason = "a device number is out of range";
    u32::try_from(number).map_err(|_| Error::InvalidLimit {
        limit: limit.to_owned(),
        value: number.to_string(),
        reason,
    })
}

#[cfg(test)]
mod tests;
