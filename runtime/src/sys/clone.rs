//! clone3(2): children that go on in this program, and programs started from a thread of the daemon.

use std::arch::asm;
use std::ffi::{CStr, c_char, c_int};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};

use nix::sys::signal::{SigSet, SigmaskHow};
use rustix::process::{WaitId, WaitIdOptions};

const CLONE_VM: u64 = 0x100;
const CLONE_PIDFD: u64 = 0x1000;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_CLEAR_SIGHAND: u64 = 0x1_0000_0000;
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The kernel's `struct clone_args` of Linux 5.7.
#[derive(Default)]
#[repr(C)]
struct Arguments {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

/// Who one is after [`fork`].
#[derive(Debug)]
pub(crate) enum Cloned {
    Child,
    Parent { pid: i32, pidfd: OwnedFd },
}

/// A program to be started with descriptors of its own.
#[derive(Debug)]
pub(crate) struct Program<'a> {
    pub(crate) file: BorrowedFd<'a>,
    pub(crate) arguments: &'a [&'a CStr],
    /// They become 0, 1, 2 and so on, and nothing else is open in the program.
    pub(crate) fds: &'a [BorrowedFd<'a>],
    /// `CLONE_NEW…`
    pub(crate) namespaces: c_int,
}

/// What the child of [`spawn`] reads, in the memory that it shares with its parent.
struct Start {
    file: RawFd,
    arguments: *const *const c_char,
    environment: *const *const c_char,
    fds: *const RawFd,
    fd_count: c_int,
    no_signals: libc::sigset_t,
    failure: AtomicI32,
}

/// Clones the calling process as fork(2) does, with CLONE_NEW* or CLONE_PARENT in `flags`, and, if given, into
/// a v2 cgroup.
///
/// Only for a process whose other threads hold no lock and allocate nothing: the child has copies of all
/// locks and only this thread.
pub(crate) fn fork(flags: c_int, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Cloned> {
    let mut pidfd: RawFd = -1;
    let mut arguments = Arguments {
        flags: u64::from(flags.cast_unsigned()) | CLONE_PIDFD,
        pidfd: ptr::from_mut(&mut pidfd).addr() as u64,
        // A sibling (CLONE_PARENT) has the exit signal of the caller, and the kernel takes no other.
        exit_signal: if flags & libc::CLONE_PARENT == 0 { libc::SIGCHLD as u64 } else { 0 },
        ..Arguments::default()
    };
    arguments.enter(cgroup);
    // SAFETY: the structure is as long as said and lives through the call; without CLONE_VM the child has its
    // own copy of everything, this stack too.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &arguments, size_of::<Arguments>()) };
    match pid {
        0 => Ok(Cloned::Child),
        pid => parent(pid, pidfd).map(|(pid, pidfd)| Cloned::Parent { pid, pidfd }),
    }
}

/// Starts a program in a session of its own, in `/`, with default signals, and if given in a v2 cgroup.
///
/// Its v1 cgroups are those of the calling thread. The caller's memory is shared until the program runs, so
/// the cost does not depend on its size. `stack` is the child's until then, 16 KiB are plenty.
pub(crate) fn spawn(
    program: &Program<'_>,
    cgroup: Option<BorrowedFd<'_>>,
    stack: &mut [u8],
) -> io::Result<(i32, OwnedFd)> {
    // Out of the way of the numbers that they are to get.
    let count = c_int::try_from(program.fds.len()).map_err(|_| io::Error::from_raw_os_error(libc::EMFILE))?;
    let above = |fd| rustix::io::fcntl_dupfd_cloexec(fd, count);
    let file = above(program.file)?;
    let owned = program.fds.iter().map(|fd| above(*fd)).collect::<Result<Vec<_>, _>>()?;
    let fds: Vec<RawFd> = owned.iter().map(AsRawFd::as_raw_fd).collect();
    let words: Vec<*const c_char> =
        program.arguments.iter().map(|word| word.as_ptr()).chain([ptr::null()]).collect();
    let environment = [ptr::null()];
    let start = Start {
        file: file.as_raw_fd(),
        arguments: words.as_ptr(),
        environment: environment.as_ptr(),
        fds: fds.as_ptr(),
        fd_count: count,
        no_signals: *SigSet::empty().as_ref(),
        failure: AtomicI32::new(0),
    };
    let mut pidfd: RawFd = -1;
    let mut arguments = Arguments {
        flags: CLONE_VM
            | CLONE_VFORK
            | CLONE_PIDFD
            | CLONE_CLEAR_SIGHAND
            | u64::from(program.namespaces.cast_unsigned()),
        pidfd: ptr::from_mut(&mut pidfd).addr() as u64,
        exit_signal: libc::SIGCHLD as u64,
        stack: stack.as_mut_ptr().addr() as u64,
        stack_size: (stack.len() & !15) as u64,
        ..Arguments::default()
    };
    // The kernel adds the two, and both calling conventions want a multiple of 16.
    let unaligned = arguments.stack & 15;
    if unaligned != 0 {
        arguments.stack += 16 - unaligned;
        arguments.stack_size -= 16;
    }
    arguments.enter(cgroup);
    // No handler of the daemon may run in the child, on its stack and in memory that it shares.
    let mask = SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)?;
    let result = clone_on_stack(&arguments, &start);
    mask.thread_set_mask()?;
    if let Ok(errno @ 1..) = i32::try_from(-result) {
        return Err(io::Error::from_raw_os_error(errno));
    }
    let (pid, pidfd) = parent(result, pidfd)?;
    match start.failure.load(Ordering::Relaxed) {
        0 => Ok((pid, pidfd)),
        errno => {
            rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED)?;
            Err(io::Error::from_raw_os_error(errno))
        }
    }
}

