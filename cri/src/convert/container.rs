//! Containers: CreateContainer's configuration, filters, and how they are shown.

use image::Image;
use pod::config::{ContainerConfig, ContainerMetadata, Resources};
use pod::status::{ContainerFilter, ContainerState, ContainerStatus};

use super::{Invalid, field, mount, resources, security, signal};
use crate::wire::cri;

/// Parses what CreateContainer asks for, and the id of its pod. The request's copy of the pod's configuration is not
/// needed: the pod has it.
pub(crate) fn parse(request: cri::CreateContainerRequest) -> Result<(String, ContainerConfig), Invalid> {
    let pod = field::id("pod_sandbox_id", request.pod_sandbox_id)?;
    let config = field::required("config", request.config)?;
    refuse_unsupported(&config)?;
    let metadata = field::required("config.metadata", config.metadata)?;
    let image = field::required("config.image", config.image)?;
    let linux = config.linux.unwrap_or_default();
    let (mounts, image_volumes) = mount::parse_all("config.mounts", config.mounts)?;
    let config = ContainerConfig {
        metadata: ContainerMetadata {
            name: field::name("config.metadata.name", metadata.name)?,
            attempt: metadata.attempt,
        },
        user_specified_image: field::plain("config.image.user_specified_image", image.user_specified_image)?,
        image: image_name(image.image)?,
        command: c_strings("config.command", config.command)?,
        args: c_strings("config.args", config.args)?,
        working_dir: match config.working_dir.as_str() {
            "" => None,
            path => Some(field::absolute("config.working_dir", path)?.display().to_string()),
        },
        envs: config.envs.into_iter().enumerate().map(env).collect::<Result<_, _>>()?,
        mounts,
        image_volumes,
        devices: mount::parse_devices("config.devices", config.devices)?,
        labels: field::map("config.labels", config.labels)?,
        annotations: field::map("config.annotations", config.annotations)?,
        log_path: match config.log_path.as_str() {
            "" => None,
            path => Some(field::relative("config.log_path", path)?),
        },
        stdin: config.stdin,
        stdin_once: config.stdin_once,
        tty: config.tty,
        resources: resources::parse("config.linux.resources", linux.resources)?,
        security: security::container("config.linux.security_context", linux.security_context)?,
        stop_signal: signal::parse("config.stop_signal", config.stop_signal)?,
    };
    Ok((pod, config))
}

fn refuse_unsupported(config: &cri::ContainerConfig) -> Result<(), Invalid> {
    if config.windows.is_some() {
        return Err(Invalid::new("config.windows", "this is Linux"));
    }
    if !config.cdi_devices.is_empty() {
        return Err(Invalid::new("config.CDI_devices", "CDI devices are not supported"));
    }
    Ok(())
}

/// A path in the place of an image asks to restore a checkpoint.
fn image_name(name: String) -> Result<String, Invalid> {
    const FIELD: &str = "config.image.image";
    if name.is_empty() {
        return Err(Invalid::new(FIELD, "missing"));
    }
    if name.starts_with('/') {
        return Err(Invalid::new(FIELD, "restoring checkpoints is not supported: name an image"));
    }
    super::image::name(FIELD, name)
}

fn c_strings(at: &str, texts: Vec<String>) -> Result<Vec<String>, Invalid> {
    let parse = |(index, text)| field::c_string(format_args!("{at}[{index}]"), text);
    texts.into_iter().enumerate().map(parse).collect()
}

fn env((index, variable): (usize, cri::KeyValue)) -> Result<(String, String), Invalid> {
    let at = format!("config.envs[{index}]");
    let name = field::plain(format_args!("{at}.key"), variable.key)?;
    if name.is_empty() || name.contains('=') {
        return Err(Invalid::new(
            format_args!("{at}.key"),
            format!("{name:?} is not the name of a variable"),
        ));
    }
    // The OCI spec is JSON, which has no other text.
    let value = String::from_utf8(variable.value)
        .map_err(|_| Invalid::new(format_args!("{at}.value"), format!("the value of {name} is not UTF-8")))?;
    Ok((name, field::c_string(format_args!("{at}.value"), value)?))
}

/// Parses what UpdateContainerResources asks for.
pub(crate) fn parse_update(
    request: cri::UpdateContainerResourcesRequest,
) -> Result<(String, Resources), Invalid> {
    let id = field::id("container_id", request.container_id)?;
    if request.windows.is_some() {
        return Err(Invalid::new("windows", "this is Linux"));
    }
    let linux = field::required("linux", request.linux)?;
    Ok((id, resources::parse("linux", Some(linux))?))
}

/// Parses ExecSync's command.
pub(crate) fn parse_command(command: Vec<String>) -> Result<Vec<String>, Invalid> {
    if command.is_empty() {
        return Err(Invalid::new("cmd", "missing"));
    }
    c_strings("cmd", command)
}

