//! One registry as one pull sees it: manifests, configurations and blobs of one repository.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use reqwest::header::{ACCEPT, CONTENT_RANGE, CONTENT_TYPE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Response, StatusCode, Url};

use super::auth::Challenge;
use super::body::Blob;
use super::guard::is_loopback;
use super::manifest::{self, Descriptor, Document};
use super::place::{Endpoint, Place, Role, Scheme};
use super::tls::{Clients, Security};
use super::{Access, Again, Failure, Means, Patience, tokens};
use crate::credentials::Login;
use crate::{Algorithm, Digest, Error};

/// A registry, for one repository and with the credentials of one pull.
#[derive(Debug)]
pub(crate) struct Host {
    place: Place,
    /// What is connected to; Docker Hub's registry has another name than its images.
    host: String,
    access: Access,
    means: Arc<Means>,
    /// The ways to connect that may still turn out right, the likeliest first. Guards a short list; nothing is
    /// awaited under it.
    ways: Mutex<Vec<Security>>,
    /// What the registry last accepted. Held while a token is fetched, so that parallel requests fetch one.
    authorization: tokio::sync::Mutex<Option<HeaderValue>>,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub(crate) enum Wanted {
    /// What the pull's reference names.
    Named,
    /// What an index names.
    Listed(Descriptor),
}

/// A manifest or index, checked.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) document: Document,
    /// As it came.
    pub(crate) body: Bytes,
    pub(crate) digest: Digest,
}

impl Host {
    pub(super) fn new(place: Place, access: Access, means: &Arc<Means>) -> Self {
        let host = match place.name.registry() {
            "docker.io" => "registry-1.docker.io".to_owned(),
            other => other.to_owned(),
        };
        let ways = Mutex::new(ways(&place, &host, &means.clients));
        let host = Self {
            place,
            host,
            access,
            means: Arc::clone(means),
            ways,
            authorization: tokio::sync::Mutex::default(),
        };
        let kept = means.tokens.find(&host.token_key());
        Self { authorization: tokio::sync::Mutex::new(kept), ..host }
    }

    /// Returns `HOST[:PORT]`.
    pub(crate) fn host(&self) -> &str {
        &self.host
    }

    /// Returns the name that it is asked for, with the host.
    pub(crate) fn name(&self) -> String {
        self.place.name.to_string()
    }

    pub(super) fn repository(&self) -> &str {
        self.place.name.repository()
    }

    pub(super) fn insecure(&self) -> bool {
        self.place.insecure
    }

    pub(super) fn login(&self) -> &Login {
        &self.access.login
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.means.clients
    }

    pub(super) fn patience(&self) -> &Arc<Patience> {
        &self.means.patience
    }

    pub(super) fn tokens(&self) -> &tokens::Tokens {
        &self.means.tokens
    }

    pub(super) fn token_key(&self) -> tokens::Key {
        let (host, repository) = (self.host.clone(), self.repository().to_owned());
        tokens::Key { host, repository, login: self.access.login.clone() }
    }

    pub(super) fn endpoint(&self) -> Option<&Endpoint> {
        self.place.endpoint.as_deref()
    }

    /// Returns where it is and how it is spoken to at first, for people.
    pub(crate) fn address(&self) -> String {
        let ways = self.ways.lock().unwrap_or_else(PoisonError::into_inner);
        let scheme = if ways.first() == Some(&Security::Plain) { "http" } else { "https" };
        format!("{scheme}://{}{}/{}", self.host, self.root(), self.repository())
    }

