//! Which addresses a registry may send us to.
//!
//! A token server's address and the target of a redirect come from the registry. So that they cannot be used to
//! reach what only this machine reaches (its own services, the cloud's metadata), such a host is refused by the
//! addresses that its name resolves to, at the moment of connecting. The host of the registry itself was named by a
//! person and is not guarded.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Metadata services that are not on a link-local address.
const METADATA: [IpAddr; 3] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
];

/// Resolves names, but not to forbidden addresses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GuardedResolver;

/// The name resolves to nothing that may be connected to.
#[derive(Debug)]
pub(crate) struct Forbidden;

impl fmt::Display for Forbidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "its address is local to this machine or to its network link, where no registry may send us",
        )
    }
}

impl std::error::Error for Forbidden {}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let allowed: Vec<_> = found.into_iter().filter(|address| !is_forbidden(address.ip())).collect();
            if allowed.is_empty() {
                return Err(Forbidden.into());
            }
            Ok(Box::new(allowed.into_iter()) as Addrs)
        })
    }
}

/// Checks a host that is written as an address; no resolver sees it.
pub(crate) fn check_literal(url: &Url) -> Result<(), Forbidden> {
    match address(url) {
        Some(address) if is_forbidden(address) => Err(Forbidden),
        _ => Ok(()),
    }
}

/// Says whether the host is this machine by the way it is written.
pub(crate) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| plain(address).is_loopback())
}

fn address(url: &Url) -> Option<IpAddr> {
    url.host_str()?.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

fn is_forbidden(address: IpAddr) -> bool {
    let address = plain(address);
    let local = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_broadcast() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    local
        || address.is_loopback()
        || address.is_unspecified()
        || address.is_multicast()
        || METADATA.contains(&address)
}

/// Takes an IPv4 address out of the IPv6 address that holds it.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => match v6.segments() {
            // ::ffff:0:0/96, and NAT64's 64:ff9b::/96.
            [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
                IpAddr::V4(Ipv4Addr::new(a, b, c, d))
            }
            _ => address,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_addresses_are_forbidden_however_they_are_written() {
        for text in [
            "http://127.0.0.1/",
            "http://127.1/",
            "http://2130706433/",
            "http://0x7f.1/",
            "http://0177.0.0.1/",
            "http://0.0.0.0/",
            "http://169.254.169.254/latest/meta-data",
            "http://[::1]/",
            "http://[::]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:169.254.169.254]/",
            "http://[64:ff9b::a9fe:a9fe]/",
            "http://[fe80::1]/",
            "http://[fd00:ec2::254]/",
            "http://100.100.100.200/",
            "http://224.0.0.1/",
        ] {
            assert!(check_literal(&text.parse().unwrap()).is_err(), "{text}");
        }
        for text in ["https://10.0.0.1/", "https://1.1.1.1/", "https://[2606:4700::1]/", "https://auth.q.io/"]
        {
            assert!(check_literal(&text.parse().unwrap()).is_ok(), "{text}");
        }
    }

    #[tokio::test]
    async fn names_of_forbidden_addresses_do_not_resolve() {
        let resolved = GuardedResolver.resolve("localhost".parse().unwrap()).await;
        assert!(resolved.err().unwrap().downcast_ref::<Forbidden>().is_some());
    }

    #[test]
    fn loopback_hosts() {
        for host in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.3.2.1", "[::1]:5000", "[::1]"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["q.io", "128.0.0.1:5000", "localhost.q.io", "[::2]:1", "10.0.0.1"] {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
