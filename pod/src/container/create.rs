//! CreateContainer: image, identity, spec, cgroup and log; then the init stage is cloned and waits.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use image::{Image, ImageId, Lease};
use oci_spec::runtime::Spec;
use runtime::cgroup::Limits;
use runtime::{ContainerOrder, PidNamespace, Placeholder, Stdin, plan};

use super::bundle::Making;
use super::volumes::Volume;
use super::{Container, Template, parse_cgroup};
use crate::config::{ContainerConfig, IdMap, MountAccess, PidMode, Profile, Resources};
use crate::confinement::Confinement;
use crate::error::{Error, Result};
use crate::handler::External;
use crate::node::{Node, blocking, now_ns};
use crate::record::{ContainerPhase, ContainerRecord, PodPhase};
use crate::sandbox::Sandbox;
use crate::signal;
use crate::spec::user::{self, Databases, Resolved};
use crate::spec::{self, HostFacts, Inputs, devices, filter};
use crate::users;

/// `/etc/passwd` and `/etc/group` of an image are read up to this size.
const MAX_DATABASE_BYTES: u64 = 1 << 20;

/// A container's image, found and held.
struct Source {
    image: Arc<Image>,
    lease: Lease,
    resolved: Resolved,
    /// The images that are mounted as volumes.
    volumes: Vec<Volume>,
    confinement: Confinement,
}

impl Node {
    /// Prepares a container; its init waits for Start when this returns its id.
    pub(crate) async fn create_container(
        self: &Arc<Self>,
        pod: &str,
        config: ContainerConfig,
    ) -> Result<String> {
        let pod = self.table.pod(pod)?;
        let node = self.clone();
        let key = (pod.id.clone(), config.metadata.clone());
        self.creating_containers.run(key, || async move { node.create_once(pod, config).await }).await
    }

    async fn create_once(self: Arc<Self>, pod: Arc<Sandbox>, mut config: ContainerConfig) -> Result<String> {
        ready(&pod)?;
        let pid = &mut config.security.namespaces.pid;
        if *pid == PidMode::Pod && pod.config.security.namespaces.pid == PidMode::Container {
            // A pod that shares nothing has no namespace to share, and pause's is the node's.
            *pid = PidMode::Container;
        }
        if config.security.privileged && !pod.config.security.privileged {
            let reason = "the pod is not privileged: make it so, or the container not";
            return Err(Error::invalid("config.linux.security_context.privileged", reason));
        }
        let read_only = config.mounts.iter().find(|mount| mount.access == MountAccess::RecursiveReadOnly);
        if let Some(mount) = read_only
            && !self.runtime.host().mount_setattr
        {
            let reason = "the kernel lacks mount_setattr(2)";
            return Err(Error::RecursiveReadOnly { path: mount.container_path.clone(), reason });
        }
        users::check_container(&pod.config, &mut config)?;
        config.resources.take_swap_for_none(&Resources::default());
        let source = self.source(&pod, &config).await?;
        let container = Arc::new(self.new_container(&pod, config, &source)?);
        self.table.insert_container(container.clone())?;
        let gate = container.gate.lock().await;
        let prepared = self.prepare_container(&container, source).await;
        drop(gate);
        match prepared {
            Ok(()) => Ok(container.id.clone()),
            Err(error) => {
                if let Err(teardown) = self.remove_container_parts(&container).await {
                    tracing::warn!(
                        container = container.id,
                        error = crate::error::chain(&teardown),
                        "left over after a failed create"
                    );
                }
                Err(error)
            }
        }
    }

    /// Finds the image and who the container runs as in it.
    async fn source(&self, pod: &Sandbox, config: &ContainerConfig) -> Result<Source> {
        let name = &config.image;
        let image = self.images.find(name).ok_or_else(|| Error::ImageNotFound { name: name.clone() })?;
        if let Some(kind) = &image.artifact_type {
            let reason = format!("{name} is an artifact of type {kind:?}: it can be mounted, but not run");
            return Err(Error::invalid("config.image.image", reason));
        }
        let failed = |source| Error::Image { name: name.clone(), source: Arc::new(source) };
        let lease = self.images.lease(&image.id).map_err(failed)?;
        let databases = Databases {
            passwd: self.database(&image.id, "etc/passwd").await?,
            group: self.database(&image.id, "etc/group").await?,
        };
        let resolved = user::resolve(&config.security, &image.config.user, &databases)?;
        Ok(Source {
            image,
            lease,
            resolved,
            volumes: self.volumes(&config.image_volumes)?,
            confinement: self.confinement(pod, config).await?,
        })
    }

