//! Strings of the spec as the kernel takes them.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::Error;

/// A string without NUL bytes.
pub(crate) fn string(field: &str, text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::invalid(field, "it has a NUL byte"))
}

/// An absolute path of the host.
pub(crate) fn host_path(field: &str, path: &Path) -> Result<CString, Error> {
    if !path.is_absolute() {
        return Err(Error::invalid(field, format!("{} is not an absolute path", path.display())));
    }
    CString::new(path.as_os_str().as_bytes()).map_err(|_| Error::invalid(field, "it has a NUL byte"))
}

/// An absolute path of the container, made relative to its root, without `.`, `..` and empty parts.
pub(crate) fn container_path(field: &str, path: &Path) -> Result<CString, Error> {
    if !path.is_absolute() {
        return Err(Error::invalid(field, format!("{} is not an absolute path", path.display())));
    }
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.as_os_str().as_bytes().split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    CString::new(parts.join(&b'/')).map_err(|_| Error::invalid(field, "it has a NUL byte"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_paths_lose_what_could_lead_out() {
        for (path, clean) in [
            ("/", ""),
            ("//a//b/", "a/b"),
            ("/a/./b", "a/b"),
            ("/a/../../../etc/passwd", "etc/passwd"),
            ("/..", ""),
            ("/a/..b", "a/..b"),
        ] {
            let got = container_path("x", Path::new(path)).expect(path);
            assert_eq!(got.to_str(), Ok(clean), "{path}");
        }
        for path in ["", "a", "./a", "/a\0b"] {
            assert!(container_path("x", Path::new(path)).is_err(), "{path:?}");
        }
    }

    #[test]
    fn host_paths_are_absolute() {
        assert!(host_path("x", Path::new("/a/../b")).is_ok());
        assert!(host_path("x", Path::new("a")).is_err());
        assert!(host_path("x", Path::new("/\0")).is_err());
    }
}
