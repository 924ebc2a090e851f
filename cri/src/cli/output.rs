//! How answers look: tables, JSON, YAML, sizes and ages.

use std::fmt;
use std::io::{self, Stdout, Write};
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
    let mut out = stdout();
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

/// Prints a line.
pub(crate) fn print_line(line: &str) -> anyhow::Result<()> {
    Ok(writeln!(stdout(), "{line}")?)
}

/// Says something on standard error. Who does not listen there is told nothing.
pub(crate) fn complain(what: impl fmt::Display) {
    drop(writeln!(io::stderr(), "corten: {what}"));
}

/// Standard output. Everything that this program prints goes there through it.
pub(crate) fn stdout() -> Printer {
    Printer(io::stdout())
}

/// Standard output, whose errors say when its reader has left (`corten logs C | head`).
#[derive(Debug)]
pub(crate) struct Printer(Stdout);

/// Nobody reads any more what this program prints: an end, and nothing to complain about.
#[derive(Debug, thiserror::Error)]
#[error("nobody reads what is printed")]
pub(crate) struct ReaderLeft;

impl ReaderLeft {
    /// The exit code of programs that SIGPIPE ends, as shells count: 128 and the signal's number.
    pub(crate) const EXIT_CODE: u8 = 128 + 13;

    /// Whether this is why something failed.
    pub(crate) fn is_behind(error: &anyhow::Error) -> bool {
        let inner = |cause: &(dyn std::error::Error + 'static)| {
            let inner = cause.downcast_ref::<io::Error>()?.get_ref()?;
            Some(inner.is::<Self>())
        };
        error.chain().any(|cause| inner(cause).unwrap_or_default())
    }

    fn told(error: io::Error) -> io::Error {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return io::Error::new(io::ErrorKind::BrokenPipe, Self);
        }
        error
    }
}

impl Write for Printer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes).map_err(ReaderLeft::told)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush().map_err(ReaderLeft::told)
    }
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
