//! The process of a container: arguments, environment, directory, identity, limits.

use std::path::PathBuf;

use oci_spec::OciSpecError;
use oci_spec::runtime::{
    LinuxCapabilitiesBuilder, PosixRlimit, PosixRlimitBuilder, PosixRlimitType, Process, ProcessBuilder,
    UserBuilder,
};

use super::security::Sets;
use super::{HostFacts, Inputs};
use crate::error::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The command: the container's words over the image's, as `docker run` combines them.
///
/// A command replaces the image's entry point and drops the image's arguments; arguments alone
/// replace only the image's arguments.
pub(crate) fn args(inputs: &Inputs<'_>) -> Result<Vec<String>> {
    let (container, image) = (inputs.container, inputs.image);
    let (command, args) = match (container.command.is_empty(), container.args.is_empty()) {
        (false, _) => (&container.command, &container.args),
        (true, false) => (&image.entrypoint, &container.args),
        (true, true) => (&image.entrypoint, &image.cmd),
    };
    let all: Vec<String> = command.iter().chain(args).cloned().collect();
    if all.is_empty() {
        let reason = "neither the container nor its image names a command: give one";
        return Err(Error::invalid("config.command", reason));
    }
    Ok(all)
}

pub(crate) fn build(inputs: &Inputs<'_>, args: Vec<String>, sets: Sets) -> Result<Process, OciSpecError> {
    let (container, user) = (inputs.container, inputs.user);
    let user = UserBuilder::default()
        .uid(user.uid)
        .gid(user.gid)
        .additional_gids(user.supplemental_groups.clone())
        .build()?;
    let capabilities = LinuxCapabilitiesBuilder::default()
        .bounding(sets.bounding.clone())
        .effective(sets.bounding.clone())
        .permitted(sets.bounding)
        .inheritable(sets.ambient.clone())
        .ambient(sets.ambient)
        .build()?;
    let mut process = ProcessBuilder::default()
        .terminal(container.tty)
        .user(user)
        .args(args)
        .env(env(inputs))
        .cwd(cwd(inputs))
        .capabilities(capabilities)
        .rlimits(rlimits(inputs.host)?)
        .no_new_privileges(container.security.no_new_privs)
        .oom_score_adj(container.resources.oom_score_adj);
    if let Some(profile) = &inputs.confinement.apparmor {
        process = process.apparmor_profile(profile.clone());
    }
    if let Some(label) = inputs.confinement.selinux.as_ref().and_then(|labels| labels.process.as_ref()) {
        process = process.selinux_label(label.clone());
    }
    process.build()
}

/// Later ones win: defaults, the image's, the container's.
fn env(inputs: &Inputs<'_>) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    let mut set = |entry: String| {
        let name = entry.split('=').next().unwrap_or_default().to_owned() + "=";
        match env.iter_mut().find(|known| known.starts_with(&name)) {
            Some(known) => *known = entry,
            None => env.push(entry),
        }
    };
    set(DEFAULT_PATH.to_owned());
    set(format!("HOSTNAME={}", inputs.hostname));
    if inputs.container.tty {
        set("TERM=xterm".to_owned());
    }
    inputs.image.env.iter().filter(|entry| entry.contains('=')).cloned().for_each(&mut set);
    inputs.container.envs.iter().map(|(name, value)| format!("{name}={value}")).for_each(&mut set);
    if !env.iter().any(|entry| entry.starts_with("HOME=")) {
        env.push(format!("HOME={}", inputs.home));
    }
    env
}

fn cwd(inputs: &Inputs<'_>) -> PathBuf {
    let image = Some(inputs.image.working_dir.clone()).filter(|dir| !dir.is_empty());
    PathBuf::from(inputs.container.working_dir.clone().or(image).unwrap_or_else(|| "/".to_owned()))
}

fn rlimits(host: &HostFacts) -> Result<Vec<PosixRlimit>, OciSpecError> {
    host.rlimits
        .iter()
        .map(|(name, soft, hard)| {
            let kind: PosixRlimitType = serde_json::from_value(serde_json::Value::from(name.as_str()))
                .map_err(|error| OciSpecError::Other(error.to_string()))?;
            PosixRlimitBuilder::default().typ(kind).soft(*soft).hard(*hard).build()
        })
        .collect()
}
