//! Reading a container's log in the CRI format: `TIME STREAM TAG CONTENT`.

use std::fs;
use std::path::Path;

use anyhow::{Context, ensure};

use crate::Result;

/// One record of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// RFC 3339, with nanoseconds.
    pub time: String,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// Whether the record ends a line of the output (`F`), or is a part of a longer one (`P`).
    pub full: bool,
    /// What was written, without the newline.
    pub content: String,
}

/// All records of the file, each checked against the format.
pub fn read(path: &Path) -> Result<Vec<Record>> {
    let text = fs::read_to_string(path).with_context(|| format!("read the log {}", path.display()))?;
    // The last line may still be under way.
    let complete = text.rfind('\n').map_or("", |end| &text[..end]);
    complete.lines().map(parse).collect()
}

/// The lines of one stream, put together from their parts.
pub fn lines(path: &Path, stream: &str) -> Result<Vec<String>> {
    let mut lines = Vec::new();
    let mut line = String::new();
    for record in read(path)?.into_iter().filter(|record| record.stream == stream) {
        line.push_str(&record.content);
        if record.full {
            lines.push(std::mem::take(&mut line));
        }
    }
    if !line.is_empty() {
        lines.push(line);
    }
    Ok(lines)
}

fn parse(line: &str) -> Result<Record> {
    let mut fields = line.splitn(4, ' ');
    let mut next = || fields.next().with_context(|| format!("four fields in the log record {line:?}"));
    let (time, stream, tag, content) = (next()?, next()?, next()?, next()?);
    ensure!(time.len() >= 20 && time.as_bytes()[10] == b'T', "the time of {line:?} is not RFC 3339");
    ensure!(matches!(stream, "stdout" | "stderr"), "the stream of {line:?} is unknown");
    ensure!(matches!(tag, "P" | "F"), "the tag of {line:?} is unknown");
    Ok(Record {
        time: time.to_owned(),
        stream: stream.to_owned(),
        full: tag == "F",
        content: content.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_make_a_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let text = "2026-01-02T03:04:05.000000001Z stdout P one \n\
                    2026-01-02T03:04:05.000000002Z stderr F other\n\
                    2026-01-02T03:04:05.000000003Z stdout F line\n";
        fs::write(file.path(), text).unwrap();
        assert_eq!(lines(file.path(), "stdout").unwrap(), ["one line"]);
        assert_eq!(read(file.path()).unwrap().len(), 3);
    }

    #[test]
    fn a_foreign_line_is_refused() {
        assert!(parse("hello world").is_err());
        assert!(parse("2026-01-02T03:04:05Z stdin F x").is_err());
    }
}
