//! A way to the system's D-Bus that can be made to hang, for one daemon and nobody else.

use std::io::{self, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tempfile::TempDir;

use crate::Result;

/// Where the bus is.
const BUS: &str = "/run/dbus/system_bus_socket";

/// What sd-bus and its like read the address of the system's bus from.
pub const VARIABLE: &str = "DBUS_SYSTEM_BUS_ADDRESS";

/// The way; it ends with the process.
#[derive(Debug)]
pub struct Bus {
    dir: TempDir,
    hangs: Arc<AtomicBool>,
}

impl Bus {
    /// Takes connections and leads each to the bus.
    pub fn start() -> Result<Self> {
        let bus = Self { dir: tempfile::tempdir()?, hangs: Arc::default() };
        let listener = UnixListener::bind(bus.dir.path().join("bus")).context("listen as a bus")?;
        let hangs = bus.hangs.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A client that leaves is no concern of the test's.
                relay(&client, &hangs).ok();
            }
        });
        Ok(bus)
    }

    /// Its address, for [`VARIABLE`].
    pub fn address(&self) -> String {
        format!("unix:path={}", self.dir.path().join("bus").display())
    }

    /// Passes nothing on any more, or goes on with what has waited.
    pub fn hang(&self, hangs: bool) {
        self.hangs.store(hangs, Ordering::SeqCst);
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.hang(false);
    }
}

fn relay(client: &UnixStream, hangs: &Arc<AtomicBool>) -> io::Result<()> {
    let bus = UnixStream::connect(Path::new(BUS))?;
    for (from, to) in [(client, &bus), (&bus, client)] {
        let (from, to, hangs) = (from.try_clone()?, to.try_clone()?, hangs.clone());
        std::thread::spawn(move || pass(from, to, &hangs).ok());
    }
    Ok(())
}

/// Passes on what comes, until one of them leaves.
fn pass(mut from: UnixStream, mut to: UnixStream, hangs: &AtomicBool) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let length = from.read(&mut buffer)?;
        while hangs.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(10));
        }
        if length == 0 {
            return to.shutdown(std::net::Shutdown::Both);
        }
        to.write_all(&buffer[..length])?;
    }
}
