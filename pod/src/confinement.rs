//! What the kernel's security modules confine a container to, decided from what is asked for and what the node has.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use runtime::apparmor;
use runtime::selinux::{Labels, Selinux, Wanted};

use crate::config::{
    ContainerConfig, PidMode, PodConfig, PodOrNode, Profile, SecurityContext, SelinuxOptions,
};
use crate::error::{Error, Result, chain};
use crate::node::Node;
use crate::sandbox::Sandbox;

/// How many levels are tried until one is nobody's.
const LEVELS: usize = 1000;

const FIELD: &str = "linux.security_context.apparmor";

/// What a container's processes put on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// A loaded profile; none for none.
    pub apparmor: Option<String>,
    /// SELinux' labels; none where it is off or does not separate the container.
    pub selinux: Option<Labels>,
}

impl Node {
    /// Refuses a pod whose containers could not have what it asks for.
    ///
    /// Pause, which is Corten's and never executes anything, has no profile.
    pub(crate) async fn check_confinement(&self, pod: &PodConfig) -> Result<()> {
        self.apparmor(&pod.security).await.map(drop)
    }

    /// What is to be put on, loaded and ready.
    pub(crate) async fn confinement(&self, pod: &Sandbox, config: &ContainerConfig) -> Result<Confinement> {
        Ok(Confinement {
            apparmor: self.apparmor(&config.security).await?,
            selinux: self.container_labels(pod, config).await?,
        })
    }

    async fn apparmor(&self, security: &SecurityContext) -> Result<Option<String>> {
        let profile = profile(security, self.runtime.host().apparmor)?;
        match profile.as_deref() {
            None => {}
            Some(apparmor::DEFAULT) => apparmor::ensure_default().await.map_err(failed)?,
            Some(name) => {
                // Where the list cannot be read, the kernel says it when the container is made.
                if let Ok(false) = apparmor::is_loaded(name).await {
                    return Err(not_loaded(name));
                }
            }
        }
        Ok(profile)
    }

    /// Where SELinux is on, has containers read what lies below their root file systems.
    ///
    /// What cannot be labelled is told, and does not keep the daemon from serving what is there.
    pub(crate) async fn share_layers(&self) {
        let Some(selinux) = &self.selinux else { return };
        if let Err(error) = labels(selinux, &SelinuxOptions::default(), false).await {
            tracing::warn!(error = chain(&error), "every container will be refused");
            return;
        }
        for directory in [self.images.layers_dir(), &self.config.data.join("containers")] {
            if let Err(error) = selinux.share(directory).await {
                tracing::warn!(
                    error = chain(&error),
                    "containers may not be able to run what their images have"
                );
            }
        }
    }

    /// The labels of a new pod's containers: a level of its own, unless one is asked for.
    pub(crate) async fn pod_labels(&self, config: &PodConfig) -> Result<Option<Labels>> {
        let Some(selinux) = &self.selinux else { return Ok(None) };
        let mut options = config.security.selinux.clone().unwrap_or_default();
        let is_privileged = is_privileged(&config.security, config);
        let is_given = !options.level.is_empty();
        for _ in 0..LEVELS {
            if !is_given {
                options.level = random_level()?;
            }
            let labels = labels(selinux, &options, is_privileged).await?;
            // The level of an ended pod may come again: nothing of it is left.
            let is_taken = || {
                let pods = self.table.pods();
                pods.iter().filter_map(|pod| pod.labels()).any(|other| other.mount == labels.mount)
            };
            if is_given || !is_taken() {
                return Ok(Some(labels));
            }
        }
        let reason = "every level that was tried is another pod's: give selinux_options.level";
        Err(Error::invalid("config.linux.security_context.selinux_options", reason))
    }

    /// The pod's, or what the container asks for, on the pod's level.
    async fn container_labels(&self, pod: &Sandbox, config: &ContainerConfig) -> Result<Option<Labels>> {
        let (Some(selinux), Some(of_pod)) = (&self.selinux, pod.labels()) else { return Ok(None) };
        if let Some(mount) =
            config.mounts.iter().find(|mount| mount.selinux_relabel && is_system(&mount.host_path))
        {
            let reason = format!("{} is the node's own: it is not relabelled", mount.host_path.display());
            return Err(Error::invalid("config.mounts.selinux_relabel", reason));
        }
        let is_privileged = is_privileged(&config.security, &pod.config);
        let asked = config.security.selinux.as_ref();
        if asked.is_none() && is_privileged == self::is_privileged(&pod.config.security, &pod.config) {
            return Ok(Some(of_pod));
        }
        let mut options = asked.or(pod.config.security.selinux.as_ref()).cloned().unwrap_or_default();
        if options.level.is_empty() {
            options.level = of_pod.mount.splitn(4, ':').nth(3).unwrap_or_default().to_owned();
        }
        labels(selinux, &options, is_privileged).await.map(Some)
    }
}

/// Who is privileged, or sees the node's processes or its System V IPC, is not kept apart from it, as with CRI-O.
fn is_privileged(security: &SecurityContext, pod: &PodConfig) -> bool {
    let namespaces = &pod.security.namespaces;
    security.privileged || namespaces.pid == PidMode::Node || namespaces.ipc == PodOrNode::Node
}

