//! Which protocol a client and this server speak: looked up in the headers of the client's request to upgrade.
//!
//! SPDY clients offer versions in `X-Stream-Protocol-Version`, WebSocket clients in `Sec-WebSocket-Protocol`; the
//! first that the server knows is taken.

use hyper::header::{CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use hyper::{Method, StatusCode};

/// The protocol over SPDY.
pub(super) static VERSION: HeaderName = HeaderName::from_static("x-stream-protocol-version");
/// What the server would accept.
static ACCEPTED: HeaderName = HeaderName::from_static("x-accepted-stream-protocol-versions");
/// The name of SPDY in `Upgrade`.
pub(crate) const SPDY: &str = "SPDY/3.1";
/// Port-forward over SPDY.
pub(crate) const PORT_FORWARD: &str = "portforward.k8s.io";
/// Port-forward over SPDY over WebSocket.
const TUNNEL: &str = "SPDY/3.1+portforward.k8s.io";

/// A version of the protocol of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Version {
    /// The first, and without a name over WebSocket.
    V1,
    /// With orderly ends.
    V2,
    /// With sizes of terminals.
    V3,
    /// With the exit code.
    V4,
    /// With half-close over WebSocket.
    V5,
}

/// How bytes travel in WebSocket's messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Codec {
    /// As text.
    pub(super) is_base64: bool,
    /// Whether a channel can be closed.
    pub(super) closes: bool,
}

/// What is spoken on an upgraded connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Transport {
    /// SPDY/3.1.
    Spdy(Version),
    /// WebSocket with the channel in each message's first byte.
    WebSocket(Version, Codec),
    /// SPDY within WebSocket's messages.
    Tunnel(Version),
}

/// What the answer says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Choice {
    /// What is spoken.
    pub(super) transport: Transport,
    /// Its name, if the client named any.
    pub(super) name: Option<&'static str>,
}

/// Why a request is not upgraded.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// It does not ask to be.
    #[error("unable to upgrade: ask for {SPDY} or websocket in the headers Connection and Upgrade")]
    NoUpgrade,
    /// It does not say which protocol.
    #[error("unable to upgrade: the header X-Stream-Protocol-Version names no protocol")]
    NoVersion,
    /// It knows none that the server knows.
    #[error("unable to upgrade: the client's protocols are not known here")]
    Unknown(&'static [(&'static str, Transport)]),
    /// WebSocket in a way that WebSocket is not.
    #[error("unable to upgrade: not a handshake of WebSocket version 13")]
    WebSocket,
}

const fn channels(version: Version, is_base64: bool) -> Transport {
    Transport::WebSocket(version, Codec { is_base64, closes: matches!(version, Version::V5) })
}

const COMMAND_SPDY: &[(&str, Transport)] = &[
    ("v5.channel.k8s.io", Transport::Spdy(Version::V5)),
    ("v4.channel.k8s.io", Transport::Spdy(Version::V4)),
    ("v3.channel.k8s.io", Transport::Spdy(Version::V3)),
    ("v2.channel.k8s.io", Transport::Spdy(Version::V2)),
    ("channel.k8s.io", Transport::Spdy(Version::V1)),
];
const COMMAND_WEBSOCKET: &[(&str, Transport)] = &[
    ("v5.channel.k8s.io", channels(Version::V5, false)),
    ("v4.channel.k8s.io", channels(Version::V4, false)),
    ("v4.base64.channel.k8s.io", channels(Version::V4, true)),
    ("channel.k8s.io", channels(Version::V1, false)),
    ("base64.channel.k8s.io", channels(Version::V1, true)),
];
const FORWARD_SPDY: &[(&str, Transport)] = &[(PORT_FORWARD, Transport::Spdy(Version::V4))];
const FORWARD_WEBSOCKET: &[(&str, Transport)] = &[
    (TUNNEL, Transport::Tunnel(Version::V4)),
    ("v4.channel.k8s.io", channels(Version::V4, false)),
    ("v4.base64.channel.k8s.io", channels(Version::V4, true)),
];

impl Choice {
    /// What a request asks for that the server can do; `forwards` for port-forward, else for commands.
    pub(super) fn find(method: &Method, headers: &HeaderMap, forwards: bool) -> Result<Self, Refusal> {
        let asks = |header: HeaderName, word: &str| {
            words(headers, &header).any(|found| found.eq_ignore_ascii_case(word))
        };
        if !asks(CONNECTION, "upgrade") {
            return Err(Refusal::NoUpgrade);
        }
        if asks(UPGRADE, "websocket") {
            return Self::over_websocket(method, headers, forwards);
        }
        if !asks(UPGRADE, SPDY) {
            return Err(Refusal::NoUpgrade);
        }
        let known = if forwards { FORWARD_SPDY } else { COMMAND_SPDY };
        let mut offered = words(headers, &VERSION).peekable();
        if offered.peek().is_none() {
            return Err(Refusal::NoVersion);
        }
        choose(offered, known)
    }

