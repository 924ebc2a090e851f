//! Signals: what a monitor ignores, what its children must not inherit, and pidfds for numbers without a name.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The number of signals, see signal(7).
const SIGNALS: i32 = 64;

/// Ignores a signal; programs that are executed from here on begin with it ignored.
pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    set(signal, libc::SIG_IGN)
}

/// Gives every signal its default meaning and blocks none.
pub(crate) fn reset() {
    for signal in 1..=SIGNALS {
        // KILL, STOP and the two of the C library cannot be changed and need not be.
        drop(set(signal, libc::SIG_DFL));
    }
    unblock();
}

/// Gives the signals that a monitor ignores their default meaning and blocks none.
pub(crate) fn restore(signals: &[i32]) {
    for signal in signals {
        drop(set(*signal, libc::SIG_DFL));
    }
    unblock();
}

/// Sends a signal, also one of the real-time ones; 0 only asks whether the process is there.
pub(crate) fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the null pointer means that the kernel fills in the details itself.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            ptr::null::<libc::siginfo_t>(),
            0,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn set(signal: i32, handler: libc::sighandler_t) -> io::Result<()> {
    // SAFETY: neither of the two handlers is code of ours.
    let before = unsafe { libc::signal(signal, handler) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn unblock() {
    // An empty set is valid, so this cannot fail.
    drop(nix::sys::signal::SigSet::empty().thread_set_mask());
}
