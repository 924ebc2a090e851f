//! Clients that follow a container's own process.

use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write};
use std::time::Duration;

use runtime::{AttachOrder, Detachment, Error, Stdin};
use tokio::task::JoinHandle;

use crate::fixture::{Container, PATIENCE, Pod, node, until};

/// Someone who is attached by all three streams.
struct Client {
    stdin: Option<PipeWriter>,
    stdout: PipeReader,
    stderr: PipeReader,
    attached: JoinHandle<Result<Detachment, Error>>,
}

/// The client's order has reached the monitor when this returns.
async fn attach(pod: &Pod<'_>, id: &str) -> Client {
    let (stdin_end, stdin) = std::io::pipe().unwrap();
    let (stdout, stdout_end) = std::io::pipe().unwrap();
    let (stderr, stderr_end) = std::io::pipe().unwrap();
    let order = AttachOrder {
        container: id.into(),
        stdin: Some(stdin_end.into()),
        stdout: Some(stdout_end.into()),
        stderr: Some(stderr_end.into()),
    };
    let monitor = pod.monitor.clone();
    let attached = tokio::spawn(async move { monitor.attach(order).await });
    tokio::task::yield_now().await;
    // Orders are obeyed one after the other.
    assert!(pod.monitor.kill("nobody", 0).await.is_err());
    Client { stdin: Some(stdin), stdout, stderr, attached }
}

impl Client {
    fn write(&mut self, text: &str) {
        self.stdin.as_mut().unwrap().write_all(text.as_bytes()).unwrap();
    }

    /// The next bytes of standard output, which must be these.
    async fn expect(&mut self, text: &str) {
        let (mut stdout, mut bytes) = (self.stdout.try_clone().unwrap(), vec![0; text.len()]);
        let read = tokio::task::spawn_blocking(move || stdout.read_exact(&mut bytes).map(|()| bytes));
        let bytes = tokio::time::timeout(PATIENCE, read).await.unwrap().unwrap().unwrap();
        assert_eq!(String::from_utf8(bytes).unwrap(), text);
    }

    /// Waits for the end; why, and what was not read before.
    async fn end(mut self) -> (Detachment, String, String) {
        let why = tokio::time::timeout(PATIENCE, self.attached).await.unwrap().unwrap().unwrap();
        let (mut out, mut err) = (String::new(), String::new());
        self.stdout.read_to_string(&mut out).unwrap();
        self.stderr.read_to_string(&mut err).unwrap();
        (why, out, err)
    }
}

fn with_stdin(script: &str, stdin: Stdin) -> Container {
    Container { stdin, ..Container::new(script) }
}

fn descriptors(pid: i32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[tokio::test]
async fn all_clients_get_what_is_written_from_then_on() {
    let node = node();
    let mut pod = node.pod().await;
    let script = "echo before; read word; echo $word; echo fault >&2; read word; echo $word";
    let id = pod.run(with_stdin(script, Stdin::Open)).await;
    until(|| pod.log(&id) == ["stdout F before"]).await;
    let (mut first, second) = (attach(&pod, &id).await, attach(&pod, &id).await);
    first.write("one\n");
    first.expect("one\n").await;
    let mut third = attach(&pod, &id).await;
    third.write("two\n");
    let ended = Detachment::Ended;
    assert_eq!(first.end().await, (ended, "two\n".into(), "fault\n".into()));
    assert_eq!(second.end().await, (ended, "one\ntwo\n".into(), "fault\n".into()));
    // It may have come in time for the fault, or not.
    let (why, out, _) = third.end().await;
    assert_eq!((why, out.as_str()), (ended, "two\n"));
    assert_eq!(pod.exit_of(&id).await.code, 0);
    assert_eq!(pod.log(&id).len(), 4);
    pod.end().await;
}

#[tokio::test]
async fn input_that_is_given_once_ends_with_the_first_who_goes() {
    let node = node();
    let mut pod = node.pod().await;
    for has_left in [false, true] {
        let id = pod.run(with_stdin("cat; echo end", Stdin::Once)).await;
        let (mut first, mut second) = (attach(&pod, &id).await, attach(&pod, &id).await);
        first.write("word\n");
        second.expect("word\n").await;
        first.stdin = None;
        if has_left {
            drop(first);
        } else {
            assert_eq!(first.end().await, (Detachment::Ended, "word\nend\n".into(), String::new()));
        }
        assert_eq!(second.end().await, (Detachment::Ended, "end\n".into(), String::new()));
        assert_eq!(pod.exit_of(&id).await.code, 0);
    }
    pod.end().await;
}

#[tokio::test]
async fn input_that_stays_open_outlives_its_clients() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(with_stdin("read word; echo $word; read word; echo $word", Stdin::Open)).await;
    let mut first = attach(&pod, &id).await;
    first.write("one\n");
    first.expect("one\n").await;
    first.stdin = None;
    assert_eq!(first.end().await, (Detachment::Left, String::new(), String::new()));
    let mut second = attach(&pod, &id).await;
    second.write("two\n");
    assert_eq!(second.end().await, (Detachment::Ended, "two\n".into(), String::new()));
    pod.exit_of(&id).await;
    pod.end().await;
}

