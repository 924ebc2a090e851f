//! How a command's end is told on the error channel: `metav1.Status` since `v4.channel.k8s.io`, a line of text before.

use serde::Serialize;

use super::negotiate::Version;

/// How a command or a terminal that was attached to ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It ended well, or the container did.
    Success,
    /// The command said this code.
    Exited(i32),
    /// It could not be run or watched.
    Failed(String),
}

#[derive(Serialize)]
struct Status<'a> {
    metadata: Empty,
    status: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    details: Option<Details<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Details<'a> {
    causes: Vec<Cause<'a>>,
}

#[derive(Serialize)]
struct Cause<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    message: String,
}

impl Outcome {
    /// The bytes for the error channel; none in old versions when all is well.
    pub(super) fn encode(&self, version: Version) -> Vec<u8> {
        if version < Version::V4 {
            return self.message().unwrap_or_default().into_bytes();
        }
        let (reason, details, code) = match self {
            Self::Success => (None, None, None),
            Self::Exited(code) => {
                let cause = Cause { reason: Some("ExitCode"), message: code.to_string() };
                (Some("NonZeroExitCode"), Some(Details { causes: vec![cause] }), None)
            }
            Self::Failed(text) => {
                let cause = Cause { reason: None, message: text.clone() };
                (Some("InternalError"), Some(Details { causes: vec![cause] }), Some(500))
            }
        };
        let status = if *self == Self::Success { "Success" } else { "Failure" };
        let status = Status { metadata: Empty {}, status, message: self.message(), reason, details, code };
        // Texts and numbers always have a JSON.
        serde_json::to_vec(&status).unwrap_or_default()
    }

    fn message(&self) -> Option<String> {
        match self {
            Self::Success => None,
            Self::Exited(code) => {
                Some(format!("command terminated with non-zero exit code: exit status {code}"))
            }
            Self::Failed(text) => Some(format!("Internal error occurred: {text}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_told_as_clients_read_them() {
        let check = |outcome: Outcome, version: Version, expected: &str| {
            assert_eq!(String::from_utf8(outcome.encode(version)).unwrap(), expected);
        };
        check(Outcome::Success, Version::V5, r#"{"metadata":{},"status":"Success"}"#);
        check(
            Outcome::Exited(3),
            Version::V4,
            r#"{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit status 3","reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"3"}]}}"#,
        );
        check(
            Outcome::Failed("no".to_owned()),
            Version::V4,
            r#"{"metadata":{},"status":"Failure","message":"Internal error occurred: no","reason":"InternalError","details":{"causes":[{"message":"no"}]},"code":500}"#,
        );
        check(Outcome::Success, Version::V3, "");
        check(Outcome::Exited(3), Version::V1, "command terminated with non-zero exit code: exit status 3");
    }
}
