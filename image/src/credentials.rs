//! Credentials as a pull request brings them, kept out of every log and error.

use std::fmt;

/// The credentials of one request: what the kubelet sends as `AuthConfig`. Empty fields are not given.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// A user's name.
    pub username: String,
    /// The user's password.
    pub password: String,
    /// `username:password` in base64.
    pub auth: String,
    /// A refresh token, exchanged for an access token at the registry's token server.
    pub identity_token: String,
    /// A bearer token that is sent to the registry as it is.
    pub registry_token: String,
    /// The registry that these credentials are for. Empty: the one that the image names.
    pub server_address: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}