    /// Returns the ways to connect that may be right, in the order to try them.
    pub(super) fn ways(&self) -> Vec<Security> {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn place(&self) -> &Place {
        &self.place
    }

    pub(super) fn access(&self) -> &Access {
        &self.access
    }

    /// Returns what it last accepted, unless that is being renewed.
    pub(super) fn sent(&self) -> Option<HeaderValue> {
        self.authorization.try_lock().ok()?.clone()
    }

    /// Says whether it may be asked what the pull's reference means.
    pub(crate) fn resolves(&self) -> bool {
        let by_digest = self.place.name.digest().is_some();
        self.endpoint().is_none_or(|endpoint| endpoint.pulls && (by_digest || endpoint.resolves))
    }

    /// Says whether it may be asked for blobs.
    pub(crate) fn pulls(&self) -> bool {
        self.endpoint().is_none_or(|endpoint| endpoint.pulls)
    }

    /// Returns the root of the API.
    fn root(&self) -> &str {
        self.endpoint().map_or("/v2", |endpoint| &endpoint.path)
    }

    /// Fetches a manifest or index and checks its digest, size and type.
    pub(crate) async fn manifest(&self, wanted: &Wanted) -> Result<Fetched, Failure> {
        let (name, expected) = match wanted {
            Wanted::Named => {
                let digest = self.place.name.digest();
                let tag = self.place.name.tag().unwrap_or("latest");
                (digest.map_or_else(|| tag.to_owned(), ToString::to_string), digest)
            }
            Wanted::Listed(descriptor) => (descriptor.digest.to_string(), Some(&descriptor.digest)),
        };
        let what = format!("manifest {name} of {}/{}", self.host, self.repository());
        let headers = HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(manifest::ACCEPT))]);
        let response = self.ask(&format!("manifests/{name}"), headers, &what).await?;
        let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
        let content_type = text(CONTENT_TYPE.as_str()).map(str::to_owned);
        let announced = text("docker-content-digest").and_then(|text| text.parse::<Digest>().ok());
        let body = self.body(response).whole(manifest::MAX_BYTES, &what).await?;

        let expected = expected.or(announced.as_ref());
        let digest = check_digest(&what, &body, expected).map_err(Failure::last)?;
        let mut content_type = content_type;
        if let Wanted::Listed(descriptor) = wanted {
            check_size(&what, body.len() as u64, descriptor.size_bytes).map_err(Failure::last)?;
            // The index says what it is, too.
            let listed = &descriptor.media_type;
            if content_type.as_ref().is_some_and(|header| header.split(';').next() != Some(listed.as_str())) {
                let reason = format!("its type is {content_type:?}, but {listed:?} in the index");
                return Err(Failure::last(Error::InvalidImage { what, reason }));
            }
            content_type = Some(listed.clone());
        }
        let document = Document::parse(&body, content_type.as_deref(), &what).map_err(Failure::last)?;
        Ok(Fetched { document, body, digest })
    }

    /// Fetches the configuration of an image and checks its digest and size.
    pub(crate) async fn config(&self, descriptor: &Descriptor) -> Result<Bytes, Failure> {
        self.small_blob(descriptor, manifest::MAX_CONFIG_BYTES).await
    }

    /// Fetches a blob that is at most so large, and checks its digest and size.
    pub(super) async fn small_blob(&self, descriptor: &Descriptor, limit: u64) -> Result<Bytes, Failure> {
        let what = format!("blob {} of {}/{}", descriptor.digest, self.host, self.repository());
        if descriptor.size_bytes > limit {
            let limit = format!("the {} KiB", limit >> 10);
            return Err(Failure::last(Error::TooLarge { what, limit }));
        }
        let blob = self.blob(descriptor, 0).await?;
        let body = blob.whole(limit, &what).await?;
        check_size(&what, body.len() as u64, descriptor.size_bytes).map_err(Failure::last)?;
        check_digest(&what, &body, Some(&descriptor.digest)).map_err(Failure::last)?;
        Ok(body)
    }

    /// Begins to fetch a blob, from the byte `from` on. Nothing of it is checked yet.
    pub(crate) async fn blob(&self, descriptor: &Descriptor, from: u64) -> Result<Blob, Failure> {
        let what = format!("blob {} of {}/{}", descriptor.digest, self.host, self.repository());
        let mut headers = HeaderMap::new();
        if from > 0 {
            let range = HeaderValue::try_from(format!("bytes={from}-"));
            headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let response = self.ask(&format!("blobs/{}", descriptor.digest), headers, &what).await?;
        let partial = response.status() == StatusCode::PARTIAL_CONTENT;
        if let Some(announced) = response.content_length() {
            let found = announced.saturating_add(if partial { from } else { 0 });
            check_size(&what, found, descriptor.size_bytes).map_err(Failure::last)?;
        }
        if !partial {
            // A host that does not know ranges sends it all once more.
            return Ok(self.body(response).skip(from));
        }
        let range = response.headers().get(CONTENT_RANGE).and_then(|value| value.to_str().ok());
        if range.and_then(range_start) != Some(from) {
            let reason =
                format!("it sends the range {:?} instead of the one from {from}", range.unwrap_or("?"));
            return Err(Failure::last(Error::RegistryUnavailable { host: self.host.clone(), reason }));
        }
        Ok(self.body(response))
    }

    /// Asks in each way that may be right until one is.
    pub(super) async fn ask(&self, path: &str, headers: HeaderMap, what: &str) -> Result<Response, Failure> {
        let mut first = None;
        for security in self.ways() {
            let failure = match self.ask_by(security, path, &headers, what).await {
                Ok(response) => {
                    self.settle(security);
                    return Ok(response);
                }
                Err(failure) => failure,
            };
            let unreachable = security == Security::Unverified && failure.again != Again::No;
            if failure.again != Again::OtherScheme && !unreachable {
                return Err(failure);
            }
            first.get_or_insert(failure);
        }
        let failure = first.unwrap_or_else(|| Failure::unavailable(&self.host, "there is no way to it"));
        let again = if failure.again == Again::OtherScheme { Again::Later(None) } else { failure.again };
        Err(Failure { again, ..failure })
    }

    fn settle(&self, security: Security) {
        self.ways.lock().unwrap_or_else(PoisonError::into_inner).retain(|way| *way == security);
    }

    async fn ask_by(
        &self,
        security: Security,
        path: &str,
        headers: &HeaderMap,
        what: &str,
    ) -> Result<Response, Failure> {
        let scheme = if security == Security::Plain { "http" } else { "https" };
        let mut address = format!("{scheme}://{}{}/{}/{path}", self.host, self.root(), self.repository());
        if let (Role::Mirror, Some(_)) = (self.place.role, self.endpoint()) {
            // A mirror of several registries is told by this which one is meant.
            address.push_str(&format!("?ns={}", self.place.registry));
        }
        let url: Url = address.parse().map_err(|_| Failure::unavailable(&self.host, "it is no host name"))?;
        let mut used = match self.login() {
            Login::Bearer(token) => Some(self.header(format!("Bearer {}", &**token))?),
            _ => self.authorization.lock().await.clone(),
        };
        let mut renewed = false;
        loop {
            let answer = self.get(url.clone(), headers, used.clone(), security).await?;
            let (own, response) = (answer.own, answer.response);
            let status = response.status();
            if status == StatusCode::OK || status == StatusCode::PARTIAL_CONTENT {
                return Ok(response);
            }
            if status == StatusCode::BAD_REQUEST && security == Security::Plain {
                let error = self.refusal(response, &self.host, what).await.error;
                return Err(Failure { error, again: Again::OtherScheme });
            }
            if status != StatusCode::UNAUTHORIZED || !own {
                return Err(self.refusal(response, &self.host, what).await);
            }
            if renewed {
                let said = self.message(response).await;
                return Err(self.unauthorized(Some(said)));
            }
            let mut current = self.authorization.lock().await;
            if *current == used {
                let challenge = Challenge::read(response.headers());
                *current = Some(self.authorize(challenge, security).await?);
            }
            used.clone_from(&current);
            renewed = true;
        }
    }

    pub(super) fn body(&self, response: Response) -> Blob {
        Blob::new(response, &self.host, self.patience())
    }
}

