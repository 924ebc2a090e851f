//! What the runtime asks the kernel for on the way into a container, as strace(1) sees it.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use corten_tests::{Result, eventually, host, on_node, skip};
use rustix::process::{Pid, Signal, kill_process};

/// The calls that name a path, and those that close.
const CALLS: &str = "trace=%file,openat2,open_tree,move_mount,fsconfig,pivot_root,mknodat,close_range,fchdir";

/// strace at a process and all that it makes.
struct Tracer {
    strace: Child,
    output: PathBuf,
}

impl Tracer {
    async fn attach(pid: i32, output: PathBuf) -> Result<Self> {
        let mut command = Command::new(host::program("strace")?);
        command.args(["-f", "-qq", "-s", "4096", "-e", CALLS, "-e", "signal=none", "-o"]).arg(&output);
        command.args(["-p", &pid.to_string()]).stdin(Stdio::null()).stderr(Stdio::null());
        let strace = command.spawn().context("run strace")?;
        let own = strace.id().to_string();
        let tracer = Self { strace, output };
        eventually("strace is attached", async || {
            Ok((host::status_field(pid, "TracerPid")? == own).then_some(()))
        })
        .await?;
        Ok(tracer)
    }

    /// Lets go of the processes; what was seen, as pairs of a process and its call.
    fn end(mut self) -> Result<Vec<(String, String)>> {
        let pid = Pid::from_raw(self.strace.id().cast_signed()).context("strace's number")?;
        kill_process(pid, Signal::INT)?;
        self.strace.wait()?;
        let text = fs::read_to_string(&self.output)?;
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let calls = lines.map(|(pid, call)| (pid.to_owned(), call.trim().to_owned()));
        // A call that another one's interrupted has a second line, without what it was asked.
        Ok(calls.filter(|(_, call)| !call.starts_with("<... ")).collect())
    }
}

/// What a process did after it left the node's tree, until it executed this program.
fn within<'a>(calls: &'a [(String, String)], program: &str) -> Result<Vec<&'a str>> {
    let executes = |call: &str| call.starts_with(&format!("execve(\"{program}\""));
    let executed = calls.iter().position(|(_, call)| executes(call));
    let end = executed.with_context(|| format!("nobody executed {program}"))?;
    let own = calls[..=end].iter().filter(|(pid, _)| *pid == calls[end].0);
    let mut own: Vec<&str> = own.map(|(_, call)| call.as_str()).collect();
    // Whoever is cloned into a container was never elsewhere.
    if let Some(left) = own.iter().position(|call| call.starts_with("umount2(\".\", MNT_DETACH")) {
        own.drain(..=left);
    }
    own.pop();
    Ok(own)
}

/// Whether the call leads nowhere but where it is meant to, whatever the tree looks like.
fn is_verified(call: &str) -> bool {
    let name = call.split('(').next().unwrap_or_default();
    let path = call.split('"').nth(1).unwrap_or_default();
    let in_root = call.contains("RESOLVE_IN_ROOT") || call.contains("RESOLVE_BENEATH");
    let is_relative = !call.contains("AT_FDCWD") && !path.contains('/');
    match name {
        "openat2" => {
            let no_links =
                ["RESOLVE_NO_MAGICLINKS", "RESOLVE_NO_SYMLINKS"].iter().any(|flag| call.contains(flag));
            !call.contains("AT_FDCWD") && in_root && no_links
        }
        // One name in a directory that is held.
        "openat" => is_relative && (call.contains("O_NOFOLLOW") || path == "."),
        "mkdirat" | "mknodat" | "symlinkat" | "readlinkat" => is_relative,
        "open_tree" | "mount_setattr" => path.is_empty(),
        "move_mount" => call.contains("\"\"") && call.contains("MOVE_MOUNT_T_EMPTY_PATH"),
        // The root itself; a new file system's words.
        "chdir" | "open" => path == "/",
        "close_range" | "fchdir" | "fsconfig" | "getcwd" => true,
        // Where the command is: looked for in the container, with its rights.
        "newfstatat" | "faccessat2" => path.is_empty() || path.ends_with("/sleep") || path.ends_with("/true"),
        _ => false,
    }
}

/// 1A, most of it: what is done in a container's tree is done by descriptors, and the node's are closed.
#[test]
fn in_a_containers_tree_every_step_is_verified() {
    on_node(async |kubelet| {
        if !kubelet.node().is_own() || !host::handler().is_empty() {
            return skip("it looks at Corten's own stages");
        }
        if host::program("strace").is_err() {
            return skip("strace is not installed");
        }
        let pod = kubelet.pod().run().await?;
        let volume = kubelet.node().dir().join(format!("traced-{}", kubelet.unique()));
        fs::create_dir(&volume)?;
        let first = pod.container().start().await?;
        let output = kubelet.node().dir().join(format!("trace-{}", kubelet.unique()));
        let monitor: i32 = host::status_field(first.pid().await?, "PPid")?.parse()?;
        let tracer = Tracer::attach(monitor, output).await?;
        let container = pod
            .container()
            .mount(volume.to_str().context("a path in UTF-8")?, "/data/inner", |_| {})
            .security(|security| {
                security.masked_paths = ["/proc/keys", "/etc/passwd", "/var/log"].map(str::to_owned).into();
                security.readonly_paths = ["/proc/sys", "/tmp"].map(str::to_owned).into();
            })
            .with(|config| config.working_dir = "/made/here".to_owned())
            .start()
            .await?;
        container.exec(["true"]).await?;
        let calls = tracer.end()?;

        for program in ["/bin/sleep", "/bin/true"] {
            let within = within(&calls, program)?;
            for call in &within {
                ensure!(is_verified(call), "on the way to {program}: {call}");
            }
            let closed = within.iter().rev().take(3).any(|call| call.contains("4294967295"));
            ensure!(closed, "{program} is executed before the rest is closed: {within:#?}");
        }
        let executed = calls.iter().filter(|(_, call)| call.starts_with("execve"));
        assert_eq!(executed.count(), 2, "nothing but the two commands is executed: {calls:#?}");
        // The monitor itself knows no path of the container's.
        let own = calls.iter().filter(|(pid, _)| *pid == monitor.to_string());
        for (_, call) in own {
            let path = call.split('"').nth(1).unwrap_or_default();
            ensure!(!path.contains("/containers/") && !path.contains("/layers"), "the monitor: {call}");
        }
        Ok(())
    });
}
