//! Tokens: what a URL of the streaming server names a request by.
//!
//! A token has 256 random bits, works once, for a minute, and only for the request that it was made for. It is
//! compared without telling by time how much of it was right, and it is never logged.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use subtle::ConstantTimeEq;

use super::Request;

/// How long a token works.
const LIFETIME: Duration = Duration::from_secs(60);
/// Tokens that nobody has used yet.
const IN_FLIGHT: usize = 1000;
const BYTES: usize = 32;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The kernel gives no random bytes.
    #[error("make a token")]
    Random(#[source] getrandom::Error),
    /// Somebody asks and does not come.
    #[error("{IN_FLIGHT} streaming requests wait for their clients already: try again in a minute")]
    TooMany,
}

/// The requests whose clients have not come yet.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// The oldest first.
    waiting: Mutex<VecDeque<Waiting>>,
}

struct Waiting {
    token: [u8; BYTES],
    until: Instant,
    request: Request,
}

impl Tokens {
    /// Keeps a request and gives the token for it.
    pub(super) fn keep(&self, request: Request, now: Instant) -> Result<String, Error> {
        let mut token = [0; BYTES];
        getrandom::fill(&mut token).map_err(Error::Random)?;
        let mut waiting = self.current(now);
        if waiting.len() >= IN_FLIGHT {
            return Err(Error::TooMany);
        }
        waiting.push_back(Waiting { token, until: now + LIFETIME, request });
        Ok(token.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The request that a token was made for, once. All of them are compared, whichever is right.
    pub(super) fn take(&self, text: &str, now: Instant) -> Option<Request> {
        let token = parse(text)?;
        let mut waiting = self.current(now);
        let mut found = None;
        for (index, waiting) in waiting.iter().enumerate() {
            if bool::from(waiting.token.ct_eq(&token)) {
                found = Some(index);
            }
        }
        waiting.remove(found?).map(|found| found.request)
    }

    /// Those whose time is not over.
    fn current(&self, now: Instant) -> MutexGuard<'_, VecDeque<Waiting>> {
        // Nothing is left half done under this lock.
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while waiting.front().is_some_and(|oldest| oldest.until <= now) {
            waiting.pop_front();
        }
        waiting
    }
}

fn parse(text: &str) -> Option<[u8; BYTES]> {
    let mut token = [0; BYTES];
    let digits = text.as_bytes();
    if digits.len() != 2 * BYTES || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    for (byte, digits) in token.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(token)
}

impl std::fmt::Debug for Waiting {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waiting").field("request", &self.request).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(pod: &str) -> Request {
        Request::PortForward { pod: pod.to_owned(), ports: Vec::new() }
    }

    fn pod(request: Option<Request>) -> Option<String> {
        request.map(|request| match request {
            Request::PortForward { pod, .. } => pod,
            other => panic!("{other:?}"),
        })
    }

    #[test]
    fn a_token_works_once() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let first = tokens.keep(request("a"), now).unwrap();
        let second = tokens.keep(request("b"), now).unwrap();
        assert_eq!(first.len(), 64);
        assert_ne!(first, second);
        assert_eq!(pod(tokens.take(&second, now)).as_deref(), Some("b"));
        assert_eq!(pod(tokens.take(&second, now)), None);
        assert_eq!(pod(tokens.take(&first, now)).as_deref(), Some("a"));
    }

    #[test]
    fn a_token_works_for_a_minute() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let early = tokens.keep(request("a"), now).unwrap();
        let late = tokens.keep(request("b"), now + Duration::from_secs(30)).unwrap();
        assert_eq!(pod(tokens.take(&early, now + LIFETIME)), None);
        assert_eq!(pod(tokens.take(&late, now + LIFETIME)).as_deref(), Some("b"));
    }

    #[test]
    fn there_are_not_too_many() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        for _ in 0..IN_FLIGHT {
            tokens.keep(request("a"), now).unwrap();
        }
        assert!(matches!(tokens.keep(request("a"), now), Err(Error::TooMany)));
        assert!(tokens.keep(request("a"), now + LIFETIME).is_ok());
    }

    #[test]
    fn what_is_no_token_finds_nothing() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.keep(request("a"), now).unwrap();
        let check = |text: &str| assert_eq!(pod(tokens.take(text, now)), None, "{text:?}");
        check("");
        check(&token[1..]);
        check(&format!("{token}0"));
        check(&"+f".repeat(32));
        check(&"é".repeat(32));
        check(&"0".repeat(64));
        assert!(!format!("{tokens:?}").contains(&token));
    }

    #[test]
    fn of_two_at_once_one_gets_it() {
        let (tokens, now) = (Tokens::default(), Instant::now());
        let token = tokens.keep(request("a"), now).unwrap();
        let winners = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| tokens.take(&token, now).is_some())).collect();
            threads.into_iter().filter_map(|thread| thread.join().ok()).filter(|won| *won).count()
        });
        assert_eq!(winners, 1);
    }
}
