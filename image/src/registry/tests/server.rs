//! A registry that answers as a test tells it to.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use rustix::net::sockopt::set_socket_linger;
use rustls::ServerConfig;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use oci_client::manifest::{IMAGE_CONFIG_MEDIA_TYPE, IMAGE_LAYER_GZIP_MEDIA_TYPE, OCI_IMAGE_MEDIA_TYPE};
use serde_json::{Value, json};

use crate::Digest;

/// A server on a port of its own, that ends with the test.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    later: Later,
    seen: Arc<Mutex<Vec<Request>>>,
    task: JoinHandle<()>,
}

/// What came.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// With the query.
    pub(crate) path: String,
    headers: HashMap<String, String>,
    pub(crate) body: String,
}

/// What goes back.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// A whole answer.
    Answer { status: u16, headers: Vec<(String, String)>, body: Bytes },
    /// These bytes, and then the connection breaks.
    Broken(Vec<u8>),
    /// These bytes, and then silence.
    Silent(Vec<u8>),
    /// These bytes, and then the connection is reset.
    Reset(Vec<u8>),
    /// The first bytes at once, and the others one by one with pauses.
    Drip(Vec<u8>, Vec<u8>),
}

/// What a server does whose content depends on its port.
#[derive(Clone, Default)]
struct Later(Arc<std::sync::OnceLock<Box<Handler>>>);

type Handler = dyn Fn(&Request) -> Reply + Send + Sync;

impl std::fmt::Debug for Later {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Later")
    }
}

impl Server {
    /// Starts a server that answers once [`Server::serve`] was called.
    pub(crate) async fn start_later() -> Self {
        let later = Later::default();
        let shared = later.clone();
        let answer = move |request: &Request| {
            shared.0.get().map_or_else(|| Reply::new(503, ""), |serve| serve(request))
        };
        let mut server = Self::start(answer).await;
        server.later = later;
        server
    }

    /// Says what a server does that was started without.
    pub(crate) fn serve(&self, handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) {
        assert!(self.later.0.set(Box::new(handler)).is_ok(), "it serves already");
    }

    pub(crate) async fn start(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self::listen(None, handler).await
    }

    /// Starts a server that speaks TLS.
    pub(crate) async fn start_tls(
        config: ServerConfig,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::listen(Some(TlsAcceptor::from(Arc::new(config))), handler).await
    }

    async fn listen(
        tls: Option<TlsAcceptor>,
        handler: impl Fn(&Request) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&seen);
        let handler = Arc::new(handler);
        let task = tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (seen, handler, tls) = (Arc::clone(&shared), Arc::clone(&handler), tls.clone());
                tokio::spawn(async move {
                    let socket = stream.as_fd().try_clone_to_owned().unwrap();
                    let served = Served { seen: &seen, handler: &*handler, socket };
                    let Some(tls) = tls else { return served.serve(stream).await };
                    // A handshake that fails is what some tests are about.
                    if let Ok(stream) = tls.accept(stream).await {
                        served.serve(stream).await;
                    }
                });
            }
        });
        Self { address, later: Later::default(), seen, task }
    }

    /// Returns the requests that came so far.
    pub(crate) fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// Returns the paths that were asked for, without `/v2`.
    pub(crate) fn paths(&self) -> Vec<String> {
        self.seen().iter().map(|request| request.path.trim_start_matches("/v2").to_owned()).collect()
    }

    pub(crate) fn host(&self) -> String {
        self.address.to_string()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

impl Reply {
    pub(crate) fn new(status: u16, body: impl Into<Bytes>) -> Self {
        Self::Answer { status, headers: Vec::new(), body: body.into() }
    }

    pub(crate) fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Self::Answer { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }

    /// Cuts a whole answer after `bytes` of its body.
    pub(crate) fn cut(self, bytes: usize) -> Self {
        let Self::Answer { status, headers, body } = self else { return self };
        let mut whole = head(status, &headers, body.len());
        whole.extend_from_slice(&body[..bytes]);
        Self::Broken(whole)
    }
}

fn head(status: u16, headers: &[(String, String)], length: usize) -> Vec<u8> {
    let mut text = format!("HTTP/1.1 {status} X\r\nContent-Length: {length}\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// One connection.
struct Served<'a> {
    seen: &'a Mutex<Vec<Request>>,
    handler: &'a (dyn Fn(&Request) -> Reply + Sync),
    /// Below whatever the stream is.
    socket: OwnedFd,
}

impl Served<'_> {
    async fn serve(self, stream: impl AsyncRead + AsyncWrite + Unpin) {
        let mut stream = BufReader::new(stream);
        loop {
            let request = match read(&mut stream).await {
                Ok(Some(request)) => request,
                Ok(None) => return,
                // No HTTP, which a real server tells in HTTP.
                Err(_) => return drop(stream.write_all(&head(400, &[], 0)).await),
            };
            let reply = (self.handler)(&request);
            self.seen.lock().unwrap().push(request);
            // A client that hangs up is part of many a test.
            match reply {
                Reply::Answer { status, headers, body } => {
                    let mut whole = head(status, &headers, body.len());
                    whole.extend_from_slice(&body);
                    if stream.write_all(&whole).await.is_err() {
                        return;
                    }
                }
                Reply::Broken(bytes) => return drop(stream.write_all(&bytes).await),
                Reply::Silent(bytes) => {
                    stream.write_all(&bytes).await.ok();
                    return until_hung_up(&mut stream).await;
                }
                Reply::Reset(bytes) => {
                    stream.write_all(&bytes).await.ok();
                    return set_socket_linger(&self.socket, Some(Duration::ZERO)).unwrap();
                }
                Reply::Drip(first, rest) => {
                    let mut sent = stream.write_all(&first).await;
                    for byte in rest {
                        tokio::time::sleep(Duration::from_millis(5)).await;
                        sent = sent.and(stream.write_all(&[byte]).await);
                        if sent.is_err() {
                            return;
                        }
                    }
                    return until_hung_up(&mut stream).await;
                }
            }
        }
    }
}

async fn until_hung_up(stream: &mut (impl AsyncRead + Unpin)) {
    stream.read_to_end(&mut Vec::new()).await.ok();
}

async fn read(stream: &mut (impl AsyncBufRead + Unpin)) -> std::io::Result<Option<Request>> {
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(None);
        }
        match line.trim_end() {
            "" => break,
            text => lines.push(text.to_owned()),
        }
    }
    let mut first = lines[0].split(' ').map(str::to_owned);
    let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
    let split = |line: &String| line.split_once(": ").map(|(k, v)| (k.to_ascii_lowercase(), v.to_owned()));
    let headers: HashMap<_, _> = lines[1..].iter().filter_map(split).collect();
    let length = headers.get("content-length").map_or(0, |text| text.parse().unwrap());
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok(Some(Request { method, path, headers, body: String::from_utf8_lossy(&body).into_owned() }))
}

