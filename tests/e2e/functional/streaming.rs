//! Exec and Attach over both transports, as a kubelet and a person use them.

use std::fs;

use anyhow::{Context, ensure};
use corten_tests::streaming::session::{STDOUT, Session, Wanted, attach_url, exec_url};
use corten_tests::streaming::{Link, Transport, status};
use corten_tests::{Kubelet, Result, Setup, eventually, on_node, on_own_node};
use k8s_cri::v1 as wire;
use sha2::{Digest, Sha256};
use tonic::Code;

/// What a command says without input.
async fn run(
    transport: Transport,
    container: &corten_tests::Container<'_>,
    script: &str,
) -> Result<(i32, String, String)> {
    let session = Session::exec(transport, container, &["sh", "-c", script], Wanted::OUTPUT).await?;
    let ended = session.ended().await?;
    Ok((ended.code()?, String::from_utf8(ended.stdout)?, String::from_utf8(ended.stderr)?))
}

#[test]
fn a_streamed_exec_gives_both_streams_and_the_exit_code() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in Transport::ALL {
            let said = run(transport, &container, "echo out; echo err >&2; exit 3").await?;
            assert_eq!(said, (3, "out\n".to_owned(), "err\n".to_owned()), "{transport:?}");
            assert_eq!(run(transport, &container, "true").await?.0, 0);
            assert_eq!(run(transport, &container, "kill -9 $$").await?.0, 137);
        }
        Ok(())
    });
}

#[test]
fn a_command_sees_the_end_of_its_input() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in Transport::ALL {
            let mut session = Session::exec(transport, &container, &["wc", "-c"], Wanted::ALL).await?;
            session.input(&[7; 70_000]).await?;
            session.end_input().await?;
            let ended = session.ended().await?;
            assert_eq!(String::from_utf8(ended.stdout.clone())?.trim(), "70000", "{transport:?}");
            assert_eq!(ended.code()?, 0);
        }
        Ok(())
    });
}

#[test]
fn much_output_arrives_whole_however_slowly_it_is_read() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let script = "head -c 20000000 /dev/urandom > /tmp/data; sha256sum /tmp/data | cut -d' ' -f1";
        let expected = container.sh(script).await?;
        for transport in Transport::ALL {
            let mut session =
                Session::exec(transport, &container, &["cat", "/tmp/data"], Wanted::OUTPUT).await?;
            // What is not read waits in the container, not in the daemon.
            session.more().await?;
            let waiting =
                "for p in /proc/[0-9]*; do tr '\\0' ' ' < $p/cmdline | grep '^cat /tmp/data'; done; true";
            tokio::time::sleep(std::time::Duration::from_millis(300)).await;
            assert!(container.sh(waiting).await?.contains("cat"), "{transport:?}");
            let ended = session.ended().await?;
            assert_eq!(ended.stdout.len(), 20_000_000, "{transport:?}");
            let digest: String =
                Sha256::digest(&ended.stdout).iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(digest, expected);
            assert_eq!(ended.code()?, 0);
        }
        Ok(())
    });
}

#[test]
fn a_terminal_has_the_size_that_the_client_says() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in Transport::ALL {
            let mut session = Session::exec(transport, &container, &["sh"], Wanted::TERMINAL).await?;
            session.resize(101, 37).await?;
            eventually("the size has arrived", async || {
                session.input(b"stty size; echo e''nd\n").await?;
                Ok(session.until("end\r\n").await?.contains("37 101").then_some(()))
            })
            .await?;
            session.resize(80, 24).await?;
            eventually("the size has changed", async || {
                session.input(b"stty size; echo e''nd\n").await?;
                Ok(session.until("end\r\n").await?.contains("24 80").then_some(()))
            })
            .await?;
            session.input(b"exit 5\n").await?;
            assert_eq!(session.ended().await?.code()?, 5);
        }
        Ok(())
    });
}