async fn labels(selinux: &Selinux, options: &SelinuxOptions, is_privileged: bool) -> Result<Labels> {
    let SelinuxOptions { user, role, kind, level } = options;
    let labels = selinux.labels(Wanted { user, role, kind, level, is_privileged }).await;
    labels.map_err(|source| Error::Selinux { source: Arc::new(source) })
}

/// Two categories of the 1024 that policies have, in their order.
fn random_level() -> Result<String> {
    let id = crate::id::random()?;
    let number = |digits: Option<&str>| digits.and_then(|digits| u16::from_str_radix(digits, 16).ok());
    let (one, other) = (number(id.get(..4)).unwrap_or(0) % 1024, number(id.get(4..8)).unwrap_or(0) % 1023);
    // Never the same one twice.
    let other = if other >= one { other + 1 } else { other };
    Ok(format!("s0:c{},c{}", one.min(other), one.max(other)))
}

/// Places that the whole node relies on.
fn is_system(path: &Path) -> bool {
    const PLACES: [&str; 23] = [
        "/",
        "/bin",
        "/boot",
        "/dev",
        "/etc",
        "/home",
        "/lib",
        "/lib64",
        "/media",
        "/opt",
        "/proc",
        "/root",
        "/run",
        "/sbin",
        "/srv",
        "/sys",
        "/tmp",
        "/usr",
        "/var",
        "/var/cache",
        "/var/lib",
        "/var/log",
        "/var/tmp",
    ];
    let path: PathBuf = path.components().collect();
    ["/dev", "/proc", "/sys"].iter().any(|top| path.starts_with(top))
        || PLACES.iter().any(|place| path == Path::new(place))
}

/// The profile's name. Where nothing is asked for, it is Corten's own; privileged containers get only what they name.
fn profile(security: &SecurityContext, is_on: bool) -> Result<Option<String>> {
    match &security.apparmor {
        Some(Profile::Unconfined) => Ok(None),
        Some(Profile::Localhost(_) | Profile::RuntimeDefault) if !is_on => {
            let reason = "AppArmor is off on this node: ask for Unconfined, or for none";
            Err(Error::invalid(FIELD, reason))
        }
        Some(Profile::Localhost(name)) => Ok(Some(name.clone())),
        Some(Profile::RuntimeDefault) | None if is_on && !security.privileged => {
            Ok(Some(apparmor::DEFAULT.to_owned()))
        }
        Some(Profile::RuntimeDefault) | None => Ok(None),
    }
}

fn failed(source: apparmor::Error) -> Error {
    Error::AppArmor { source: Arc::new(source) }
}

fn not_loaded(name: &str) -> Error {
    let reason =
        format!("the AppArmor profile {name:?} is not loaded on this node: load it with apparmor_parser(8)");
    Error::invalid(FIELD, reason)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::container_config;

    #[test]
    fn a_profile_is_asked_for_or_corten_s_own() {
        let named = || Some(Profile::Localhost("x".to_owned()));
        let own = Some(apparmor::DEFAULT);
        for (asked, privileged, expected) in [
            (None, false, own),
            (None, true, None),
            (Some(Profile::RuntimeDefault), false, own),
            (Some(Profile::RuntimeDefault), true, None),
            (named(), false, Some("x")),
            (named(), true, Some("x")),
            (Some(Profile::Unconfined), false, None),
        ] {
            let security =
                SecurityContext { apparmor: asked.clone(), privileged, ..container_config().security };
            assert_eq!(profile(&security, true).unwrap().as_deref(), expected, "{asked:?} {privileged}");
        }
    }

    #[test]
    fn without_apparmor_only_what_names_it_is_refused() {
        for (asked, is_refused) in [
            (None, false),
            (Some(Profile::Unconfined), false),
            (Some(Profile::RuntimeDefault), true),
            (Some(Profile::Localhost("x".to_owned())), true),
        ] {
            let security = SecurityContext { apparmor: asked.clone(), ..container_config().security };
            match profile(&security, false) {
                Ok(profile) => assert!(!is_refused && profile.is_none(), "{asked:?}"),
                Err(error) => assert!(is_refused && error.to_string().contains("AppArmor is off"), "{error}"),
            }
        }
    }

    #[test]
    fn a_level_has_two_categories_in_their_order() {
        for _ in 0..2000 {
            let level = random_level().unwrap();
            let (one, other) = level.strip_prefix("s0:c").unwrap().split_once(",c").unwrap();
            let (one, other): (u16, u16) = (one.parse().unwrap(), other.parse().unwrap());
            assert!(one < other && other < 1024, "{level}");
        }
    }

    #[test]
    fn the_nodes_own_places_are_not_relabelled() {
        for (path, expected) in [
            ("/", true),
            ("/etc", true),
            ("/etc/", true),
            ("/etc/./", true),
            ("/proc/1", true),
            ("/sys/fs", true),
            ("/etc/app", false),
            ("/var/lib/kubelet/pods/x/volumes/y", false),
        ] {
            assert_eq!(is_system(Path::new(path)), expected, "{path}");
        }
    }
}
