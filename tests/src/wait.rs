//! Waiting for something that the CRI does not announce: asked again until it holds. And how long and how often.

use std::time::{Duration, Instant};

use anyhow::bail;

use crate::Result;

/// How long anything may take that ought to be quick, on a slow and busy machine.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// How many times as long as usual everything may take: `CORTEN_TEST_SLOWNESS`, for emulated processors.
pub fn slowness() -> u32 {
    let said = std::env::var("CORTEN_TEST_SLOWNESS").ok();
    said.and_then(|text| text.parse().ok()).filter(|times| *times > 0).unwrap_or(1)
}

/// How often a race is run, or whatever else shows a fault only now and then: `CORTEN_TEST_ROUNDS`, or as often as is
/// usual.
pub fn rounds(usual: usize) -> usize {
    let said = std::env::var("CORTEN_TEST_ROUNDS").ok();
    said.and_then(|text| text.parse().ok()).filter(|rounds| *rounds > 0).unwrap_or(usual)
}

/// Calls `probe` until it answers `Some`, and fails after [`PATIENCE`] with what was awaited.
pub async fn eventually<T, F>(what: &str, probe: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    within(PATIENCE, what, probe).await
}

/// Like [`eventually`], with a limit of its own.
pub async fn within<T, F>(limit: Duration, what: &str, mut probe: F) -> Result<T>
where
    F: AsyncFnMut() -> Result<Option<T>>,
{
    let limit = limit * slowness();
    let deadline = Instant::now() + limit;
    loop {
        if let Some(value) = probe().await? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {limit:?} in vain until {what}");
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
