//! RuntimeClass handlers: Corten's own runtime, and those of others by their programs.
//!
//! The daemon starts whatever the programs are like. One that cannot be run is said in Status, and asked again
//! by the next pod that wants it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::{Process, Spec};
use runtime::external::{self, Features, Kind};
use runtime::host::Host;

use crate::config::{ContainerConfig, MountAccess, PidMode, PodConfig, PodOrNode, Profile, Propagation};
use crate::error::{Error, Result, chain};
use crate::status::HandlerStatus;

/// What a RuntimeClass handler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerConfig {
    /// Corten's own runtime.
    Native,
    /// Another OCI runtime.
    Oci(Program),
}

/// The program of another runtime, and what goes with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    /// Where it is.
    pub path: PathBuf,
    /// What it makes.
    pub kind: Kind,
    /// The annotations of pods that it is told: names, or beginnings of names with a `*` behind them.
    pub annotations: Vec<String>,
}

/// All that are configured, by name; the empty name is the default one.
#[derive(Debug)]
pub(crate) struct Handlers {
    entries: BTreeMap<String, Handler>,
}

/// One handler.
#[derive(Debug)]
pub(crate) enum Handler {
    Native,
    External(External),
}

/// A runtime of somebody else's.
#[derive(Debug)]
pub(crate) struct External {
    pub name: String,
    pub runtime: external::Handler,
    annotations: Vec<String>,
    /// What came of the last probe; none before the first. Never held across an await.
    probed: Mutex<Option<Result<Features, Arc<external::Error>>>>,
}

// === impl Handlers ===

impl Handlers {
    pub(crate) fn new(configured: &BTreeMap<String, HandlerConfig>) -> Self {
        let handler = |(name, config): (&String, &HandlerConfig)| {
            let handler = match config {
                HandlerConfig::Native => Handler::Native,
                HandlerConfig::Oci(program) => Handler::External(External {
                    name: name.clone(),
                    runtime: external::Handler::new(&program.path, program.kind),
                    annotations: program.annotations.clone(),
                    probed: Mutex::default(),
                }),
            };
            (name.clone(), handler)
        };
        let own = (String::new(), Handler::Native);
        Self { entries: configured.iter().map(handler).chain([own]).collect() }
    }

    /// Asks all of them what they can do.
    pub(crate) async fn probe(&self) {
        for handler in self.entries.values() {
            if let Handler::External(external) = handler
                && let Err(error) = external.probe().await
            {
                tracing::warn!(error = chain(&error), "pods of this handler are refused");
            }
        }
    }

    /// The handler of this name.
    pub(crate) fn find(&self, name: &str) -> Result<&Handler> {
        self.entries.get(name).ok_or_else(|| Error::UnknownHandler { name: name.to_owned() })
    }

    /// The handler of this name if it is another runtime.
    pub(crate) fn external(&self, name: &str) -> Result<Option<&External>> {
        self.find(name).map(|handler| match handler {
            Handler::Native => None,
            Handler::External(external) => Some(external),
        })
    }

    /// What Status tells of each.
    pub(crate) fn status(&self, host: &Host) -> Vec<HandlerStatus> {
        self.entries.iter().map(|(name, handler)| handler.status(name, host)).collect()
    }
}

// === impl Handler ===

impl Handler {
    fn status(&self, name: &str, host: &Host) -> HandlerStatus {
        let mut status = HandlerStatus {
            name: name.to_owned(),
            program: None,
            recursive_read_only: false,
            user_namespaces: false,
            problem: None,
        };
        match self {
            Self::Native => {
                status.recursive_read_only = host.mount_setattr;
                status.user_namespaces = host.user_namespaces;
            }
            Self::External(external) => {
                status.program = Some(external.runtime.program().to_owned());
                match external.probed() {
                    Some(Ok(features)) => {
                        status.recursive_read_only = features.recursive_read_only;
                        status.user_namespaces = host.user_namespaces && external.lacks_users().is_none();
                    }
                    Some(Err(error)) => status.problem = Some(chain(&error)),
                    None => status.problem = Some("it has not been asked yet".to_owned()),
                }
            }
        }
        status
    }
}

