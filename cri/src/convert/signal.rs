//! Stop signals: the contract has numbers of its own for names that the domain writes as signal(7) does.

use super::{Invalid, field};
use crate::wire::cri::Signal;

/// The name of a request's stop signal, none for the image's or the default one.
pub(super) fn parse(at: &str, number: i32) -> Result<Option<String>, Invalid> {
    let signal: Signal = field::one_of(at, number)?;
    Ok(match signal {
        Signal::RuntimeDefault => None,
        // Second names of the same signals on Linux.
        Signal::Sigcld => Some("SIGCHLD".to_owned()),
        Signal::Sigiot => Some("SIGABRT".to_owned()),
        Signal::Sigpoll => Some("SIGIO".to_owned()),
        signal => Some(signal.as_str_name().replace("PLUS", "+").replace("MINUS", "-")),
    })
}

/// The contract's number for a signal's name.
pub(super) fn number(name: &str) -> Signal {
    // The contract counts real-time signals up from the first and down from the last, each to the middle.
    let real_time = |prefix: &str| name.strip_prefix(prefix).and_then(|rest| rest.parse::<i32>().ok());
    let nth = real_time("SIGRTMIN+").or_else(|| real_time("SIGRTMAX-").map(|offset| 30 - offset));
    let name = match nth {
        Some(0) => "SIGRTMIN".to_owned(),
        Some(30) => "SIGRTMAX".to_owned(),
        Some(nth @ 1..=15) => format!("SIGRTMINPLUS{nth}"),
        Some(nth) => format!("SIGRTMAXMINUS{}", 30 - nth),
        None => name.to_owned(),
    };
    Signal::from_str_name(&name).unwrap_or(Signal::RuntimeDefault)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_comes_back() {
        for number in 0..=65 {
            let signal = Signal::try_from(number).unwrap();
            let name = parse("stop_signal", number).unwrap();
            let back = name.as_deref().map_or(Signal::RuntimeDefault, super::number);
            let same = match signal {
                Signal::Sigcld => Signal::Sigchld,
                Signal::Sigiot => Signal::Sigabrt,
                Signal::Sigpoll => Signal::Sigio,
                signal => signal,
            };
            assert_eq!(back, same, "{name:?}");
        }
        assert!(parse("stop_signal", 66).is_err());
        assert!(parse("stop_signal", -1).is_err());
    }

    #[test]
    fn names_follow_signal_7() {
        assert_eq!(parse("", Signal::Sigterm as i32).unwrap().as_deref(), Some("SIGTERM"));
        assert_eq!(parse("", Signal::Sigrtminplus3 as i32).unwrap().as_deref(), Some("SIGRTMIN+3"));
        assert_eq!(parse("", Signal::Sigrtmaxminus2 as i32).unwrap().as_deref(), Some("SIGRTMAX-2"));
        assert_eq!(number("SIGRTMIN+20"), Signal::Sigrtmaxminus10);
        assert_eq!(number("SIGRTMAX-20"), Signal::Sigrtminplus10);
        assert_eq!(number("nonsense"), Signal::RuntimeDefault);
    }
}
