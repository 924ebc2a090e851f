//! Debian's docker-registry in all the ways that people run it: with passwords, tokens, TLS, or as a cache.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::{Result, host};

/// The user that a registry with passwords knows.
pub const USER: &str = "user";
/// That user's password.
pub const PASSWORD: &str = "weathering-steel";
/// `PASSWORD`, in bcrypt.
const HASH: &str = "$2y$05$abcdefghijklmnopqrstuu/xDNcYBbOytQk2gqi11lh9KAcChpM6W";

/// What is special about a registry.
#[derive(Debug, Default, Clone)]
pub struct Settings {
    /// Asks for [`USER`] and [`PASSWORD`].
    pub password: bool,
    /// Asks for tokens of the server at this address.
    pub token_server: Option<String>,
    /// Speaks TLS with this certificate of the tests' authority.
    pub certificate: Option<&'static str>,
    /// Asks for a certificate of the tests' authority.
    pub client_certificates: bool,
    /// Is a cache of the registry at this address.
    pub cache_of: Option<String>,
    /// Is empty, and takes what is pushed.
    pub empty: bool,
}

/// A running registry with the stand-in images.
#[derive(Debug)]
pub struct Distribution {
    server: Child,
    port: u16,
    dir: TempDir,
}

/// A file of the tests' authority: `ca.crt`, and for 127.0.0.1 `server.crt`, `expired.crt` and `server.key`.
pub fn pem(name: &str) -> PathBuf {
    host::repository().join("image/src/registry/tests/pem").join(name)
}

impl Distribution {
    /// Starts one. The stand-in images must have been made, as every node does.
    pub fn start(settings: &Settings) -> Result<Self> {
        let images = host::images();
        let dir =
            tempfile::Builder::new().prefix("corten-registry-").tempdir().context("make a directory")?;
        let port = host::free_port()?;
        fs::write(dir.path().join("htpasswd"), format!("{USER}:{HASH}\n")).context("write htpasswd")?;
        let own = settings.empty || settings.cache_of.is_some();
        let storage = if own { dir.path().join("storage") } else { images.join("registry") };
        let text = configuration(settings, dir.path(), &storage, port);
        let path = dir.path().join("config.yml");
        fs::write(&path, text).context("write the registry's configuration")?;
        let log = fs::File::create(dir.path().join("log")).context("make the registry's log")?;
        let server = Command::new(images.join("docker-registry"))
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start docker-registry")?;
        let mut registry = Self { server, port, dir };
        registry.await_answer()?;
        Ok(registry)
    }

    /// `HOST:PORT`.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The name of a stand-in image in this registry.
    pub fn image(&self) -> String {
        format!("{}/e2e-test-images/busybox:1.29-2", self.host())
    }

    /// What it says of itself.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn await_answer(&mut self) -> Result {
        let deadline = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.server.try_wait().context("wait for docker-registry")?;
            ensure!(ended.is_none(), "docker-registry ended: {}", self.log());
            ensure!(Instant::now() < deadline, "docker-registry does not answer: {}", self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Distribution {
    fn drop(&mut self) {
        // Nobody can be told of a failure here, and none matters.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}

fn configuration(settings: &Settings, dir: &Path, storage: &Path, port: u16) -> String {
    let mut text = format!(
        "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage:\n  filesystem: {{ rootdirectory: \
         {} }}\n  maintenance: {{ uploadpurging: {{ enabled: false }} }}\nhttp:\n  addr: \"127.0.0.1:{port}\"\n",
        storage.display()
    );
    if let Some(certificate) = settings.certificate {
        let (certificate, key) = (pem(certificate), pem("server.key"));
        text.push_str(&format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        ));
        if settings.client_certificates {
            text.push_str(&format!("    clientcas: [\"{}\"]\n", pem("ca.crt").display()));
        }
    }
    if settings.password {
        let file = dir.join("htpasswd");
        text.push_str(&format!("auth:\n  htpasswd: {{ realm: tests, path: {} }}\n", file.display()));
    }
    if let Some(realm) = &settings.token_server {
        text.push_str(&format!(
            "auth:\n  token:\n    realm: {realm}\n    service: tests\n    issuer: tests\n    rootcertbundle: {}\n",
            pem("server.crt").display()
        ));
    }
    if let Some(upstream) = &settings.cache_of {
        text.push_str(&format!("proxy:\n  remoteurl: http://{upstream}\n"));
    }
    text
}