/// How many sockets, pipes and terminals the daemon has open. Files of control groups stay open once they are read.
fn open_ends(kubelet: &Kubelet) -> Result<usize> {
    let files = fs::read_dir(format!("/proc/{}/fd", kubelet.node().daemon_pid()?))?;
    let is_end = |to: &str| ["socket:", "pipe:", "/dev/pt"].iter().any(|kind| to.starts_with(kind));
    Ok(files
        .flatten()
        .filter(|file| fs::read_link(file.path()).is_ok_and(|to| is_end(&to.to_string_lossy())))
        .count())
}

#[test]
fn a_client_that_leaves_takes_its_session_with_it() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let count = "ps -o args | grep -c '[s]leep 7654'; true";
        let descriptors = || if kubelet.node().is_own() { open_ends(kubelet) } else { Ok(0) };
        // The first of a kind may open what stays.
        run(Transport::Spdy, &container, "true").await?;
        let before = descriptors()?;
        for transport in Transport::ALL {
            // A terminal's process gets SIGHUP, one with a pipe the end of its input.
            let mut terminal =
                Session::exec(transport, &container, &["sh", "-c", "echo on; sleep 76541"], Wanted::TERMINAL)
                    .await?;
            terminal.until("on").await?;
            let script = "echo on; cat > /dev/null; echo seen > /tmp/seen";
            let mut piped = Session::exec(transport, &container, &["sh", "-c", script], Wanted::ALL).await?;
            piped.until("on").await?;
            drop((terminal, piped));
            eventually("the terminal's process has ended", async || {
                Ok((container.sh(count).await? == "0").then_some(()))
            })
            .await?;
            eventually("the other has seen the end", async || {
                Ok((container.sh("cat /tmp/seen; rm -f /tmp/seen; true").await? == "seen").then_some(()))
            })
            .await?;
        }
        eventually("the daemon has closed all of it", async || {
            // Connections of calls come and go.
            Ok((descriptors()? <= before + 1).then_some(()))
        })
        .await?;
        Ok(())
    });
}

#[test]
fn a_client_that_leaves_with_its_input_unread_takes_its_session_with_it() {
    // Nobody else's connections come and go there.
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in Transport::ALL {
            let script = "trap '' HUP; echo on; sleep 76542";
            let mut session =
                Session::exec(transport, &container, &["sh", "-c", script], Wanted::ALL).await?;
            session.until("on").await?;
            let full = async {
                loop {
                    session.input(&[7; 32 << 10]).await?;
                }
            };
            let full: Result<Result, _> = tokio::time::timeout(std::time::Duration::from_secs(1), full).await;
            assert!(full.is_err(), "{transport:?}: the daemon takes without end");
            let before = open_ends(kubelet)?;
            drop(session);
            eventually("the daemon has closed it", async || Ok((open_ends(kubelet)? < before).then_some(())))
                .await?;
        }
        Ok(())
    });
}

#[test]
fn attached_clients_all_see_the_output_and_their_end() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let script = "while read line; do echo got $line; [ $line = stop ] && exit 0; done";
        let stdin = |config: &mut wire::ContainerConfig| config.stdin = true;
        let container = pod.container().sh(script).with(stdin).start().await?;
        let mut first = Session::attach(Transport::Spdy, &container, Wanted::ALL).await?;
        let mut second = Session::attach(Transport::WebSocket, &container, Wanted::ALL).await?;
        // Who attaches sees what comes from then on: one line tells that both are there.
        for (at, session) in [&mut first, &mut second].into_iter().enumerate() {
            session.input(format!("{at}\n").as_bytes()).await?;
            session.until(&format!("got {at}\n")).await?;
        }
        first.input(b"both\n").await?;
        first.until("got both\n").await?;
        second.until("got both\n").await?;
        second.input(b"stop\n").await?;
        for session in [first, second] {
            let ended = session.ended().await?;
            assert!(ended.stdout.ends_with(b"got stop\n"), "{ended:?}");
            assert_eq!(ended.code()?, 0);
        }
        Ok(())
    });
}

#[test]
fn sessions_end_with_their_container() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for transport in Transport::ALL {
            let container = pod.container().start().await?;
            let mut exec =
                Session::exec(transport, &container, &["sh", "-c", "echo on; sleep 1000"], Wanted::OUTPUT)
                    .await?;
            exec.until("on").await?;
            let attached = Session::attach(transport, &container, Wanted::OUTPUT).await?;
            container.stop(std::time::Duration::ZERO).await?;
            assert_ne!(exec.ended().await?.code()?, 0);
            attached.ended().await?;
        }
        Ok(())
    });
}

