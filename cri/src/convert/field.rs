//! What single fields may hold, whatever message they are in.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use super::Invalid;

/// PATH_MAX without its terminating zero.
const PATH_BYTES: usize = 4095;
/// Kubernetes' longest object name.
const NAME_BYTES: usize = 253;
/// All labels, or all annotations: four times what Kubernetes allows. Lists have to fit into one answer.
const MAP_BYTES: usize = 1 << 20;
/// Longer than any id, with room for other software's.
const ID_BYTES: usize = 256;
/// `(uid_t) -1` means "leave it"; Kubernetes stops at the signed half.
const ID_MAX: i64 = i32::MAX as i64;

/// A part of the message that must be there.
pub(super) fn required<T>(field: impl Display, value: Option<T>) -> Result<T, Invalid> {
    value.ok_or_else(|| Invalid::new(field, "missing"))
}

/// Any text without a zero byte: arguments and environment, which travel as C strings.
pub(super) fn c_string(field: impl Display, text: String) -> Result<String, Invalid> {
    if text.contains('\0') { Err(Invalid::new(field, "contains a zero byte")) } else { Ok(text) }
}

/// A text of one line without control characters.
pub(super) fn plain(field: impl Display, text: String) -> Result<String, Invalid> {
    match text.chars().find(|c| c.is_control()) {
        Some(c) => Err(Invalid::new(field, format!("contains the control character {c:?}"))),
        None => Ok(text),
    }
}

/// The name of a pod, a container or a Kubernetes namespace. It becomes part of CNI's arguments, which are joined
/// by `;` and `=`, and of file names.
pub(super) fn name(field: impl Display, text: String) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "missing"));
    }
    if text.len() > NAME_BYTES {
        return Err(Invalid::new(field, format!("longer than {NAME_BYTES} bytes")));
    }
    match text.chars().find(|c| c.is_control() || c.is_whitespace() || ['/', ';', '='].contains(c)) {
        Some(c) => Err(Invalid::new(field, format!("contains {c:?}"))),
        None => Ok(text),
    }
}

/// The id of a pod or a container, or its beginning. Whether there is such a one is not known here.
pub(crate) fn id(field: &'static str, text: String) -> Result<String, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "missing"));
    }
    if text.len() > ID_BYTES {
        return Err(Invalid::new(field, format!("longer than {ID_BYTES} bytes")));
    }
    plain(field, text)
}

/// An id to filter by; empty does not filter.
pub(super) fn id_filter(field: &'static str, text: String) -> Result<Option<String>, Invalid> {
    if text.is_empty() { Ok(None) } else { id(field, text).map(Some) }
}

/// An absolute path without `..`. Doubled slashes and `.` are taken out.
pub(super) fn absolute(field: impl Display, text: &str) -> Result<PathBuf, Invalid> {
    let path = path(&field, text)?;
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(Invalid::new(field, format!("{text:?} is not an absolute path")))
    }
}

/// A relative path without `..`.
pub(super) fn relative(field: impl Display, text: &str) -> Result<PathBuf, Invalid> {
    let path = path(&field, text)?;
    if path.is_absolute() || path.as_os_str().is_empty() {
        return Err(Invalid::new(field, format!("{text:?} is not a relative path")));
    }
    Ok(path)
}

fn path(field: &impl Display, text: &str) -> Result<PathBuf, Invalid> {
    if text.is_empty() {
        return Err(Invalid::new(field, "missing"));
    }
    if text.len() > PATH_BYTES {
        return Err(Invalid::new(field, format!("longer than {PATH_BYTES} bytes")));
    }
    if let Some(c) = text.chars().find(|c| c.is_control()) {
        return Err(Invalid::new(field, format!("contains the control character {c:?}")));
    }
    let path = Path::new(text);
    if path.components().any(|part| part == Component::ParentDir) {
        return Err(Invalid::new(field, format!("{text:?} contains ..")));
    }
    Ok(path.components().filter(|part| *part != Component::CurDir).collect())
}

