//! The service manager's watchdog: it is fed only while the server answers a List on its own socket, the way that
//! the kubelet asks, so that a server that hangs is restarted (sd_watchdog_enabled(3)).

use std::time::Duration;

use tracing::warn;

use crate::cli::Client;
use crate::config::Endpoint;
use crate::notify::{State, notify};
use crate::wire::cri;

/// How long the service manager waits, if it watches this process.
pub(crate) fn interval() -> Option<Duration> {
    let number = |name| std::env::var(name).ok()?.parse::<u64>().ok();
    // Set, and not this process: somebody above us is watched.
    if number("WATCHDOG_PID").is_some_and(|pid| pid != u64::from(std::process::id())) {
        return None;
    }
    number("WATCHDOG_USEC").filter(|micros| *micros > 0).map(Duration::from_micros)
}

/// Feeds the watchdog until the process ends, thrice an interval.
pub(crate) async fn feed(interval: Duration, endpoint: Endpoint) {
    let pause = interval / 3;
    let mut answered = true;
    loop {
        tokio::time::sleep(pause).await;
        match tokio::time::timeout(pause, list(&endpoint)).await {
            Ok(Ok(())) => {
                answered = true;
                if let Err(error) = notify(State::Alive) {
                    warn!("feed the watchdog: {error}");
                }
            }
            failed if answered => {
                answered = false;
                let reason = failed.map_or_else(
                    |_| format!("no answer within {} s", pause.as_secs()),
                    |answer| answer.map_or_else(|error| format!("{error:#}"), |()| String::new()),
                );
                warn!("the watchdog is not fed, since ListPodSandbox does not answer: {reason}");
            }
            _ => {}
        }
    }
}

async fn list(endpoint: &Endpoint) -> anyhow::Result<()> {
    let mut client = Client::connect(&endpoint.to_string()).await?;
    client.runtime.list_pod_sandbox(cri::ListPodSandboxRequest::default()).await?;
    Ok(())
}