    fn over_websocket(method: &Method, headers: &HeaderMap, forwards: bool) -> Result<Self, Refusal> {
        let version = headers.get("sec-websocket-version").map(HeaderValue::as_bytes);
        if method != Method::GET || version != Some(b"13") || !headers.contains_key("sec-websocket-key") {
            return Err(Refusal::WebSocket);
        }
        let known = if forwards { FORWARD_WEBSOCKET } else { COMMAND_WEBSOCKET };
        let mut offered = words(headers, &SEC_WEBSOCKET_PROTOCOL).peekable();
        if offered.peek().is_none() {
            let version = if forwards { Version::V4 } else { Version::V1 };
            return Ok(Self { transport: channels(version, false), name: None });
        }
        choose(offered, known)
    }
}

impl Refusal {
    /// The answer's status.
    pub(super) fn status(&self) -> StatusCode {
        match self {
            Self::Unknown(_) => StatusCode::FORBIDDEN,
            Self::NoUpgrade | Self::NoVersion | Self::WebSocket => StatusCode::BAD_REQUEST,
        }
    }

    /// The answer's headers.
    pub(super) fn headers(&self) -> impl Iterator<Item = (HeaderName, HeaderValue)> {
        let known = if let Self::Unknown(known) = self { *known } else { &[] };
        known.iter().map(|(name, _)| (ACCEPTED.clone(), HeaderValue::from_static(name)))
    }
}

fn choose<'a>(
    offered: impl Iterator<Item = &'a str>,
    known: &'static [(&'static str, Transport)],
) -> Result<Choice, Refusal> {
    let mut common = offered.filter_map(|offer| known.iter().find(|(name, _)| *name == offer));
    common
        .next()
        .map(|(name, transport)| Choice { transport: *transport, name: Some(name) })
        .ok_or(Refusal::Unknown(known))
}

/// The words of a header, which may be there several times and have commas in it.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(
        method: Method,
        headers: &[(&'static str, &'static str)],
        forwards: bool,
    ) -> Result<Choice, Refusal> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        Choice::find(&method, &map, forwards)
    }

    #[test]
    fn spdy_clients_get_their_first_known_version() {
        let check = |offers: &[&'static str], expected: Option<Version>| {
            let mut headers = vec![("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
            headers.extend(offers.iter().map(|offer| ("x-stream-protocol-version", *offer)));
            let found = find(Method::POST, &headers, false).ok().map(|choice| choice.transport);
            assert_eq!(found, expected.map(Transport::Spdy), "{offers:?}");
        };
        check(&["v5.channel.k8s.io", "v4.channel.k8s.io"], Some(Version::V5));
        check(&["v9.channel.k8s.io", "v3.channel.k8s.io, channel.k8s.io"], Some(Version::V3));
        check(&["channel.k8s.io"], Some(Version::V1));
        check(&["v9.channel.k8s.io"], None);
        check(&[" , "], None);
        check(&[], None);
    }

    #[test]
    fn websocket_clients_get_their_first_known_protocol() {
        let check = |offer: &'static str, forwards: bool, expected: Option<Transport>| {
            let mut headers = vec![
                ("connection", "keep-alive, Upgrade"),
                ("upgrade", "websocket"),
                ("sec-websocket-version", "13"),
                ("sec-websocket-key", "x3JJHMbDL1EzLkh9GBhXDw=="),
            ];
            if !offer.is_empty() {
                headers.push(("sec-websocket-protocol", offer));
            }
            let found = find(Method::GET, &headers, forwards).ok().map(|choice| choice.transport);
            assert_eq!(found, expected, "{offer}");
            assert_eq!(find(Method::POST, &headers, forwards), Err(Refusal::WebSocket));
        };
        check("v5.channel.k8s.io", false, Some(channels(Version::V5, false)));
        check("x, v4.channel.k8s.io", false, Some(channels(Version::V4, false)));
        check("base64.channel.k8s.io", false, Some(channels(Version::V1, true)));
        check("v4.base64.channel.k8s.io", false, Some(channels(Version::V4, true)));
        check("", false, Some(channels(Version::V1, false)));
        check(TUNNEL, false, None);
        check(TUNNEL, true, Some(Transport::Tunnel(Version::V4)));
        check("v4.channel.k8s.io", true, Some(channels(Version::V4, false)));
        check("v5.channel.k8s.io", true, None);
        check("", true, Some(channels(Version::V4, false)));
    }

    #[test]
    fn who_cannot_be_upgraded_is_told_why() {
        let check = |headers: &[(&'static str, &'static str)], status: u16| {
            let refusal = find(Method::GET, headers, false).unwrap_err();
            assert_eq!(refusal.status().as_u16(), status, "{headers:?}");
        };
        check(&[], 400);
        check(&[("connection", "upgrade")], 400);
        check(&[("upgrade", "SPDY/3.1")], 400);
        check(&[("connection", "upgrade"), ("upgrade", "h2c")], 400);
        check(&[("connection", "upgrade"), ("upgrade", "websocket")], 400);
        let spdy = [("connection", "upgrade"), ("upgrade", "spdy/3.1"), ("x-stream-protocol-version", "x")];
        check(&spdy, 403);
        let refusal = find(Method::GET, &spdy, false).unwrap_err();
        let accepted: Vec<_> = refusal.headers().map(|(_, value)| value).collect();
        assert_eq!(accepted.len(), 5);
        assert!(accepted.contains(&HeaderValue::from_static("v4.channel.k8s.io")));
    }
}
