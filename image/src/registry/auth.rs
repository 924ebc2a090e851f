//! Authorization: what a registry's challenge asks for, and getting it. Basic and bearer.
//!
//! The realm of a bearer challenge is where credentials would go, and the registry chooses it. It must be https, or
//! http if the registry itself is plain http, and it is guarded like a redirect (CVE-2020-15157 and its kind).

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_auth::{ChallengeRef, ParamValue};
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use reqwest::{StatusCode, Url};
use serde::Deserialize;
use tokio::time::timeout;
use zeroize::Zeroizing;

use super::body::Blob;
use super::client::Host;
use super::exchange::web_address;
use super::tls::Security;
use super::{Again, Failure};
use crate::credentials::{Login, Secret};
use crate::{Error, json};

const MAX_TOKEN_BYTES: u64 = 1 << 20;
const CLIENT: &str = "corten";

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A user's name and password with each request.
    Basic,
    /// A token from a token server.
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

#[derive(Deserialize)]
struct Token {
    token: Option<Secret>,
    access_token: Option<Secret>,
    /// In seconds.
    expires_in: Option<u64>,
}

impl Challenge {
    /// Reads the challenges of an answer; a bearer's is preferred.
    pub(super) fn read(headers: &HeaderMap) -> Option<Self> {
        let mut basic = None;
        for value in headers.get_all(WWW_AUTHENTICATE) {
            // What is not understood is not there.
            for challenge in
                value.to_str().ok().into_iter().flat_map(http_auth::ChallengeParser::new).flatten()
            {
                if challenge.scheme.eq_ignore_ascii_case("bearer")
                    && let Some(realm) = parameter(&challenge, "realm")
                {
                    let service = parameter(&challenge, "service");
                    return Some(Self::Bearer { realm, service, scope: parameter(&challenge, "scope") });
                }
                if challenge.scheme.eq_ignore_ascii_case("basic") {
                    basic = Some(Self::Basic);
                }
            }
        }
        basic
    }
}

fn parameter(challenge: &ChallengeRef<'_>, name: &str) -> Option<String> {
    let (_, value) = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name))?;
    Some(ParamValue::to_unescaped(value)).filter(|text| !text.is_empty())
}

impl Host {
    /// Gets what the registry asks for, for the `Authorization` header.
    pub(super) async fn authorize(
        &self,
        challenge: Option<Challenge>,
        security: Security,
    ) -> Result<HeaderValue, Failure> {
        match (challenge, self.login()) {
            (_, Login::Bearer(_)) => Err(self.unauthorized(None)),
            (Some(Challenge::Basic), Login::Password { user, password }) => self.basic(user, password),
            (Some(Challenge::Bearer { realm, service, scope }), login) => {
                let realm = self.realm(&realm, security)?;
                let scope = scope.unwrap_or_else(|| format!("repository:{}:pull", self.repository()));
                let mut pairs = vec![("scope", scope.as_str())];
                if let Some(service) = &service {
                    pairs.push(("service", service));
                }
                let (token, life) = match login {
                    Login::Refresh(token) => self.refresh(realm, pairs, token, security).await?,
                    Login::Password { user, password } => {
                        let basic = self.basic(user, password)?;
                        pairs.push(("account", user));
                        self.token(realm, pairs, Some(basic), security).await?
                    }
                    Login::Anonymous | Login::Bearer(_) => self.token(realm, pairs, None, security).await?,
                };
                let header = self.header(format!("Bearer {}", &*token))?;
                self.tokens().keep(self.token_key(), header.clone(), life);
                Ok(header)
            }
            (Some(Challenge::Basic), _) => {
                Err(self.unauthorized(Some("it asks for a user name and a password".to_owned())))
            }
            (None, _) => Err(self.unauthorized(Some("it does not say what it asks for".to_owned()))),
        }
    }

