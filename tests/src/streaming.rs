//! A client of streaming URLs, written without the server's code: upgrades, WebSocket's frames and SPDY's, byte by
//! byte.
//!
//! Nothing is read unless a test asks for it, so that a test decides how slow a client is.

pub mod session;
pub mod spdy;

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::Result;

/// How a session's bytes travel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// SPDY/3.1.
    Spdy,
    /// WebSocket with channels, or with SPDY within.
    WebSocket,
}

impl Transport {
    /// Both.
    pub const ALL: [Self; 2] = [Self::Spdy, Self::WebSocket];
}

/// A connection whose protocol was changed.
#[derive(Debug)]
pub struct Link {
    socket: TcpStream,
    /// Whether bytes are within WebSocket's messages.
    framed: bool,
    /// What is left of the last message.
    rest: Vec<u8>,
}

/// The server's answer to a request to change the protocol.
#[derive(Debug)]
pub enum Answer {
    /// Changed; and to this.
    Switched(Link, Option<String>),
    /// Refused, with a status.
    Refused(u16),
}

/// Binary messages of WebSocket.
const BINARY: u8 = 2;
/// Text messages.
const TEXT: u8 = 1;
/// The end of a WebSocket.
const CLOSE: u8 = 8;

impl Link {
    /// Asks for SPDY with these protocols.
    pub async fn spdy(url: &str, protocols: &[&str]) -> Result<Answer> {
        let mut headers = vec![("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")];
        headers.extend(protocols.iter().map(|protocol| ("X-Stream-Protocol-Version", *protocol)));
        upgrade("POST", url, &headers).await
    }

    /// Asks for WebSocket with these protocols.
    pub async fn websocket(url: &str, protocols: &[&str]) -> Result<Answer> {
        let (key, protocols) = (STANDARD.encode([7; 16]), protocols.join(", "));
        let mut headers = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", &key),
        ];
        if !protocols.is_empty() {
            headers.push(("Sec-WebSocket-Protocol", &protocols));
        }
        let answer = upgrade("GET", url, &headers).await?;
        if let Answer::Switched(mut link, protocol) = answer {
            link.framed = true;
            return Ok(Answer::Switched(link, protocol));
        }
        Ok(answer)
    }

    /// The next message; none when the server has said goodbye in order.
    pub async fn message(&mut self) -> Result<Option<Vec<u8>>> {
        let mut head = [0; 2];
        self.socket.read_exact(&mut head).await.context("read a message")?;
        let [first, length] = head;
        ensure!(first & 0x80 != 0, "a message in parts");
        let length = match length {
            126 => usize::from(self.socket.read_u16().await?),
            127 => usize::try_from(self.socket.read_u64().await?)?,
            short => usize::from(short),
        };
        let mut payload = vec![0; length];
        self.socket.read_exact(&mut payload).await?;
        match first & 0x0f {
            BINARY | TEXT => Ok(Some(payload)),
            CLOSE => {
                ensure!(payload.starts_with(&1000_u16.to_be_bytes()), "closed with {payload:?}");
                Ok(None)
            }
            other => bail!("a message of kind {other}"),
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, payload: &[u8]) -> Result {
        self.send_as(BINARY, payload).await
    }

    /// Sends a message of text.
    pub async fn send_text(&mut self, text: &str) -> Result {
        self.send_as(TEXT, text.as_bytes()).await
    }

    async fn send_as(&mut self, kind: u8, payload: &[u8]) -> Result {
        let mut frame = vec![0x80 | kind];
        match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
            (Ok(short @ ..126), _) => frame.push(0x80 | short),
            (_, Ok(length)) => {
                frame.push(0x80 | 126);
                frame.extend(length.to_be_bytes());
            }
            _ => {
                frame.push(0x80 | 127);
                frame.extend(u64::try_from(payload.len())?.to_be_bytes());
            }
        }
        // A mask of zeros is a mask.
        frame.extend([0; 4]);
        frame.extend_from_slice(payload);
        Ok(self.socket.write_all(&frame).await?)
    }

    /// Fills a buffer, whatever is around the bytes; false at the connection's end.
    pub async fn fill(&mut self, buffer: &mut [u8]) -> Result<bool> {
        if !self.framed {
            return match self.socket.read_exact(buffer).await {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
                Err(error) => Err(error.into()),
            };
        }
        while self.rest.len() < buffer.len() {
            match self.message().await? {
                Some(more) => self.rest.extend(more),
                None => return Ok(false),
            }
        }
        buffer.copy_from_slice(&self.rest[..buffer.len()]);
        self.rest.drain(..buffer.len());
        Ok(true)
    }

    /// Writes bytes, in a message where there are such.
    pub async fn write(&mut self, bytes: &[u8]) -> Result {
        match self.framed {
            true => self.send(bytes).await,
            false => Ok(self.socket.write_all(bytes).await?),
        }
    }
}

/// What a server answers to a bare request.
pub async fn status(method: &str, url: &str) -> Result<u16> {
    match upgrade(method, url, &[]).await? {
        Answer::Switched(..) => Ok(101),
        Answer::Refused(status) => Ok(status),
    }
}

async fn upgrade(method: &str, url: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let rest = url.strip_prefix("http://").with_context(|| format!("{url} is not http"))?;
    let (host, path) = rest.split_once('/').context("a URL with a path")?;
    let mut socket = TcpStream::connect(host).await.with_context(|| format!("connect to {host}"))?;
    let mut request = format!("{method} /{path} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n");
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    socket.write_all((request + "\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.context("read the head of the answer")?);
    }
    let head = String::from_utf8(head)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).context("a status")?;
    if status != 101 {
        return Ok(Answer::Refused(status));
    }
    let protocol = head.lines().filter_map(|line| line.split_once(": ")).find(|(name, _)| {
        let name = name.to_ascii_lowercase();
        ["x-stream-protocol-version", "sec-websocket-protocol"].contains(&name.as_str())
    });
    let protocol = protocol.map(|(_, value)| value.to_owned());
    Ok(Answer::Switched(Link { socket, framed: false, rest: Vec::new() }, protocol))
}

impl Answer {
    /// The connection, if there is one.
    pub fn link(self) -> Result<Link> {
        match self {
            Self::Switched(link, _) => Ok(link),
            Self::Refused(status) => bail!("refused with {status}"),
        }
    }

    /// The protocol that the server chose, or its refusal.
    pub fn choice(&self) -> Result<Option<&str>, u16> {
        match self {
            Self::Switched(_, protocol) => Ok(protocol.as_deref()),
            Self::Refused(status) => Err(*status),
        }
    }
}
