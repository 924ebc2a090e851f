//! Namespaces of others, further processes, terminals.

use std::fs::File;
use std::io::{Read, Write};

use serde_json::json;

use super::fixture::alone;
use crate::native::link::FailureKind;

#[test]
fn a_container_can_live_in_the_pods_pid_namespace() {
    alone("joining::a_container_can_live_in_the_pods_pid_namespace", |pod| {
        let script = "test $$ != 1 && ls -d /proc/1; cat /proc/keys; grep -c ^Name:.sh$ /proc/1/status; true";
        let mut spec = pod.spec(script);
        spec["linux"]["namespaces"][0] = json!({ "type": "pid", "path": "/proc/1/ns/pid" });
        let mut container = pod.create(&spec).unwrap();
        container.start().unwrap();
        let (code, output) = container.wait();
        assert_eq!(code, 0);
        assert_eq!(output, "/proc/1\n0\n");
    });
}

#[test]
fn a_container_can_live_in_the_hosts_namespaces() {
    alone("joining::a_container_can_live_in_the_hosts_namespaces", |pod| {
        let mut spec = pod.spec("hostname; readlink /proc/self/ns/pid; test $$ != 1");
        spec["linux"]["namespaces"] = json!([{ "type": "mount" }]);
        let own = |kind: &str| std::fs::read_link(format!("/proc/self/ns/{kind}")).unwrap();
        let output = pod.output(&spec);
        let host = rustix::system::uname();
        assert_eq!(output.lines().next(), host.nodename().to_str().ok());
        assert!(output.contains(own("pid").to_str().unwrap()), "{output}");
    });
}

#[test]
fn a_further_process_is_in_the_container() {
    alone("joining::a_further_process_is_in_the_container", |pod| {
        for pid in [json!({ "type": "pid" }), json!({ "type": "pid", "path": "/proc/1/ns/pid" })] {
            let mut spec = pod.spec("echo > /dev/shm/mark; sleep 1000");
            spec["linux"]["namespaces"][0] = pid;
            let mut container = pod.create(&spec).unwrap();
            container.start().unwrap();
            let mut process = spec["process"].clone();
            process["cwd"] = json!("/tmp");
            process["env"] = json!(["PATH=/bin", "NAME=value"]);
            process["args"] = json!([
                "sh",
                "-c",
                "until ps | grep -q 'sleep 100[0]'; do :; done; \
                 pwd; hostname; echo $NAME; ps | grep -c 'sleep 100[0]'; for i in /proc/self/ns/*; do readlink $i; done; exit 7"
            ]);
            let (code, output) = pod.exec(&container, &process).unwrap();
            assert_eq!(code, 7);
            assert!(output.starts_with("/tmp\npod\nvalue\n1\n"), "{output}");
            for kind in ["mnt", "pid", "net", "ipc", "uts", "cgroup"] {
                let of_container = std::fs::read_link(format!("/proc/{}/ns/{kind}", container.pid)).unwrap();
                assert!(output.contains(of_container.to_str().unwrap()), "{kind}: {output}");
            }
            container.kill();
        }
    });
}

#[test]
fn a_container_that_ended_takes_no_process() {
    alone("joining::a_container_that_ended_takes_no_process", |pod| {
        let mut container = pod.create(&pod.spec("true")).unwrap();
        container.start().unwrap();
        container.wait();
        let process = container.spec["process"].clone();
        let (what, _, kind) = pod.exec(&container, &process).unwrap_err();
        assert_eq!((what.as_str(), kind), ("join the container", FailureKind::TargetGone));
    });
}

#[test]
fn a_container_can_have_a_terminal() {
    alone("joining::a_container_can_have_a_terminal", |pod| {
        let mut spec = pod.spec("tty; stty size; stat -c '%u %F' /dev/console /dev/pts/0; test -t 0 -a -t 1 -a -t 2 && read line; echo got $line");
        spec["process"]["terminal"] = json!(true);
        spec["process"]["consoleSize"] = json!({ "height": 33, "width": 44 });
        spec["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
        let mut container = pod.create(&spec).unwrap();
        container.start().unwrap();
        let mut terminal = File::from(container.terminal.take().unwrap());
        terminal.write_all(b"word\n").unwrap();
        assert_eq!(container.wait().0, 0);
        let mut output = Vec::new();
        // The other end is closed: what is left is read, then comes an error.
        terminal.read_to_end(&mut output).ok();
        let output = String::from_utf8(output).unwrap().replace("\r\n", "\n").replacen("word\n", "", 1);
        let expected =
            "/dev/pts/0\n33 44\n1000 character special file\n1000 character special file\ngot word\n";
        assert_eq!(output, expected);
    });
}

#[test]
fn a_further_process_can_have_a_terminal() {
    alone("joining::a_further_process_can_have_a_terminal", |pod| {
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        let mut process = container.spec["process"].clone();
        process["terminal"] = json!(true);
        process["args"] = json!(["sh", "-c", "test $(tty) = /dev/pts/0 && exit 7"]);
        assert_eq!(pod.exec(&container, &process).unwrap().0, 7);
        container.kill();
    });
}