impl Arguments {
    fn enter(&mut self, cgroup: Option<BorrowedFd<'_>>) {
        if let Some(cgroup) = cgroup {
            self.flags |= CLONE_INTO_CGROUP;
            self.cgroup = u64::from(cgroup.as_raw_fd().cast_unsigned());
        }
    }
}

fn parent(pid: i64, pidfd: RawFd) -> io::Result<(i32, OwnedFd)> {
    match i32::try_from(pid) {
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok((pid, pidfd))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes the call; the child runs [`become_program`] on the stack that `arguments` name.
#[cfg(target_arch = "x86_64")]
fn clone_on_stack(arguments: &Arguments, start: &Start) -> i64 {
    let result: i64;
    // SAFETY: the child leaves this code at once for a function that never returns, on a stack of its own;
    // the parent goes on after the call as after any other, and sleeps until the child is done with our memory.
    unsafe {
        asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") ptr::from_ref(arguments),
            in("rsi") size_of::<Arguments>(),
            in("r12") become_program as extern "C" fn(&Start) -> !,
            in("r13") ptr::from_ref(start),
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    result
}

/// Makes the call; the child runs [`become_program`] on the stack that `arguments` name.
#[cfg(target_arch = "aarch64")]
fn clone_on_stack(arguments: &Arguments, start: &Start) -> i64 {
    let result: i64;
    // SAFETY: the child leaves this code at once for a function that never returns, on a stack of its own;
    // the parent goes on after the call as after any other, and sleeps until the child is done with our memory.
    unsafe {
        asm!(
            "svc #0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x20",
            "brk #1",
            "2:",
            inlateout("x0") ptr::from_ref(arguments) as i64 => result,
            in("x1") size_of::<Arguments>(),
            in("x8") libc::SYS_clone3,
            in("x20") become_program as extern "C" fn(&Start) -> !,
            in("x21") ptr::from_ref(start),
        );
    }
    result
}

/// The child: nothing but system calls, since its memory is that of a running program.
extern "C" fn become_program(start: &Start) -> ! {
    for target in 0..start.fd_count {
        // SAFETY: `fds` points at `fd_count` numbers that outlive the child.
        let fd = unsafe { *start.fds.add(target.cast_unsigned() as usize) };
        // SAFETY: changes nothing but this process' own table of descriptors.
        start.check(unsafe { libc::dup3(fd, target, 0) });
    }
    // SAFETY: changes nothing but this process' own table of descriptors.
    let closed = unsafe {
        libc::syscall(libc::SYS_close_range, start.fd_count, c_int::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    start.check(if closed == 0 { 0 } else { -1 });
    // SAFETY: has no pointers.
    start.check(unsafe { libc::setsid() });
    // SAFETY: the string is static.
    start.check(unsafe { libc::chdir(c"/".as_ptr()) });
    // SAFETY: has no pointers and cannot fail.
    unsafe { libc::umask(0o022) };
    // SAFETY: the set outlives the call; no handlers are left that could run now.
    start
        .check(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const start.no_signals, ptr::null_mut()) });
    // SAFETY: all pointers are to null-terminated strings and arrays that outlive the call.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            start.file,
            c"".as_ptr(),
            start.arguments,
            start.environment,
            libc::AT_EMPTY_PATH,
        );
    }
    start.check(-1);
    exit(127)
}

impl Start {
    /// Tells the parent of a failed call and ends the child.
    fn check(&self, result: c_int) {
        if result < 0 {
            // SAFETY: the thread's own error number, which the parent's thread left alone while it sleeps.
            let errno = unsafe { *libc::__errno_location() };
            self.failure.store(errno, Ordering::Relaxed);
            exit(127);
        }
    }
}

/// Ends the process without any of its destructors, which are the business of the process it was cloned from.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: has no pointers and does not return.
    unsafe { libc::_exit(code) }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    fn run(file: &File, arguments: &[&CStr], more: usize) -> io::Result<String> {
        let (mut output, theirs) = io::pipe().unwrap();
        let null = File::open("/dev/null").unwrap();
        let mut fds = vec![null.as_fd(), theirs.as_fd(), theirs.as_fd()];
        fds.extend((0..more).map(|_| null.as_fd()));
        let program = Program { file: file.as_fd(), arguments, fds: &fds, namespaces: 0 };
        let (pid, pidfd) = spawn(&program, None, &mut [0; 32 << 10])?;
        assert!(pid > 0);
        drop(theirs);
        let mut text = String::new();
        output.read_to_string(&mut text).unwrap();
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        Ok(text)
    }

    #[test]
    fn a_program_has_what_it_is_given_and_nothing_else() {
        let sh = File::open("/bin/sh").unwrap();
        let script = c"cd /proc/$$/fd; echo *; echo $PWD; echo $0; read pid comm state parent group session rest < ../stat; \
            test $pid = $session && echo leader; while read line; do case $line in Sig[BI]*|Shd*) echo $line;; esac; done < ../status";
        // More than the numbers that are free now, so that the program's own file is in the way.
        let text = run(&sh, &[c"name", c"-c", script, c"zero"], 30).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let numbers: std::collections::BTreeSet<u32> =
            lines[0].split(' ').map(|number| number.parse().unwrap()).collect();
        // The shell itself may keep one above 9 of its own making.
        assert!((0..33).all(|number| numbers.contains(&number)) && numbers.len() <= 34, "{text}");
        assert_eq!(lines[2..4], ["zero", "leader"]);
        assert!(lines[4..].contains(&"SigBlk: 0000000000000000"), "{text}");
    }

    #[test]
    fn what_cannot_be_executed_says_why_and_leaves_nothing() {
        let text = tempfile::tempfile().unwrap();
        let error = run(&text, &[c"x"], 0).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EACCES));
    }

    #[test]
    fn a_cgroup_that_is_none_is_refused() {
        let sh = File::open("/bin/sh").unwrap();
        let dir = File::open("/").unwrap();
        let program = Program { file: sh.as_fd(), arguments: &[c"sh"], fds: &[dir.as_fd()], namespaces: 0 };
        assert!(spawn(&program, Some(dir.as_fd()), &mut [0; 32 << 10]).is_err());
    }
}
