//! What a container's process may do: capabilities(7).

use std::collections::HashSet;

use oci_spec::runtime::{Capabilities, Capability};

use super::Inputs;
use crate::error::{Error, Result};

/// containerd's default set, which images are written for.
const DEFAULT: [Capability; 14] = [
    Capability::AuditWrite,
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Mknod,
    Capability::NetBindService,
    Capability::NetRaw,
    Capability::Setfcap,
    Capability::Setgid,
    Capability::Setpcap,
    Capability::Setuid,
    Capability::SysChroot,
];

/// The sets that matter; permitted and effective equal bounding, inheritable equals ambient.
#[derive(Debug)]
pub(crate) struct Sets {
    pub bounding: Capabilities,
    pub ambient: Capabilities,
}

/// The container's sets: the default ones, changed as asked, or all that the daemon has.
pub(crate) fn capabilities(inputs: &Inputs<'_>) -> Result<Sets> {
    let wanted = &inputs.container.security.capabilities;
    let all = host_set(inputs)?;
    if inputs.container.security.privileged {
        return Ok(Sets { bounding: all, ambient: HashSet::new() });
    }
    let mut bounding: Capabilities = if has_all(&wanted.add) {
        all.clone()
    } else if has_all(&wanted.drop) {
        HashSet::new()
    } else {
        DEFAULT.into()
    };
    let ambient: Capabilities = parse_all("add_ambient_capabilities", &wanted.add_ambient, &all)?;
    bounding.extend(parse_all("add_capabilities", &wanted.add, &all)?);
    bounding.extend(&ambient);
    for dropped in parse_all("drop_capabilities", &wanted.drop, &HashSet::new())? {
        bounding.remove(&dropped);
    }
    let ambient = ambient.intersection(&bounding).copied().collect();
    Ok(Sets { bounding, ambient })
}

fn host_set(inputs: &Inputs<'_>) -> Result<Capabilities> {
    inputs.host.capabilities.iter().map(|name| parse("capabilities of the daemon", name)).collect()
}

fn has_all(names: &[String]) -> bool {
    names.iter().any(|name| name.eq_ignore_ascii_case("ALL"))
}

/// `ALL` stands for `all`; which is none where it has been seen to already.
fn parse_all(field: &'static str, names: &[String], all: &Capabilities) -> Result<Capabilities> {
    let mut set = HashSet::new();
    for name in names {
        if name.eq_ignore_ascii_case("ALL") {
            set.extend(all);
        } else {
            set.insert(parse(field, name)?);
        }
    }
    Ok(set)
}

fn parse(field: &'static str, name: &str) -> Result<Capability> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    bare.parse()
        .map_err(|_| Error::invalid(field, format!("{name:?} is not a capability: see capabilities(7)")))
}
