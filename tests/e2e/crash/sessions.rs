//! Streaming sessions end with the daemon, or with their container; the processes are told no more than that.

use std::time::Duration;

use corten_tests::streaming::Transport;
use corten_tests::streaming::session::{Session, Wanted};
use corten_tests::{Setup, eventually, host, on_own_node};

#[test]
fn a_command_outlives_the_daemon_of_its_session() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let script = "echo $$; cat; echo eof > /tmp/eof; while [ ! -e /tmp/go ]; do usleep 10000; done; echo on > /tmp/on";
        let mut command =
            Session::exec(Transport::Spdy, &container, &["sh", "-c", script], Wanted::ALL).await?;
        command.until("\n").await?;
        let script = "trap 'echo hup > /tmp/hup; exit' HUP; echo ready; while :; do usleep 10000; done";
        let mut terminal =
            Session::exec(Transport::WebSocket, &container, &["sh", "-c", script], Wanted::TERMINAL).await?;
        terminal.until("ready").await?;
        kubelet.node().kill_daemon()?;
        drop((command, terminal));
        kubelet.node().start_daemon()?;
        for file in ["/tmp/eof", "/tmp/hup"] {
            let script = format!("cat {file} 2>/dev/null || true");
            eventually("the process sees that nobody follows it any more", async || {
                Ok((!container.sh(&script).await?.is_empty()).then_some(()))
            })
            .await?;
        }
        container.sh("touch /tmp/go").await?;
        eventually("the command goes on", async || {
            Ok((container.sh("cat /tmp/on 2>/dev/null || true").await? == "on").then_some(()))
        })
        .await
    });
}

#[test]
fn a_container_of_the_last_daemon_can_be_followed_and_entered() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "read word; echo got $word; read word; echo got $word";
        let container = pod.container().sh(script).with(|config| config.stdin = true).start().await?;
        let mut session = Session::attach(Transport::Spdy, &container, Wanted::ALL).await?;
        session.input(b"one\n").await?;
        session.until("got one\n").await?;
        kubelet.node().kill_daemon()?;
        drop(session);
        kubelet.node().start_daemon()?;
        let mut session = Session::exec(Transport::Spdy, &container, &["tty"], Wanted::TERMINAL).await?;
        session.until("/dev/pts/").await?;
        assert_eq!(session.ended().await?.code()?, 0);
        let mut session = Session::attach(Transport::Spdy, &container, Wanted::ALL).await?;
        session.input(b"two\n").await?;
        let ended = session.ended().await?;
        assert_eq!(String::from_utf8(ended.stdout)?, "got two\n");
        assert_eq!(container.exited().await?.exit_code, 0);
        Ok(())
    });
}

#[test]
fn sessions_end_with_their_container() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "while :; do echo tick; usleep 10000; done";
        let container = pod.container().sh(script).start().await?;
        let pid = container.pid().await?;
        let command = ["sh", "-c", "echo up; sleep 1000"];
        let mut sessions = Vec::new();
        for transport in [Transport::Spdy, Transport::WebSocket] {
            for wanted in [Wanted::OUTPUT, Wanted::TERMINAL] {
                let mut session = Session::exec(transport, &container, &command, wanted).await?;
                session.until("up").await?;
                sessions.push((session, Some(128 + 9)));
            }
            let mut session = Session::attach(transport, &container, Wanted::OUTPUT).await?;
            session.until("tick").await?;
            sessions.push((session, None));
        }
        container.stop(Duration::ZERO).await?;
        assert!(!host::is_alive(pid));
        for (session, code) in sessions {
            let ended = session.ended().await?;
            assert_eq!(ended.code()?, code.unwrap_or(0));
        }
        Ok(())
    });
}