#[tokio::test]
async fn input_waits_for_who_reads_it_and_nothing_is_lost() {
    let node = node();
    let mut pod = node.pod().await;
    let script = "while [ ! -e /tmp/go ]; do sleep 0.01; done; cat > /tmp/input; echo done";
    let id = pod.run(with_stdin(script, Stdin::Once)).await;
    let mut client = attach(&pod, &id).await;
    let mut stdin = client.stdin.take().unwrap();
    let input: Vec<u8> = (0..1_000_000_u32).flat_map(u32::to_ne_bytes).collect();
    let expected = input.clone();
    let writing = std::thread::spawn(move || stdin.write_all(&input).unwrap());
    // A second writer has nothing to say, but its end would be the end of the first's input: it stays.
    let other = attach(&pod, &id).await;
    assert!(!writing.is_finished());
    let tmp = node.dir.path().join("containers").join(&id).join("upper/tmp");
    pod.exec(&id, "touch /tmp/go").await.0.unwrap();
    assert_eq!(client.end().await.1, "done\n");
    writing.join().unwrap();
    assert!(std::fs::read(tmp.join("input")).unwrap() == expected);
    assert_eq!(other.end().await.0, Detachment::Ended);
    pod.exit_of(&id).await;
    pod.end().await;
}

#[tokio::test]
async fn who_goes_before_all_was_read_is_read_to_the_end() {
    let node = node();
    let mut pod = node.pod().await;
    let script = "while [ ! -e /tmp/go ]; do sleep 0.01; done; exec cat > /tmp/input";
    for mode in [Stdin::Once, Stdin::Open] {
        let id = pod.run(with_stdin(script, mode)).await;
        let mut first = attach(&pod, &id).await;
        // More than the container's pipe holds, less than both do.
        let input = vec![b'x'; 100 << 10];
        first.stdin.as_mut().unwrap().write_all(&input).unwrap();
        let Client { stdin, stdout, stderr, attached } = first;
        drop((stdin, stdout, stderr));
        pod.exec(&id, "touch /tmp/go").await.0.unwrap();
        let ended = tokio::time::timeout(PATIENCE, attached).await.unwrap().unwrap().unwrap();
        assert!(matches!(ended, Detachment::Ended | Detachment::Left), "{ended:?}");
        if mode == Stdin::Open {
            let path = node.dir.path().join("containers").join(&id).join("upper/tmp/input");
            until(|| std::fs::metadata(&path).is_ok_and(|file| file.len() == input.len() as u64)).await;
            pod.monitor.stop(&id, libc::SIGKILL, Duration::ZERO).await.unwrap();
        }
        pod.exit_of(&id).await;
        let path = node.dir.path().join("containers").join(&id).join("upper/tmp/input");
        assert!(std::fs::read(path).unwrap() == input);
    }
    pod.end().await;
}

#[tokio::test]
async fn input_that_is_given_once_ends_with_who_is_dropped() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(with_stdin("read word; seq 1 200000; cat; echo end", Stdin::Once)).await;
    let mut lazy = attach(&pod, &id).await;
    lazy.write("go\n");
    let stdin = lazy.stdin.take();
    let why = tokio::time::timeout(PATIENCE, lazy.attached).await.unwrap().unwrap().unwrap();
    assert_eq!(why, Detachment::TooSlow);
    assert_eq!(pod.exit_of(&id).await.code, 0);
    assert_eq!(pod.log(&id).len(), 200_001);
    drop(stdin);
    pod.end().await;
}

