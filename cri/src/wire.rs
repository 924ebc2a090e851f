//! The generated types of the two wire contracts, `proto/api.proto` and `proto/corten.proto`.
//!
//! Nothing outside this crate sees them: `convert` turns requests into domain types and back.

use std::fmt;

/// The Container Runtime Interface, `runtime.v1`.
#[allow(clippy::all, clippy::too_many_lines, missing_docs, unreachable_pub, reason = "generated code")]
pub(crate) mod cri {
    tonic::include_proto!("runtime.v1");
}

/// Corten's own service, `corten.v1`.
#[allow(clippy::all, clippy::too_many_lines, missing_docs, unreachable_pub, reason = "generated code")]
pub(crate) mod corten {
    tonic::include_proto!("corten.v1");
}

impl fmt::Debug for cri::AuthConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuthConfig").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::cri::{AuthConfig, PullImageRequest};

    #[test]
    fn debug_shows_no_secret() {
        let secret = || "canary".to_owned();
        let auth = AuthConfig {
            username: secret(),
            password: secret(),
            auth: secret(),
            server_address: "registry.example".to_owned(),
            identity_token: secret(),
            registry_token: secret(),
        };
        let text = format!("{:?}", PullImageRequest { auth: Some(auth), ..Default::default() });
        assert!(!text.contains("canary"), "{text}");
        assert!(text.contains("registry.example"), "{text}");
    }
}
