//! keyctl(2): a session keyring of one's own.

use std::ffi::c_long;
use std::{io, ptr};

const JOIN_SESSION_KEYRING: c_long = 1;
const SETPERM: c_long = 5;
/// Everything for who possesses it, nothing for others of the same user: they are in other containers.
const POSSESSOR_ALL: c_long = 0x3f00_0000;

/// Leaves the inherited session keyring for a new, empty one without a name.
///
/// A kernel without keyrings has none to leave.
pub(crate) fn leave_session() -> io::Result<()> {
    // SAFETY: a null name asks for an anonymous keyring.
    let id = unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, ptr::null::<libc::c_char>()) };
    if id < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ENOSYS) { Ok(()) } else { Err(error) };
    }
    // SAFETY: has no pointers.
    let result = unsafe { libc::syscall(libc::SYS_keyctl, SETPERM, id, POSSESSOR_ALL) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
