//! What a failed request means: which error it is, and whether to ask again.

use std::error::Error as _;
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
    /// The answer will be the same.
    No,
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

    /// Reads an error of the HTTP client.
    pub(crate) fn of_request(host: &str, error: reqwest::Error) -> Self {
        // The address may be a presigned one.
        let error = error.without_url();
        if find::<Forbidden>(&error).is_some() {
            return Self::last(Error::RegistryUnavailable {
                host: host.to_owned(),
                reason: Forbidden.to_string(),
            });
        }
        if let Some(tls) = find::<rustls::Error>(&error) {
            return of_tls(host, tls);
        }
        let again = if error.is_request() && !error.is_connect() && !error.is_timeout() {
            // Connected, and no answer in HTTP: it may want TLS.
            Again::OtherScheme
        } else {
            Again::Later(None)
        };
        Self { again, ..Self::unavailable(host, chain(&error)) }
    }
}

fn of_tls(host: &str, error: &rustls::Error) -> Failure {
    use rustls::{CertificateError, InvalidMessage};
    let hint = match error {
        rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            format!(": put the certificate of its authority into certs_dir/{host}/ca.crt")
        }
        rustls::Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        ) => ": its administrator has to renew it".to_owned(),
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            let reason = "it does not speak TLS; if it is to be reached by plain http, set insecure = true for it in registries.conf";
            let error = Error::Tls { host: host.to_owned(), reason: reason.to_owned() };
            return Failure { error, again: Again::OtherScheme };
        }
        rustls::Error::AlertReceived(_) => {
            format!(
                ": if it wants a client certificate, put it into certs_dir/{host}/ as client.cert and client.key"
            )
        }
        _ => String::new(),
    };
    Failure::last(Error::Tls { host: host.to_owned(), reason: format!("{error}{hint}") })
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

fn find<T: std::error::Error + 'static>(error: &reqwest::Error) -> Option<&T> {
    let mut source = error.source();
    while let Some(next) = source {
        if let Some(found) = next.downcast_ref::<T>() {
            return Some(found);
        }
        // An I/O error's own source is that of the error it wraps.
        let wrapped = next.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref);
        if let Some(found) = wrapped.and_then(|inner| inner.downcast_ref::<T>()) {
            return Some(found);
        }
        source = next.source();
    }
    None
}
