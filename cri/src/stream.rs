//! Streaming: the URLs that Exec, Attach and PortForward answer, and the server that they lead to.
//!
//! A call keeps its checked request under a token ([`token`]) and answers a URL with it. The client that comes with the
//! token agrees with the server on a protocol ([`negotiate`]); from then on there are channels of bytes whatever the
//! transport ([`spdy`], [`websocket`], [`tunnel`]), and on the other side the pod crate's streams ([`command`],
//! [`forward`]). Nothing here knows a container.

mod channel;
pub(crate) mod client;
mod command;
mod forward;
mod line;
mod negotiate;
mod node;
mod options;
mod server;
mod session;
mod spdy;
mod status;
mod tls;
mod token;
mod tunnel;
mod websocket;

use std::sync::Arc;
use std::time::Instant;

pub(crate) use self::command::Command;
pub(crate) use self::options::Streaming;
pub(crate) use self::server::Server;
pub(crate) use self::token::Error;

/// What a client is sent to the streaming server for.
#[derive(Debug)]
pub(crate) enum Request {
    /// Exec or Attach.
    Command(Command),
    /// PortForward.
    PortForward {
        /// The pod's id.
        pod: String,
        /// The ports, for clients that cannot say them themselves.
        ports: Vec<u16>,
    },
}

/// Makes the URLs.
#[derive(Debug, Clone)]
pub(crate) struct Urls {
    base: String,
    tokens: Arc<token::Tokens>,
}

impl Urls {
    /// A URL by which this request is served, once and soon.
    pub(crate) fn make(&self, request: Request) -> Result<String, Error> {
        let kind = request.kind();
        let token = self.tokens.keep(request, Instant::now())?;
        Ok(format!("{}/{kind}/{token}", self.base))
    }
}

impl Request {
    /// The first part of its path.
    fn kind(&self) -> &'static str {
        match self {
            Self::Command(Command { command: Some(_), .. }) => "exec",
            Self::Command(Command { command: None, .. }) => "attach",
            Self::PortForward { .. } => "portforward",
        }
    }
}

#[cfg(test)]
mod tests;
