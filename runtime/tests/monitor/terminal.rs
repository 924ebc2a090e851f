//! Terminals: a container's own, shared with those who attach, and those of exec'd processes.

use std::fs::File;
use std::path::PathBuf;

use runtime::{
    AttachOrder, Detachment, Error, ExecExit, ExecStdio, FailureKind, Handover, PidNamespace, Stdin, Terminal,
};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

use crate::external;
use crate::fixture::{Container, Node, PATIENCE, Pod, node, until};

/// A process with a terminal.
struct Process {
    terminal: Option<Terminal>,
    exit: JoinHandle<Result<ExecExit, Error>>,
}

async fn exec(pod: &Pod<'_>, container: &str, args: &[&str]) -> Process {
    let (handover, theirs) = Handover::new().unwrap();
    let null = || File::create("/dev/null").unwrap().into();
    let mut order = pod.exec_order(container, args, null(), None);
    order.plan = pod.plan_of(container, args, true);
    order.stdio = ExecStdio::Terminal(theirs);
    let monitor = pod.monitor.clone();
    let exit = tokio::spawn(async move { monitor.exec(order).await });
    let terminal = tokio::time::timeout(PATIENCE, handover.receive()).await.unwrap().unwrap();
    Process { terminal, exit }
}

impl Process {
    async fn write(&mut self, text: &str) {
        self.terminal.as_mut().unwrap().write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads until what was read ends so.
    async fn expect(&mut self, end: &str) -> String {
        let (terminal, mut text) = (self.terminal.as_mut().unwrap(), String::new());
        while !text.ends_with(end) {
            let byte = tokio::time::timeout(PATIENCE, terminal.read_u8()).await.unwrap();
            text.push(char::from(byte.unwrap_or_else(|error| panic!("{error} after {text:?}"))));
        }
        text
    }

    /// All that is left to read, and how it ended.
    async fn end(mut self) -> (String, i32) {
        let mut text = String::new();
        let reading = self.terminal.as_mut().unwrap().read_to_string(&mut text);
        tokio::time::timeout(PATIENCE, reading).await.unwrap().unwrap();
        match tokio::time::timeout(PATIENCE, self.exit).await.unwrap().unwrap().unwrap() {
            ExecExit::Exited(code) => (text, code),
            ExecExit::TimedOut => panic!("it had no deadline"),
        }
    }
}

fn file(node: &Node, id: &str, path: &str) -> PathBuf {
    node.dir.path().join("containers").join(id).join("upper").join(path)
}

#[tokio::test]
async fn a_process_has_a_terminal_of_its_container() {
    let node = node();
    let mut pod = node.pod().await;
    for mode in [PidNamespace::Own, PidNamespace::Host] {
        let id = pod.run(Container::new("exec sleep 1000").in_pid_namespace(mode)).await;
        let script = "tty; test -c $(tty) && echo there; read word; stty size; echo $word > $(tty); exit 7";
        let mut process = exec(&pod, &id, &["sh", "-c", script]).await;
        assert_eq!(process.expect("there\r\n").await, "/dev/pts/0\r\nthere\r\n");
        process.terminal.as_ref().unwrap().resize(120, 40).unwrap();
        process.write("word\n").await;
        assert_eq!(process.end().await, ("word\r\n40 120\r\nword\r\n".into(), 7));
    }
    pod.end().await;
}

#[tokio::test]
async fn nothing_of_the_last_output_is_lost() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    for number in 0..50 {
        let process = exec(&pod, &id, &["sh", "-c", &format!("echo {number}; exit 3")]).await;
        assert_eq!(process.end().await, (format!("{number}\r\n"), 3));
    }
    pod.end().await;
}

#[tokio::test]
async fn keys_are_signals_for_the_job_in_the_foreground() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let mut process = exec(&pod, &id, &["sh", "-i"]).await;
    process.expect("# ").await;
    process.write("sleep 1000\n").await;
    process.expect("sleep 1000\r\n").await;
    // The shell puts a job into the foreground before that executes its command.
    let is_sleep =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
    until(|| pod.cgroup(&id).processes().unwrap().iter().filter(|pid| is_sleep(pid)).count() == 2).await;
    process.write("\x03").await;
    process.expect("# ").await;
    process.write("echo $?; exit 5\n").await;
    let (text, code) = process.end().await;
    assert!(text.contains("130") && code == 5, "{text:?} {code}");
    pod.end().await;
}

