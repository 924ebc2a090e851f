//! Credential helpers: programs that know credentials. Follows docker-credential-helpers' protocol.
//!
//! One gets the registry's address on its standard input and answers in JSON. It has a time limit and a limit on
//! what it may say; what it says on success never gets into a log or an error.

use std::fmt;
use std::process::Stdio;
use std::time::Duration;

use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use zeroize::Zeroizing;

use crate::Reference;
use crate::credentials::{Login, Secret};
use crate::error::excerpt;

const PREFIX: &str = "docker-credential-";
const MAX_ANSWER_BYTES: u64 = 256 << 10;
/// A buffer that grows leaves copies behind.
const USUAL_ANSWER_BYTES: usize = 16 << 10;
/// The user of an answer whose secret is an identity token.
const TOKEN_USER: &str = "<token>";
/// How helpers say that they know nothing.
const UNKNOWN: &str = "credentials not found";

/// A program to ask, and what to ask it for.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Helper {
    program: String,
    address: String,
    /// The setting that names it.
    setting: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    username: String,
    secret: Secret,
}

impl Helper {
    /// Takes the name that the setting gives, which is the end of the program's.
    pub(crate) fn new(name: &str, reference: &Reference, setting: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if name.is_empty() || !name.bytes().all(plain) {
            return Err(format!("{setting}: {:?} is no name of a credential helper", excerpt(name)));
        }
        let address = match reference.registry() {
            "docker.io" => "https://index.docker.io/v1/",
            registry => registry,
        };
        let setting = setting.to_owned();
        Ok(Self { program: format!("{PREFIX}{name}"), address: address.to_owned(), setting })
    }

    /// Asks it. A program that knows nothing is no failure.
    pub(crate) async fn ask(&self, limit: Duration) -> Result<Login, String> {
        let failed = |reason: String| format!("{self:?} {reason}");
        // A child that is dropped is killed.
        let mut child = Command::new(&self.program)
            .arg("get")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| failed(format!("cannot be executed: {e}")))?;
        let talk = timeout(limit, talk(&mut child, &self.address)).await;
        let (succeeded, said) = talk
            .map_err(|_| failed(format!("gave no answer in {limit:?}")))?
            .map_err(|e| failed(format!("broke off: {e}")))?;
        if !succeeded {
            let said = String::from_utf8_lossy(&said);
            if said.contains(UNKNOWN) {
                return Ok(Login::Anonymous);
            }
            return Err(failed(format!("says: {}", excerpt(said.trim()))));
        }
        // The text of serde's errors may quote the secret.
        let answer: Answer = serde_json::from_slice(&said)
            .map_err(|_| failed("gave an answer without Username and Secret".to_owned()))?;
        Ok(match answer {
            Answer { username, secret } if username.is_empty() && secret.is_empty() => Login::Anonymous,
            Answer { username, secret } if username == TOKEN_USER => Login::Refresh(secret),
            Answer { username, secret } => Login::Password { user: username, password: secret },
        })
    }
}

/// Says how the program ended, and what it said.
async fn talk(child: &mut Child, address: &str) -> std::io::Result<(bool, Zeroizing<Vec<u8>>)> {
    if let Some(mut input) = child.stdin.take() {
        // One that does not read what it is asked for answers all the same.
        input.write_all(address.as_bytes()).await.ok();
    }
    let mut said = Zeroizing::new(Vec::with_capacity(USUAL_ANSWER_BYTES));
    if let Some(output) = child.stdout.take() {
        bounded(output).read_to_end(&mut said).await?;
    }
    Ok((child.wait().await?.success(), said))
}

fn bounded(output: impl AsyncRead + Unpin) -> impl AsyncRead + Unpin {
    output.take(MAX_ANSWER_BYTES)
}

impl fmt::Debug for Helper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {} ({})", self.program, self.address, self.setting)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;

    use super::*;

    /// Far more than an answer takes on a machine that has much to do.
    const LONG: Duration = Duration::from_secs(60);

    async fn ask(script: &str) -> Result<Login, String> {
        ask_within(LONG, script).await
    }

    async fn ask_within(limit: Duration, script: &str) -> Result<Login, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docker-credential-test");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        let mut helper = Helper::new("test", &"q.io:5000/x".parse().unwrap(), "credsStore").unwrap();
        helper.program = path.to_string_lossy().into_owned();
        busy(&helper, &path, limit).await
    }

    /// Asks again while another test's fork has the script open for writing.
    async fn busy(helper: &Helper, path: &Path, limit: Duration) -> Result<Login, String> {
        loop {
            match helper.ask(limit).await {
                Err(error) if error.contains("Text file busy") && path.exists() => {
                    tokio::task::yield_now().await;
                }
                answer => return answer,
            }
        }
    }

    #[tokio::test]
    async fn answers_are_read() {
        let password =
            |user: &str, password: &str| Login::Password { user: user.into(), password: password.into() };
        let script = r#"read -r a; test "$1" = get && echo "{\"ServerURL\":\"$a\",\"Username\":\"$a\",\"Secret\":\"s\"}""#;
        assert_eq!(ask(script).await.unwrap(), password("q.io:5000", "s"));
        let script = r#"echo '{"Username":"<token>","Secret":"t"}'"#;
        assert_eq!(ask(script).await.unwrap(), Login::Refresh("t".into()));
        let script = "echo 'credentials not found in native keychain'; exit 1";
        assert_eq!(ask(script).await.unwrap(), Login::Anonymous);
    }

    #[tokio::test]
    async fn failures_name_the_helper_and_no_secret() {
        let error = ask("echo locked; exit 1").await.unwrap_err();
        assert!(error.ends_with("docker-credential-test for q.io:5000 (credsStore) says: locked"), "{error}");
        let error = ask("echo 'canary'").await.unwrap_err();
        assert!(!error.contains("canary"), "{error}");
        assert!(ask("head -c 1000000 /dev/zero").await.is_err());
        let error = ask_within(Duration::from_millis(50), "exec sleep 60").await.unwrap_err();
        assert!(error.contains("no answer in"), "{error}");
        let missing = Helper::new("nonexistent-of-a-test", &"q.io/x".parse().unwrap(), "s").unwrap();
        assert!(missing.ask(LONG).await.unwrap_err().contains("cannot be executed"));
    }
}