/// Says how a host is connected to, the likeliest way first.
fn ways(place: &Place, host: &str, clients: &Clients) -> Vec<Security> {
    let endpoint = place.endpoint.as_deref();
    let any = place.insecure || endpoint.is_some_and(|endpoint| endpoint.skip_verify);
    let tls = if any { Security::Unverified } else { Security::Verified };
    let configured = clients.has_certificates(host) || endpoint.is_some_and(Endpoint::has_tls_settings);
    match (endpoint.and_then(|endpoint| endpoint.scheme), configured) {
        (Some(Scheme::Https), _) => vec![tls],
        (Some(Scheme::Http), true) if !host.ends_with(":80") => vec![tls, Security::Plain],
        (Some(Scheme::Http), _) => vec![Security::Plain],
        (None, true) => vec![tls],
        (None, false) if is_loopback(host) => vec![Security::Plain, tls],
        (None, false) if place.insecure => vec![tls, Security::Plain],
        (None, false) => vec![tls],
    }
}

fn check_size(what: &str, found: u64, expected: u64) -> Result<(), Error> {
    if found == expected {
        Ok(())
    } else {
        Err(Error::SizeMismatch { what: what.to_owned(), expected, found })
    }
}

fn check_digest(what: &str, body: &[u8], expected: Option<&Digest>) -> Result<Digest, Error> {
    let algorithm = expected.map_or(Algorithm::Sha256, Digest::algorithm);
    let mut hasher = crate::Hasher::new(algorithm);
    hasher.update(body);
    let found = hasher.finish();
    match expected {
        Some(expected) if *expected != found => {
            Err(Error::DigestMismatch { what: what.to_owned(), expected: expected.clone(), found })
        }
        _ => Ok(found),
    }
}

/// Reads where a `Content-Range` begins.
fn range_start(text: &str) -> Option<u64> {
    text.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}