    async fn database(&self, image: &ImageId, path: &str) -> Result<String> {
        let bytes = self.images.read_file(image, path, MAX_DATABASE_BYTES).await;
        let bytes =
            bytes.map_err(|source| Error::Image { name: image.to_string(), source: Arc::new(source) })?;
        Ok(String::from_utf8_lossy(&bytes.unwrap_or_default()).into_owned())
    }

    fn new_container(
        &self,
        pod: &Arc<Sandbox>,
        config: ContainerConfig,
        source: &Source,
    ) -> Result<Container> {
        let id = crate::id::random()?;
        let (cgroups, parent) = (self.runtime.cgroups(), pod.config.cgroup_parent.as_deref());
        let is_moved_in = self.handlers.external(&pod.config.handler)?.is_some_and(External::moves_in);
        let cgroup = if is_moved_in { cgroups.place_below(parent, &id) } else { cgroups.place(parent, &id) };
        let cgroup =
            cgroup.map_err(|error| Error::invalid("linux.cgroup_parent", crate::error::chain(&error)))?;
        let stop_signal = config.stop_signal.as_ref().or(source.image.config.stop_signal.as_ref());
        let stop_signal = signal::name(stop_signal.map_or("SIGTERM", String::as_str))?;
        let config = Arc::new(config);
        let record = ContainerRecord {
            pod_id: pod.id.clone(),
            boot_id: self.boot_id.clone(),
            config: config.clone(),
            created_at_ns: now_ns(),
            started_at_ns: 0,
            phase: ContainerPhase::Creating,
            pid: 0,
            image_id: source.image.id.to_string(),
            volume_images: source.volumes.iter().map(|volume| volume.image.to_string()).collect(),
            user: source.resolved.user.clone(),
            resources: config.resources.clone(),
            stop_signal,
            log_path: log_path(pod, &config)?,
            cgroup: cgroup.to_string(),
            id,
        };
        Ok(Container::new(record, config, pod.clone()))
    }

    async fn prepare_container(self: &Arc<Self>, container: &Arc<Container>, source: Source) -> Result<()> {
        let monitor = container.pod.monitor().ok_or_else(|| not_ready(&container.pod))?;
        let (node, prepared) = (self.clone(), container.clone());
        let (pause_pid, pid_mode) = (monitor.pause_pid(), container.config.security.namespaces.pid.clone());
        let target_pid = match &pid_mode {
            PidMode::Target(id) => Some(self.target_pid(&container.pod, id)?),
            _ => None,
        };
        let failed = Error::runtime("create", "container", &container.id);
        // Until the container's own process is there.
        let placeholder = self.runtime.placeholder().await.map_err(failed)?;
        let placeholder_pid = placeholder.as_ref().map(Placeholder::pid);
        let neighbours = Neighbours { pause_pid, target_pid, placeholder_pid };
        let order = blocking(move || node.order(&prepared, source, neighbours)).await?;
        let pid =
            monitor.create(order).await.map_err(Error::runtime("create", "container", &container.id))?;
        drop(placeholder);
        let (node, created) = (self.clone(), container.clone());
        blocking(move || {
            created.update(&node.records, |record| {
                record.pid = pid;
                if record.phase == ContainerPhase::Creating {
                    record.phase = ContainerPhase::Created;
                }
            })
        })
        .await?;
        // Stop may have gone by while the container was hidden from it.
        ready(&container.pod)
    }

