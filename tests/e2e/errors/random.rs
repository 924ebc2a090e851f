//! Random requests to every call: the server answers them, and neither panics, hangs nor leaks.
//!
//! Requests are made from the contract's own description, so that a new field is tried without a word here. Half of
//! them are good ones with a few fields changed, since pure chance never gets far. `CORTEN_SEED` repeats a run.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use corten_tests::random::{Generator, Raw};
use corten_tests::wait::within;
use corten_tests::{Kubelet, Result, Setup, newest, on_own_node};
use k8s_cri::v1 as wire;
use tonic::Request;

/// How long requests are sent.
const TIME: Duration = Duration::from_secs(12);
/// How long the client waits for one answer: it leaves then, which is a case of its own.
const PATIENCE: Duration = Duration::from_secs(2);
/// Clients at the same time.
const CLIENTS: u64 = 4;

/// Sends requests until the time is over; returns how many were answered with success, and with an error.
async fn client(kubelet: &Kubelet, mut generator: Generator, until: Instant) -> Result<(u32, u32)> {
    let (mut fine, mut refused) = (0, 0);
    let methods = newest::methods();
    while Instant::now() < until {
        let method = methods.get(generator.below(methods.len())).context("a method")?;
        let bytes = generator.request(method);
        let mut grpc = tonic::client::Grpc::new(kubelet.cri().channel);
        grpc.ready().await?;
        let path = method.path.parse()?;
        // An answer of several messages is as good as one: the first is waited for.
        let call = async {
            let mut answers = grpc.server_streaming(Request::new(bytes), path, Raw).await?.into_inner();
            answers.message().await
        };
        match tokio::time::timeout(PATIENCE, call).await {
            Ok(Ok(answer)) => {
                fine += 1;
                generator.learn(method, answer.as_deref().unwrap_or_default());
            }
            Ok(Err(_)) => refused += 1,
            Err(_) => {}
        }
    }
    Ok((fine, refused))
}

/// Open descriptors and threads of the daemon.
fn held(pid: i32) -> Result<(usize, usize)> {
    let count = |what: &str| Ok::<_, std::io::Error>(fs::read_dir(format!("/proc/{pid}/{what}"))?.count());
    Ok((count("fd")?, count("task")?))
}

#[test]
fn random_requests_neither_break_nor_hang_the_server_and_leave_nothing() {
    on_own_node(&Setup::default(), async |kubelet| {
        let seed = match std::env::var("CORTEN_SEED") {
            Ok(seed) => seed.parse().context("CORTEN_SEED is a number")?,
            Err(_) => u64::from(std::time::UNIX_EPOCH.elapsed()?.subsec_nanos()),
        };
        println!("CORTEN_SEED={seed}");
        let pod = kubelet.pod().run().await?;
        let good = (kubelet.pod().request().await?, pod.container().request().await?);
        let (pid, position) = (kubelet.node().daemon_pid()?, kubelet.node().log_position());
        let before = held(pid)?;
        let until = Instant::now() + TIME;
        let generators = (0..CLIENTS)
            .map(|client| Generator::new(seed.wrapping_add(client), kubelet.node(), (&good.0, &good.1)));
        let generators = generators.collect::<Result<Vec<_>>>()?;
        let clients = generators.into_iter().map(|generator| client(kubelet, generator, until));
        let (mut fine, mut refused) = (0, 0);
        for result in futures_util::future::join_all(clients).await {
            let (more_fine, more_refused) = result?;
            (fine, refused) = (fine + more_fine, refused + more_refused);
        }
        println!("{fine} requests were fulfilled, {refused} refused");
        ensure!(fine > 20 && refused > 20, "seed {seed}: {fine} fulfilled, {refused} refused");

        assert_eq!(kubelet.node().daemon_pid()?, pid);
        let log = kubelet.node().log_since(position);
        ensure!(!log.contains("panicked"), "seed {seed}: the server panicked");
        // What clients left behind goes on; everything of it can be removed.
        let mut refusal = String::new();
        let removed = within(Duration::from_secs(50), "pods and descriptors are gone", async || {
            let pods = kubelet.pods(wire::PodSandboxFilter::default()).await?;
            for pod in &pods {
                // It may be in use by what a client did not wait for.
                refusal = kubelet
                    .remove_pod(&pod.id)
                    .await
                    .err()
                    .map_or_else(String::new, |error| error.to_string());
            }
            // Idle threads and connections go after a while; what leaks stays.
            Ok((pods.is_empty() && held(pid)?.0 <= before.0 + 8).then_some(()))
        });
        removed
            .await
            .with_context(|| format!("seed {seed}: {before:?} before, {:?} now; {refusal}", held(pid)))
    });
}