#[tokio::test]
async fn who_does_not_read_is_dropped_and_holds_nobody_up() {
    let node = node();
    let mut pod = node.pod().await;
    let script = "read word; seq 1 200000; while [ ! -e /tmp/go ]; do sleep 0.01; done";
    let id = pod.run(with_stdin(script, Stdin::Open)).await;
    let (mut lazy, reader) = (attach(&pod, &id).await, attach(&pod, &id).await);
    let mut stdout = reader.stdout.try_clone().unwrap();
    let reading = tokio::task::spawn_blocking(move || {
        let mut text = String::new();
        stdout.read_to_string(&mut text).map(|_| text).unwrap()
    });
    lazy.write("go\n");
    let (why, got, _) = lazy.end().await;
    assert_eq!(why, Detachment::TooSlow);
    assert!(got.starts_with("1\n2\n") && got.len() <= 64 << 10, "{}", got.len());
    pod.exec(&id, "touch /tmp/go").await.0.unwrap();
    pod.exit_of(&id).await;
    // One that reads may be dropped on a busy machine too, but never has a hole in what it got.
    let expected: String = (1..=200_000).map(|number| format!("{number}\n")).collect();
    let got = reading.await.unwrap();
    assert!(expected.starts_with(&got), "{}", got.len());
    assert_eq!(pod.log(&id).len(), 200_000);
    pod.end().await;
}

#[tokio::test]
async fn nothing_is_kept_of_who_goes() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(with_stdin("exec sleep 1000", Stdin::Open)).await;
    let mut before = None;
    for closes_first in [false, true, false] {
        let mut client = attach(&pod, &id).await;
        if let Some(before) = before {
            assert_eq!(descriptors(pod.monitor.pid()), before + 3);
        }
        if closes_first {
            client.stdin = None;
        }
        let Client { stdin, stdout, stderr, attached } = client;
        drop((stdin, stdout, stderr));
        assert_eq!(
            tokio::time::timeout(PATIENCE, attached).await.unwrap().unwrap().unwrap(),
            Detachment::Left
        );
        // What the start of the container needed is gone by the end of the first client.
        assert_eq!(
            *before.get_or_insert_with(|| descriptors(pod.monitor.pid())),
            descriptors(pod.monitor.pid())
        );
    }
    pod.end().await;
}

#[tokio::test]
async fn only_a_running_container_can_be_followed() {
    let node = node();
    let mut pod = node.pod().await;
    let container = Container::new("exit 0");
    let id = container.id.clone();
    let order = || AttachOrder {
        container: id.clone(),
        stdin: None,
        stdout: Some(File::create("/dev/null").unwrap().into()),
        stderr: None,
    };
    assert!(matches!(pod.monitor.attach(order()).await, Err(Error::NoContainer { .. })));
    pod.create(container).await.unwrap();
    assert!(matches!(pod.monitor.attach(order()).await, Err(Error::WrongState { .. })));
    pod.monitor.start(&id).await.unwrap();
    pod.exit_of(&id).await;
    assert!(matches!(pod.monitor.attach(order()).await, Err(Error::WrongState { .. })));
    assert!(matches!(pod.monitor.terminal(&id).await, Err(Error::WrongState { .. })));
    pod.end().await;
}

#[tokio::test]
async fn another_daemon_s_clients_follow_what_the_first_s_left() {
    let node = node();
    let mut pod = node.pod().await;
    let id = pod.run(with_stdin("while read word; do echo $word; done; echo end", Stdin::Once)).await;
    let (monitor, _events, _) = node.runtime.adopt(&pod.dir()).await.unwrap();
    let first = std::mem::replace(&mut pod.monitor, monitor);
    let mut client = attach(&pod, &id).await;
    client.write("one\n");
    client.expect("one\n").await;
    client.stdin = None;
    assert_eq!(client.end().await, (Detachment::Ended, "end\n".into(), String::new()));
    pod.monitor = first;
    pod.exit_of(&id).await;
    pod.end().await;
}
