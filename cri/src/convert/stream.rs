//! What clients of Exec, Attach and PortForward ask to be connected with.

use pod::stream::Stdio;

use super::Invalid;

/// Ports in one request; a message of 16 MiB would hold many more.
const PORTS: usize = 64;

/// The streams of a command, from `stdin`, `stdout`, `stderr` and `tty`.
pub(crate) fn stdio([stdin, stdout, stderr, tty]: [bool; 4]) -> Result<Stdio, Invalid> {
    if tty && stderr {
        return Err(Invalid::new("stderr", "a terminal has one output: ask for stdout alone"));
    }
    if !(stdin || stdout || stderr) {
        return Err(Invalid::new("stdin", "no stream: ask for at least one of stdin, stdout and stderr"));
    }
    Ok(Stdio { stdin, stdout, stderr, tty })
}

/// The ports of a PortForward; none are needed by most clients.
pub(crate) fn ports(numbers: &[i32]) -> Result<Vec<u16>, Invalid> {
    if numbers.len() > PORTS {
        return Err(Invalid::new("port", format!("more than {PORTS}")));
    }
    let port = |number: &i32| {
        let port = u16::try_from(*number).ok().filter(|port| *port > 0);
        port.ok_or_else(|| Invalid::new("port", format!("{number} is not from 1 to 65535")))
    };
    numbers.iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    #[test]
    fn streams_must_make_sense() {
        let check = |asked: [bool; 4], field: Option<&str>| match field {
            Some(field) => refused(stdio(asked), field),
            None => assert!(stdio(asked).is_ok(), "{asked:?}"),
        };
        check([true, true, true, false], None);
        check([true, true, false, true], None);
        check([false, false, true, false], None);
        check([true, true, true, true], Some("stderr"));
        check([false, false, false, false], Some("stdin"));
        check([false, false, false, true], Some("stdin"));
    }

    #[test]
    fn ports_are_16_bits() {
        assert_eq!(ports(&[80, 65535]).unwrap(), [80, 65535]);
        assert!(ports(&[]).unwrap().is_empty());
        refused(ports(&[0]), "port");
        refused(ports(&[-1]), "port");
        refused(ports(&[65536]), "port");
        refused(ports(&[1; PORTS + 1]), "port");
    }
}