/// What a registry that behaves holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Content {
    /// By `REPOSITORY/manifests/NAME`.
    pub(crate) manifests: HashMap<String, (String, Bytes)>,
    pub(crate) blobs: HashMap<String, Bytes>,
}

impl Content {
    /// Makes an image of these layers. A layer's diff id is the digest of its bytes: they are not compressed.
    pub(crate) fn with_image(repository: &str, tag: &str, layers: &[&[u8]]) -> Self {
        let mut content = Self::default();
        let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
        content.image(repository, tag, layers, &diff_ids);
        content
    }

    /// Adds an image and returns the digest of its manifest.
    pub(crate) fn image(
        &mut self,
        repository: &str,
        tag: &str,
        layers: &[&[u8]],
        diff_ids: &[Digest],
    ) -> Digest {
        let config = json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Cmd": ["sh"], "User": "7"},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        });
        let layers: Vec<Value> =
            layers.iter().map(|layer| self.blob(IMAGE_LAYER_GZIP_MEDIA_TYPE, layer)).collect();
        let config = self.blob(IMAGE_CONFIG_MEDIA_TYPE, config.to_string().as_bytes());
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": OCI_IMAGE_MEDIA_TYPE,
            "config": config,
            "layers": layers,
        });
        self.manifest(repository, tag, OCI_IMAGE_MEDIA_TYPE, &manifest)
    }

    /// Adds a blob and returns its descriptor.
    pub(crate) fn blob(&mut self, media_type: &str, bytes: &[u8]) -> Value {
        let digest = Digest::sha256(bytes);
        self.blobs.insert(digest.to_string(), Bytes::copy_from_slice(bytes));
        json!({"mediaType": media_type, "digest": digest, "size": bytes.len()})
    }

    /// Adds a manifest or index under a tag and its digest.
    pub(crate) fn manifest(&mut self, repository: &str, tag: &str, media_type: &str, json: &Value) -> Digest {
        let body = Bytes::from(json.to_string());
        let digest = Digest::sha256(&body);
        for name in [tag.to_owned(), digest.to_string()] {
            self.manifests
                .insert(format!("{repository}/manifests/{name}"), (media_type.to_owned(), body.clone()));
        }
        digest
    }

    /// Answers as a registry does.
    pub(crate) fn reply(&self, request: &Request) -> Reply {
        let path = request.path.trim_start_matches("/v2/");
        if let Some((media_type, body)) = self.manifests.get(path) {
            return Reply::new(200, body.clone())
                .header("Content-Type", media_type)
                .header("Docker-Content-Digest", Digest::sha256(body).to_string());
        }
        let blob = path.split_once("/blobs/").and_then(|(_, digest)| self.blobs.get(digest));
        let Some(blob) = blob else {
            return Reply::new(
                404,
                r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#,
            );
        };
        let range = request.header("range").and_then(|text| text.strip_prefix("bytes=")?.strip_suffix('-'));
        match range.map(|text| text.parse::<usize>().unwrap()) {
            Some(from) if from < blob.len() => Reply::new(206, blob.slice(from..))
                .header("Content-Range", format!("bytes {from}-{}/{}", blob.len() - 1, blob.len())),
            Some(_) => Reply::new(416, ""),
            None => Reply::new(200, blob.clone()),
        }
    }
}
