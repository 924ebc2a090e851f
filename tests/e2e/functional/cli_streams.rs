//! `corten exec`, `attach` and `port-forward`, as a person uses them.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};
use corten_tests::distribution::pem;
use corten_tests::registry::NGINX;
use corten_tests::streaming::session::{Wanted, exec_url};
use corten_tests::streaming::status;
use corten_tests::wait::{PATIENCE, slowness};
use corten_tests::{Kubelet, Result, Setup, eventually, on_own_node};
use rustix::process::{Pid, Signal};

const TRANSPORTS: [&str; 2] = ["spdy", "websocket"];

/// Runs a command with something on its standard input.
fn feed(kubelet: &Kubelet, args: &[&str], input: &str) -> Result<(Option<i32>, String, String)> {
    let mut command = kubelet.node().cli(args)?;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    match child.stdin.take().context("standard input")?.write_all(input.as_bytes()) {
        // It has ended already, with an error perhaps that it tells below.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        written => written?,
    }
    let output = child.wait_with_output()?;
    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

/// The same in a terminal of its own, script(1).
fn in_terminal(kubelet: &Kubelet, args: &[&str]) -> Result<Command> {
    let command = kubelet.node().cli(args)?;
    let words = [command.get_program()].into_iter().chain(command.get_args());
    let quoted: Vec<_> = words.map(|word| format!("'{}'", word.to_string_lossy())).collect();
    let mut script = Command::new("script");
    script.args(["--quiet", "--return", "--command", &quoted.join(" "), "/dev/null"]);
    Ok(script)
}

#[test]
fn a_command_has_the_callers_streams_and_the_caller_its_exit_code() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in TRANSPORTS {
            let script = "read line; echo out $line; echo err >&2; cat | wc -c; exit 7";
            let args = ["exec", "-i", "--transport", transport, &container.id, "sh", "-c", script];
            let input = format!("word\n{}", "x".repeat(100_000));
            let (code, stdout, stderr) = feed(kubelet, &args, &input)?;
            assert_eq!(
                (code, stdout.as_str(), stderr.as_str()),
                (Some(7), "out word\n100000\n", "err\n"),
                "{transport}"
            );
            let args = ["exec", "--transport", transport, &container.id, "no-such-command"];
            let (code, _, stderr) = feed(kubelet, &args, "")?;
            assert!(code != Some(0) && stderr.contains("no-such-command"), "{transport}: {code:?} {stderr}");
        }
        let (code, _, stderr) = feed(kubelet, &["exec", "0123456789ab", "true"], "")?;
        assert!(code != Some(0) && stderr.contains("0123456789ab"), "{stderr}");
        Ok(())
    });
}

#[test]
fn a_command_in_a_terminal_has_one_of_its_size() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        let container = pod.container().start().await?;
        for transport in TRANSPORTS {
            let args = [
                "exec",
                "-i",
                "-t",
                "--transport",
                transport,
                &container.id,
                "sh",
                "-c",
                "tty; stty size; exit 5",
            ];
            let mut script = in_terminal(kubelet, &args)?;
            let output = script.stdin(Stdio::null()).output().context("script, of the package bsdutils")?;
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(text.contains("/dev/pts/"), "{transport}: {text}");
            assert_eq!(output.status.code(), Some(5), "{transport}: {text}");
        }
        Ok(())
    });
}

#[test]
fn an_attached_person_talks_to_the_container() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for transport in TRANSPORTS {
            let container =
                pod.container().with(|config| config.stdin = true).command(["cat"]).start().await?;
            let mut command =
                kubelet.node().cli(&["attach", "-i", "--transport", transport, &container.id])?;
            let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let mut input = child.stdin.take().context("standard input")?;
            let mut output = BufReader::new(child.stdout.take().context("standard output")?);
            for word in ["one", "two"] {
                writeln!(input, "{word}")?;
                let mut line = String::new();
                output.read_line(&mut line)?;
                assert_eq!(line.trim_end(), word, "{transport}");
            }
            container.stop(std::time::Duration::ZERO).await?;
            child.wait()?;
            container.remove().await?;
        }
        Ok(())
    });
}

/// Asks a command to end, and waits for it.
fn terminate(mut forward: Forward) -> Result {
    let pid = Pid::from_raw(i32::try_from(forward.child.id())?).context("a number")?;
    // Not SIGINT: a shell has what it runs in the background ignore that.
    rustix::process::kill_process(pid, Signal::TERM)?;
    forward.child.wait()?;
    Ok(())
}

