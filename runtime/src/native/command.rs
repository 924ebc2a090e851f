//! The end of a stage: it finds the command, closes what is left and executes it.

use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::fs::{Access, AtFlags, CWD, FileType, OFlags, ResolveFlags};
use rustix::io::Errno;

use super::detached::show;
use super::failure::{Context, Failure};
use super::labels::Gate;
use super::link::FailureKind;
use super::root::{Missing, Root};
use super::{console, entrance, identity};
use crate::plan::steps::Process;
use crate::sys::fd;

/// Becomes the process of the plan.
pub(super) fn execute(process: &Process, gate: &Gate, link: &OwnedFd) -> Result<Infallible, Failure> {
    console::own(process.uid)?;
    identity::limit(&process.rlimits)?;
    gate.set(&process.labels)?;
    let entered = enter_directory(&process.cwd);
    identity::assume(process)?;
    // A directory of a network file system may be open to the user and closed to root.
    if entered.as_ref().is_err_and(|failure| matches!(failure.errno, libc::EPERM | libc::EACCES)) {
        enter_directory(&process.cwd)?;
    } else {
        entered?;
    }
    // The change of user has cleared it.
    entrance::die_with_monitor(link)?;
    let file = find(process)?;
    fd::close_others(&mut [link.as_raw_fd()]);
    // From here on no descriptor but the link may be dropped: the others are closed already.
    let failure = identity::confine(process).err().unwrap_or_else(|| run(&file, process));
    failure.end(link)
}

/// Makes the working directory if it is missing.
pub(super) fn make_directory(root: &Root, path: &CStr) -> Result<(), Failure> {
    root.find_or_make(path, Missing::Directory)
        .map(drop)
        .during(|| format!("make the working directory /{}", show(path)))
}

/// Enters the directory without following links out of the container, and makes sure of where that is.
fn enter_directory(path: &CStr) -> Result<(), Failure> {
    let what = || format!("enter the working directory /{}", show(path));
    let root = Root::own().during(what)?;
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let directory = root.open(path, flags, ResolveFlags::empty()).during(what)?;
    rustix::process::fchdir(&directory).during(what)?;
    // What is not reachable from the root is shown as `(unreachable)…`.
    let here = rustix::process::getcwd(Vec::new()).during(what)?;
    if here.as_bytes().starts_with(b"/") {
        Ok(())
    } else {
        Err(Failure::new(format!("{}: it is outside of the container", what())))
    }
}

/// Finds the file of the command as execvp(3) would, with the user's permissions.
fn find(process: &Process) -> Result<CString, Failure> {
    let command = process.args.first().map(CString::as_c_str).unwrap_or_default();
    if command.to_bytes().contains(&b'/') {
        return match check(command) {
            Ok(()) => Ok(command.to_owned()),
            Err(errno) => Err(refused(command, errno)),
        };
    }
    let path = process.env.iter().find_map(|entry| entry.as_bytes().strip_prefix(b"PATH="));
    let mut denied = None;
    for directory in path.unwrap_or_default().split(|byte| *byte == b':').filter(|_| !command.is_empty()) {
        let directory = if directory.is_empty() { b"." } else { directory };
        let Ok(file) = CString::new([directory, b"/", command.to_bytes()].concat()) else { continue };
        match check(&file) {
            Ok(()) => return Ok(file),
            Err(Errno::ACCESS) => denied = Some(Errno::ACCESS),
            Err(_) => {}
        }
    }
    Err(denied.map_or_else(|| not_in_path(command), |errno| refused(command, errno)))
}

/// Whether the file can be executed.
fn check(file: &CStr) -> Result<(), Errno> {
    let stat = rustix::fs::stat(file)?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Err(Errno::ISDIR),
        // Without any of these bits root may not execute it either, but access(2) could say that it may.
        FileType::RegularFile if stat.st_mode & 0o111 != 0 => {
            rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)
        }
        _ => Err(Errno::ACCESS),
    }
}

/// Executes the file; returns only when that fails.
fn run(file: &CStr, process: &Process) -> Failure {
    let errno = match nix::unistd::execve(file, &process.args, &process.env) {
        Ok(never) => match never {},
        Err(errno) => errno as i32,
    };
    let kind = match errno {
        // The interpreter of a script or the loader of a dynamic program.
        libc::ENOENT => FailureKind::NotFound,
        libc::EACCES | libc::ENOEXEC | libc::EISDIR | libc::ELOOP | libc::EINVAL => {
            FailureKind::NotExecutable
        }
        _ => FailureKind::Setup,
    };
    Failure { errno, ..Failure::new(format!("exec {}", show(file))) }.of_kind(kind)
}

fn not_in_path(command: &CStr) -> Failure {
    let what = format!("exec: {:?}: executable file not found in $PATH", show(command));
    Failure::new(what).of_kind(FailureKind::NotFound)
}

fn refused(command: &CStr, errno: Errno) -> Failure {
    let kind = match errno {
        Errno::NOENT | Errno::NOTDIR => FailureKind::NotFound,
        _ => FailureKind::NotExecutable,
    };
    let call =
        if kind == FailureKind::NotFound { format!(": stat {}", show(command)) } else { String::new() };
    let what = format!("exec: {:?}{call}", show(command));
    Failure { errno: errno.raw_os_error(), ..Failure::new(what) }.of_kind(kind)
}
