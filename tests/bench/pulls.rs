//! Pulls, each onto a fresh file system: ext4 avoids inodes freed in the last minutes at ten times the cost.

use std::time::Instant;

use corten_tests::Result;

use crate::contestant::Contestant;
use crate::cpu;
use crate::lifecycle::order;
use crate::report::{Report, Unit};

/// What `hack/images bench` makes.
const IMAGES: [(&str, &str); 3] = [
    ("one layer of 192 MiB", "quay.io/corten/large:gzip"),
    ("24 layers of 4 MiB", "quay.io/corten/layers:gzip"),
    ("30,000 small files", "quay.io/corten/files:gzip"),
];

pub(crate) async fn measure(contestants: &mut [Contestant], report: &mut Report, rounds: usize) -> Result {
    for round in 0..rounds {
        for (name, reference) in IMAGES {
            for number in order(contestants.len(), round) {
                eprintln!("pull of {name}, round {}: {}", round + 1, contestants[number].name);
                one(&mut contestants[number], number, report, (name, reference)).await?;
            }
        }
    }
    Ok(())
}

async fn one(contestant: &mut Contestant, number: usize, report: &mut Report, image: (&str, &str)) -> Result {
    let (name, reference) = image;
    contestant.stop().await?;
    contestant.fresh_data()?;
    contestant.start().await?;
    let before = cpu::used_ns(&contestant.groups());
    let began = Instant::now();
    contestant.pull(reference).await?;
    report.add(&format!("pull, {name}"), Unit::Milliseconds, number, began.elapsed().as_secs_f64() * 1000.0);
    let used = cpu::used_ns(&contestant.groups()).saturating_sub(before);
    report.add(
        &format!("processor time of a pull, {name}"),
        Unit::CpuMilliseconds,
        number,
        used as f64 / 1e6,
    );
    Ok(())
}
