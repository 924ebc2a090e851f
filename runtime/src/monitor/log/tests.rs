//! Logs from the event loop's side, with a writer thread and real files.

use std::io::{Read, Write};
use std::time::Instant;

use rustix::event::{PollFd, PollFlags};

use super::line::Tag;
use super::*;

/// Runs the event loop's part until `done` says that it has come to its end.
fn settle_until<T>(logs: &mut Logs<T>, mut done: impl FnMut(&[T]) -> bool) {
    loop {
        if done(&logs.settle()) {
            return;
        }
        let writer = logs.writer.as_ref().unwrap();
        rustix::event::poll(&mut [PollFd::new(writer.notice.as_ref(), PollFlags::IN)], None).unwrap();
        logs.progress();
    }
}

/// The records of a log without their times, which must be there.
fn records(text: &str) -> Vec<&str> {
    let record = |line: &'_ str| {
        let (stamp, rest) = line.split_at(30);
        assert!(stamp.ends_with('Z') && stamp.as_bytes()[10] == b'T', "{line:?}");
        rest.len()
    };
    text.lines().map(|line| &line[line.len() - record(line) + 1..]).collect()
}

#[test]
fn lines_are_written_in_the_format_of_the_cri() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut logs = Logs::new();
    let (slot, notice) = logs.open(file.reopen().unwrap().into()).unwrap();
    assert!(notice.is_some());
    logs.take_time();
    assert!(logs.write(slot, Stream::Stdout, Tag::Full, [b"he", b"llo"]));
    assert!(logs.write(slot, Stream::Stderr, Tag::Partial, [b"", b"no newline"]));
    logs.when_written("done");
    settle_until(&mut logs, |done| done == ["done"]);
    let text = std::fs::read_to_string(file.path()).unwrap();
    assert_eq!(records(&text), ["stdout F hello", "stderr P no newline"]);
}

#[test]
fn a_reopened_log_loses_nothing() {
    let (old, new) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut logs = Logs::new();
    let (slot, _) = logs.open(old.reopen().unwrap().into()).unwrap();
    assert!(logs.write(slot, Stream::Stdout, Tag::Full, [b"before", b""]));
    logs.reopen(slot, new.reopen().unwrap().into(), "reopened");
    assert!(logs.write(slot, Stream::Stdout, Tag::Full, [b"after", b""]));
    settle_until(&mut logs, |done| done == ["reopened"]);
    // What was written by now must be all that ever is in the old one.
    assert_eq!(records(&std::fs::read_to_string(old.path()).unwrap()), ["stdout F before"]);
    logs.when_written("done");
    settle_until(&mut logs, |done| done == ["done"]);
    assert_eq!(records(&std::fs::read_to_string(new.path()).unwrap()), ["stdout F after"]);
}

#[test]
fn a_slot_is_used_again_after_its_last_words() {
    let (first, second) = (tempfile::NamedTempFile::new().unwrap(), tempfile::NamedTempFile::new().unwrap());
    let mut logs = Logs::new();
    let (slot, _) = logs.open(first.reopen().unwrap().into()).unwrap();
    assert!(logs.write(slot, Stream::Stdout, Tag::Full, [b"one", b""]));
    logs.close(slot);
    let (again, notice) = logs.open(second.reopen().unwrap().into()).unwrap();
    assert!(again == slot && notice.is_none());
    assert!(logs.write(again, Stream::Stdout, Tag::Full, [b"two", b""]));
    logs.when_written("done");
    settle_until(&mut logs, |done| done == ["done"]);
    assert_eq!(records(&std::fs::read_to_string(first.path()).unwrap()), ["stdout F one"]);
    assert_eq!(records(&std::fs::read_to_string(second.path()).unwrap()), ["stdout F two"]);
}

#[test]
fn a_disk_that_does_not_move_is_waited_for_only_so_long() {
    // A pipe that nobody reads stands for the disk.
    let (mut disk, stuck) = std::io::pipe().unwrap();
    let mut logs: Logs<()> = Logs::new();
    let (slot, _) = logs.open(stuck.into()).unwrap();
    let line = [b'x'; 1000];
    let mut written = 0;
    loop {
        if !logs.write(slot, Stream::Stdout, Tag::Full, [&line, b""]) {
            // The writer may have got on before it was stuck.
            logs.settle();
            let writer = logs.writer.as_ref().unwrap();
            let mut fds = [PollFd::new(writer.notice.as_ref(), PollFlags::IN)];
            let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
            if rustix::event::poll(&mut fds, Some(&timeout)).unwrap() == 0 {
                break;
            }
            logs.progress();
            continue;
        }
        written += 1;
    }
    let deadline = logs.deadline().unwrap();
    assert!(!logs.lose_patience(Instant::now()) && !logs.is_dropping());
    assert!(logs.lose_patience(deadline) && logs.is_dropping());
    assert!(!logs.write(slot, Stream::Stdout, Tag::Full, [&line, b""]));
    // The disk comes back.
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        disk.read_to_string(&mut text).unwrap();
        text
    });
    logs.settle();
    let writer = logs.writer.as_ref().unwrap();
    rustix::event::poll(&mut [PollFd::new(writer.notice.as_ref(), PollFlags::IN)], None).unwrap();
    logs.progress();
    while !logs.write(slot, Stream::Stdout, Tag::Full, [b"back", b""]) {
        logs.settle();
        let writer = logs.writer.as_ref().unwrap();
        rustix::event::poll(&mut [PollFd::new(writer.notice.as_ref(), PollFlags::IN)], None).unwrap();
        logs.progress();
    }
    logs.close(slot);
    logs.settle();
    let text = reader.join().unwrap();
    assert_eq!(text.lines().count(), written + 1);
    assert!(text.ends_with(" stdout F back\n"));
}

#[test]
fn what_a_full_disk_loses_is_told_when_it_is_no_longer_full() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mount = |operation: &str, more: &[&str]| {
        let status = std::process::Command::new(operation).args(more).arg(path).status().unwrap();
        assert!(status.success());
    };
    mount("mount", &["-t", "tmpfs", "-o", "size=8k,nr_inodes=8", "corten-test"]);
    let file = path.join("log");
    let mut logs = Logs::new();
    let (slot, _) = logs.open(std::fs::File::create(&file).unwrap().into()).unwrap();
    for _ in 0..3 {
        assert!(logs.write(slot, Stream::Stdout, Tag::Full, [&[b'x'; 4000], b""]));
        logs.when_written("written");
        settle_until(&mut logs, |done| done == ["written"]);
    }
    mount("mount", &["-o", "remount,size=64k"]);
    assert!(logs.write(slot, Stream::Stdout, Tag::Full, [b"more", b""]));
    logs.when_written("done");
    settle_until(&mut logs, |done| done == ["done"]);
    let text = std::fs::read_to_string(&file).unwrap();
    logs.close(slot);
    logs.when_written("closed");
    settle_until(&mut logs, |done| done == ["closed"]);
    // A process that another test forks may have the file for a moment.
    mount("umount", &["--lazy"]);
    let lines: Vec<_> = text.lines().collect();
    let lost = 3 * 4041 - 8192;
    assert_eq!(lines.len(), 5, "two lines, a torn one, the note, the last");
    assert!(
        lines[3].contains(&format!("corten: {lost} bytes of this log could not be written")),
        "{}",
        lines[3]
    );
    assert!(lines[4].ends_with("stdout F more"));
    std::io::stdout().flush().unwrap();
}