    fn target_pid(&self, pod: &Sandbox, id: &str) -> Result<i32> {
        let target = self.table.container(id)?;
        if target.pod.id != pod.id || target.phase() != ContainerPhase::Running {
            let reason = format!("{id} is not a running container of the same pod");
            return Err(Error::invalid("linux.security_context.namespace_options.target_id", reason));
        }
        Ok(target.pid())
    }

    /// Everything that the monitor needs; the steps that touch disks and cgroups.
    fn order(
        &self,
        container: &Arc<Container>,
        source: Source,
        neighbours: Neighbours,
    ) -> Result<ContainerOrder> {
        // The record first, so that whatever follows can be taken down after a crash.
        container.update(&self.records, |_| ())?;
        let placeholder = neighbours.placeholder_pid;
        let volumes = self.mount_volumes(container, &source.volumes)?;
        let spec = self.spec(container, &source, &Surroundings { neighbours, image_volumes: volumes })?;
        self.records.save_spec(&container.pod.id, &container.id, &spec)?;
        let rootfs = self.rootfs(container, &source.lease)?;
        let Making { executor, plan, filter } = self.making(container, &spec, &rootfs)?;
        let cgroup = self.make_cgroup(container, &spec, placeholder)?;
        let config = &container.config;
        let order = ContainerOrder {
            id: container.id.clone(),
            executor,
            plan,
            pid_namespace: match &config.security.namespaces.pid {
                PidMode::Container => PidNamespace::Own,
                PidMode::Node => PidNamespace::Host,
                PidMode::Pod => PidNamespace::Pod,
                PidMode::Target(id) => PidNamespace::Target(self.table.container(id)?.id.clone()),
            },
            cgroup,
            log: container.record().log_path.as_deref().map(open_log).transpose()?,
            log_line_bytes: self.settings().log_line_bytes,
            stdin: match (config.stdin, config.stdin_once) {
                (false, _) => Stdin::Closed,
                (true, false) => Stdin::Open,
                (true, true) => Stdin::Once,
            },
            tty: config.tty,
        };
        container.set_template(Template::new(spec, filter));
        container.set_leases(
            std::iter::once(source.lease)
                .chain(source.volumes.into_iter().map(|volume| volume.lease))
                .collect(),
        );
        Ok(order)
    }

    fn spec(&self, container: &Container, source: &Source, around: &Surroundings) -> Result<Spec> {
        let (pod, config) = (&container.pod, &container.config);
        let privileged = config.security.privileged;
        let hostname = fs::read_to_string(pod.dir.join("hostname")).unwrap_or_default();
        let settings = self.settings();
        let mut inputs = Inputs {
            id: &container.id,
            pod_id: &pod.id,
            pod: &pod.config,
            container: config,
            image: &source.image.config,
            user: &source.resolved.user,
            home: &source.resolved.home,
            hostname: hostname.trim(),
            pod_dir: &pod.dir,
            pause_pid: around.neighbours.pause_pid,
            target_pid: around.neighbours.target_pid,
            cgroup: &container.cgroup(),
            volumes: &self.container_dir(&container.id).join("volumes"),
            image_volumes: &around.image_volumes,
            devices: &devices::look_up(&config.devices, privileged)?,
            seccomp: None,
            confinement: &source.confinement,
            host: &HostFacts { rlimits: settings.limits(), ..self.host_facts.clone() },
        };
        if !privileged && config.security.seccomp != Profile::Unconfined {
            let names = spec::effective_capabilities(&inputs)?;
            inputs.seccomp = filter::profile(&config.security.seccomp, &names, &settings.seccomp_dir)?;
        }
        spec::build(&inputs)
    }

    /// The writable layer, and the layers below it.
    fn rootfs(&self, container: &Container, lease: &Lease) -> Result<plan::Rootfs> {
        let dir = self.container_dir(&container.id);
        for name in ["upper", "work", "volumes"] {
            let path = dir.join(name);
            let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
            made.map_err(Error::file("make directory", &path))?;
        }
        if let Some(top) = lease.lowers().first() {
            let (top, upper) = (lease.layers_dir().join(top), dir.join("upper"));
            like(&top, &upper, container.pod.config.security.namespaces.users)
                .map_err(Error::file("set mode and owner of", &upper))?;
        }
        container.layer.begin(&dir.join("upper"), &self.mountpoint);
        Ok(plan::Rootfs {
            layers: lease.layers_dir().to_owned(),
            lowers: lease.lowers().to_vec(),
            upper: dir.join("upper"),
            work: dir.join("work"),
        })
    }

