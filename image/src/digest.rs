//! Content digests: `sha256:` or `sha512:` and exact lower-case hexadecimal, nothing else.
//!
//! A digest is parsed where it enters (also inside of JSON), so that every later use of it, in a path or in an
//! address, is made of known characters. Follows the OCI image spec, `descriptor.md`, "Digests".

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest as _, Sha256, Sha512};

/// The digest of some content.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    algorithm: Algorithm,
    hex: Box<str>,
}

/// The hash functions that a digest may name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// SHA-256, which nearly every image uses.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// What is wrong with the text of a digest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidDigest {
    /// There is no colon between the algorithm and the value.
    #[error("a digest is written ALGORITHM:HEX")]
    Form,
    /// The algorithm is neither sha256 nor sha512.
    #[error("its algorithm is neither sha256 nor sha512")]
    Algorithm,
    /// The value is not as long as the algorithm makes it.
    #[error("it has {found} hexadecimal digits in place of {expected}")]
    Length {
        /// How many digits the algorithm gives.
        expected: usize,
        /// How many there are.
        found: usize,
    },
    /// The value has a character that is not a lower-case hexadecimal digit.
    #[error("it has a character that is not one of 0-9 and a-f")]
    Character,
}

impl Digest {
    /// Returns the hash function.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Returns the value: lower-case hexadecimal digits alone.
    pub fn hex(&self) -> &str {
        &self.hex
    }

    /// Computes the SHA-256 digest of `content`.
    pub fn sha256(content: &[u8]) -> Self {
        let mut hasher = Hasher::new(Algorithm::Sha256);
        hasher.update(content);
        hasher.finish()
    }

    /// Computes the digest of `content` with the hash function that this one was made with.
    pub fn same_of(&self, content: &[u8]) -> Self {
        let mut hasher = Hasher::new(self.algorithm);
        hasher.update(content);
        hasher.finish()
    }
}

impl Algorithm {
    /// Returns the name as it stands before the colon.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn hex_digits(self) -> usize {
        match self {
            Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Digest {
    type Err = InvalidDigest;

    fn from_str(text: &str) -> Result<Self, InvalidDigest> {
        let (name, hex) = text.split_once(':').ok_or(InvalidDigest::Form)?;
        let algorithm = match name {
            "sha256" => Algorithm::Sha256,
            "sha512" => Algorithm::Sha512,
            _ => return Err(InvalidDigest::Algorithm),
        };
        if hex.len() != algorithm.hex_digits() {
            return Err(InvalidDigest::Length { expected: algorithm.hex_digits(), found: hex.len() });
        }
        if !hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Err(InvalidDigest::Character);
        }
        Ok(Self { algorithm, hex: hex.into() })
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.name(), self.hex)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Computes a digest piece by piece.
#[derive(Clone)]
pub struct Hasher(Function);

#[derive(Clone)]
enum Function {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl Hasher {
    /// Starts with nothing.
    pub fn new(algorithm: Algorithm) -> Self {
        Self(match algorithm {
            Algorithm::Sha256 => Function::Sha256(Sha256::new()),
            Algorithm::Sha512 => Function::Sha512(Sha512::new()),
        })
    }

    /// Takes the next piece.
    pub fn update(&mut self, piece: &[u8]) {
        match &mut self.0 {
            Function::Sha256(hash) => hash.update(piece),
            Function::Sha512(hash) => hash.update(piece),
        }
    }

    /// Returns the digest of all that was taken.
    pub fn finish(self) -> Digest {
        let (algorithm, hex) = match self.0 {
            Function::Sha256(hash) => (Algorithm::Sha256, hex(&hash.finalize())),
            Function::Sha512(hash) => (Algorithm::Sha512, hex(&hash.finalize())),
        };
        Digest { algorithm, hex }
    }
}

impl fmt::Debug for Hasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hasher").finish_non_exhaustive()
    }
}

fn hex(bytes: &[u8]) -> Box<str> {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes
        .iter()
        .flat_map(|b| [DIGITS[usize::from(b >> 4)], DIGITS[usize::from(b & 15)]])
        .collect::<String>()
        .into_boxed_str()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_exact_form_is_a_digest() {
        let a64 = "a".repeat(64);
        let a128 = "a".repeat(128);
        let check = |text: &str, expected: Result<(), InvalidDigest>| {
            let parsed = text.parse::<Digest>();
            assert_eq!(parsed.as_ref().map(|_| ()).map_err(|e| *e), expected, "{text}");
            if let Ok(digest) = parsed {
                assert_eq!(digest.to_string(), text);
            }
        };
        check(&format!("sha256:{a64}"), Ok(()));
        check(&format!("sha512:{a128}"), Ok(()));
        check("", Err(InvalidDigest::Form));
        check("sha256", Err(InvalidDigest::Form));
        check(&format!("sha256:{a128}"), Err(InvalidDigest::Length { expected: 64, found: 128 }));
        check("sha256:../../x", Err(InvalidDigest::Length { expected: 64, found: 7 }));
        check(&format!("sha256:{}", "../".repeat(21) + "x"), Err(InvalidDigest::Character));
        check(&format!("sha256:{}", "A".repeat(64)), Err(InvalidDigest::Character));
        check(&format!("SHA256:{a64}"), Err(InvalidDigest::Algorithm));
        check(&format!("md5:{a64}"), Err(InvalidDigest::Algorithm));
        check(&format!("sha256:{a64} "), Err(InvalidDigest::Length { expected: 64, found: 65 }));
    }

    #[test]
    fn known_values() {
        assert_eq!(
            Digest::sha256(b"abc").to_string(),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        let mut hasher = Hasher::new(Algorithm::Sha512);
        hasher.update(b"a");
        hasher.update(b"bc");
        assert!(hasher.finish().hex().starts_with("ddaf35a193617abacc417349ae204131"));
    }

    #[test]
    fn json_is_parsed_at_the_door() {
        assert!(serde_json::from_str::<Digest>("\"sha256:../../etc/passwd\"").is_err());
        let digest = Digest::sha256(b"");
        let json = serde_json::to_string(&digest).unwrap();
        assert_eq!(serde_json::from_str::<Digest>(&json).unwrap(), digest);
    }
}