// === impl External ===

impl External {
    /// Refuses work when the program cannot be run, asked now if it could not be run before.
    pub(crate) async fn ready(&self) -> Result<()> {
        match self.probed() {
            Some(Ok(_)) => Ok(()),
            _ => self.probe().await,
        }
    }

    /// Whether the runtime puts a container's processes into its cgroup, instead of being started in there.
    pub(crate) fn moves_in(&self) -> bool {
        self.runtime.kind() == Kind::Plain
    }

    /// Whether the pod of its containers is a sandbox of the runtime's own.
    pub(crate) fn encloses(&self) -> bool {
        self.runtime.kind() == Kind::Sandboxed
    }

    /// Refuses a pod that the runtime is not given. An enclosure shares nothing with the node; about the network, which
    /// some can leave where it is, the runtime has the word.
    pub(crate) fn check_pod(&self, pod: &PodConfig) -> Result<()> {
        let (wanted, is_enclosed) = (&pod.security.namespaces, self.encloses());
        if let Some(lacked) = self.lacks_users().filter(|_| wanted.users.is_some()) {
            Err(self.lacks(lacked))
        } else if is_enclosed && wanted.pid == PidMode::Node {
            Err(self.lacks("access to the node's PID namespace"))
        } else if is_enclosed && wanted.ipc == PodOrNode::Node {
            Err(self.lacks("access to the node's IPC namespace"))
        } else {
            Ok(())
        }
    }