    /// Makes the header of a token, or of encoded credentials.
    pub(super) fn header(&self, text: String) -> Result<HeaderValue, Failure> {
        let mut value = HeaderValue::try_from(text).map_err(|_| {
            self.unauthorized(Some("what to send has characters that cannot be sent".to_owned()))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn basic(&self, user: &str, password: &str) -> Result<HeaderValue, Failure> {
        let both = Zeroizing::new(format!("{user}:{password}"));
        self.header(format!("Basic {}", STANDARD.encode(&*both)))
    }

    /// Checks where a challenge wants credentials to be sent.
    fn realm(&self, text: &str, security: Security) -> Result<Url, Failure> {
        let bad = |reason: &str| {
            let reason = format!("its token server {:?} {reason}", crate::error::excerpt(text));
            Failure::last(Error::RegistryUnavailable { host: self.host().to_owned(), reason })
        };
        let url =
            Url::parse(text).ok().and_then(web_address).ok_or_else(|| bad("is no address of the web"))?;
        if url.scheme() != "https" && security != Security::Plain {
            return Err(bad("is not reached by https"));
        }
        Ok(url)
    }

    async fn token(
        &self,
        mut realm: Url,
        pairs: Vec<(&str, &str)>,
        basic: Option<HeaderValue>,
        security: Security,
    ) -> Result<(Secret, Option<Duration>), Failure> {
        realm.query_pairs_mut().extend_pairs(pairs);
        let host = self.way(&realm, security)?.host;
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static("application/json"))]);
        let answer = self.get(realm, &headers, basic, security).await?;
        self.read_token(answer.response, &host).await
    }

    /// Exchanges an identity token, which is an OAuth 2 refresh token.
    async fn refresh(
        &self,
        realm: Url,
        pairs: Vec<(&str, &str)>,
        token: &str,
        security: Security,
    ) -> Result<(Secret, Option<Duration>), Failure> {
        let way = self.way(&realm, security)?;
        let client = self.clients().client(&way).map_err(Failure::last)?;
        let mut form = realm.clone();
        form.set_query(None);
        form.query_pairs_mut().extend_pairs(pairs).extend_pairs([
            ("grant_type", "refresh_token"),
            ("client_id", CLIENT),
            ("refresh_token", token),
        ]);
        let request = client
            .post(realm)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.query().unwrap_or_default().to_owned());
        let response = timeout(self.patience().answer, request.send())
            .await
            .map_err(|_| {
                Failure::unavailable(&way.host, format!("no answer in {:?}", self.patience().answer))
            })?
            .map_err(|e| Failure::of_request(&way.host, &self.clients().directory(&way.host), e))?;
        self.read_token(response, &way.host).await
    }

    /// Reads a token, and how long it is good if its server says so.
    async fn read_token(
        &self,
        response: reqwest::Response,
        host: &str,
    ) -> Result<(Secret, Option<Duration>), Failure> {
        let status = response.status();
        if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST) {
            let said = self.message(response).await;
            return Err(self.unauthorized(Some(format!("its token server {host} answers {status}: {said}"))));
        }
        if !status.is_success() {
            return Err(self.refusal(response, host, "a token").await);
        }
        let what = format!("a token of {host}");
        let body = Blob::new(response, host, self.patience()).whole(MAX_TOKEN_BYTES, &what).await?;
        // The text of serde's errors may quote the token.
        let token = json::parse::<Token>(&body).ok().and_then(|token| {
            let life = token.expires_in.map(Duration::from_secs);
            let text = [token.token, token.access_token].into_iter().flatten().find(|text| !text.is_empty());
            Some((text?, life))
        });
        token.ok_or_else(|| {
            let reason = "its answer to a request for a token holds none".to_owned();
            let error = Error::RegistryUnavailable { host: host.to_owned(), reason };
            Failure { error, again: Again::No }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Option<Challenge> {
        Challenge::read(
            &values.iter().map(|text| (WWW_AUTHENTICATE, HeaderValue::from_static(text))).collect(),
        )
    }

    #[test]
    fn challenges_are_read() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(Into::into),
            scope: scope.map(Into::into),
        };
        assert_eq!(read(&[]), None);
        assert_eq!(read(&["Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(read(&["basic"]), Some(Challenge::Basic));
        assert_eq!(
            read(&["Bearer realm=\"https://a/t\",service=\"s\",scope=\"repository:x:pull\""]),
            Some(bearer("https://a/t", Some("s"), Some("repository:x:pull")))
        );
        assert_eq!(
            read(&["Basic realm=\"x\"", "bearer Realm=\"https://a/\\\"t\""]),
            Some(bearer("https://a/\"t", None, None))
        );
        assert_eq!(read(&["Bearer service=\"s\""]), None);
        assert_eq!(read(&["Negotiate, Basic realm=\"x\""]), Some(Challenge::Basic));
        assert_eq!(read(&["\"\"\",,,=="]), None);
    }

    proptest::proptest! {
        #[test]
        fn no_challenge_panics(text in "[ -~]{0,60}") {
            let value = HeaderValue::try_from(format!("Bearer {text}")).unwrap();
            Challenge::read(&HeaderMap::from_iter([(WWW_AUTHENTICATE, value)]));
        }
    }
}
