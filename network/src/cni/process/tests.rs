//! Plugins that behave in every way, as small scripts.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;

/// A script, and the directory it is in.
struct Script {
    dir: TempDir,
    path: PathBuf,
}

impl Script {
    fn new(text: &str) -> Self {
        let dir = tempfile::tempdir().expect("directory");
        let path = dir.path().join("plugin");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
        Self { dir, path }
    }

    async fn run(&self, limit: Duration) -> Result<(Vec<u8>, String), PluginError> {
        let env = vec![("CNI_COMMAND", "ADD".into()), ("DIR", self.dir.path().into())];
        run(Request { program: &self.path, env, input: b"the input".to_vec(), limit }).await
    }
}

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_secs(3);

/// Waits until a process is gone, or a zombie, whose new parent has not come round yet.
async fn gone(pid: &str) {
    let path = format!("/proc/{}/stat", pid.trim());
    let wait = async {
        while let Ok(stat) = fs::read_to_string(&path) {
            if stat.rsplit(')').next().is_some_and(|rest| rest.trim().starts_with('Z')) {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(LONG, wait).await.expect("the process is left");
}

#[tokio::test]
async fn input_output_and_environment() {
    let script = Script::new("cat; printf ' %s' \"$CNI_COMMAND\" \"${HOME-clean}\"; echo note >&2");
    let (answer, stderr) = script.run(LONG).await.expect("runs");
    assert_eq!(String::from_utf8_lossy(&answer), "the input ADD clean");
    assert_eq!(stderr, "note");
}

#[tokio::test]
async fn input_that_is_not_read_is_fine() {
    let script = Script::new("exec <&-; echo '{}'");
    let request = Request { program: &script.path, env: Vec::new(), input: vec![b' '; 1 << 20], limit: LONG };
    assert_eq!(run(request).await.expect("runs").0, b"{}\n");
}

#[tokio::test]
async fn reported_errors_are_read() {
    let script = Script::new(
        r#"echo '{"cniVersion": "1.0.0", "code": 11, "msg": "busy", "details": "later"}'; echo why >&2; exit 1"#,
    );
    let error = script.run(LONG).await.expect_err("fails");
    assert_eq!(error.to_string(), "busy (code 11): later; it said \"why\"");
    assert!(matches!(error, PluginError::Reported { code: 11, .. }));
}

#[tokio::test]
async fn other_failures_tell_what_there_is() {
    let check = async |text: &str, expect: &str| {
        let error = Script::new(text).run(LONG).await.expect_err(text);
        assert_eq!(error.to_string(), expect, "{text}");
    };
    check("exit 3", "exit status: 3").await;
    check("echo lost; exit 1", "exit status: 1; it said \"lost\"").await;
    check("echo '{}'; echo broken >&2; exit 1", "exit status: 1; it said \"broken\"").await;
    check("kill -9 $$", "signal: 9 (SIGKILL)").await;
}

#[tokio::test]
async fn standard_error_is_kept_from_its_end() {
    let script = Script::new("head -c 100000 /dev/zero | tr '\\0' x >&2; echo the end >&2; exit 1");
    let PluginError::Failed { stderr, .. } = script.run(LONG).await.expect_err("fails") else {
        panic!("another error");
    };
    assert!(stderr.ends_with("xthe end") && stderr.len() <= STDERR_BYTES, "{}", stderr.len());
}

#[tokio::test]
async fn endless_output_is_stopped() {
    let error = Script::new("exec cat /dev/zero").run(LONG).await.expect_err("stopped");
    assert!(matches!(error, PluginError::TooMuchOutput { limit_bytes: ANSWER_BYTES }), "{error}");
}

#[tokio::test]
async fn a_plugin_that_hangs_is_killed_with_its_children() {
    let script = Script::new("echo waiting >&2; sleep 1000 & echo $! > \"$DIR/child\"; trap '' TERM; wait");
    let error = script.run(SHORT).await.expect_err("killed");
    assert_eq!(error.to_string(), "no answer within 3s, killed; it said \"waiting\"");
    let child = fs::read_to_string(script.dir.path().join("child")).expect("written");
    gone(&child).await;
}

#[tokio::test]
async fn a_caller_that_leaves_takes_the_plugin_along() {
    let script = Script::new("mkfifo \"$DIR/started\"; echo $$ > \"$DIR/started\"; sleep 1000");
    let fifo = script.dir.path().join("started");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("made");
    let reader = tokio::task::spawn_blocking(move || fs::read_to_string(fifo));
    let plugin = tokio::select! {
        answer = script.run(LONG) => panic!("ended: {answer:?}"),
        read = reader => read.expect("joined").expect("read"),
    };
    gone(&plugin).await;
}

#[tokio::test]
async fn a_child_that_keeps_the_output_open_holds_nobody_up() {
    let script = Script::new("sleep 1000 & echo $! > \"$DIR/child\"; echo '{}'");
    let answer = script.run(LONG).await.expect("runs");
    let child = fs::read_to_string(script.dir.path().join("child")).expect("written");
    let child = child.trim().parse().ok().and_then(Pid::from_raw).expect("a process");
    rustix::process::kill_process(child, Signal::KILL).expect("it is still there");
    assert_eq!(answer.0, b"{}\n");
}

#[tokio::test]
async fn a_program_that_is_being_written_is_waited_for() {
    let script = Script::new("echo '{}'");
    let writer = fs::OpenOptions::new().append(true).open(&script.path).expect("opened");
    let (answer, ()) = tokio::join!(script.run(LONG), async {
        tokio::task::yield_now().await;
        drop(writer);
    });
    assert_eq!(answer.expect("runs").0, b"{}\n");
}

#[tokio::test]
async fn a_program_that_cannot_be_run() {
    let script = Script::new("");
    fs::write(&script.path, "#!/no/such/shell\n").expect("written");
    let error = script.run(LONG).await.expect_err("cannot run");
    assert!(matches!(error, PluginError::Io { operation: "run", .. }), "{error}");
}