    /// What is not there for pods with user namespaces; a volume without its ids mapped would be nobody's in there.
    fn lacks_users(&self) -> Option<&'static str> {
        let features = self.probed().and_then(Result::ok).unwrap_or_default();
        if self.encloses() {
            Some("user namespaces")
        } else if !features.user_namespaces {
            Some("user namespaces (not in linux.namespaces of its features)")
        } else if !features.idmapped_mounts {
            Some("idmapped mounts for user namespaces (linux.mountExtensions.idmap of its features)")
        } else {
            None
        }
    }

    /// Refuses a container that needs what the runtime does not say that it can do.
    pub(crate) fn check(&self, container: &ContainerConfig, spec: &Spec) -> Result<()> {
        let features = self.probed().and_then(Result::ok).unwrap_or_default();
        let recursive = container.mounts.iter().any(|mount| mount.access == MountAccess::RecursiveReadOnly);
        let profile = container.security.seccomp != Profile::Unconfined && !container.security.privileged;
        let has_label = |label: fn(&Process) -> &Option<String>| {
            spec.process().as_ref().is_some_and(|process| label(process).is_some())
        };
        if recursive && !features.recursive_read_only {
            Err(self.lacks("recursive read-only mounts (RROUnsupported)"))
        } else if profile && features.no_seccomp {
            Err(self.lacks("seccomp profiles"))
        } else if has_label(Process::apparmor_profile) && features.no_apparmor {
            Err(self.lacks("AppArmor"))
        } else if has_label(Process::selinux_label) && features.no_selinux {
            Err(self.lacks("SELinux"))
        } else if self.encloses() {
            self.check_enclosed(container)
        } else {
            Ok(())
        }
    }

    /// What on the host is shared between processes and mounts is not with those of an enclosure.
    fn check_enclosed(&self, container: &ContainerConfig) -> Result<()> {
        if matches!(container.security.namespaces.pid, PidMode::Target(_)) {
            Err(self.lacks("PID namespace of another container"))
        } else if container.mounts.iter().any(|mount| mount.propagation != Propagation::Private) {
            Err(self.lacks("mount propagation"))
        } else {
            Ok(())
        }
    }

    /// Refuses to change the limits of a container that has none on the host.
    pub(crate) fn check_update(&self) -> Result<()> {
        if self.encloses() { Err(self.lacks("changes of a container's limits")) } else { Ok(()) }
    }

    /// Adds those of the pod's annotations that the runtime is to be told.
    pub(crate) fn pass_annotations(&self, pod: &PodConfig, spec: &mut Spec) {
        let is_passed = |name: &str| {
            self.annotations.iter().any(|allowed| match allowed.strip_suffix('*') {
                Some(beginning) => name.starts_with(beginning),
                None => name == allowed,
            })
        };
        let annotations = spec.annotations_mut().get_or_insert_default();
        for (name, value) in pod.annotations.iter().filter(|(name, _)| is_passed(name)) {
            // Which container it is, nobody else says.
            annotations.entry(name.clone()).or_insert_with(|| value.clone());
        }
    }

    fn lacks(&self, what: &'static str) -> Error {
        Error::HandlerLacks { name: self.name.clone(), what }
    }

    /// The error of something that was asked of the runtime.
    pub(crate) fn failed(&self) -> impl FnOnce(external::Error) -> Error + use<'_> {
        |source| Error::Handler { name: self.name.clone(), source: Arc::new(source) }
    }

    async fn probe(&self) -> Result<()> {
        let probed = self.runtime.probe().await.map_err(Arc::new);
        let result = match &probed {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Handler { name: self.name.clone(), source: source.clone() }),
        };
        *self.probed.lock().unwrap_or_else(PoisonError::into_inner) = Some(probed);
        result
    }

    fn probed(&self) -> Option<Result<Features, Arc<external::Error>>> {
        self.probed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::config::{IdMap, Mount};
    use crate::testing::{container_config, mount, pod_config};

    fn handlers(program: &str) -> Handlers {
        handlers_of(program, Kind::Plain)
    }

    fn handlers_of(program: &str, kind: Kind) -> Handlers {
        let annotations = vec!["dev.gvisor.*".to_owned(), "exact".to_owned()];
        let program = Program { path: program.into(), kind, annotations };
        let configured = BTreeMap::from([
            ("corten".to_owned(), HandlerConfig::Native),
            ("other".to_owned(), HandlerConfig::Oci(program)),
        ]);
        Handlers::new(&configured)
    }

    fn host(user_namespaces: bool) -> Host {
        let host = serde_json::json!({
            "kernel": "6.1.0", "cgroups": "v2", "capabilities": [], "sys_resource": true, "apparmor": false,
            "selinux": false, "seccomp": true, "openat2": true, "mount_setattr": true, "idmapped_mounts": true,
            "user_namespaces": user_namespaces, "overlay_layers": true,
        });
        serde_json::from_value(host).unwrap()
    }

    #[test]
    fn names_lead_to_handlers() {
        let handlers = handlers("/bin/true");
        assert!(handlers.external("").unwrap().is_none());
        assert!(handlers.external("corten").unwrap().is_none());
        assert!(handlers.external("other").unwrap().is_some());
        assert!(matches!(handlers.external("no"), Err(Error::UnknownHandler { name }) if name == "no"));
    }

    #[tokio::test]
    async fn a_missing_program_is_said_and_asked_again() {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("runtime");
        let handlers = handlers(&program.to_string_lossy());
        handlers.probe().await;
        let external = handlers.external("other").unwrap().unwrap();
        let error = chain(&external.ready().await.unwrap_err());
        assert!(error.contains("other") && error.contains("No such file"), "{error}");
        assert!(external.probed().is_some_and(|probed| probed.is_err()));
        std::os::unix::fs::symlink("/bin/true", &program).unwrap();
        external.ready().await.unwrap();
    }

    #[tokio::test]
    async fn a_runtime_without_features_has_none() {
        let handlers = handlers("/bin/true");
        handlers.probe().await;
        let external = handlers.external("other").unwrap().unwrap();
        let mut config = container_config();
        external.check(&config, &Spec::default()).unwrap();
        config.mounts.push(Mount { access: MountAccess::RecursiveReadOnly, ..mount() });
        let error = external.check(&config, &Spec::default()).unwrap_err().to_string();
        assert!(error.contains("RROUnsupported"), "{error}");
    }

    #[tokio::test]
    async fn user_namespaces_are_for_a_runtime_that_says_that_it_has_all_of_them() {
        let (users, idmap) = (r#""namespaces":["user"]"#, r#""mountExtensions":{"idmap":{"enabled":true}}"#);
        let both = format!("{users},{idmap}");
        let mut pod = pod_config();
        pod.security.namespaces.users = Some(IdMap { host: 100_000, length: 65536 });
        for (kind, features, lacked) in [
            (Kind::Plain, both.as_str(), None),
            (Kind::Plain, users, Some("idmapped mounts")),
            (Kind::Plain, idmap, Some("linux.namespaces")),
            (Kind::Plain, "", Some("user namespaces")),
            (Kind::Sandboxed, both.as_str(), Some("user namespaces")),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let program = dir.path().join("runtime");
            std::fs::write(&program, format!("#!/bin/sh\necho '{{\"linux\":{{{features}}}}}'\n")).unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
            let handlers = handlers_of(&program.to_string_lossy(), kind);
            let external = handlers.external("other").unwrap().unwrap();
            // Again while another test's fork has the script open for writing.
            while external.probe().await.is_err_and(|error| chain(&error).contains("Text file busy")) {
                tokio::task::yield_now().await;
            }
            let refused = external.check_pod(&pod).err().map(|error| error.to_string());
            let is_expected = match (&refused, lacked) {
                (Some(error), Some(lacked)) => error.contains(lacked) && error.contains("other"),
                (refused, lacked) => refused.is_none() && lacked.is_none(),
            };
            assert!(is_expected, "{kind:?} {features}: {refused:?}");
            let offered = |on_node| {
                let status = handlers.status(&host(on_node));
                status.iter().any(|handler| handler.name == "other" && handler.user_namespaces)
            };
            assert_eq!(offered(true), lacked.is_none(), "{kind:?} {features}");
            assert!(!offered(false), "the node has none");
        }
    }

    #[tokio::test]
    async fn what_an_enclosure_does_not_share_is_refused() {
        let handlers = handlers_of("/bin/true", Kind::Sandboxed);
        let external = handlers.external("other").unwrap().unwrap();
        let refused = |pod: &PodConfig| external.check_pod(pod).err().map(|error| error.to_string());
        let mut pod = pod_config();
        assert_eq!(refused(&pod), None);
        pod.security.namespaces.network = PodOrNode::Node;
        assert_eq!(refused(&pod), None, "the runtime has the word");
        pod.security.namespaces.ipc = PodOrNode::Node;
        assert!(refused(&pod).is_some_and(|error| error.contains("IPC")));
        pod.security.namespaces.pid = PidMode::Node;
        assert!(refused(&pod).is_some_and(|error| error.contains("PID")));
        let refused = |container: &ContainerConfig| {
            external.check(container, &Spec::default()).err().map(|error| error.to_string())
        };
        let mut container = container_config();
        assert_eq!(refused(&container), None);
        container.mounts.push(Mount { propagation: Propagation::HostToContainer, ..mount() });
        assert!(refused(&container).is_some_and(|error| error.contains("propagation")));
        container.security.namespaces.pid = PidMode::Target("x".to_owned());
        assert!(refused(&container).is_some_and(|error| error.contains("another container")));
        assert!(external.check_update().is_err());
    }

    #[tokio::test]
    async fn annotations_are_passed_that_are_allowed() {
        let handlers = handlers("/bin/true");
        let external = handlers.external("other").unwrap().unwrap();
        let mut pod = pod_config();
        for name in ["dev.gvisor.a", "dev.other.b", "exact", "exactly"] {
            pod.annotations.insert(name.to_owned(), "theirs".to_owned());
        }
        let mut spec = Spec::default();
        spec.set_annotations(Some([("exact".to_owned(), "ours".to_owned())].into()));
        external.pass_annotations(&pod, &mut spec);
        let mut told: Vec<_> = spec.annotations().clone().unwrap().into_iter().collect();
        told.sort();
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(told, [pair("dev.gvisor.a", "theirs"), pair("exact", "ours")]);
    }
}
