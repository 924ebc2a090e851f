//! What the kernel's security modules confine a container to, decided from what is asked for and what the node has.

use std::sync::Arc;

use runtime::apparmor;

use crate::config::{PodConfig, Profile, SecurityContext};
use crate::error::{Error, Result};
use crate::node::Node;

const FIELD: &str = "linux.security_context.apparmor";

/// What a container's processes put on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Confinement {
    /// A loaded profile; none for none.
    pub apparmor: Option<String>,
}

impl Node {
    /// Refuses a pod whose containers could not have what it asks for.
    ///
    /// Pause, which is Corten's and never executes anything, has no profile.
    pub(crate) async fn check_confinement(&self, pod: &PodConfig) -> Result<()> {
        self.confinement(&pod.security).await.map(drop)
    }

    /// What is to be put on, loaded and ready.
    pub(crate) async fn confinement(&self, security: &SecurityContext) -> Result<Confinement> {
        let profile = profile(security, self.runtime.host().apparmor)?;
        match profile.as_deref() {
            None => {}
            Some(apparmor::DEFAULT) => apparmor::ensure_default().await.map_err(failed)?,
            Some(name) => {
                // Where the list cannot be read, the kernel says it when the container is made.
                if let Ok(false) = apparmor::is_loaded(name) {
                    return Err(not_loaded(name));
                }
            }
        }
        Ok(Confinement { apparmor: profile })
    }
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
}
