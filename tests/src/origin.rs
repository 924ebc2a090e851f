//! A registry in memory that can misbehave on demand: it cuts off, corrupts, refuses, or waits.
//!
//! It speaks just as much HTTP/1.1 as pulling needs, a thread for each connection, so that it lives
//! apart from the runtime of the test that uses it.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::Result;
use crate::image::{Image, digest};

/// How the answer for one blob or manifest is spoilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Other bytes of the same length.
    Corrupted,
    /// The headers promise all, and the connection ends half-way.
    Truncated,
    /// An internal error.
    Refused,
    /// Half of it, then nothing until [`Origin::release`].
    Stalled,
}

/// The registry; it ends with the process.
#[derive(Debug, Clone)]
pub struct Origin {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    /// Told when `State::released` changes.
    released: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Bodies by request path, with their media type.
    content: HashMap<String, (String, Vec<u8>)>,
    /// By request path.
    faults: HashMap<String, Fault>,
    /// The value that the Authorization header must have.
    authorization: Option<String>,
    /// Method and path of each request so far.
    requests: Vec<String>,
    released: bool,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic in another test's thread leaves the maps whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Origin {
    /// Starts one on the loopback interface.
    pub fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen as a registry")?;
        let origin = Self { address: listener.local_addr()?, shared: Arc::default() };
        let shared = origin.shared.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                // A client that leaves early is no concern of the test's.
                std::thread::spawn(move || serve(&stream, &shared).ok());
            }
        });
        Ok(origin)
    }

    /// Offers an image, and returns the reference to pull.
    pub fn offer(&self, name: &str, image: &Image) -> String {
        let mut state = self.shared.state();
        for (digest, blob) in &image.blobs {
            let path = format!("/v2/{name}/blobs/{digest}");
            state.content.insert(path, ("application/octet-stream".to_owned(), blob.clone()));
        }
        let media_type = "application/vnd.oci.image.manifest.v1+json";
        for tag in ["latest", &digest(&image.manifest)] {
            let path = format!("/v2/{name}/manifests/{tag}");
            state.content.insert(path, (media_type.to_owned(), image.manifest.clone()));
        }
        format!("{}/{name}:latest", self.address)
    }

    /// Offers any bytes as the manifest with this tag or digest.
    pub fn offer_manifest(&self, name: &str, tag: &str, manifest: &[u8]) -> String {
        let media_type = "application/vnd.oci.image.manifest.v1+json".to_owned();
        let path = format!("/v2/{name}/manifests/{tag}");
        self.shared.state().content.insert(path, (media_type, manifest.to_owned()));
        let separator = if tag.starts_with("sha256:") { '@' } else { ':' };
        format!("{}/{name}{separator}{tag}", self.address)
    }

    /// Answers other bytes for the blob with this digest.
    pub fn replace_blob(&self, name: &str, digest: &str, bytes: &[u8]) {
        let path = format!("/v2/{name}/blobs/{digest}");
        let blob = ("application/octet-stream".to_owned(), bytes.to_owned());
        self.shared.state().content.insert(path, blob);
    }

    /// Spoils the answer for the blob with this digest.
    pub fn spoil_blob(&self, name: &str, digest: &str, fault: Fault) {
        self.shared.state().faults.insert(format!("/v2/{name}/blobs/{digest}"), fault);
    }

    /// Lets stalled answers go on.
    pub fn release(&self) {
        self.shared.state().released = true;
        self.shared.released.notify_all();
    }

    /// From now on asks for these credentials.
    pub fn require(&self, user: &str, password: &str) {
        let token = BASE64_STANDARD.encode(format!("{user}:{password}"));
        self.shared.state().authorization = Some(format!("Basic {token}"));
    }

    /// How often something whose path contains `part` was fetched with GET.
    pub fn fetches(&self, part: &str) -> usize {
        let state = self.shared.state();
        state.requests.iter().filter(|request| request.starts_with("GET") && request.contains(part)).count()
    }
}

fn serve(stream: &TcpStream, shared: &Shared) -> std::io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut words = line.split_whitespace();
        let (method, target) = (words.next().unwrap_or(""), words.next().unwrap_or(""));
        let path = target.split('?').next().unwrap_or("");
        let mut authorization = None;
        loop {
            let mut header = String::new();
            reader.read_line(&mut header)?;
            let Some((name, value)) = header.split_once(':') else { break };
            if name.eq_ignore_ascii_case("authorization") {
                authorization = Some(value.trim().to_owned());
            }
        }
        if !answer(stream, shared, (method, path), authorization)? {
            return Ok(());
        }
    }
}

/// Answers one request; false ends the connection.
fn answer(
    mut stream: &TcpStream,
    shared: &Shared,
    (method, path): (&str, &str),
    authorization: Option<String>,
) -> std::io::Result<bool> {
    let mut state = shared.state();
    state.requests.push(format!("{method} {path}"));
    if state.authorization.is_some() && state.authorization != authorization {
        let challenge = "WWW-Authenticate: Basic realm=\"test\"";
        write!(stream, "HTTP/1.1 401 Unauthorized\r\n{challenge}\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    if path == "/v2/" {
        write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{{}}")?;
        return Ok(true);
    }
    let Some((media_type, mut body)) = state.content.get(path).cloned() else {
        let body = r#"{"errors":[{"code":"NAME_UNKNOWN","message":"no such thing"}]}"#;
        let length = body.len();
        write!(stream, "HTTP/1.1 404 Not Found\r\nContent-Length: {length}\r\n\r\n{body}")?;
        return Ok(true);
    };
    let fault = state.faults.get(path).copied();
    drop(state);
    if fault == Some(Fault::Refused) {
        write!(stream, "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n")?;
        return Ok(true);
    }
    let (length, digest) = (body.len(), digest(&body));
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: {media_type}\r\nContent-Length: {length}\r\n")?;
    write!(stream, "Docker-Content-Digest: {digest}\r\n\r\n")?;
    if method == "HEAD" {
        return Ok(true);
    }
    match fault {
        Some(Fault::Corrupted) => {
            // Within the compressed data: the header and the length stay plausible.
            body[length / 2] ^= 0x55;
            stream.write_all(&body)?;
        }
        Some(Fault::Truncated) => {
            stream.write_all(&body[..length / 2])?;
            return Ok(false);
        }
        Some(Fault::Stalled) => {
            stream.write_all(&body[..length / 2])?;
            let mut state = shared.state();
            while !state.released {
                state = shared.released.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            drop(state);
            stream.write_all(&body[length / 2..])?;
        }
        Some(Fault::Refused) | None => stream.write_all(&body)?,
    }
    Ok(true)
}
