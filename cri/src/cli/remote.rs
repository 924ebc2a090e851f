//! The client of a streaming URL: the upgrade, and a command's streams over either transport.

use std::sync::Arc;

use anyhow::{Context, anyhow, bail};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::{Args, ValueEnum};
use hyper::header::{CONNECTION, HOST, HeaderMap, HeaderValue, UPGRADE};
use hyper::{Method, Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::trust::Trust;
use crate::stream::client::{Headers, Inbound, Io, Line, Outbound, Streams};
use crate::stream::client::{over_spdy, over_websocket, tunnel};

/// What SPDY clients offer, the best first.
const VERSIONS: [&str; 2] = ["v5.channel.k8s.io", "v4.channel.k8s.io"];
/// The version of the command protocol over WebSocket that can close standard input.
const WEBSOCKET: &str = "v5.channel.k8s.io";
const PORT_FORWARD: &str = "portforward.k8s.io";
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// How the bytes of a session travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Transport {
    /// SPDY/3.1, which every server speaks
    Spdy,
    /// WebSocket
    Websocket,
}

/// How a server's streaming URL is reached.
#[derive(Debug, Clone, Args)]
pub(crate) struct By {
    /// How the bytes travel
    #[arg(short = 'r', long, value_enum, default_value_t = Transport::Spdy)]
    transport: Transport,
    #[command(flatten)]
    trust: Trust,
}

/// Which streams a command has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted {
    pub(crate) stdin: bool,
    pub(crate) tty: bool,
}

/// A command's streams.
pub(crate) struct Remote {
    pub(crate) stdin: Option<Outbound>,
    pub(crate) stdout: Inbound,
    pub(crate) stderr: Option<Inbound>,
    pub(crate) resize: Option<Outbound>,
    pub(crate) error: Inbound,
    /// What the streams are on: without it there would be no more, and the server would be told so.
    pub(crate) connection: Option<Streams>,
}

/// Connects to what Exec or Attach answered.
pub(crate) async fn command(url: &str, by: &By, wanted: Wanted) -> anyhow::Result<Remote> {
    match by.transport {
        Transport::Spdy => command_streams(spdy_streams(url, by, &VERSIONS).await?, wanted).await,
        Transport::Websocket => {
            let (io, line) = upgrade(url, by, Offer::WebSocket(WEBSOCKET)).await?;
            let channels = over_websocket(io, line).await;
            let [stdin, resize] = channels.outbound;
            let [stdout, stderr, error] = channels.inbound;
            Ok(Remote {
                stdin: wanted.stdin.then_some(stdin),
                stdout,
                stderr: (!wanted.tty).then_some(stderr),
                resize: wanted.tty.then_some(resize),
                error,
                connection: None,
            })
        }
    }
}

/// Connects to what PortForward answered.
pub(crate) async fn port_forward(url: &str, by: &By) -> anyhow::Result<Streams> {
    match by.transport {
        Transport::Spdy => spdy_streams(url, by, &[PORT_FORWARD]).await,
        Transport::Websocket => {
            let (io, line) = upgrade(url, by, Offer::WebSocket(TUNNEL)).await?;
            Ok(over_spdy(tunnel(io).await, line))
        }
    }
}

async fn spdy_streams(url: &str, by: &By, versions: &[&'static str]) -> anyhow::Result<Streams> {
    let (io, line) = upgrade(url, by, Offer::Spdy(versions)).await?;
    Ok(over_spdy(io, line))
}

async fn command_streams(streams: Streams, wanted: Wanted) -> anyhow::Result<Remote> {
    let open = async |kind: &str| {
        let opened = streams.open(Headers::default().with("streamType", kind)).await;
        opened.map_err(|_| anyhow!("the server refused the stream {kind}"))
    };
    let (error, _) = open("error").await?;
    let stdin = if wanted.stdin { Some(open("stdin").await?.1) } else { None };
    let (stdout, _) = open("stdout").await?;
    let stderr = if wanted.tty { None } else { Some(open("stderr").await?.0) };
    let resize = if wanted.tty { Some(open("resize").await?.1) } else { None };
    Ok(Remote { stdin, stdout, stderr, resize, error, connection: Some(streams) })
}

/// What a client asks for.
enum Offer<'a> {
    Spdy(&'a [&'static str]),
    WebSocket(&'static str),
}

/// Asks a server to change the protocol.
async fn upgrade(url: &str, by: &By, offer: Offer<'_>) -> anyhow::Result<(Box<dyn Io>, Arc<Line>)> {
    let uri: Uri = url.parse().with_context(|| format!("the server answered {url:?}"))?;
    let default_port = match uri.scheme_str() {
        Some("https") => 443,
        Some("http") | None => 80,
        Some(scheme) => bail!("the server streams by {scheme}: only http and https are spoken here"),
    };
    let host = uri.authority().context("the server answered a URL without a host")?;
    let socket =
        TcpStream::connect((host.host().trim_matches(['[', ']']), host.port_u16().unwrap_or(default_port)))
            .await
            .with_context(|| format!("connect to {host}"))?;
    socket.set_nodelay(true)?;
    let line = Line::watch(&socket)?;
    let io =
        if uri.scheme_str() == Some("https") { by.trust.secure(socket).await? } else { Box::new(socket) };
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io)).await?;
    tokio::spawn(async move { drop(connection.with_upgrades().await) });
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let method = if matches!(offer, Offer::Spdy(_)) { Method::POST } else { Method::GET };
    let mut request = Request::builder().method(method).uri(path).body(String::new())?;
    request.headers_mut().insert(HOST, HeaderValue::try_from(host.as_str())?);
    offer.write(request.headers_mut())?;
    let response = sender.send_request(request).await.context("ask for streams")?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        bail!("the server refuses to stream: {}", response.status());
    }
    let upgraded = hyper::upgrade::on(response).await.context("change the protocol")?;
    Ok((Box::new(TokioIo::new(upgraded)), line))
}

impl Offer<'_> {
    fn write(&self, headers: &mut HeaderMap) -> anyhow::Result<()> {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        match self {
            Offer::Spdy(versions) => {
                headers.insert(UPGRADE, HeaderValue::from_static("SPDY/3.1"));
                for version in *versions {
                    headers.append("x-stream-protocol-version", HeaderValue::from_static(version));
                }
            }
            Offer::WebSocket(protocol) => {
                let mut key = [0; 16];
                getrandom::fill(&mut key).map_err(|error| anyhow!("make a key: {error}"))?;
                headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
                headers.insert("sec-websocket-version", HeaderValue::from_static("13"));
                headers.insert("sec-websocket-key", HeaderValue::try_from(STANDARD.encode(key))?);
                headers.insert("sec-websocket-protocol", HeaderValue::from_static(protocol));
            }
        }
        Ok(())
    }
}
