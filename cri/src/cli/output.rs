//! How answers look: tables, JSON, YAML, sizes and ages.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::ValueEnum;
use serde_json::Value;

/// How an answer is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// JSON
    Json,
    /// YAML
    Yaml,
    /// What a person wants to read
    Table,
}

/// Prints a value for a program.
pub(crate) fn print_value(value: &Value, format: Format) -> anyhow::Result<()> {
    match format {
        Format::Json | Format::Table => print_line(&serde_json::to_string_pretty(value)?),
        Format::Yaml => print_line(serde_norway::to_string(value)?.trim_end()),
    }
}

/// Makes room for what is printed anew.
pub(crate) fn clear_screen() -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    write!(out, "\x1b[2J\x1b[H")?;
    Ok(out.flush()?)
}

/// Prints rows under their headings, each column as wide as its widest cell.
pub(crate) fn print_table<const N: usize>(headings: [&str; N], rows: &[[String; N]]) -> anyhow::Result<()> {
    let mut widths = headings.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    print_row(&headings.map(str::to_owned), &widths)?;
    rows.iter().try_for_each(|row| print_row(row, &widths))
}

fn print_row(cells: &[String], widths: &[usize]) -> anyhow::Result<()> {
    let line: String = cells.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}   ")).collect();
    print_line(line.trim_end())
}

/// Prints a line; a reader that went away is an error, not a panic.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}

/// The beginning of an id that people copy.
pub(crate) fn short_id(id: &str) -> String {
    id.strip_prefix("sha256:").unwrap_or(id).chars().take(13).collect()
}

/// How long ago, in the largest fitting unit.
pub(crate) fn age(at_ns: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let at = u64::try_from(at_ns / 1_000_000_000).unwrap_or_default();
    let seconds = now.saturating_sub(at);
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let (count, unit) = units
        .into_iter()
        .find(|(length, _)| seconds >= *length)
        .map_or((seconds, "second"), |(length, unit)| (seconds / length, unit));
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {unit}{plural} ago")
}

/// Bytes with a decimal prefix, as crictl shows them.
pub(crate) fn size(bytes: u64) -> String {
    let mut value = bytes as f64;
    for unit in ["B", "kB", "MB", "GB"] {
        if value < 1000.0 {
            let digits = if unit == "B" || value >= 100.0 { 0 } else { 2 };
            return format!("{value:.digits$}{unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.2}TB")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_a_prefix() {
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (1500, "1.50kB"),
            (123_456_789, "123MB"),
            (2_000_000_000_000, "2.00TB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }

    #[test]
    fn ids_lose_their_algorithm() {
        assert_eq!(short_id("sha256:0123456789abcdef"), "0123456789abc");
    }
}
