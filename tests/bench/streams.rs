//! Streams: a command whose output comes over SPDY, and bytes through a forwarded port.

use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use corten_tests::Result;
use corten_tests::cri::Cri;
use corten_tests::streaming::session::{Session, Wanted};
use corten_tests::streaming::spdy::{Event, Spdy};
use corten_tests::streaming::{Link, Transport};
use k8s_cri::v1 as wire;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;

use crate::Args;
use crate::contestant::Contestant;
use crate::lifecycle;
use crate::report::{Report, Unit};
use crate::work::{self, Network};

/// Commands in each round.
const EXECS: u32 = 20;

/// What goes through the forwarded port.
const BYTES: usize = 256 << 20;

pub(crate) async fn measure(contestants: &[Contestant], report: &mut Report, args: &Args) -> Result {
    for round in 0..args.rounds {
        for number in lifecycle::order(contestants.len(), round) {
            let contestant = &contestants[number];
            eprintln!("streams, round {}: {}", round + 1, contestant.name);
            let cri = contestant.cri()?;
            let running = work::up(&cri, &contestant.dir, Network::Host, &contestant.cgroup).await?;
            for _ in 0..EXECS {
                let took = exec(&cri, &running.container).await?.as_secs_f64() * 1000.0;
                report.add("Exec over SPDY, back to back", Unit::Milliseconds, number, took);
            }
            let took = forward(&cri, &running.pod).await?;
            let rate = BYTES as f64 / f64::from(1 << 20) / took.as_secs_f64();
            report.add("PortForward, MiB", Unit::PerSecond, number, rate);
            work::down(&cri, &running).await?;
        }
    }
    Ok(())
}

/// Runs `true`, from the request to the word of its end.
async fn exec(cri: &Cri, container: &str) -> Result<Duration> {
    let began = Instant::now();
    let request = wire::ExecRequest {
        container_id: container.to_owned(),
        cmd: vec!["/bin/true".to_owned()],
        stdout: true,
        stderr: true,
        ..Default::default()
    };
    let url = cri.runtime.clone().exec(request).await.context("Exec")?.into_inner().url;
    let session = Session::connect(Transport::Spdy, &url, Wanted::OUTPUT).await?;
    ensure!(session.ended().await?.code()? == 0, "true failed");
    Ok(began.elapsed())
}

/// Fetches bytes from a server of our own through a pod in the host's network.
async fn forward(cri: &Cri, pod: &str) -> Result<Duration> {
    let server = TcpListener::bind("127.0.0.1:0").await?;
    let port = server.local_addr()?.port().to_string();
    let serving = tokio::spawn(async move {
        let (mut client, _) = server.accept().await?;
        let piece = vec![0; 1 << 20];
        for _ in 0..BYTES / piece.len() {
            client.write_all(&piece).await?;
        }
        std::io::Result::Ok(())
    });
    let request = wire::PortForwardRequest { pod_sandbox_id: pod.to_owned(), port: Vec::new() };
    let url = cri.runtime.clone().port_forward(request).await.context("PortForward")?.into_inner().url;
    let mut spdy = Spdy::new(Link::spdy(&url, &["portforward.k8s.io"]).await?.link()?);
    let headers = |kind| [("streamtype", kind), ("port", port.as_str()), ("requestid", "0")];
    let error = spdy.open(&headers("error")).await?;
    spdy.end(error).await?;
    let began = Instant::now();
    let data = spdy.open(&headers("data")).await?;
    let mut came = 0;
    while came < BYTES {
        match spdy.next().await? {
            Event::Data(stream, bytes) if stream == data => came += bytes.len(),
            Event::End(stream) if stream == error => {}
            other => bail!("after {came} bytes: {other:?}"),
        }
    }
    let took = began.elapsed();
    serving.await??;
    Ok(took)
}
