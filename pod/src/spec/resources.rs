//! The limits of a container, from the CRI's form to the OCI's.

use std::collections::HashMap;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxCpuBuilder, LinuxHugepageLimitBuilder, LinuxMemoryBuilder, LinuxResources, LinuxResourcesBuilder,
    Spec,
};

use super::{Inputs, devices};
use crate::config::Resources;

pub(crate) fn for_container(inputs: &Inputs<'_>) -> Result<LinuxResources, OciSpecError> {
    let mut resources = linux_resources(&inputs.container.resources)?;
    let rules = devices::rules(inputs.devices, inputs.container.security.privileged)?;
    resources.set_devices(Some(rules));
    Ok(resources)
}

/// Replaces the limits in a spec; the device rules stay.
pub(crate) fn set_limits(spec: &mut Spec, limits: &Resources) -> Result<(), OciSpecError> {
    let mut resources = linux_resources(limits)?;
    if let Some(linux) = spec.linux_mut() {
        let devices = linux.resources().as_ref().and_then(|resources| resources.devices().clone());
        resources.set_devices(devices);
        linux.set_resources(Some(resources));
    }
    if let Some(process) = spec.process_mut() {
        process.set_oom_score_adj(Some(limits.oom_score_adj));
    }
    Ok(())
}

/// The limits alone, as at an update: what is not given is left alone.
pub(crate) fn linux_resources(wanted: &Resources) -> Result<LinuxResources, OciSpecError> {
    let mut cpu = LinuxCpuBuilder::default();
    if let Some(period) = wanted.cpu_period {
        cpu = cpu.period(period);
    }
    if let Some(quota) = wanted.cpu_quota {
        cpu = cpu.quota(quota);
    }
    if let Some(shares) = wanted.cpu_shares {
        cpu = cpu.shares(shares);
    }
    if let Some(cpus) = &wanted.cpuset_cpus {
        cpu = cpu.cpus(cpus.clone());
    }
    if let Some(mems) = &wanted.cpuset_mems {
        cpu = cpu.mems(mems.clone());
    }
    let mut memory = LinuxMemoryBuilder::default();
    if let Some(limit) = wanted.memory_limit_bytes {
        memory = memory.limit(limit);
    }
    if let Some(swap) = wanted.memory_swap_limit_bytes {
        memory = memory.swap(swap);
    }
    let hugepages = wanted.hugepage_limits.iter().map(|(size, limit)| {
        let limit = i64::try_from(*limit).unwrap_or(i64::MAX);
        LinuxHugepageLimitBuilder::default().page_size(size.clone()).limit(limit).build()
    });
    let unified: HashMap<_, _> = wanted.unified.clone().into_iter().collect();
    LinuxResourcesBuilder::default()
        .cpu(cpu.build()?)
        .memory(memory.build()?)
        .hugepage_limits(hugepages.collect::<Result<Vec<_>, _>>()?)
        .unified(unified)
        .build()
}
