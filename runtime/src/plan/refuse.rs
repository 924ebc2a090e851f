//! Fields of the spec that the stages cannot honour, refused by their names.

use oci_spec::runtime::{Hooks, Linux, Process, Spec};

use super::Error;

/// Refuses what a container's spec has outside of its process.
pub(super) fn spec(spec: &Spec) -> Result<(), Error> {
    first(&[
        ("hooks", spec.hooks().as_ref().is_some_and(some_hook)),
        ("solaris", spec.solaris().is_some()),
        ("vm", spec.vm().is_some()),
        ("windows", spec.windows().is_some()),
        ("zos", spec.zos().is_some()),
    ])?;
    spec.linux().as_ref().map_or(Ok(()), linux)
}

/// Refuses what a process asks for.
pub(super) fn process(process: &Process) -> Result<(), Error> {
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    first(&[
        ("process.commandLine", given(process.command_line())),
        ("process.execCPUAffinity", process.exec_cpu_affinity().is_some()),
        ("process.ioPriority", process.io_priority().is_some()),
        ("process.scheduler", process.scheduler().is_some()),
    ])
}

fn linux(linux: &Linux) -> Result<(), Error> {
    first(&[
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.memoryPolicy", linux.memory_policy().is_some()),
        ("linux.netDevices", linux.net_devices().as_ref().is_some_and(|devices| !devices.is_empty())),
        ("linux.personality", linux.personality().is_some()),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|offsets| !offsets.is_empty())),
    ])
}

fn some_hook(hooks: &Hooks) -> bool {
    #[allow(deprecated, reason = "specs of older releases still name prestart hooks")]
    let prestart = hooks.prestart();
    let lists = [
        prestart,
        hooks.create_runtime(),
        hooks.create_container(),
        hooks.start_container(),
        hooks.poststart(),
        hooks.poststop(),
    ];
    lists.into_iter().flatten().any(|hooks| !hooks.is_empty())
}

fn first(fields: &[(&str, bool)]) -> Result<(), Error> {
    match fields.iter().find(|(_, given)| *given) {
        Some((name, _)) => Err(Error::Unsupported((*name).to_owned())),
        None => Ok(()),
    }
}
