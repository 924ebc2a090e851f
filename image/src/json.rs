//! JSON from strangers, nested within bounds: what reads it calls itself for each level.

use serde::Deserialize;
use serde::de::Error as _;
use serde_json::Error;

/// How deep arrays and objects may be nested. No manifest and no configuration comes near it.
const MAX_DEPTH: usize = 64;

/// Reads a document.
pub(crate) fn parse<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Result<T, Error> {
    if depth(text) > MAX_DEPTH {
        return Err(Error::custom(format!("it is nested more than {MAX_DEPTH} levels deep")));
    }
    serde_json::from_slice(text)
}

/// How deep a document is nested; for what is none, some number.
fn depth(text: &[u8]) -> usize {
    let (mut now, mut deepest) = (0_usize, 0);
    let (mut in_string, mut is_escaped) = (false, false);
    for byte in text {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = in_string,
            b'"' => in_string = !in_string,
            _ if in_string => {}
            b'[' | b'{' => {
                now += 1;
                deepest = deepest.max(now);
            }
            b']' | b'}' => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn documents_are_nested_within_bounds() {
        let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
        assert!(parse::<Value>(&nested(MAX_DEPTH)).is_ok());
        let error = parse::<Value>(&nested(MAX_DEPTH + 1)).unwrap_err().to_string();
        assert_eq!(error, "it is nested more than 64 levels deep");
        let mixed = [b"{\"a\":[".repeat(33), b"]}".repeat(33)].concat();
        assert!(parse::<Value>(&mixed).unwrap_err().to_string().contains("nested"));
        assert!(parse::<Value>(&b"[".repeat(4 << 20)).unwrap_err().to_string().contains("nested"));
    }

    #[test]
    fn brackets_in_strings_are_no_levels() {
        for (text, expected) in [
            (&b"\"[[{{\""[..], 0),
            (b"[\"]]\", [\"\\\"[[\"]]", 2),
            (b"{\"a\\\\\": [1], \"b\": {\"c\": []}}", 3),
            (b"]]][", 1),
        ] {
            assert_eq!(depth(text), expected, "{}", String::from_utf8_lossy(text));
        }
    }
}
