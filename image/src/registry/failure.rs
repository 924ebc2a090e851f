//! What a failed request means: which error it is, and whether to ask again.

use std::error::Error as _;
use std::io;
use std::path::Path;
use std::time::Duration;

use super::guard::Forbidden;
use crate::Error;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    /// What to report if nobody asks again.
    pub(crate) error: Error,
    /// Whether asking again may help.
    pub(crate) again: Again,
}

/// Whether to ask again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Again {
    /// The answer will be the same, or is not worth the time.
    No,
    /// At once: there is no way to the host, and only a short disturbance would change that soon.
    Soon,
    /// Later; the host may have said how much later.
    Later(Option<Duration>),
    /// The host does not speak this way: another scheme may do.
    OtherScheme,
}

impl Failure {
    /// A failure that stays.
    pub(crate) fn last(error: Error) -> Self {
        Self { error, again: Again::No }
    }

    /// The host is out of order for now.
    pub(crate) fn unavailable(host: &str, reason: impl Into<String>) -> Self {
        let error = Error::RegistryUnavailable { host: host.to_owned(), reason: reason.into() };
        Self { error, again: Again::Later(None) }
    }

    /// Reads the error of a request. `certs` is where certificates for the host would be.
    pub(crate) fn of_request(host: &str, certs: &Path, error: reqwest::Error) -> Self {
        // The address may be a presigned one.
        let error = error.without_url();
        if find::<Forbidden>(&error).is_some() {
            return Self::last(Error::RegistryUnavailable {
                host: host.to_owned(),
                reason: Forbidden.to_string(),
            });
        }
        if let Some(tls) = find::<rustls::Error>(&error) {
            return of_tls(host, certs, tls);
        }
        let again = match (error.is_connect(), error.is_timeout()) {
            // The kernel has tried several times.
            (true, true) => Again::No,
            (true, false) => Again::Soon,
            // Connected, and no answer in HTTP: it may want TLS.
            (false, false) if error.is_request() => Again::OtherScheme,
            _ => Again::Later(None),
        };
        let mut reason = describe(&error);
        if reason.contains("dns error") {
            reason.push_str(": check the name, or give it a location in registries.conf");
        }
        Self { again, ..Self::unavailable(host, reason) }
    }

    /// Reads the error of a body that broke off.
    pub(crate) fn of_body(host: &str, error: reqwest::Error) -> Self {
        Self::unavailable(host, describe(&error.without_url()))
    }
}

fn of_tls(host: &str, certs: &Path, error: &rustls::Error) -> Failure {
    use rustls::{CertificateError, InvalidMessage};
    let certs = certs.display();
    let hint = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(": put the certificate of its authority into {certs}/ca.crt")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => {
            let hint = ": its administrator has to renew it (if this machine's clock is right); until then only \
                insecure = true for it in registries.conf helps";
            hint.to_owned()
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let reason = "it does not speak TLS: if plain http is meant, set insecure = true for it in registries.conf";
            let error = Error::Tls { host: host.to_owned(), reason: reason.to_owned() };
            return Failure { error, again: Again::OtherScheme };
        }
        rustls::Error::AlertReceived(_) => {
            format!(": if it wants a client certificate, put it into {certs} as client.cert and client.key")
        }
        _ => String::new(),
    };
    Failure::last(Error::Tls { host: host.to_owned(), reason: format!("{error}{hint}") })
}

/// Says what happened, without the layers of the HTTP client that it happened in.
fn describe(error: &reqwest::Error) -> String {
    let mut source = error.source();
    while let Some(next) = source
        && let Some(deeper) = next.source()
        && next.to_string().starts_with("client error")
    {
        source = Some(deeper);
    }
    source.map_or_else(|| error.to_string(), chain)
}

/// Writes an error with its sources, each once.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        let part = next.to_string();
        if !text.contains(&part) {
            text = format!("{text}: {part}");
        }
        source = next.source();
    }
    text
}

/// Finds an error of a type among the sources; I/O errors hide those that they wrap, and may wrap each other.
fn find<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(next) = source {
        if let Some(found) = next.downcast_ref::<T>() {
            return Some(found);
        }
        source = match next.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => next.source(),
        };
    }
    None
}
