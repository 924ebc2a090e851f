//! The system calls of the process that unpacks a layer: what [`super`] lets it do with its one directory, its two
//! streams and its threads, and no more.
//!
//! Everything else answers EPERM: nothing that starts programs, opens sockets, mounts, or looks at other processes is
//! there to be tried. What a C library may ask on its own account, and can do without, is not in the list either.

use oci_spec::runtime::{
    LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompArgBuilder, LinuxSeccompOperator,
    LinuxSyscall,
};

use crate::seccomp::{self, Error, Program};

const FILES: &str = "fchmod fchown fchownat fsetxattr fstat fstatfs getdents64 linkat lseek mkdirat newfstatat openat \
    openat2 statx symlinkat umask unlinkat utimensat";

const STREAMS: &str = "close fcntl read readv write writev";

const MEMORY: &str = "brk madvise mmap mprotect mremap munmap";

/// Those of threads, too, and what ends a process that panics or aborts.
const PROCESS: &str = "clock_gettime clock_nanosleep exit exit_group futex getpid getrandom gettid nanosleep \
    restart_syscall rseq rt_sigaction rt_sigprocmask rt_sigreturn sched_getaffinity sched_yield set_robust_list \
    sigaltstack tgkill";

/// CLONE_THREAD, and every flag that makes a namespace.
const CLONE_KIND: u64 = 0x1_0000 | 0x7e02_0080;

const PR_SET_NAME: u64 = 15;

/// Compiles the filter.
pub(super) fn program() -> Result<Program, Error> {
    seccomp::compile(&profile())
}

fn profile() -> LinuxSeccomp {
    use LinuxSeccompOperator::{ScmpCmpEq, ScmpCmpMaskedEq};
    let names = [FILES, STREAMS, MEMORY, PROCESS].into_iter().flat_map(str::split_ascii_whitespace);
    // A whiteout is the character device 0:0. A fifo has no number.
    let kind = |kind: u32| argument(2, ScmpCmpMaskedEq, u64::from(libc::S_IFMT), u64::from(kind));
    // Its flags are in memory, where no filter sees them; C libraries fall back to clone.
    let mut clone3 = call("clone3", LinuxSeccompAction::ScmpActErrno, Vec::new());
    clone3.set_errno_ret(Some(libc::ENOSYS.cast_unsigned()));
    let mut calls = vec![
        allow("mknodat", vec![kind(libc::S_IFCHR), argument(3, ScmpCmpEq, 0, 0)]),
        allow("mknodat", vec![kind(libc::S_IFIFO)]),
        allow("clone", vec![argument(0, ScmpCmpMaskedEq, CLONE_KIND, 0x1_0000)]),
        clone3,
        allow("prctl", vec![argument(0, ScmpCmpEq, PR_SET_NAME, 0)]),
    ];
    calls.extend(names.map(|name| allow(name, Vec::new())));
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM.cast_unsigned()))
        .set_syscalls(Some(calls));
    profile
}

fn allow(name: &str, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    call(name, LinuxSeccompAction::ScmpActAllow, arguments)
}

fn call(name: &str, action: LinuxSeccompAction, arguments: Vec<LinuxSeccompArg>) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(vec![name.to_owned()]).set_action(action);
    if !arguments.is_empty() {
        call.set_args(Some(arguments));
    }
    call
}

fn argument(index: usize, operator: LinuxSeccompOperator, value: u64, value_two: u64) -> LinuxSeccompArg {
    let argument =
        LinuxSeccompArgBuilder::default().index(index).op(operator).value(value).value_two(value_two);
    // A builder fails on a field without a default, and this one has none.
    argument.build().expect("every field has a default")
}
