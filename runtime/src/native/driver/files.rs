//! The files in the bundle by which a driver and its runtime talk; they are one driver's own.

use std::ffi::CString;

use rustix::fs::{AtFlags, CWD, Mode, OFlags};

use super::super::failure::{Context, Failure};

/// As many errors of one run are told, the last one first: those before it are what led to it.
const CAUSES: usize = 4;

/// Longest end of a log that is read.
const LOG_BYTES: u64 = 64 << 10;

/// Their names, relative to the bundle.
#[derive(Debug)]
pub(super) struct Files {
    pub(super) console: CString,
    /// The number of an enclosed command, which means something to the runtime alone.
    pub(super) inner: CString,
    pub(super) log: CString,
    pub(super) pid: CString,
    pub(super) process: CString,
}

impl Files {
    pub(super) fn new() -> Self {
        let own = rustix::process::getpid().as_raw_nonzero();
        // A number and a word have no NUL byte in them.
        let name = |what| CString::new(format!("{own}.{what}")).unwrap_or_default();
        Self {
            console: name("console"),
            inner: inner(own.get()),
            log: name("log"),
            pid: name("pid"),
            process: name("process"),
        }
    }

    /// Those that are not there are fine; the bundle's end is the end of all.
    pub(super) fn remove(&self) {
        for name in [&self.console, &self.inner, &self.log, &self.pid, &self.process] {
            rustix::fs::unlinkat(CWD, name, AtFlags::empty()).ok();
        }
    }

    pub(super) fn write_process(&self, json: &[u8]) -> Result<(), Failure> {
        let what = || "write the process for the runtime".to_owned();
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(CWD, &self.process, flags, Mode::RUSR | Mode::WUSR).during(what)?;
        let mut rest = json;
        while !rest.is_empty() {
            let written = rustix::io::write(&file, rest).during(what)?;
            rest = rest.get(written..).unwrap_or_default();
        }
        Ok(())
    }

    /// The number that the runtime wrote.
    pub(super) fn read_pid(&self) -> Result<i32, Failure> {
        let bytes = read(&self.pid).ok_or_else(|| Failure::new("the runtime has written no pid file"))?;
        let number = String::from_utf8_lossy(&bytes).trim().parse();
        number.map_err(|_| Failure::new("the runtime's pid file is not a number"))
    }

    /// Keeps the number of an enclosed command for those who know which process stands for it.
    pub(super) fn keep_inner(&self, process: i32) -> Result<(), Failure> {
        let renamed = rustix::fs::renameat(CWD, &self.inner, CWD, inner(process));
        renamed.during(|| "keep the number of the command".into())
    }

    /// The errors in the runtime's log, the last one first, or its last line.
    pub(super) fn last_error(&self) -> Option<String> {
        last_error(&String::from_utf8_lossy(&read(&self.log)?))
    }
}

/// Where the number of the enclosed command is that this process stands for.
pub(super) fn inner(process: i32) -> CString {
    CString::new(format!("{process}.inner")).unwrap_or_default()
}

/// Who a process' parent is, see proc_pid_stat(5).
pub(super) fn parent(pid: i32) -> Option<i32> {
    let stat = std::fs::read(format!("/proc/{pid}/stat")).ok()?;
    let name = stat.iter().rposition(|byte| *byte == b')')?;
    let rest = std::str::from_utf8(stat.get(name + 1..)?).ok()?;
    rest.split_ascii_whitespace().nth(1)?.parse().ok()
}

pub(super) fn read(name: &CString) -> Option<Vec<u8>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mut file = std::fs::File::from(rustix::fs::openat(CWD, name, flags, Mode::empty()).ok()?);
    let length = file.metadata().ok()?.len();
    if length > LOG_BYTES {
        std::io::Seek::seek(&mut file, std::io::SeekFrom::Start(length - LOG_BYTES)).ok()?;
    }
    let mut bytes = Vec::new();
    std::io::Read::read_to_end(&mut std::io::Read::take(file, LOG_BYTES), &mut bytes).ok()?;
    Some(bytes)
}

fn last_error(log: &str) -> Option<String> {
    let message = |entry: &serde_json::Value| {
        let level = entry.get("level")?.as_str()?;
        let is_error = matches!(level, "error" | "fatal" | "panic" | "ERROR");
        entry.get("msg")?.as_str().filter(|_| is_error).map(str::to_owned)
    };
    // Not everybody ends an entry with its line.
    let entries = |line| serde_json::Deserializer::from_str(line).into_iter::<serde_json::Value>();
    let lines = || log.lines().rev().map(str::trim).filter(|line| !line.is_empty());
    let mut messages: Vec<String> = lines()
        .flat_map(|line| entries(line).map_while(Result::ok).collect::<Vec<_>>().into_iter().rev())
        .filter_map(|entry| message(&entry))
        .take(CAUSES)
        .collect();
    messages.dedup();
    if messages.is_empty() {
        return lines().next().map(str::to_owned);
    }
    Some(messages.join(": "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_told_from_the_last_to_the_first() {
        let log = r#"{"level":"debug","msg":"a"}
{"level":"error","msg":"first","time":"x"}
{"level":"error","msg":"runc create failed: it is so"}
{"level":"warning","msg":"and then"}
"#;
        assert_eq!(last_error(log).as_deref(), Some("runc create failed: it is so: first"));
        let joined =
            r#"{"level":"error","msg":"one"}{"level":"info","msg":"x"}{"level":"error","msg":"two"}"#;
        assert_eq!(last_error(joined).as_deref(), Some("two: one"));
        assert_eq!(last_error("not json\n\n").as_deref(), Some("not json"));
        assert_eq!(last_error(""), None);
    }

    #[test]
    fn a_parent_is_found() {
        let own = std::process::id().cast_signed();
        assert_eq!(parent(own), rustix::process::getppid().map(rustix::process::Pid::as_raw_pid));
    }
}
