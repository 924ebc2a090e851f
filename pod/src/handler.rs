//! RuntimeClass handlers: Corten's own runtime, and those of others by their programs.
//!
//! The daemon starts whatever the programs are like. One that cannot be run is said in Status, and asked again
//! by the next pod that wants it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use oci_spec::runtime::{Process, Spec};
use runtime::external::{self, Features};
use runtime::host::Host;

use crate::config::{ContainerConfig, MountAccess, PodConfig, Profile};
use crate::error::{Error, Result, chain};
use crate::status::HandlerStatus;

/// What a RuntimeClass handler is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HandlerConfig {
    /// Corten's own runtime.
    Native,
    /// The program of another OCI runtime.
    Oci(PathBuf),
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
                    runtime: external::Handler::new(program),
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
                    Some(Ok(features)) => status.recursive_read_only = features.recursive_read_only,
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

    /// Refuses a pod that no other runtime is given: its mounts would not be mapped.
    pub(crate) fn check_pod(&self, pod: &PodConfig) -> Result<()> {
        match pod.security.namespaces.users {
            Some(_) => Err(Error::HandlerLacks { name: self.name.clone(), what: "user namespaces" }),
            None => Ok(()),
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
        let lacks = |what| Err(Error::HandlerLacks { name: self.name.clone(), what });
        if recursive && !features.recursive_read_only {
            lacks("recursive read-only mounts (RROUnsupported)")
        } else if profile && features.no_seccomp {
            lacks("seccomp profiles")
        } else if has_label(Process::apparmor_profile) && features.no_apparmor {
            lacks("AppArmor")
        } else if has_label(Process::selinux_label) && features.no_selinux {
            lacks("SELinux")
        } else {
            Ok(())
        }
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
    use super::*;
    use crate::config::Mount;
    use crate::testing::{container_config, mount};

    fn handlers(program: &str) -> Handlers {
        let configured = BTreeMap::from([
            ("corten".to_owned(), HandlerConfig::Native),
            ("other".to_owned(), HandlerConfig::Oci(program.into())),
        ]);
        Handlers::new(&configured)
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
}
