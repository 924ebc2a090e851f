//! One `hosts.toml`: its tables, and what they mean. Follows containerd's `docs/hosts.md`.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};
use serde::Deserialize;
use toml::Spanned;

use super::super::place::{Endpoint, Material, Scheme};

#[derive(Deserialize)]
struct File {
    server: Option<String>,
    #[serde(default)]
    host: HashMap<String, Spanned<Table>>,
}

/// The settings of a host; those of the server stand at the top.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Table {
    capabilities: Vec<String>,
    ca: Option<OneOrMore<String>>,
    client: Option<OneOrMore<Pair>>,
    skip_verify: bool,
    header: HashMap<String, OneOrMore<String>>,
    override_path: bool,
    dial_timeout: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum OneOrMore<T> {
    More(Vec<T>),
    One(T),
}

/// A client's certificate.
#[derive(Deserialize)]
#[serde(untagged)]
enum Pair {
    /// Both in one file.
    Together(String),
    Apart([String; 2]),
}

/// Reads a file; each host comes with the name of its entry, and the server last.
pub(super) fn parse(text: &str, directory: &Path) -> Result<Vec<(Endpoint, String)>, String> {
    let bad = |e: toml::de::Error| e.to_string().trim_end().to_owned();
    let file: File = toml::from_str(text).map_err(bad)?;
    let server: Table = toml::from_str(text).map_err(bad)?;
    // Their order in the file is the order to try them.
    let mut hosts: Vec<_> = file.host.into_iter().collect();
    hosts.sort_by_key(|(_, table)| table.span().start);
    let mut endpoints = Vec::with_capacity(hosts.len() + 1);
    for (address, table) in hosts {
        let entry = format!("[host.{address:?}]");
        let line = text[..table.span().start.min(text.len())].matches('\n').count() + 1;
        let endpoint = table
            .into_inner()
            .endpoint(Some(&address), directory)
            .map_err(|reason| format!("line {line}: {entry}: {reason}"))?;
        endpoints.push((endpoint, entry));
    }
    let entry = file
        .server
        .as_deref()
        .map_or_else(|| "the registry itself".to_owned(), |server| format!("server = {server:?}"));
    let endpoint =
        server.endpoint(file.server.as_deref(), directory).map_err(|reason| format!("{entry}: {reason}"))?;
    endpoints.push((endpoint, entry));
    Ok(endpoints)
}

impl<T> OneOrMore<T> {
    fn into_vec(self) -> Vec<T> {
        match self {
            Self::More(all) => all,
            Self::One(one) => vec![one],
        }
    }
}

impl Table {
    fn endpoint(self, address: Option<&str>, directory: &Path) -> Result<Endpoint, String> {
        let mut endpoint = Endpoint::usual();
        if let Some(address) = address {
            self.locate(address, &mut endpoint)?;
            self.capabilities(&mut endpoint)?;
        }
        endpoint.skip_verify = self.skip_verify;
        endpoint.connect = self.dial_timeout.as_deref().map(duration).transpose()?;
        let file = |name: String| directory.join(name);
        let pairs =
            self.client.map(OneOrMore::into_vec).unwrap_or_default().into_iter().map(|pair| match pair {
                Pair::Together(both) => (file(both.clone()), file(both)),
                Pair::Apart([certificate, key]) => (file(certificate), file(key)),
            });
        let pairs = pairs.collect();
        let roots = self.ca.map(OneOrMore::into_vec).unwrap_or_default().into_iter().map(file).collect();
        endpoint.tls = Arc::new(Material { roots, pairs });
        for (name, values) in self.header {
            for value in values.into_vec() {
                let header = HeaderName::try_from(&name).ok().zip(HeaderValue::try_from(value).ok());
                // The value may be a secret.
                let (key, mut value) = header.ok_or_else(|| format!("header {name:?} cannot be sent"))?;
                value.set_sensitive(true);
                endpoint.headers.append(key, value);
            }
        }
        Ok(endpoint)
    }

    fn locate(&self, address: &str, endpoint: &mut Endpoint) -> Result<(), String> {
        let whole = if address.contains("://") { address.to_owned() } else { format!("https://{address}") };
        let url = Url::parse(&whole).map_err(|e| format!("it is no address: {e}"))?;
        let (Some(host), true) = (url.host_str(), url.username().is_empty() && url.password().is_none())
        else {
            return Err("it is no address of a host alone".to_owned());
        };
        endpoint.scheme = Some(match url.scheme() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("its scheme is {other:?}, neither http nor https")),
        });
        endpoint.host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = url.path().trim_end_matches('/');
        endpoint.path = match self.override_path || path.ends_with("/v2") {
            true => path.to_owned(),
            false => format!("{path}/v2"),
        };
        Ok(())
    }

    fn capabilities(&self, endpoint: &mut Endpoint) -> Result<(), String> {
        if self.capabilities.is_empty() {
            return Ok(());
        }
        (endpoint.resolves, endpoint.pulls) = (false, false);
        for capability in &self.capabilities {
            match capability.to_ascii_lowercase().as_str() {
                "pull" => endpoint.pulls = true,
                "resolve" => endpoint.resolves = true,
                "push" => {}
                _ => return Err(format!("capability {capability:?} is none of pull, resolve and push")),
            }
        }
        Ok(())
    }
}

/// Reads a duration as Go writes it: `1m30s`, `500ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let bad = || format!("dial_timeout {text:?} is no duration such as 3s or 500ms");
    let (mut rest, mut total) = (text, Duration::ZERO);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        let unit = rest[end..].find(|c: char| c.is_ascii_digit()).map_or(rest.len(), |next| end + next);
        let seconds = match &rest[end..unit] {
            "h" => 3600.0,
            "m" => 60.0,
            "s" => 1.0,
            "ms" => 1e-3,
            "us" | "µs" => 1e-6,
            "ns" => 1e-9,
            _ => return Err(bad()),
        };
        total += Duration::try_from_secs_f64(number * seconds).map_err(|_| bad())?;
        rest = &rest[unit..];
    }
    if total.is_zero() { Err(bad()) } else { Ok(total) }
}