/// A user or group id.
pub(super) fn identity(field: impl Display, number: i64) -> Result<u32, Invalid> {
    u32::try_from(number)
        .ok()
        .filter(|_| number <= ID_MAX)
        .ok_or_else(|| Invalid::new(field, format!("{number} is not between 0 and {ID_MAX}")))
}

/// A value of an enum of the contract.
pub(super) fn one_of<E: TryFrom<i32>>(field: impl Display, number: i32) -> Result<E, Invalid> {
    E::try_from(number).map_err(|_| Invalid::new(field, format!("the value {number} is unknown")))
}

/// The grace of StopContainer; 0 kills at once.
pub(crate) fn stop_timeout(seconds: i64) -> Result<Duration, Invalid> {
    duration(seconds)
}

/// The time limit of ExecSync; 0 is none.
pub(crate) fn exec_timeout(seconds: i64) -> Result<Option<Duration>, Invalid> {
    Ok(Some(duration(seconds)?).filter(|limit| !limit.is_zero()))
}

fn duration(seconds: i64) -> Result<Duration, Invalid> {
    let seconds =
        u64::try_from(seconds).map_err(|_| Invalid::new("timeout", format!("{seconds} is negative")))?;
    // More than a century is for ever, and deadlines stay within what clocks can say.
    Ok(Duration::from_secs(seconds.min(u32::MAX.into())))
}

/// Labels and annotations, which are kept as they are.
pub(super) fn map(
    field: impl Display,
    map: BTreeMap<String, String>,
) -> Result<BTreeMap<String, String>, Invalid> {
    if map.keys().any(String::is_empty) {
        return Err(Invalid::new(field, "a key is empty"));
    }
    let bytes: usize = map.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAP_BYTES {
        return Err(Invalid::new(field, format!("{bytes} bytes are more than {MAP_BYTES}")));
    }
    Ok(map)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_absolute_and_straight() {
        let check = |text: &str, expected: Option<&str>| {
            let path = absolute("path", text).ok();
            assert_eq!(path.as_deref(), expected.map(Path::new), "{text:?}");
        };
        check("/a/b", Some("/a/b"));
        check("//a/./b//", Some("/a/b"));
        check("/", Some("/"));
        check("a/b", None);
        check("", None);
        check("/a/../b", None);
        check("/a/..", None);
        check("/a..b", Some("/a..b"));
        check("/a\nb", None);
        check("/a\0b", None);
        check(&format!("/{}", "a".repeat(PATH_BYTES)), None);
    }

    #[test]
    fn relative_paths_stay_below() {
        let check = |text: &str, good: bool| assert_eq!(relative("path", text).is_ok(), good, "{text:?}");
        check("a/0.log", true);
        check("./a", true);
        check("/a", false);
        check("../a", false);
        check("a/../../b", false);
        check(".", false);
        check("", false);
    }

    #[test]
    fn names_cannot_break_out_of_lists() {
        let check =
            |text: &str, good: bool| assert_eq!(name("name", text.to_owned()).is_ok(), good, "{text:?}");
        check("nginx-7c5.b_1", true);
        check("", false);
        check("a/b", false);
        check("a;K8S_POD_NAME=b", false);
        check("a b", false);
        check("a\nb", false);
        check(&"a".repeat(NAME_BYTES), true);
        check(&"a".repeat(NAME_BYTES + 1), false);
    }

    #[test]
    fn ids_of_users_are_31_bits() {
        let check = |number: i64, expected: Option<u32>| {
            assert_eq!(identity("uid", number).ok(), expected, "{number}")
        };
        check(0, Some(0));
        check(2_147_483_647, Some(2_147_483_647));
        check(2_147_483_648, None);
        check(4_294_967_296, None);
        check(-1, None);
    }

    #[test]
    fn times_are_not_negative() {
        assert_eq!(stop_timeout(0).unwrap(), Duration::ZERO);
        assert_eq!(exec_timeout(0).unwrap(), None);
        assert_eq!(exec_timeout(2).unwrap(), Some(Duration::from_secs(2)));
        assert!(stop_timeout(i64::MAX).unwrap() <= Duration::from_secs(u32::MAX.into()));
        assert!(stop_timeout(-1).is_err());
        assert!(exec_timeout(i64::MIN).is_err());
    }
}
