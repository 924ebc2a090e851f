//! The answer to `features`, see features.md of the OCI runtime specification; runc has it since 1.1.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a runtime says that it can do beyond what every one of them can.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Features {
    /// Mounts that are read-only with all below them (`rro`).
    pub recursive_read_only: bool,
    /// Mounts with mapped ids.
    pub idmapped_mounts: bool,
    /// User namespaces.
    pub user_namespaces: bool,
    /// It was built without seccomp: a profile would be dropped or refused.
    pub no_seccomp: bool,
    /// It was built without AppArmor.
    pub no_apparmor: bool,
    /// It was built without SELinux.
    pub no_selinux: bool,
}

impl Features {
    /// Reads the answer; what is not in it is not there.
    pub(super) fn parse(json: &str) -> Self {
        let answer: Value = serde_json::from_str(json).unwrap_or_default();
        let has = |list: &Value, word| list.as_array().is_some_and(|list| list.iter().any(|it| it == word));
        Self {
            recursive_read_only: has(&answer["mountOptions"], "rro"),
            idmapped_mounts: answer["linux"]["mountExtensions"]["idmap"]["enabled"] == true,
            user_namespaces: has(&answer["linux"]["namespaces"], "user"),
            no_seccomp: answer["linux"]["seccomp"]["enabled"] == false,
            no_apparmor: answer["linux"]["apparmor"]["enabled"] == false,
            no_selinux: answer["linux"]["selinux"]["enabled"] == false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_said_is_believed() {
        let none = Features::default();
        let rro = Features { recursive_read_only: true, ..none };
        for (answer, expected) in [
            (r#"{"mountOptions":["ro","rro"],"linux":{"seccomp":{"enabled":true}}}"#, rro),
            (
                r#"{"mountOptions":["ro"],"linux":{"mountExtensions":{"idmap":{"enabled":true}}}}"#,
                Features { idmapped_mounts: true, ..none },
            ),
            (r#"{"linux":{"namespaces":["mount","user"]}}"#, Features { user_namespaces: true, ..none }),
            (r#"{"linux":{"namespaces":["mount"]}}"#, none),
            (r#"{"linux":{"seccomp":{"enabled":false}}}"#, Features { no_seccomp: true, ..none }),
            (
                r#"{"linux":{"apparmor":{"enabled":false},"selinux":{"enabled":false}}}"#,
                Features { no_apparmor: true, no_selinux: true, ..none },
            ),
            (r#"{"mountOptions":"rro"}"#, none),
            ("No help topic for 'features'", none),
            ("", none),
        ] {
            assert_eq!(Features::parse(answer), expected, "{answer}");
        }
    }
}
