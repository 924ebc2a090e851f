//! Bearer tokens that are still good, kept from one pull to the next.
//!
//! A token is found again only by who got it: the same host, repository and credentials. So it never stands in for
//! credentials that a request does not bring.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;

use crate::credentials::Login;

/// What a token lives when nobody says, by the distribution project's token specification.
const USUAL_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
const MAX_TOKENS: usize = 512;

/// The tokens of all registries.
#[derive(Debug, Default)]
pub(crate) struct Tokens {
    /// Guards a map; nothing is awaited under it.
    kept: Mutex<HashMap<Key, (HeaderValue, Instant)>>,
}

/// Whose token it is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    /// `HOST[:PORT]`.
    pub(crate) host: String,
    /// The repository that it opens.
    pub(crate) repository: String,
    /// With what it was got.
    pub(crate) login: Login,
}

impl Tokens {
    /// Returns a token that is good for a while.
    pub(crate) fn find(&self, key: &Key) -> Option<HeaderValue> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (token, until) = kept.get(key)?;
        (Instant::now() < *until).then(|| token.clone())
    }

    /// Keeps a token, for most of the time that its server gives it.
    pub(crate) fn keep(&self, key: Key, token: HeaderValue, life: Option<Duration>) {
        let now = Instant::now();
        let life = life.unwrap_or(USUAL_LIFE).min(LONGEST_LIFE);
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.retain(|_, (_, until)| now < *until);
        if kept.len() < MAX_TOKENS || kept.contains_key(&key) {
            // Clocks and networks are not exact.
            kept.insert(key, (token, now + life * 9 / 10));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_for_one_host_repository_and_login() {
        let key = |host: &str, repository: &str, login: &str| Key {
            host: host.to_owned(),
            repository: repository.to_owned(),
            login: Login::Refresh(login.into()),
        };
        let tokens = Tokens::default();
        tokens.keep(key("a", "b", "c"), HeaderValue::from_static("t"), None);
        assert_eq!(tokens.find(&key("a", "b", "c")), Some(HeaderValue::from_static("t")));
        for other in [key("x", "b", "c"), key("a", "x", "c"), key("a", "b", "x")] {
            assert_eq!(tokens.find(&other), None);
        }
        tokens.keep(key("a", "b", "c"), HeaderValue::from_static("t"), Some(Duration::ZERO));
        assert_eq!(tokens.find(&key("a", "b", "c")), None);
    }

    #[test]
    fn their_number_is_bounded() {
        let tokens = Tokens::default();
        for number in 0..2 * MAX_TOKENS {
            let key = Key { host: number.to_string(), repository: String::new(), login: Login::Anonymous };
            tokens.keep(key, HeaderValue::from_static("t"), None);
        }
        assert_eq!(tokens.kept.lock().unwrap().len(), MAX_TOKENS);
    }
}