#[test]
fn a_command_that_cannot_run_is_told_on_the_error_channel() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in Transport::ALL {
            let session = Session::exec(transport, &container, &["/nowhere"], Wanted::OUTPUT).await?;
            let ended = session.ended().await?;
            let text = String::from_utf8_lossy(&ended.error).into_owned();
            assert!(text.contains("Failure"), "{transport:?}: {text}");
            ensure!(ended.stdout.is_empty());
        }
        Ok(())
    });
}

#[test]
fn what_cannot_be_streamed_is_refused_at_once() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let created = pod.container().create().await?;
        let nothing = Wanted::default();
        let both = Wanted { tty: true, ..Wanted::ALL };
        for wanted in [nothing, both] {
            let exec = exec_url(&container, &["true"], wanted).await.unwrap_err();
            assert_eq!(exec.code(), Code::InvalidArgument, "{exec}");
            let attach = attach_url(&container, wanted).await.unwrap_err();
            assert_eq!(attach.code(), Code::InvalidArgument, "{attach}");
        }
        assert!(exec_url(&created, &["true"], Wanted::ALL).await.is_err());
        assert!(attach_url(&created, Wanted::ALL).await.is_err());
        let mut runtime = kubelet.cri().runtime;
        let unknown = wire::PortForwardRequest { pod_sandbox_id: "nobody".to_owned(), port: Vec::new() };
        assert_eq!(runtime.port_forward(unknown).await.unwrap_err().code(), Code::NotFound);
        Ok(())
    });
}

#[test]
fn a_url_works_once_and_only_for_what_it_was_made_for() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let url = exec_url(&container, &["true"], Wanted::OUTPUT).await?;
        let session = Session::connect(Transport::WebSocket, &url, Wanted::OUTPUT).await?;
        assert_eq!(session.ended().await?.code()?, 0);
        assert_eq!(status("GET", &url).await?, 404);
        let url = exec_url(&container, &["true"], Wanted::OUTPUT).await?;
        assert_eq!(status("GET", &url.replace("/exec/", "/attach/")).await?, 404);
        let end = url.rfind('/').context("a path")?;
        assert_eq!(status("GET", &format!("{}/{}", &url[..end], "0".repeat(64))).await?, 404);
        let url = exec_url(&container, &["true"], Wanted::OUTPUT).await?;
        let tries: Vec<_> = std::iter::repeat_n(url, 8)
            .map(|url| tokio::spawn(async move { Link::websocket(&url, &["v5.channel.k8s.io"]).await }))
            .collect();
        let mut winners = 0;
        for one in tries {
            winners += usize::from(one.await??.choice().is_ok());
        }
        assert_eq!(winners, 1);
        Ok(())
    });
}

#[test]
fn old_clients_are_understood() {
    on_node(async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        let url = async || exec_url(&container, &["echo", "hi"], Wanted::OUTPUT).await;
        for version in ["channel.k8s.io", "v2.channel.k8s.io", "v3.channel.k8s.io", "v4.channel.k8s.io"] {
            let answer = Link::spdy(&url().await?, &["v9.channel.k8s.io", version]).await?;
            assert_eq!(answer.choice(), Ok(Some(version)));
        }
        for version in ["channel.k8s.io", "v4.channel.k8s.io", "base64.channel.k8s.io"] {
            let answer = Link::websocket(&url().await?, &[version]).await?;
            assert_eq!(answer.choice(), Ok(Some(version)));
        }
        let mut link = Link::websocket(&url().await?, &["v4.base64.channel.k8s.io"]).await?.link()?;
        let mut text = Vec::new();
        while let Some(message) = link.message().await? {
            if message.first() == Some(&(b'0' + STDOUT)) {
                text.extend_from_slice(&message[1..]);
            }
        }
        assert_eq!(String::from_utf8(text)?, "aGkK");
        Ok(())
    });
}