    /// With systemd it begins with a process that holds its place.
    fn make_cgroup(
        &self,
        container: &Container,
        spec: &Spec,
        placeholder: Option<u32>,
    ) -> Result<runtime::cgroup::Handles> {
        let path = parse_cgroup(&container.cgroup())?;
        let resources = spec.linux().as_ref().and_then(|linux| linux.resources().clone()).unwrap_or_default();
        let failed = |operation| {
            move |source| Error::Cgroup { operation, id: container.id.clone(), source: Arc::new(source) }
        };
        let limits = Limits::from_spec(&resources).map_err(failed("understand the limits of"))?;
        // Within an enclosure the runtime keeps them: on the host there are only those who serve the container.
        let enclosed = container.pod.enclosure().is_some();
        let limits = if enclosed { Limits::default() } else { limits };
        let cgroups = self.runtime.cgroups();
        let cgroup = match placeholder {
            Some(pid) => cgroups.create_scope(&path, &limits, pid),
            None => cgroups.create(&path, &limits),
        };
        let cgroup = cgroup.map_err(failed("make"))?;
        cgroup.handles().map_err(failed("open"))
    }
}

/// The processes whose namespaces a container joins.
struct Neighbours {
    pause_pid: i32,
    target_pid: Option<i32>,
    /// What holds the container's cgroup until it is there itself.
    placeholder_pid: Option<u32>,
}

/// What a container is put among.
struct Surroundings {
    neighbours: Neighbours,
    /// Where the images are mounted that are volumes, in their order.
    image_volumes: Vec<PathBuf>,
}

/// The upper directory is what the container sees as its root directory: the image says whose it is.
fn like(image_root: &Path, upper: &Path, users: Option<IdMap>) -> std::io::Result<()> {
    let metadata = fs::symlink_metadata(image_root)?;
    let on_host = |id: u32| users.map_or(Some(id), |ids| ids.on_host(id));
    let unknown = || std::io::Error::other("its owner in the image is no id of the pod");
    let owner = on_host(metadata.uid()).ok_or_else(unknown)?;
    let group = on_host(metadata.gid()).ok_or_else(unknown)?;
    std::os::unix::fs::lchown(upper, Some(owner), Some(group))?;
    fs::set_permissions(upper, metadata.permissions())
}

fn ready(pod: &Sandbox) -> Result<()> {
    if pod.phase() == PodPhase::Ready { Ok(()) } else { Err(not_ready(pod)) }
}

fn not_ready(pod: &Sandbox) -> Error {
    Error::WrongState {
        kind: "pod",
        id: pod.id.clone(),
        state: "not ready",
        needed: "containers are made in a ready pod only",
    }
}

/// Joins the log path below the pod's log directory.
fn log_path(pod: &Sandbox, config: &ContainerConfig) -> Result<Option<PathBuf>> {
    let (Some(directory), Some(path)) = (&pod.config.log_directory, &config.log_path) else {
        return Ok(None);
    };
    if path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        let reason = format!("{} must stay below the pod's log directory", path.display());
        return Err(Error::invalid("config.log_path", reason));
    }
    Ok(Some(directory.join(path)))
}

/// Opens a log for appending; links are not followed and nothing but a file is written to.
pub(crate) fn open_log(path: &Path) -> Result<std::os::fd::OwnedFd> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(Error::file("make directory", parent))?;
    }
    let flags = rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::CLOEXEC;
    let open = || {
        let mut options = fs::OpenOptions::new();
        options.append(true).create(true).mode(0o640).custom_flags(flags.bits().cast_signed());
        let file = options.open(path)?;
        if file.metadata()?.is_file() {
            Ok(file.into())
        } else {
            Err(std::io::Error::other("not a regular file"))
        }
    };
    open().map_err(Error::file("open log", path))
}