#[tokio::test]
async fn the_end_of_a_session_is_a_hangup() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let script = "trap 'echo hup > /tmp/hup; exit' HUP; echo ready; while :; do sleep 0.01; done";
    let mut process = exec(&pod, &id, &["sh", "-c", script]).await;
    process.expect("ready\r\n").await;
    drop(process.terminal.take());
    let exit = tokio::time::timeout(PATIENCE, process.exit).await.unwrap().unwrap().unwrap();
    assert_eq!(exit, ExecExit::Exited(0));
    assert_eq!(std::fs::read_to_string(file(&node, &id, "tmp/hup")).unwrap(), "hup\n");
    // One that does not care runs on.
    let script = "trap '' HUP; echo ready; while [ ! -e /tmp/go ]; do sleep 0.01; done; touch /tmp/gone";
    let mut process = exec(&pod, &id, &["sh", "-c", script]).await;
    process.expect("ready\r\n").await;
    drop(process.terminal.take());
    pod.exec(&id, "touch /tmp/go").await.0.unwrap();
    until(|| file(&node, &id, "tmp/gone").exists()).await;
    pod.end().await;
}

#[tokio::test]
async fn a_command_that_is_not_there_is_an_error_with_a_terminal_too() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(Container::new("exec sleep 1000")).await;
    let process = exec(&pod, &id, &["nowhere-to-be-found"]).await;
    let Err(Error::Exec { source, .. }) = process.exit.await.unwrap() else { panic!("it ran") };
    assert_eq!(source.kind, FailureKind::NotFound);
    // Nor where nothing runs at all.
    pod.monitor.stop(&id, libc::SIGKILL, std::time::Duration::ZERO).await.unwrap();
    pod.exit_of(&id).await;
    let process = exec(&pod, &id, &["true"]).await;
    assert!(process.terminal.is_none());
    assert!(matches!(process.exit.await.unwrap(), Err(Error::WrongState { .. })));
    pod.end().await;
}

#[tokio::test]
async fn a_container_s_terminal_is_shared_with_who_attaches() {
    let node = node();
    let mut pod = node.pod().await;
    let script = "echo before; read word; stty size; echo $word; read word";
    let mut container = Container { stdin: Stdin::Open, ..Container::new(script) };
    container.spec["process"]["terminal"] = json!(true);
    let id = pod.run(container).await;
    until(|| pod.log(&id) == ["stdout F before"]).await;
    let (mut stdout, theirs) = std::io::pipe().unwrap();
    let order = AttachOrder { container: id.clone(), stdin: None, stdout: Some(theirs.into()), stderr: None };
    let monitor = pod.monitor.clone();
    let attached = tokio::spawn(async move { monitor.attach(order).await });
    tokio::task::yield_now().await;
    let mut terminal = pod.monitor.terminal(&id).await.unwrap();
    terminal.resize(90, 30).unwrap();
    terminal.write_all(b"word\n").await.unwrap();
    until(|| pod.log(&id).len() == 4).await;
    // Without anyone the terminal stays.
    drop(terminal);
    pod.monitor.terminal(&id).await.unwrap().write_all(b"end\n").await.unwrap();
    assert_eq!(tokio::time::timeout(PATIENCE, attached).await.unwrap().unwrap().unwrap(), Detachment::Ended);
    assert_eq!(pod.exit_of(&id).await.code, 0);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut stdout, &mut text).unwrap();
    assert_eq!(text, "word\r\n30 90\r\nword\r\nend\r\n");
    pod.end().await;
}

#[tokio::test]
async fn a_terminal_that_runc_made_is_handed_over() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(external::container("exec sleep 1000")).await;
    let script = "tty; read word; stty size; echo got $word; exit 7";
    let mut process = exec(&pod, &id, &["sh", "-c", script]).await;
    process.expect("/dev/pts/0\r\n").await;
    process.terminal.as_ref().unwrap().resize(100, 40).unwrap();
    process.write("hello\n").await;
    let (text, code) = process.end().await;
    assert!(text.ends_with("40 100\r\ngot hello\r\n") && code == 7, "{text:?} {code}");
    // One that comes to nothing brings no terminal, and says why.
    let process = exec(&pod, &id, &["/no/such/command"]).await;
    assert!(process.terminal.is_none());
    assert!(
        matches!(process.exit.await.unwrap(), Err(Error::Exec { source, .. }) if source.kind == FailureKind::NotFound)
    );
    pod.end().await;
}
