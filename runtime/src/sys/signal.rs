//! Signals: what a monitor ignores, what its children must not inherit, and pidfds for numbers without a name.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;

/// The number of signals, see signal(7).
const SIGNALS: i32 = 64;

/// Ignores a signal; programs that are executed from here on begin with it ignored.
pub(crate) fn ignore(signal: i32) -> io::Result<()> {
    // SAFETY: this handler is no code of ours.
    let before = unsafe { libc::signal(signal, libc::SIG_IGN) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Gives every signal its default meaning and blocks none.
pub(crate) fn reset() {
    for signal in 1..=SIGNALS {
        set_default(signal);
    }
    unblock();
}

/// Gives the signals that a monitor ignores their default meaning and blocks none.
pub(crate) fn restore(signals: &[i32]) {
    for signal in signals {
        set_default(*signal);
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

/// Past the C library, which keeps two signals for itself that whoever started the daemon may have ignored.
fn set_default(signal: i32) {
    // The kernel's structure is no longer than this on any machine, and zeros are SIG_DFL without flags.
    let action = [0_u64; 4];
    // SAFETY: `action` outlives the call, and the null pointer means that the old action is not wanted. It fails
    // for KILL and STOP, which are as they should be.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            ptr::null_mut::<u64>(),
            size_of::<u64>(),
        );
    }
}

fn unblock() {
    // An empty set is valid, so this cannot fail.
    nix::sys::signal::SigSet::empty().thread_set_mask().ok();
}
