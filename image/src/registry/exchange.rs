//! One request, through the redirects that it meets.
//!
//! Credentials go to the origin they are for, and are dropped for good at the first redirect to another. From https
//! no redirect leads to http. Where a registry sends us is guarded (`guard`), unless it is the registry itself.

use std::sync::Arc;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Response, StatusCode, Url};
use tokio::time::timeout;

use super::client::Host;
use super::guard::{check_literal, is_loopback};
use super::tls::{Origin, Security, Way};
use super::{Failure, failure};
use crate::Error;

const MAX_REDIRECTS: usize = 5;

/// An answer that is no redirect.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    /// Whether it comes from the origin that was asked, and so may speak about its credentials.
    pub(super) own: bool,
}

impl Host {
    /// Gets an address. `security` is how the registry is reached.
    pub(super) async fn get(
        &self,
        url: Url,
        headers: &HeaderMap,
        mut authorization: Option<HeaderValue>,
        security: Security,
    ) -> Result<Answer, Failure> {
        let start = url.clone();
        let mut url = url;
        for _ in 0..=MAX_REDIRECTS {
            let way = self.way(&url, security)?;
            let client = self.clients().client(&way).map_err(Failure::last)?;
            let mut headers = headers.clone();
            if let Some(endpoint) = self.endpoint().filter(|_| way.host == self.host()) {
                headers.extend(endpoint.headers.clone());
            }
            if let Some(authorization) = &authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            let request = client.get(url.clone()).headers(headers);
            let response = timeout(self.patience().answer, request.send())
                .await
                .map_err(|_| {
                    let reason = format!("no answer in {:?}", self.patience().answer);
                    Failure::unavailable(&way.host, reason)
                })?
                .map_err(|e| Failure::of_request(&way.host, &self.clients().directory(&way.host), e))?;
            let own = url.origin() == start.origin();
            if !is_redirect(response.status()) {
                return Ok(Answer { response, own });
            }
            let next = target(&url, &response)
                .filter(|next| self.insecure() || is_as_safe(&url, next))
                .ok_or_else(|| refused(&way.host, response.status(), "a redirect that is not followed"))?;
            if next.origin() != url.origin() {
                authorization = None;
            }
            url = next;
        }
        Err(refused(self.host(), StatusCode::FOUND, "too many redirects"))
    }

    /// Says how to connect to the registry itself.
    pub(super) fn own_way(&self, security: Security) -> Way {
        let endpoint = self.endpoint();
        let tls = endpoint.map(|endpoint| Arc::clone(&endpoint.tls)).unwrap_or_default();
        let connect = endpoint.and_then(|endpoint| endpoint.connect);
        Way { host: self.host().to_owned(), security, origin: Origin::Named, tls, connect }
    }

    /// Says how to connect to an address that this registry was asked for or has named.
    pub(super) fn way(&self, url: &Url, security: Security) -> Result<Way, Failure> {
        let name = url.host_str().unwrap_or_default();
        let registry = self.host();
        let host = match url.port() {
            Some(port) => format!("{name}:{port}"),
            // An address leaves the scheme's own port out, a name may have it.
            None => match url.port_or_known_default().map(|port| format!("{name}:{port}")) {
                Some(host) if host == registry => host,
                _ => name.to_owned(),
            },
        };
        let same = without_port(&host) == without_port(registry);
        let origin =
            if same || is_loopback(&host) && is_loopback(registry) { Origin::Named } else { Origin::Foreign };
        if origin == Origin::Foreign {
            check_literal(url).map_err(|forbidden| {
                let reason = format!("it sends us to {host}: {}", failure::chain(&forbidden));
                Failure::last(Error::RegistryUnavailable { host: registry.to_owned(), reason })
            })?;
        }
        let security = match url.scheme() {
            "http" => Security::Plain,
            _ if same && security != Security::Plain => security,
            _ => Security::Verified,
        };
        if host == registry {
            return Ok(self.own_way(security));
        }
        Ok(Way { host, security, origin, tls: Arc::default(), connect: None })
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// Says whether one address protects what is sent as well as another.
fn is_as_safe(from: &Url, to: &Url) -> bool {
    to.scheme() == "https" || from.scheme() == "http"
}

fn target(url: &Url, response: &Response) -> Option<Url> {
    let location = response.headers().get(LOCATION)?.to_str().ok()?;
    web_address(url.join(location).ok()?)
}

/// Takes an address of the web, without the credentials that may be written into it.
pub(super) fn web_address(mut url: Url) -> Option<Url> {
    let web = matches!(url.scheme(), "http" | "https") && url.has_host();
    (web && url.set_username("").is_ok() && url.set_password(None).is_ok()).then_some(url)
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    }
}

fn refused(host: &str, status: StatusCode, reason: &str) -> Failure {
    Failure::last(Error::Refused {
        host: host.to_owned(),
        what: "a request".to_owned(),
        status: status.as_u16(),
        reason: reason.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tls_is_not_left() {
        for (from, to, safe) in [
            ("https://a/", "http://a/", false),
            ("https://a/", "https://b/", true),
            ("http://a/", "http://b/", true),
            ("http://a/", "https://a/", true),
        ] {
            assert_eq!(is_as_safe(&from.parse().unwrap(), &to.parse().unwrap()), safe, "{from} {to}");
        }
    }

    #[test]
    fn hosts_without_their_ports() {
        for (host, name) in
            [("a.io:5000", "a.io"), ("a.io", "a.io"), ("[::1]:5", "[::1]"), ("[::1]", "[::1]")]
        {
            assert_eq!(without_port(host), name);
        }
    }
}
