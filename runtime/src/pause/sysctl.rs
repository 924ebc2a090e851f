//! Kernel parameters of the namespaces that the calling process is in, see proc_sys(5) and sysctl(8).

use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags};
use rustix::io::Errno;

use crate::Failure;

/// Sets all, or says which one cannot be set.
pub(super) fn apply(sysctls: &[(String, String)]) -> Result<(), Failure> {
    apply_unless(sysctls, |_| false).map(drop)
}

/// Sets those that the caller may set and returns the others.
pub(super) fn apply_allowed(sysctls: &[(String, String)]) -> Result<Vec<(String, String)>, Failure> {
    apply_unless(sysctls, |errno| errno == Errno::ACCESS)
}

fn apply_unless(
    sysctls: &[(String, String)],
    is_for_later: fn(Errno) -> bool,
) -> Result<Vec<(String, String)>, Failure> {
    let mut later = Vec::new();
    if sysctls.is_empty() {
        return Ok(later);
    }
    let root = open_root().map_err(|errno| Failure::setup("open /proc/sys", errno.raw_os_error()))?;
    for (key, value) in sysctls {
        match set(&root, key, value) {
            Err(errno) if is_for_later(errno) => later.push((key.clone(), value.clone())),
            result => result.map_err(|errno| {
                Failure::setup(format!("set sysctl {key} to {value:?}"), errno.raw_os_error())
            })?,
        }
    }
    Ok(later)
}

fn open_root() -> Result<OwnedFd, Errno> {
    let root =
        rustix::fs::open("/proc/sys", OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    match rustix::fs::fstatfs(&root)?.f_type {
        PROC_SUPER_MAGIC => Ok(root),
        _ => Err(Errno::NODEV),
    }
}

fn set(root: &OwnedFd, key: &str, value: &str) -> Result<(), Errno> {
    let resolve = ResolveFlags::BENEATH
        | ResolveFlags::NO_SYMLINKS
        | ResolveFlags::NO_MAGICLINKS
        | ResolveFlags::NO_XDEV;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat2(root.as_fd(), path(key)?, flags, Mode::empty(), resolve)?;
    let written = rustix::io::write(file, value.as_bytes())?;
    if written == value.len() { Ok(()) } else { Err(Errno::INVAL) }
}

/// Whichever of dot and slash comes first separates, the other is part of a name:
/// `net.ipv4.conf.eth0/1.rp_filter`, `net/ipv4/conf/eth0.1/rp_filter`.
fn path(key: &str) -> Result<String, Errno> {
    let path: String = match key.find(['.', '/']).map(|at| key.as_bytes()[at]) {
        Some(b'.') => key
            .chars()
            .map(|c| match c {
                '.' => '/',
                '/' => '.',
                c => c,
            })
            .collect(),
        _ => key.to_owned(),
    };
    let is_name = |name: &str| !name.is_empty() && name != "." && name != ".." && !name.contains('\0');
    if path.split('/').all(is_name) { Ok(path) } else { Err(Errno::INVAL) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_separator_decides() {
        for (key, expected) in [
            ("net.ipv4.ip_forward", Ok("net/ipv4/ip_forward")),
            ("net/ipv4/ip_forward", Ok("net/ipv4/ip_forward")),
            ("net.ipv4.conf.eth0/1.rp_filter", Ok("net/ipv4/conf/eth0.1/rp_filter")),
            ("net/ipv4/conf/eth0.1/rp_filter", Ok("net/ipv4/conf/eth0.1/rp_filter")),
            ("kernel", Ok("kernel")),
            ("", Err(Errno::INVAL)),
            ("/etc/passwd", Err(Errno::INVAL)),
            ("net/../../etc/passwd", Err(Errno::INVAL)),
            ("net.//.//.etc", Err(Errno::INVAL)),
            ("net..ipv4", Err(Errno::INVAL)),
            ("net.a\0b", Err(Errno::INVAL)),
        ] {
            assert_eq!(path(key).as_deref(), expected.as_ref().map(|path| *path), "{key:?}");
        }
    }

    #[test]
    fn what_cannot_be_set_is_named_with_its_value() {
        let failure = apply(&[("net.no_such_thing".into(), "1 2".into())]).unwrap_err();
        assert_eq!(
            failure.to_string(),
            "set sysctl net.no_such_thing to \"1 2\": No such file or directory (os error 2)"
        );
    }
}