#[test]
fn a_port_that_nobody_listens_at_ends_the_connection() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        for transport in TRANSPORTS {
            let (child, address) = forward(kubelet, transport, &format!("{} :9", pod.id))?;
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE * slowness()))?;
            let mut said = Vec::new();
            // An end or a reset, and no wait.
            let ended = stream.read_to_end(&mut said);
            ensure!(
                ended.as_ref().map_or_else(|error| error.kind() == ErrorKind::ConnectionReset, |_| true),
                "{transport}: {ended:?}"
            );
            terminate(child)?;
        }
        Ok(())
    });
}

/// Starts `corten port-forward`, and says where it listens.
fn forward(kubelet: &Kubelet, transport: &str, words: &str) -> Result<(Forward, String)> {
    let args = ["port-forward", "--transport", transport].into_iter().chain(words.split(' '));
    let mut command = kubelet.node().cli(&args.collect::<Vec<_>>())?;
    let mut child = command.stdout(Stdio::piped()).spawn()?;
    let mut output = BufReader::new(child.stdout.take().context("standard output")?);
    let mut said = String::new();
    output.read_line(&mut said)?;
    let address = said.split_whitespace().nth(2).with_context(|| format!("an address in {said:?}"))?;
    Ok((Forward { child, _output: output }, address.to_owned()))
}

/// A `corten port-forward` that runs; it goes on telling what happens.
struct Forward {
    child: Child,
    _output: BufReader<ChildStdout>,
}

/// The page of the image with nginx, once it is served; a connection made before that may be reset.
fn page(address: &str) -> Result<Option<String>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(PATIENCE * slowness()))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut page = String::new();
    stream.read_to_string(&mut page)?;
    Ok(page.contains("nginx in a pod").then_some(page))
}

#[test]
fn a_forwarded_port_leads_into_the_pod() {
    on_own_node(&Setup::default(), async |kubelet| {
        let pod = kubelet.pod().run().await?;
        pod.container().image(NGINX).start().await?;
        for transport in TRANSPORTS {
            let (child, address) = forward(kubelet, transport, &format!("{} :80", pod.id))?;
            let page = eventually("the page is served", async || Ok(page(&address).ok().flatten()));
            ensure!(page.await.is_ok(), "no page over {transport}");
            terminate(child)?;
        }
        Ok(())
    });
}

#[test]
fn sessions_travel_over_tls_where_it_is_configured() {
    let dir = match tempfile::tempdir() {
        Ok(dir) => dir,
        Err(error) => panic!("make a directory: {error}"),
    };
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    let config =
        format!("[streaming]\ntls_cert = \"{}\"\ntls_key = \"{}\"\n", certificate.display(), key.display());
    for (from, to) in [("server.crt", &certificate), ("server.key", &key)] {
        if let Err(error) = std::fs::copy(pem(from), to) {
            panic!("copy {from}: {error}");
        }
    }
    on_own_node(&Setup { config }, async |kubelet| {
        let authority = pem("ca.crt").display().to_string();
        let trust = ["--tls-ca", &authority, "--tls-server-name", "127.0.0.1"];
        let pod = kubelet.pod().run().await?;
        let container = pod.container().image(NGINX).start().await?;
        let exec = |transport, trust: &[&str]| {
            let args = [&["exec", "-i", "--transport", transport], trust, &[&container.id, "cat"]].concat();
            feed(kubelet, &args, "steel")
        };
        for transport in TRANSPORTS {
            assert_eq!(exec(transport, &trust)?, (Some(0), "steel".to_owned(), String::new()), "{transport}");
            let words = [&trust[..], &[&pod.id, ":80"]].concat().join(" ");
            let (child, address) = forward(kubelet, transport, &words)?;
            let page = eventually("the page is served", async || Ok(page(&address).ok().flatten())).await;
            terminate(child)?;
            ensure!(page.is_ok(), "no page over {transport}");
        }
        let (code, _, stderr) = exec("spdy", &[])?;
        ensure!(code == Some(1) && stderr.contains("--tls-ca"), "{code:?} {stderr}");
        // The certificate is 127.0.0.1's.
        let (code, _, stderr) = exec("spdy", &["--tls-ca", &authority])?;
        ensure!(code == Some(1) && stderr.contains("TLS"), "{code:?} {stderr}");
        let url = exec_url(&container, &["true"], Wanted::OUTPUT).await?;
        ensure!(url.starts_with("https://"), "{url}");
        let plain = status("POST", &url.replace("https", "http")).await;
        ensure!(plain.is_err(), "{plain:?} without TLS");
        // A renewed certificate is the next client's.
        std::fs::copy(pem("expired.crt"), &certificate)?;
        let (code, _, stderr) = exec("spdy", &trust)?;
        ensure!(code == Some(1) && stderr.to_lowercase().contains("expired"), "{code:?} {stderr}");
        Ok(())
    });
}
