//! AppArmor as the daemon needs it: whether a profile is loaded, and Corten's own profile.
//!
//! The kernel takes profiles only as apparmor_parser(8) compiles them. Corten's package loads its profile at the
//! installation and at every boot; where that has not been, as with a daemon started from a checkout, the daemon has
//! the same text loaded when the first container needs it. Putting a profile on is the stages' work.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::process::Command;

/// The profile of containers that ask for RuntimeDefault, or for nothing.
pub const DEFAULT: &str = "corten-default";

/// Its text, the file of the package.
const TEXT: &str = include_str!("apparmor/corten-default");

const ENABLED: &str = "/sys/module/apparmor/parameters/enabled";
const LOADED: &str = "/sys/kernel/security/apparmor/profiles";

/// An emulated processor needs some seconds for it.
const LIMIT: Duration = Duration::from_secs(60);

/// Why a profile is not loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not say what is loaded.
    #[error("read {LOADED}")]
    Profiles(#[source] io::Error),
    /// There is no program that loads it.
    #[error(
        "the AppArmor profile {DEFAULT} is not loaded, and there is no apparmor_parser to load it: install the package apparmor"
    )]
    NoParser,
    /// The program cannot be run.
    #[error("run {} to load the AppArmor profile {DEFAULT}", program.display())]
    Run {
        /// apparmor_parser.
        program: PathBuf,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The program refuses the profile.
    #[error("load the AppArmor profile {DEFAULT}: {said}")]
    Refused {
        /// What it says.
        said: String,
    },
}

/// Whether the kernel confines with AppArmor.
pub fn is_on() -> bool {
    fs::read(ENABLED).is_ok_and(|text| text.starts_with(b"Y"))
}

/// Whether the kernel has a profile of this name.
///
/// # Errors
/// When it does not say: securityfs is not mounted, for one.
pub async fn is_loaded(profile: &str) -> Result<bool, Error> {
    tokio::fs::read_to_string(LOADED).await.map(|list| has(&list, profile)).map_err(Error::Profiles)
}

/// Has Corten's own profile loaded, if it is not.
///
/// # Errors
/// When it cannot be.
pub async fn ensure_default() -> Result<(), Error> {
    // Whoever cannot see the list can still load, and replacing a profile by itself changes nothing.
    if let Ok(true) = is_loaded(DEFAULT).await {
        return Ok(());
    }
    let places = ["/usr/sbin", "/sbin", "/usr/bin", "/usr/local/sbin"];
    let program = places.into_iter().map(|place| PathBuf::from(place).join("apparmor_parser"));
    let program = program.into_iter().find(|path| path.exists()).ok_or(Error::NoParser)?;
    load(program).await
}

async fn load(program: PathBuf) -> Result<(), Error> {
    let mut command = Command::new(&program);
    // Without a cache: its files are the distribution's.
    command.args(["--replace", "--skip-cache", "--quiet"]);
    command.env_clear().current_dir("/").kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let run = async {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(TEXT.as_bytes()).await?;
        }
        child.wait_with_output().await
    };
    let output = match tokio::time::timeout(LIMIT, run).await {
        Ok(output) => output.map_err(|source| Error::Run { program, source })?,
        Err(_) => return Err(Error::Run { program, source: io::ErrorKind::TimedOut.into() }),
    };
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let said: String = said.trim().chars().take(500).collect();
    Err(Error::Refused { said: if said.is_empty() { output.status.to_string() } else { said } })
}

/// Lines of `name (mode)`; profiles inside of others have their names too, `outer//inner`.
fn has(list: &str, profile: &str) -> bool {
    list.lines().any(|line| line.rsplit_once(" (").is_some_and(|(name, _)| name == profile))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn names_are_compared_whole() {
        let list = "corten-default (enforce)\na b (complain)\n/usr/bin/man//filter (enforce)\n";
        for (name, loaded) in
            [("corten-default", true), ("a b", true), ("a", false), ("corten", false), ("", false)]
        {
            assert_eq!(has(list, name), loaded, "{name}");
        }
    }

    #[test]
    fn the_text_is_of_the_profile() {
        assert!(TEXT.contains(&format!("\nprofile {DEFAULT} ")), "{TEXT}");
        assert!(TEXT.contains(&format!("peer={DEFAULT}")), "{TEXT}");
    }

    #[tokio::test]
    async fn the_parser_gets_the_text_and_its_words_are_passed_on() {
        let dir = tempfile::tempdir().unwrap();
        let parser = |name: &str, script: &str| {
            let path = dir.path().join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            path
        };
        let copy = dir.path().join("copy");
        load(parser("good", &format!("/bin/cat > {}", copy.display()))).await.unwrap();
        assert_eq!(fs::read_to_string(&copy).unwrap(), TEXT);
        let bad = parser("bad", "/bin/cat > /dev/null; echo 'no such abi' >&2; exit 1");
        let error = load(bad).await.unwrap_err().to_string();
        assert!(error.contains("no such abi") && error.contains(DEFAULT), "{error}");
        let error = load(dir.path().join("none")).await.unwrap_err();
        assert!(matches!(error, Error::Run { .. }), "{error}");
    }
}
