//! The options of the streaming server.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::tls::{self, Tls};

/// The server for exec, attach and port-forward, which the kubelet and crictl are sent to.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Streaming {
    /// Its address; port 0 takes a free one. The kubelet passes sessions on, so that loopback is enough for a kubelet
    /// on this node.
    pub(crate) listen: SocketAddr,
    /// Its certificate chain in PEM, for TLS; goes with tls_key. Both files are read again when they have changed.
    pub(crate) tls_cert: Option<PathBuf>,
    /// Its private key in PEM.
    pub(crate) tls_key: Option<PathBuf>,
    /// How long a session may be without a byte before it is ended: hours, minutes and seconds as in 4h or 1h30m.
    pub(crate) idle_timeout: Span,
}

/// A time as Go's programs write it: `4h`, `1h30m`, `90s`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub(crate) struct Span(pub(crate) Duration);

/// Why a text is not a time.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a time such as 4h, 1h30m or 90s")]
pub(crate) struct InvalidSpan(String);

impl Default for Streaming {
    fn default() -> Self {
        Self {
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            tls_cert: None,
            tls_key: None,
            idle_timeout: Span(Duration::from_secs(4 * 60 * 60)),
        }
    }
}

impl Streaming {
    /// Whether the files that are named can be used.
    pub(crate) fn check(&self) -> Result<(), tls::Error> {
        Tls::of(self).map(drop)
    }

    /// What no option can have, as its key and what is wrong with it.
    pub(crate) fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let relative = |path: &Option<PathBuf>| path.as_ref().is_some_and(|path| path.is_relative());
        let mistakes = [
            (relative(&self.tls_cert), ("streaming.tls_cert", "the path must be absolute")),
            (relative(&self.tls_key), ("streaming.tls_key", "the path must be absolute")),
            (
                self.tls_cert.is_some() != self.tls_key.is_some(),
                ("streaming.tls_key", "tls_cert and tls_key are given together or not at all"),
            ),
            (self.idle_timeout.0.is_zero(), ("streaming.idle_timeout", "the time must not be 0")),
        ];
        mistakes.into_iter().find(|(wrong, _)| *wrong).map(|(_, mistake)| mistake)
    }
}

const UNITS: [(char, u64); 3] = [('h', 3600), ('m', 60), ('s', 1)];

impl FromStr for Span {
    type Err = InvalidSpan;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (mut rest, mut seconds) = (text, 0_u64);
            while !rest.is_empty() {
                let (number, after) = rest.split_at(rest.find(|c: char| !c.is_ascii_digit())?);
                let mut after = after.chars();
                let unit = after.next()?;
                let (_, factor) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
                seconds = seconds.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
                rest = after.as_str();
            }
            // More than a century is for ever, and deadlines stay within what clocks can say.
            (!text.is_empty()).then(|| Self(Duration::from_secs(seconds.min(u32::MAX.into()))))
        };
        parse().ok_or_else(|| InvalidSpan(text.to_owned()))
    }
}

impl TryFrom<String> for Span {
    type Error = InvalidSpan;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Span> for String {
    fn from(span: Span) -> Self {
        span.to_string()
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut seconds = self.0.as_secs();
        if seconds == 0 {
            return f.write_str("0s");
        }
        for (name, factor) in UNITS {
            if seconds >= factor {
                write!(f, "{}{name}", seconds / factor)?;
                seconds %= factor;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_as_go_writes_them() {
        let check = |text: &str, seconds: Option<u64>, shown: &str| {
            let span = text.parse::<Span>().ok();
            assert_eq!(span.map(|span| span.0.as_secs()), seconds, "{text:?}");
            assert!(span.is_none_or(|span| span.to_string() == shown), "{text:?}");
        };
        check("4h", Some(14_400), "4h");
        check("4h0m0s", Some(14_400), "4h");
        check("1h30m", Some(5400), "1h30m");
        check("90s", Some(90), "1m30s");
        check("0s", Some(0), "0s");
        check("", None, "");
        check("4", None, "");
        check("h", None, "");
        check("4d", None, "");
        check("-4h", None, "");
        check("99999999999999999999h", None, "");
    }

    #[test]
    fn mistakes_are_found() {
        let check = |change: &dyn Fn(&mut Streaming), key: Option<&str>| {
            let mut options = Streaming::default();
            change(&mut options);
            assert_eq!(options.mistake().map(|(key, _)| key), key, "{options:?}");
        };
        check(&|_| {}, None);
        check(&|options| options.tls_cert = Some("/a".into()), Some("streaming.tls_key"));
        check(&|options| options.tls_cert = Some("a".into()), Some("streaming.tls_cert"));
        check(&|options| options.idle_timeout = Span(Duration::ZERO), Some("streaming.idle_timeout"));
    }
}
