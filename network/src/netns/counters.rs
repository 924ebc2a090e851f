//! The counters of a namespace's interfaces, from `/proc/net/dev`.
//!
//! Not by rtnetlink: its list waits for whoever configures an interface anywhere on the host, as CNI plugins do.

use std::fs;
use std::io;
use std::path::Path;

use super::at;
use crate::attachment::InterfaceUsage;
use crate::error::Error;

/// The file of the calling thread's namespace.
const FILE: &str = "/proc/thread-self/net/dev";

/// Counters of the interfaces of the calling thread's namespace, loopback aside.
pub(crate) fn usage() -> Result<Vec<InterfaceUsage>, Error> {
    let failed = at("count the interfaces of", Path::new(FILE));
    let read = fs::read_to_string(FILE).and_then(|content| {
        parse(&content).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a line is not understood"))
    });
    read.map_err(failed)
}

/// Two lines of headings, then one an interface: its name, eight numbers of what came, eight of what went.
fn parse(content: &str) -> Option<Vec<InterfaceUsage>> {
    let lines = content.lines().skip(2);
    let all: Option<Vec<InterfaceUsage>> = lines.map(line).collect();
    Some(all?.into_iter().filter(|interface| interface.name != "lo").collect())
}

fn line(line: &str) -> Option<InterfaceUsage> {
    // A name may have a colon in it.
    let (name, numbers) = line.rsplit_once(':')?;
    let numbers = numbers.split_ascii_whitespace().map(|number| number.parse().ok());
    let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
    let [
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        _,
        _,
        _,
        _,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
        ..,
    ] = *numbers
    else {
        return None;
    };
    Some(InterfaceUsage {
        name: name.trim_start().to_owned(),
        rx_bytes,
        rx_packets,
        rx_errors,
        rx_dropped,
        tx_bytes,
        tx_packets,
        tx_errors,
        tx_dropped,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "Inter-|   Receive  |  Transmit\n face |bytes packets | bytes packets\n";

    #[test]
    fn interfaces_are_read_but_for_loopback() {
        let content = format!(
            "{HEAD}    lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0:     1 2 3 4 50 60 70 80 5 6 7 8 50 60 70 80\n\
             eth0:1: 1 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n"
        );
        let eth0 = InterfaceUsage {
            name: "eth0".into(),
            rx_bytes: 1,
            rx_packets: 2,
            rx_errors: 3,
            rx_dropped: 4,
            tx_bytes: 5,
            tx_packets: 6,
            tx_errors: 7,
            tx_dropped: 8,
        };
        let found = parse(&content).unwrap();
        assert_eq!(found[0], eth0);
        assert_eq!((found[1].name.as_str(), found.len()), ("eth0:1", 2));
        assert_eq!(parse(HEAD), Some(Vec::new()));
    }

    #[test]
    fn nonsense_is_an_error() {
        assert_eq!(parse(&format!("{HEAD}eth0 1 2\n")), None);
        assert_eq!(parse(&format!("{HEAD}eth0: 1 x\n")), None);
        assert_eq!(parse(&format!("{HEAD}eth0: 1 2 3\n")), None);
    }
}
