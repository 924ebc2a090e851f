//! What a registry says when it does not give what was asked for: read within bounds, and without our secrets.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use oci_client::errors::OciEnvelope;
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};

use super::client::Host;
use super::{Again, Failure};
use crate::credentials::{Login, Secret};
use crate::error::excerpt;
use crate::{Error, json};

const MAX_ERROR_BYTES: u64 = 64 << 10;

impl Host {
    /// Reads what an answer means that is none of those hoped for.
    pub(super) async fn refusal(&self, response: Response, host: &str, what: &str) -> Failure {
        let status = response.status();
        let pause = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let said = self.message(response).await;
        let host = host.to_owned();
        match status {
            StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT => {
                let error =
                    Error::RegistryUnavailable { host, reason: format!("it answers {status}: {said}") };
                Failure { error, again: Again::Later(pause.map(Duration::from_secs)) }
            }
            _ if status.is_server_error() => {
                let error =
                    Error::RegistryUnavailable { host, reason: format!("it answers {status}: {said}") };
                Failure { error, again: Again::Later(pause.map(Duration::from_secs)) }
            }
            StatusCode::NOT_FOUND | StatusCode::GONE => Failure::last(Error::NotFound {
                reference: self.place().name.to_string(),
                host,
                reason: said,
            }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => self.unauthorized(Some(said)),
            _ => Failure::last(Error::Refused {
                host,
                what: what.to_owned(),
                status: status.as_u16(),
                reason: said,
            }),
        }
    }

    pub(super) fn unauthorized(&self, said: Option<String>) -> Failure {
        let note = &self.access().note;
        let mut reason = match self.login() {
            Login::Anonymous => format!(
                "no credentials were used, {note}: give the pod an image pull secret for it, or set image.auth_file"
            ),
            _ => format!("it does not accept {note}"),
        };
        if let Some(said) = said {
            reason = format!("{said}; {reason}");
        }
        let reference = self.place().name.to_string();
        Failure::last(Error::Unauthorized { reference, host: self.host().to_owned(), reason })
    }

    /// Reads what the host says about a failure: as text of bounded length without our secrets.
    pub(super) async fn message(&self, response: Response) -> String {
        let status = response.status();
        // The status says what happened; that its explanation cannot be read is no news.
        let body = self.body(response).whole(MAX_ERROR_BYTES, "an error").await.unwrap_or_default();
        let text = match json::parse::<OciEnvelope>(&body) {
            Ok(envelope) if !envelope.errors.is_empty() => {
                let parts = envelope.errors.iter().map(|error| {
                    let code = serde_json::to_value(&error.code).ok();
                    let code = code.as_ref().and_then(|code| code.as_str()).unwrap_or_default();
                    format!("{code} {}", error.message)
                });
                parts.collect::<Vec<_>>().join("; ")
            }
            _ => String::from_utf8_lossy(&body).into_owned(),
        };
        let text = self.redact(text);
        let text = text.trim();
        if text.is_empty() || text.starts_with('<') {
            return status.canonical_reason().unwrap_or("no reason").to_owned();
        }
        excerpt(text)
    }

    /// Takes out what we sent: a host may say it back.
    fn redact(&self, mut text: String) -> String {
        let mut secrets: Vec<Secret> = match self.login() {
            Login::Anonymous => Vec::new(),
            Login::Password { user, password } => {
                vec![password.clone(), STANDARD.encode(format!("{user}:{}", &**password)).into()]
            }
            Login::Refresh(token) | Login::Bearer(token) => vec![token.clone()],
        };
        let headers = self.endpoint().into_iter().flat_map(|endpoint| endpoint.headers.values());
        for value in headers.filter_map(|value| value.to_str().ok()) {
            secrets.extend([value.into(), value.split(' ').next_back().unwrap_or_default().into()]);
        }
        if let Some(sent) = self.sent()
            && let Ok(sent) = sent.to_str()
        {
            secrets.extend(sent.split(' ').skip(1).map(Secret::from));
        }
        for secret in secrets.iter().filter(|secret| !secret.is_empty()) {
            text = text.replace(&**secret, "***");
        }
        text
    }
}