/// Parses ListContainers' filter; one that is not there lets everything through.
pub(crate) fn filter(filter: Option<cri::ContainerFilter>) -> Result<ContainerFilter, Invalid> {
    let filter = filter.unwrap_or_default();
    let state = |value: cri::ContainerStateValue| match field::one_of("filter.state", value.state)? {
        cri::ContainerState::ContainerCreated => Ok(ContainerState::Created),
        cri::ContainerState::ContainerRunning => Ok(ContainerState::Running),
        cri::ContainerState::ContainerExited => Ok(ContainerState::Exited),
        cri::ContainerState::ContainerUnknown => Ok(ContainerState::Unknown),
    };
    Ok(ContainerFilter {
        id: field::id_filter("filter.id", filter.id)?,
        pod_id: field::id_filter("filter.pod_sandbox_id", filter.pod_sandbox_id)?,
        state: filter.state.map(state).transpose()?,
        labels: filter.label_selector,
    })
}

/// Parses ListContainerStats' filter; one that is not there lets everything through.
pub(crate) fn stats_filter(filter: Option<cri::ContainerStatsFilter>) -> Result<ContainerFilter, Invalid> {
    let filter = filter.unwrap_or_default();
    Ok(ContainerFilter {
        id: field::id_filter("filter.id", filter.id)?,
        pod_id: field::id_filter("filter.pod_sandbox_id", filter.pod_sandbox_id)?,
        state: None,
        labels: filter.label_selector,
    })
}

/// A container as ContainerStatus shows it; the image, if it is still there, has a name by digest for it.
pub(crate) fn status(container: &ContainerStatus, image: Option<&Image>) -> cri::ContainerStatus {
    let config = &container.config;
    let by_digest = image.and_then(|image| image.repo_digests.first());
    let user = cri::LinuxContainerUser {
        uid: container.user.uid.into(),
        gid: container.user.gid.into(),
        supplemental_groups: container.user.supplemental_groups.iter().map(|group| (*group).into()).collect(),
    };
    cri::ContainerStatus {
        id: container.id.clone(),
        metadata: Some(show_metadata(&config.metadata)),
        state: state(container.state).into(),
        created_at: container.created_at_ns,
        started_at: container.started_at_ns,
        finished_at: container.finished_at_ns,
        exit_code: container.exit_code,
        image: Some(image_spec(config)),
        image_ref: by_digest.unwrap_or(&container.image_id).clone(),
        reason: container.reason.clone(),
        message: container.message.clone(),
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        mounts: mounts(container),
        log_path: container.log_path.as_deref().map(|path| path.display().to_string()).unwrap_or_default(),
        resources: Some(cri::ContainerResources {
            linux: Some(resources::report(&container.resources)),
            windows: None,
        }),
        image_id: container.image_id.clone(),
        user: Some(cri::ContainerUser { linux: Some(user) }),
        stop_signal: signal::number(&container.stop_signal).into(),
    }
}

/// A container as ListContainers shows it.
pub(crate) fn listed(container: &ContainerStatus) -> cri::Container {
    let config = &container.config;
    cri::Container {
        id: container.id.clone(),
        pod_sandbox_id: container.pod_id.clone(),
        metadata: Some(show_metadata(&config.metadata)),
        image: Some(image_spec(config)),
        // The kubelet's garbage collection takes it for the image in use, so it must be the id.
        image_ref: container.image_id.clone(),
        state: state(container.state).into(),
        created_at: container.created_at_ns,
        labels: config.labels.clone(),
        annotations: config.annotations.clone(),
        image_id: container.image_id.clone(),
    }
}

fn mounts(container: &ContainerStatus) -> Vec<cri::Mount> {
    let binds = container.config.mounts.iter().map(mount::report);
    let images = container.config.image_volumes.iter().zip(&container.volume_images);
    binds.chain(images.map(|(volume, id)| mount::report_image(volume, id))).collect()
}

/// The name that people know the image by; the id is told elsewhere.
fn image_spec(config: &ContainerConfig) -> cri::ImageSpec {
    let user_specified = &config.user_specified_image;
    let image = if user_specified.is_empty() { &config.image } else { user_specified };
    cri::ImageSpec {
        image: image.clone(),
        user_specified_image: user_specified.clone(),
        ..Default::default()
    }
}

pub(super) fn show_metadata(metadata: &ContainerMetadata) -> cri::ContainerMetadata {
    cri::ContainerMetadata { name: metadata.name.clone(), attempt: metadata.attempt }
}

fn state(state: ContainerState) -> cri::ContainerState {
    match state {
        ContainerState::Created => cri::ContainerState::ContainerCreated,
        ContainerState::Running => cri::ContainerState::ContainerRunning,
        ContainerState::Exited => cri::ContainerState::ContainerExited,
        ContainerState::Unknown => cri::ContainerState::ContainerUnknown,
    }
}

#[cfg(test)]
mod tests;
