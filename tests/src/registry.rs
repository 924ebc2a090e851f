//! The registry with the stand-in images: Debian's docker-registry, run by `hack/images serve`.

use std::fs::File;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::wait::{PATIENCE, slowness};
use crate::{Result, host};

/// The image that nearly every test runs.
pub const BUSYBOX: &str = "registry.k8s.io/e2e-test-images/busybox:1.29-2";
/// Serves a page on port 80.
pub const NGINX: &str = "registry.k8s.io/e2e-test-images/nginx:1.14-2";
/// Prints its effective user id, and is set-user-ID root.
pub const NONEWPRIVS: &str = "registry.k8s.io/e2e-test-images/nonewprivs:1.3";
/// Where the images of Kubernetes' own test suite are.
pub const STAGING: &str = "gcr.io/k8s-staging-cri-tools";

/// A running registry.
#[derive(Debug)]
pub struct Registry {
    server: Child,
    port: u16,
}

impl Registry {
    /// Starts it on a free port; `dir` gets its output, and `dir/registries.conf` the mirrors.
    pub fn start(dir: &Path) -> Result<Self> {
        let script = host::repository().join("hack/images");
        let port = host::free_port()?;
        let conf = File::create(dir.join("registries.conf")).context("make registries.conf")?;
        let log = File::create(dir.join("registry.log")).context("make the registry's log")?;
        // Made here and not by `serve`, whose start would seem to hang meanwhile.
        let made = Command::new(&script).stdout(Stdio::null()).status().context("run hack/images")?;
        ensure!(made.success(), "hack/images could not make the images");
        let server = Command::new(&script)
            .args(["serve", &port.to_string()])
            .stdin(Stdio::null())
            .stdout(conf)
            .stderr(log)
            .spawn()
            .context("run hack/images serve")?;
        let mut registry = Self { server, port };
        registry.await_answer(dir)?;
        Ok(registry)
    }

    /// Where it listens, on the loopback interface.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn await_answer(&mut self, dir: &Path) -> Result {
        let deadline = Instant::now() + PATIENCE * slowness();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let ended = self.server.try_wait().context("wait for the registry")?;
            let log = || std::fs::read_to_string(dir.join("registry.log")).unwrap_or_default();
            ensure!(ended.is_none(), "the registry ended: {}", log());
            ensure!(Instant::now() < deadline, "the registry does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Nobody can be told of a failure here, and none matters.
        self.server.kill().ok();
        self.server.wait().ok();
    }
}
