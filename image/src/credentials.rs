//! Credentials as a pull request brings them, kept out of every log and error.

use std::fmt;
use std::ops::Deref;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;
use zeroize::{Zeroize, Zeroizing};

use crate::Error;

/// Docker pads, others do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// A password or a token: never shown, and not left in memory that is free again.
#[derive(Clone, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

/// The credentials of one request: what the kubelet sends as `AuthConfig`. Empty fields are not given.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// A user's name.
    pub username: String,
    /// The user's password.
    pub password: Secret,
    /// `username:password` in base64.
    pub auth: Secret,
    /// A refresh token, exchanged for an access token at the registry's token server.
    pub identity_token: Secret,
    /// A bearer token that is sent to the registry as it is.
    pub registry_token: Secret,
    /// The registry that these credentials are for. Empty: the one that the image names.
    pub server_address: String,
}

/// What a registry is told about who asks.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(crate) enum Login {
    /// Nothing.
    Anonymous,
    /// A user's name and password.
    Password {
        /// The name.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token for the registry's token server.
    Refresh(Secret),
    /// A bearer token for the registry.
    Bearer(Secret),
}

impl Credentials {
    /// Reads the form that is filled in.
    pub(crate) fn login(&self) -> Result<Login, Error> {
        if !self.registry_token.is_empty() {
            return Ok(Login::Bearer(self.registry_token.clone()));
        }
        if !self.identity_token.is_empty() {
            return Ok(Login::Refresh(self.identity_token.clone()));
        }
        if !self.username.is_empty() || !self.password.is_empty() {
            return Ok(Login::Password { user: self.username.clone(), password: self.password.clone() });
        }
        if !self.auth.is_empty() {
            return decode(&self.auth).map_err(|reason| Error::Credentials { reason });
        }
        Ok(Login::Anonymous)
    }

    /// Returns the registry that they are for, if they say so.
    pub(crate) fn registry(&self) -> Option<String> {
        (!self.server_address.is_empty()).then(|| registry_of(&self.server_address))
    }
}

impl Login {
    /// Says in a word or two what this is, for errors.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Self::Anonymous => "no credentials",
            Self::Password { .. } => "user name and password",
            Self::Refresh(_) => "identity token",
            Self::Bearer(_) => "registry token",
        }
    }
}

/// Decodes `user:password` in base64.
pub(crate) fn decode(auth: &str) -> Result<Login, &'static str> {
    let bytes = Zeroizing::new(BASE64.decode(auth.trim()).map_err(|_| "auth is not base64")?);
    let text = std::str::from_utf8(&bytes).map_err(|_| "auth is not UTF-8")?;
    // Docker's own tools have written the password with zero bytes behind it.
    let (user, password) = text.split_once(':').ok_or("auth is not USER:PASSWORD")?;
    Ok(Login::Password { user: user.to_owned(), password: password.trim_end_matches('\0').into() })
}

/// Returns the registry that an address names, in the form that references use: `https://index.docker.io/v1/` is
/// `docker.io`.
pub(crate) fn registry_of(address: &str) -> String {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    let host = rest.split('/').next().unwrap_or_default().to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "registry.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl Deref for Secret {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl Drop for Secret {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "none" } else { "***" })
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("server_address", &self.server_address).finish_non_exhaustive()
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.describe())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read() {
        let check = |credentials: Credentials, expected: Login| {
            assert_eq!(credentials.login().unwrap(), expected);
        };
        let password =
            |user: &str, password: &str| Login::Password { user: user.into(), password: password.into() };
        check(Credentials::default(), Login::Anonymous);
        check(
            Credentials {
                username: "u".into(),
                password: "p".into(),
                auth: "eDp5".into(),
                ..Default::default()
            },
            password("u", "p"),
        );
        check(Credentials { auth: "eDp5Onog".into(), ..Default::default() }, password("x", "y:z "));
        check(Credentials { auth: "dTpw".into(), ..Default::default() }, password("u", "p"));
        check(Credentials { auth: "dTpwdw".into(), ..Default::default() }, password("u", "pw"));
        check(Credentials { auth: "dTpwdw==\n".into(), ..Default::default() }, password("u", "pw"));
        check(Credentials { auth: "dTpwAAA=".into(), ..Default::default() }, password("u", "p"));
        check(
            Credentials { identity_token: "i".into(), username: "u".into(), ..Default::default() },
            Login::Refresh("i".into()),
        );
        check(Credentials { registry_token: "r".into(), ..Default::default() }, Login::Bearer("r".into()));
    }

    #[test]
    fn bad_auth_is_refused_without_being_shown() {
        for auth in ["%%%", "dQ==", "//79"] {
            let error = Credentials { auth: auth.into(), ..Default::default() }.login().unwrap_err();
            assert!(!error.to_string().contains(auth), "{error}");
        }
    }

    #[test]
    fn addresses_name_registries() {
        for (address, registry) in [
            ("https://index.docker.io/v1/", "docker.io"),
            ("docker.io", "docker.io"),
            ("http://Host.example:5000/v2", "host.example:5000"),
            ("127.0.0.1:5000", "127.0.0.1:5000"),
        ] {
            assert_eq!(registry_of(address), registry);
        }
    }

    #[test]
    fn secrets_are_not_shown() {
        let credentials = Credentials {
            username: "canary-user".into(),
            password: "canary-password".into(),
            auth: "canary-auth".into(),
            identity_token: "canary-identity".into(),
            registry_token: "canary-registry".into(),
            server_address: "q.io".into(),
        };
        let shown = format!("{credentials:?} {:?} {:?}", credentials.login(), credentials.password);
        assert!(!shown.contains("canary"), "{shown}");
    }
}
