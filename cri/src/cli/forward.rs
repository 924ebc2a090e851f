//! `port-forward`: local ports that lead into a pod.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, anyhow};
use clap::Args;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::net::{TcpListener, TcpStream};

use super::client::{Client, answer};
use super::output::{complain, print_line};
use super::remote::{By, port_forward};
use crate::stream::client::{Headers, Streams};
use crate::wire::cri::PortForwardRequest;

/// `port-forward`
#[derive(Debug, Args)]
pub(crate) struct PortForward {
    #[command(flatten)]
    by: By,
    /// The pod's id
    pod: String,
    /// The ports: the pod's, or LOCAL:REMOTE; nothing or 0 before the colon takes a free one
    #[arg(required = true, value_name = "[LOCAL:]REMOTE")]
    ports: Vec<Ports>,
}

/// A local port and where it leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ports {
    local: u16,
    remote: u16,
}

impl FromStr for Ports {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (local, remote) = text.split_once(':').unwrap_or((text, text));
        let local = if local.is_empty() { "0" } else { local };
        let port = |text: &str| text.parse::<u16>().map_err(|_| anyhow!("{text:?} is not a port"));
        match (port(local)?, port(remote)?) {
            (_, 0) => Err(anyhow!("0 is not a pod's port")),
            (local, remote) => Ok(Self { local, remote }),
        }
    }
}

/// What listens, and where it leads.
struct Entrance {
    listener: TcpListener,
    remote: u16,
}

impl PortForward {
    pub(crate) async fn execute(self, client: &mut Client) -> anyhow::Result<()> {
        let port = self.ports.iter().map(|ports| ports.remote.into()).collect();
        let request = PortForwardRequest { pod_sandbox_id: self.pod, port };
        let url = answer(client.runtime.port_forward(request).await)?.url;
        let mut entrances = Vec::new();
        for ports in self.ports {
            entrances.extend(listen(ports).await?);
        }
        let streams = port_forward(&url, &self.by).await?;
        serve(&entrances, &streams).await
    }
}

/// Listens at both loopback addresses, or at the one that this machine has.
async fn listen(ports: Ports) -> anyhow::Result<Vec<Entrance>> {
    let mut entrances = Vec::new();
    let mut local = ports.local;
    for ip in [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()] {
        let address = SocketAddr::new(ip, local);
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(_) if ip.is_ipv6() => continue,
            Err(error) => return Err(error).with_context(|| format!("listen at {address}")),
        };
        let address = listener.local_addr()?;
        local = address.port();
        print_line(&format!("Forwarding from {address} -> {}", ports.remote))?;
        entrances.push(Entrance { listener, remote: ports.remote });
    }
    Ok(entrances)
}

/// Leads everybody who comes into the pod, until the server ends it.
async fn serve(entrances: &[Entrance], streams: &Streams) -> anyhow::Result<()> {
    let mut arrivals: FuturesUnordered<_> = entrances.iter().map(arrival).collect();
    let mut connections = FuturesUnordered::new();
    let mut count = 0_u64;
    loop {
        tokio::select! {
            Some((entrance, arrived)) = arrivals.next() => {
                let socket = arrived.context("accept a connection")?;
                print_line(&format!("Handling connection for {}", entrance.listener.local_addr()?.port()))?;
                connections.push(lead(streams, socket, entrance.remote, count));
                arrivals.push(arrival(entrance));
                count += 1;
            }
            Some(led) = connections.next() => led?,
            () = streams.closed() => return Err(anyhow!("lost the connection to the pod")),
        }
    }
}

async fn arrival(entrance: &Entrance) -> (&Entrance, std::io::Result<TcpStream>) {
    (entrance, entrance.listener.accept().await.map(|(socket, _)| socket))
}

/// Carries one connection by a pair of streams; its error is shown, and the others go on.
async fn lead(streams: &Streams, mut socket: TcpStream, remote: u16, request: u64) -> anyhow::Result<()> {
    let headers = |kind: &str| {
        let headers = Headers::default().with("streamType", kind).with("port", remote.to_string());
        headers.with("requestID", request.to_string())
    };
    let refused = |_| anyhow!("the server refused a stream for port {remote}");
    let (mut errors, error) = streams.open(headers("error")).await.map_err(refused)?;
    // Nothing is said on it from here; who is gone hears nothing.
    drop(error.end().await);
    let (from, to) = streams.open(headers("data")).await.map_err(refused)?;
    let (mut receive, mut send) = socket.split();
    let up = async {
        if to.copy_from(&mut receive).await.is_ok() {
            drop(to.end().await);
        }
        // The pod may have more to say.
        std::future::pending::<()>().await;
    };
    let down = async {
        // The local program may have left before.
        drop(from.copy_to(&mut send).await);
    };
    let complaint = async {
        let mut text = Vec::new();
        while let Some(bytes) = errors.next().await {
            text.extend_from_slice(&bytes);
        }
        text
    };
    // What the pod says last is the end, whatever the local program still waits for.
    let carried = async {
        tokio::select! {
            () = up => {}
            () = down => {}
        }
    };
    let ((), text) = tokio::join!(carried, complaint);
    if !text.is_empty() {
        complain(String::from_utf8_lossy(&text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_written_as_for_crictl() {
        let check = |text: &str, expected: Option<(u16, u16)>| {
            let ports = text.parse::<Ports>().ok().map(|ports| (ports.local, ports.remote));
            assert_eq!(ports, expected, "{text:?}");
        };
        check("80", Some((80, 80)));
        check("8080:80", Some((8080, 80)));
        check(":80", Some((0, 80)));
        check("0:80", Some((0, 80)));
        check("80:0", None);
        check("a:80", None);
        check("65536", None);
        check("", None);
    }
}
