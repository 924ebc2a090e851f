//! The machine that the tests run on: where the programs are, and what it lacks.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU16, Ordering};
use std::{fs, iter};

use anyhow::{Context, bail, ensure};

use crate::Result;

/// The repository.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or_else(|| Path::new("/"))
}

/// The stand-in images: `CORTEN_IMAGES`, or where hack/images makes them.
pub fn images() -> PathBuf {
    std::env::var_os("CORTEN_IMAGES").map_or_else(|| repository().join("target/images"), PathBuf::from)
}

/// The built `corten`: `CORTEN_BIN`, or the one beside the test program, which hack/test builds.
pub fn corten() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("CORTEN_BIN") {
        return Ok(PathBuf::from(path));
    }
    let own = std::env::current_exe().context("path of the test program")?;
    // target/debug/deps/e2e-HASH, target/release/bench
    let directory = own.parent().context("directory of the test program")?;
    let profile = if directory.ends_with("deps") { directory.parent() } else { Some(directory) };
    let profile = profile.context("directory of the build profile")?;
    let siblings = profile.parent().context("target directory")?;
    let places = [profile.join("corten"), siblings.join("release/corten"), siblings.join("debug/corten")];
    for place in &places {
        if place.exists() && place.with_file_name("corten-runtime").exists() {
            return Ok(place.clone());
        }
    }
    bail!("corten and corten-runtime are in none of {places:?}: run hack/build, or set CORTEN_BIN")
}

/// The runtime handler that pods are for when a test names none: `CRI_HANDLER`, else the default one.
pub fn handler() -> String {
    std::env::var("CRI_HANDLER").unwrap_or_default()
}

/// The program of [`handler`]: `CRI_HANDLER_PATH`, else the installed one of its name.
pub fn handler_program() -> Result<PathBuf> {
    std::env::var_os("CRI_HANDLER_PATH").map_or_else(|| program(&handler()), |path| Ok(PathBuf::from(path)))
}

/// Whether another runtime says that it has what pods with user namespaces need.
pub fn maps_users(program: &Path) -> Result<bool> {
    let answer = Command::new(program).arg("features").output();
    let answer = answer.with_context(|| format!("run {}", program.display()))?;
    let told: serde_json::Value = serde_json::from_slice(&answer.stdout).unwrap_or_default();
    let linux = &told["linux"];
    let has_users =
        linux["namespaces"].as_array().is_some_and(|kinds| kinds.iter().any(|kind| kind == "user"));
    Ok(has_users && linux["mountExtensions"]["idmap"]["enabled"] == true)
}

/// The program of this name, as a shell would find it.
pub fn program(name: &str) -> Result<PathBuf> {
    let places = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
    let found = places.iter().map(|place| Path::new(place).join(name)).find(|path| path.exists());
    found.with_context(|| format!("{name} is not installed"))
}

/// Fails with a clear word unless the tests run as root.
pub fn require_root() -> Result {
    ensure!(rustix::process::geteuid().is_root(), "the integration tests start containers: run them as root");
    Ok(())
}

/// A TCP port on the loopback interface that nobody listens on, and that no test gets a second time.
///
/// The kernel gives none of these to those who ask for any (ip_local_port_range, ip(7)), so that no other test has it
/// before whoever this one is for; above them are those that pods map.
pub fn free_port() -> Result<u16> {
    static NEXT: AtomicU16 = AtomicU16::new(10_000);
    let mut ports =
        iter::repeat_with(|| NEXT.fetch_add(1, Ordering::Relaxed)).take_while(|port| *port < 20_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).context("find a free port")
}

/// Whether the kernel confines with AppArmor.
pub fn has_apparmor() -> bool {
    fs::read_to_string("/sys/module/apparmor/parameters/enabled").is_ok_and(|text| text.starts_with('Y'))
}

/// Whether the kernel labels with SELinux and a policy is loaded.
pub fn has_selinux() -> bool {
    Path::new("/sys/fs/selinux/enforce").exists()
}

/// Whether a container's init ends with its monitor when there is no daemon that would end it.
///
/// It does by its parent-death signal, which the kernel forgets when an exec changes the security label
/// (prctl(2), `PR_SET_PDEATHSIG`). Where it does not, the next daemon ends it.
pub fn ends_with_monitor() -> bool {
    !(has_apparmor() || has_selinux()) || !handler().is_empty()
}

/// One line of /proc/PID/status, without its name.
pub fn status_field(pid: i32, name: &str) -> Result<String> {
    let path = format!("/proc/{pid}/status");
    let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    Ok(value.with_context(|| format!("{name} in {path}"))?.trim().to_owned())
}

/// Whether a process is there and not merely waiting to be reaped.
pub fn is_alive(pid: i32) -> bool {
    status_field(pid, "State").is_ok_and(|state| !state.starts_with('Z') && !state.starts_with('X'))
}
