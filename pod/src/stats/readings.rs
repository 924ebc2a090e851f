//! What is kept of a container or a pod between two readings of its cgroup: open files, and the last time.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use runtime::cgroup::{self, Cgroup, Meter};
use rustix::process::{Resource, getrlimit};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Use is an average over at least this time, however often it is asked for.
const SHORTEST: Duration = Duration::from_secs(1);
/// Descriptors that a meter keeps, about.
const METER_FILES: u64 = 12;
/// No node has as many pods and containers.
const MOST_METERS: u64 = 100_000;

/// How many cgroups may be kept open: half of the descriptors that the process may have. Others are opened
/// for each reading, which takes five times as long.
#[derive(Debug)]
pub(crate) struct Meters(Arc<Semaphore>);

/// What is kept between two readings.
#[derive(Debug, Default)]
pub(crate) struct Readings {
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    sample: Option<Sample>,
    meter: Option<(Meter, OwnedSemaphorePermit)>,
}

#[derive(Debug, Clone, Copy)]
struct Sample {
    at: Instant,
    /// Processor time until then, nanoseconds.
    used_ns: u64,
    /// Billionths of a processor used on average before.
    rate: Option<u64>,
}

// === impl Meters ===

impl Meters {
    pub(crate) fn new() -> Self {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        let meters = (files / 2 / METER_FILES).min(MOST_METERS);
        Self(Arc::new(Semaphore::new(usize::try_from(meters).unwrap_or(usize::MAX))))
    }
}

// === impl Readings ===

impl Readings {
    /// What the cgroup uses, and billionths of a processor used on average of late; `open` names the cgroup.
    /// None when it is not there.
    pub(crate) fn read(
        &self,
        meters: &Meters,
        open: impl FnOnce() -> Option<Cgroup>,
    ) -> Option<(cgroup::Stats, Option<u64>)> {
        let mut last = self.lock();
        let read = match &mut last.meter {
            Some((meter, _)) => meter.read(),
            none => {
                let cgroup = open()?;
                match meters.0.clone().try_acquire_owned() {
                    Ok(permit) => none.insert((cgroup.meter(), permit)).0.read(),
                    Err(_) => cgroup.stats(),
                }
            }
        };
        // One that is gone has ended between the look at the table and now.
        let usage = read.inspect_err(|_| last.meter = None).ok()?;
        let rate = last.rate(Instant::now(), usage.cpu_usage_ns);
        Some((usage, rate))
    }

    /// Like [`Self::read`] of a sum that was read elsewhere.
    pub(crate) fn rate(&self, used_ns: u64) -> Option<u64> {
        self.lock().rate(Instant::now(), used_ns)
    }

    /// Closes what was open for something that has ended.
    pub(crate) fn close(&self) {
        self.lock().meter = None;
    }

    fn lock(&self) -> MutexGuard<'_, Last> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Last {
    /// Two readings in a short time, by two clients, say the same.
    fn rate(&mut self, now: Instant, used_ns: u64) -> Option<u64> {
        let Some(before) = self.sample else {
            self.sample = Some(Sample { at: now, used_ns, rate: None });
            return None;
        };
        let elapsed = now.duration_since(before.at);
        if elapsed < SHORTEST {
            return before.rate;
        }
        let rate = used_ns.checked_sub(before.used_ns).and_then(|used| {
            u64::try_from(u128::from(used) * 1_000_000_000 / elapsed.as_nanos().max(1)).ok()
        });
        self.sample = Some(Sample { at: now, used_ns, rate });
        rate
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_an_average_over_a_second_at_least() {
        let (mut last, start) = (Last::default(), Instant::now());
        let mut at = |seconds: f64, used_ns| last.rate(start + Duration::from_secs_f64(seconds), used_ns);
        assert_eq!(at(0.0, 5), None, "one reading");
        assert_eq!(at(0.5, 500), None);
        assert_eq!(at(2.0, 1_000_000_005), Some(500_000_000));
        assert_eq!(at(2.1, 9_000_000_000), Some(500_000_000), "another client a moment later");
        assert_eq!(at(4.0, 3), None, "the counter began anew");
    }
}
