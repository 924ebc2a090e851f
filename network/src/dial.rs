//! Connections to what listens inside a pod.
//!
//! A socket belongs to the namespace that it was made in, whoever uses it: only its making happens within.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use tokio::net::{TcpSocket, TcpStream};

use crate::error::Error;
use crate::netns;

/// Connects to a port of the loopback interface in a namespace, the node's if none is given: IPv4 first, then IPv6.
pub async fn dial(namespace: Option<&Path>, port: u16) -> Result<TcpStream, Error> {
    let failed = |source| Error::Dial { port, source };
    let [v4, v6] = match namespace {
        Some(path) => made_within(path.to_owned()).await?,
        None => sockets(),
    };
    let first = match connect(v4, (Ipv4Addr::LOCALHOST, port).into()).await {
        Ok(stream) => return Ok(stream),
        Err(error) => error,
    };
    // Where nobody listens at all, what the first address said is the answer that people know.
    connect(v6, (Ipv6Addr::LOCALHOST, port).into()).await.map_err(|_| failed(first))
}

/// Connects to a port at the first of these addresses that answers, over the node's own network.
///
/// For pods whose addresses are not their namespace's any more, since their runtime has taken them.
pub async fn dial_address(addresses: &[IpAddr], port: u16) -> Result<TcpStream, Error> {
    let mut first = None;
    for address in addresses {
        let socket = match address {
            IpAddr::V4(_) => TcpSocket::new_v4(),
            IpAddr::V6(_) => TcpSocket::new_v6(),
        };
        match connect(socket, (*address, port).into()).await {
            Ok(stream) => return Ok(stream),
            Err(error) => first = first.or(Some(error)),
        }
    }
    let source = first.unwrap_or_else(|| io::ErrorKind::AddrNotAvailable.into());
    Err(Error::DialAddress { addresses: addresses.to_vec(), port, source })
}

async fn made_within(namespace: PathBuf) -> Result<[io::Result<TcpSocket>; 2], Error> {
    let path = namespace.clone();
    let made = tokio::task::spawn_blocking(move || netns::within(&path, || Ok(sockets())));
    made.await.unwrap_or_else(|lost| {
        Err(Error::Namespace {
            operation: "make a socket in",
            path: namespace,
            source: io::Error::other(lost),
        })
    })
}

/// One of each family; a namespace may be without IPv6.
fn sockets() -> [io::Result<TcpSocket>; 2] {
    [TcpSocket::new_v4(), TcpSocket::new_v6()]
}

async fn connect(socket: io::Result<TcpSocket>, address: SocketAddr) -> io::Result<TcpStream> {
    let stream = socket?.connect(address).await?;
    // What comes in small pieces has been collected by the other side already.
    stream.set_nodelay(true)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use tokio::io::AsyncReadExt;

    use super::*;

    /// Accepts one connection and says a word.
    fn greet(listener: TcpListener, word: &'static str) {
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            io::Write::write_all(&mut stream, word.as_bytes()).unwrap();
        });
    }

    async fn word(namespace: Option<&Path>, port: u16) -> String {
        let mut text = String::new();
        dial(namespace, port).await.unwrap().read_to_string(&mut text).await.unwrap();
        text
    }

    #[tokio::test]
    async fn both_families_are_tried() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let port = listener.local_addr().unwrap().port();
            greet(listener, address);
            assert_eq!(word(None, port).await, address);
        }
    }

    #[tokio::test]
    async fn the_first_address_that_answers_is_taken() {
        let listener = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let addresses = ["127.0.0.3", "127.0.0.2"].map(|text| text.parse().unwrap());
        assert!(matches!(dial_address(&addresses[..1], port).await, Err(Error::DialAddress { .. })));
        assert!(matches!(dial_address(&[], port).await, Err(Error::DialAddress { .. })));
        greet(listener, "there");
        let mut text = String::new();
        dial_address(&addresses, port).await.unwrap().read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "there");
    }

    #[tokio::test]
    async fn a_namespace_has_ports_of_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let path = netns::create(dir.path()).unwrap();
        let of_the_node = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = of_the_node.local_addr().unwrap().port();
        let refused = dial(Some(&path), port).await.unwrap_err();
        let Error::Dial { source, .. } = refused else { panic!("{refused}") };
        assert_eq!(source.kind(), io::ErrorKind::ConnectionRefused);
        let inside = netns::within(&path, || Ok(TcpListener::bind(("127.0.0.1", port)).unwrap())).unwrap();
        greet(inside, "inside");
        assert_eq!(word(Some(&path), port).await, "inside");
        netns::delete(&path).unwrap();
        rustix::mount::unmount(dir.path(), rustix::mount::UnmountFlags::DETACH).unwrap();
    }

    #[tokio::test]
    async fn a_namespace_that_is_gone_is_said() {
        let gone = dial(Some(Path::new("/run/netns/none-of-this-name")), 80).await.unwrap_err();
        assert!(matches!(gone, Error::Namespace { .. }), "{gone}");
    }
}
