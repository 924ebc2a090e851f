//! Signals by name and number, signal(7).

use nix::sys::signal::Signal;

use crate::error::{Error, Result};

/// The full name, `SIGTERM`, of a signal given as `SIGTERM`, `TERM`, `15` or `RTMIN+3`.
pub(crate) fn name(given: &str) -> Result<String> {
    let text = given.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<i32>() {
        return match Signal::try_from(number) {
            Ok(signal) => Ok(signal.as_str().to_owned()),
            Err(_) if (34..=64).contains(&number) => Ok(format!("SIGRTMIN+{}", number - 34)),
            Err(_) => Err(unknown(given)),
        };
    }
    let full = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    number(&full).map(|_| full)
}

/// The number of a signal by its full name.
pub(crate) fn number(name: &str) -> Result<i32> {
    if let Ok(signal) = name.parse::<Signal>() {
        return Ok(signal as i32);
    }
    // glibc keeps the first two real-time signals of the kernel for itself.
    let offset = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.parse::<i32>().ok());
    let number = match name {
        "SIGRTMIN" => Some(34),
        "SIGRTMAX" => Some(64),
        _ => offset("SIGRTMIN+").map(|n| 34 + n).or_else(|| offset("SIGRTMAX-").map(|n| 64 - n)),
    };
    number.filter(|number| (34..=64).contains(number)).ok_or_else(|| unknown(name))
}

fn unknown(given: &str) -> Error {
    Error::invalid("stop_signal", format!("{given:?} is not a signal: see signal(7)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_mean_the_same() {
        for (given, full, expected) in [
            ("TERM", "SIGTERM", 15),
            ("sigterm", "SIGTERM", 15),
            ("15", "SIGTERM", 15),
            ("SIGRTMIN+3", "SIGRTMIN+3", 37),
            ("37", "SIGRTMIN+3", 37),
            ("RTMAX-1", "SIGRTMAX-1", 63),
        ] {
            assert_eq!(name(given).unwrap(), full, "{given}");
            assert_eq!(number(full).unwrap(), expected, "{given}");
        }
        for bad in ["", "0", "65", "-1", "SIGFOO", "SIGRTMIN+99", "RTMIN+x"] {
            assert!(name(bad).is_err(), "{bad:?}");
        }
    }
}
