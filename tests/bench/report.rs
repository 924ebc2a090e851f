//! Samples, their medians and 99th percentiles, and the ratio to the first contestant.

use std::collections::BTreeMap;

use corten_tests::Result;
use serde_json::json;

/// What a row's numbers are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Milliseconds of waiting.
    Milliseconds,
    /// Milliseconds of processor time.
    CpuMilliseconds,
    /// Percent of one processor.
    Percent,
    /// KiB of proportional set size.
    Kibibytes,
    /// How many; more is worse.
    Count,
    /// How many a second; more is better.
    PerSecond,
}

/// All rows, in the order in which they were first measured.
#[derive(Debug)]
pub(crate) struct Report {
    contestants: Vec<String>,
    order: Vec<String>,
    rows: BTreeMap<String, Row>,
}

#[derive(Debug)]
struct Row {
    unit: Unit,
    /// One list a contestant.
    samples: Vec<Vec<f64>>,
}

impl Report {
    pub(crate) fn new(contestants: Vec<String>) -> Self {
        Self { contestants, order: Vec::new(), rows: BTreeMap::new() }
    }

    /// Adds a sample of a contestant, by its number.
    pub(crate) fn add(&mut self, row: &str, unit: Unit, contestant: usize, value: f64) {
        let count = self.contestants.len();
        let entry = self.rows.entry(row.to_owned()).or_insert_with(|| {
            self.order.push(row.to_owned());
            Row { unit, samples: vec![Vec::new(); count] }
        });
        entry.samples[contestant].push(value);
    }

    /// Prints the table: median (99th percentile), and how many times more than the first.
    pub(crate) fn print(&self) {
        let first = self.contestants.first().cloned().unwrap_or_default();
        println!("\n{:48} {:>6}   median (p99), and the ratio to {first}", "", "");
        print!("{:48} {:>6}", "row", "unit");
        for name in &self.contestants {
            print!("  {name:>24} {:>7}", "");
        }
        println!();
        for name in &self.order {
            let row = &self.rows[name];
            print!("{name:48} {:>6}", row.unit.name());
            let base = percentile(&row.samples[0], 50.0);
            for samples in &row.samples {
                let (median, p99) = (percentile(samples, 50.0), percentile(samples, 99.0));
                print!(
                    "  {:>24} {:>7}",
                    format!("{} ({})", number(median), number(p99)),
                    row.ratio(base, median)
                );
            }
            println!();
        }
    }

    /// Everything, for programs.
    pub(crate) fn json(&self) -> Result<String> {
        let rows: BTreeMap<_, _> = self
            .rows
            .iter()
            .map(|(name, row)| {
                let samples: BTreeMap<_, _> = self.contestants.iter().zip(&row.samples).collect();
                (name, json!({ "unit": row.unit.name(), "samples": samples }))
            })
            .collect();
        Ok(serde_json::to_string_pretty(&rows)?)
    }
}

impl Row {
    fn ratio(&self, base: Option<f64>, value: Option<f64>) -> String {
        match (base, value) {
            (Some(base), Some(value)) if base > 0.0 && value > 0.0 => {
                let ratio = if self.unit == Unit::PerSecond { base / value } else { value / base };
                format!("{ratio:.1}x")
            }
            _ => String::new(),
        }
    }
}

impl Unit {
    fn name(self) -> &'static str {
        match self {
            Self::Milliseconds => "ms",
            Self::CpuMilliseconds => "cpu ms",
            Self::Percent => "% core",
            Self::Kibibytes => "KiB",
            Self::Count => "",
            Self::PerSecond => "/s",
        }
    }
}

fn percentile(samples: &[f64], percent: f64) -> Option<f64> {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let last = sorted.len().checked_sub(1)?;
    // An index below the length of a list in memory.
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and the last index"
    )]
    let at = (last as f64 * percent / 100.0).round() as usize;
    sorted.get(at).copied()
}

fn number(value: Option<f64>) -> String {
    match value {
        None => "-".to_owned(),
        Some(value) if value >= 100.0 => format!("{value:.0}"),
        Some(value) if value >= 10.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.2}"),
    }
}
