//! Identity, namespaces and confinement of pods and containers.

#![expect(deprecated, reason = "the fields that were replaced must be refused, not overlooked")]

use std::path::PathBuf;

use pod::config::{
    Capabilities, Namespaces, PidMode, PodOrNode, Profile, RunAs, SecurityContext, SelinuxOptions,
    SupplementalGroupsPolicy,
};

use super::{Invalid, field, users};
use crate::wire::cri;

/// NGROUPS_MAX, with room for the primary group and the image's.
const GROUPS: usize = 65_000;

/// The contract's messages for a pod and for a container, field by field; both become one domain type.
struct Fields {
    namespace_options: Option<cri::NamespaceOption>,
    selinux_options: Option<cri::SeLinuxOption>,
    run_as_user: Option<cri::Int64Value>,
    run_as_username: String,
    run_as_group: Option<cri::Int64Value>,
    readonly_rootfs: bool,
    supplemental_groups: Vec<i64>,
    supplemental_groups_policy: i32,
    privileged: bool,
    no_new_privs: bool,
    capabilities: Option<cri::Capability>,
    seccomp: Option<cri::SecurityProfile>,
    apparmor: Option<cri::SecurityProfile>,
    seccomp_profile_path: String,
    apparmor_profile: String,
    masked_paths: Vec<String>,
    readonly_paths: Vec<String>,
}

/// Parses a pod's context; one that is not there asks for nothing.
pub(super) fn pod(
    at: &str,
    context: Option<cri::LinuxSandboxSecurityContext>,
) -> Result<SecurityContext, Invalid> {
    let context = context.unwrap_or_default();
    let security = parse(
        at,
        Fields {
            namespace_options: context.namespace_options,
            selinux_options: context.selinux_options,
            run_as_user: context.run_as_user,
            run_as_username: String::new(),
            run_as_group: context.run_as_group,
            readonly_rootfs: context.readonly_rootfs,
            supplemental_groups: context.supplemental_groups,
            supplemental_groups_policy: context.supplemental_groups_policy,
            privileged: context.privileged,
            no_new_privs: false,
            capabilities: None,
            seccomp: context.seccomp,
            apparmor: context.apparmor,
            seccomp_profile_path: context.seccomp_profile_path,
            apparmor_profile: String::new(),
            masked_paths: Vec::new(),
            readonly_paths: Vec::new(),
        },
    )?;
    if let PidMode::Target(_) = security.namespaces.pid {
        let reason = "TARGET is for containers: a pod has POD, CONTAINER or NODE";
        return Err(Invalid::new(format_args!("{at}.namespace_options.pid"), reason));
    }
    Ok(security)
}

/// Parses a container's context; one that is not there asks for nothing.
pub(super) fn container(
    at: &str,
    context: Option<cri::LinuxContainerSecurityContext>,
) -> Result<SecurityContext, Invalid> {
    let context = context.unwrap_or_default();
    parse(
        at,
        Fields {
            namespace_options: context.namespace_options,
            selinux_options: context.selinux_options,
            run_as_user: context.run_as_user,
            run_as_username: context.run_as_username,
            run_as_group: context.run_as_group,
            readonly_rootfs: context.readonly_rootfs,
            supplemental_groups: context.supplemental_groups,
            supplemental_groups_policy: context.supplemental_groups_policy,
            privileged: context.privileged,
            no_new_privs: context.no_new_privs,
            capabilities: context.capabilities,
            seccomp: context.seccomp,
            apparmor: context.apparmor,
            seccomp_profile_path: context.seccomp_profile_path,
            apparmor_profile: context.apparmor_profile,
            masked_paths: context.masked_paths,
            readonly_paths: context.readonly_paths,
        },
    )
}

fn parse(at: &str, fields: Fields) -> Result<SecurityContext, Invalid> {
    let run_as = run_as(at, fields.run_as_user, fields.run_as_username)?;
    let policy: cri::SupplementalGroupsPolicy =
        field::one_of(format_args!("{at}.supplemental_groups_policy"), fields.supplemental_groups_policy)?;
    Ok(SecurityContext {
        namespaces: namespaces(
            &format!("{at}.namespace_options"),
            fields.namespace_options.unwrap_or_default(),
        )?,
        run_as_group: run_as_group(at, run_as.as_ref(), fields.run_as_group)?,
        run_as,
        supplemental_groups: groups(format_args!("{at}.supplemental_groups"), &fields.supplemental_groups)?,
        supplemental_groups_policy: match policy {
            cri::SupplementalGroupsPolicy::Merge => SupplementalGroupsPolicy::Merge,
            cri::SupplementalGroupsPolicy::Strict => SupplementalGroupsPolicy::Strict,
        },
        readonly_rootfs: fields.readonly_rootfs,
        privileged: fields.privileged,
        no_new_privs: fields.no_new_privs,
        capabilities: capabilities(&format!("{at}.capabilities"), fields.capabilities.unwrap_or_default())?,
        seccomp: seccomp(at, fields.seccomp, &fields.seccomp_profile_path)?,
        apparmor: apparmor(at, fields.apparmor, &fields.apparmor_profile)?,
        selinux: selinux(&format!("{at}.selinux_options"), fields.selinux_options)?,
        masked_paths: paths(format_args!("{at}.masked_paths"), &fields.masked_paths)?,
        readonly_paths: paths(format_args!("{at}.readonly_paths"), &fields.readonly_paths)?,
    })
}

fn groups(at: std::fmt::Arguments<'_>, groups: &[i64]) -> Result<Vec<u32>, Invalid> {
    if groups.len() > GROUPS {
        return Err(Invalid::new(at, format!("{} groups are more than {GROUPS}", groups.len())));
    }
    groups.iter().map(|group| field::identity(at, *group)).collect()
}

fn run_as(at: &str, user: Option<cri::Int64Value>, name: String) -> Result<Option<RunAs>, Invalid> {
    match user {
        None if name.is_empty() => Ok(None),
        None => {
            let name = field::plain(format_args!("{at}.run_as_username"), name)?;
            Ok(Some(RunAs::Name(name)))
        }
        Some(user) if name.is_empty() => {
            let uid = field::identity(format_args!("{at}.run_as_user"), user.value)?;
            Ok(Some(RunAs::Uid(uid)))
        }
        Some(_) => Err(Invalid::new(
            format_args!("{at}.run_as_username"),
            "run_as_user is given too: only one of them may be",
        )),
    }
}

fn run_as_group(
    at: &str,
    user: Option<&RunAs>,
    group: Option<cri::Int64Value>,
) -> Result<Option<u32>, Invalid> {
    let Some(group) = group else { return Ok(None) };
    if user.is_none() {
        return Err(Invalid::new(
            format_args!("{at}.run_as_group"),
            "only with a user: give run_as_user too",
        ));
    }
    field::identity(format_args!("{at}.run_as_group"), group.value).map(Some)
}

fn namespaces(at: &str, options: cri::NamespaceOption) -> Result<Namespaces, Invalid> {
    let pid_field = format!("{at}.pid");
    let target_field = format!("{at}.target_id");
    let pid = match field::one_of(&pid_field, options.pid)? {
        cri::NamespaceMode::Pod => PidMode::Pod,
        cri::NamespaceMode::Container => PidMode::Container,
        cri::NamespaceMode::Node => PidMode::Node,
        cri::NamespaceMode::Target if options.target_id.is_empty() => {
            return Err(Invalid::new(target_field, "missing: TARGET needs a container"));
        }
        cri::NamespaceMode::Target => {
            PidMode::Target(field::plain(&target_field, options.target_id.clone())?)
        }
    };
    if !options.target_id.is_empty() && !matches!(pid, PidMode::Target(_)) {
        return Err(Invalid::new(target_field, "only with pid TARGET"));
    }
    Ok(Namespaces {
        users: users::parse(&format!("{at}.userns_options"), options.userns_options)?,
        network: pod_or_node(format_args!("{at}.network"), options.network)?,
        pid,
        ipc: pod_or_node(format_args!("{at}.ipc"), options.ipc)?,
    })
}

fn pod_or_node(at: std::fmt::Arguments<'_>, mode: i32) -> Result<PodOrNode, Invalid> {
    match field::one_of(at, mode)? {
        cri::NamespaceMode::Pod => Ok(PodOrNode::Pod),
        cri::NamespaceMode::Node => Ok(PodOrNode::Node),
        mode => Err(Invalid::new(at, format!("{} is not possible: POD or NODE", mode.as_str_name()))),
    }
}

fn capabilities(at: &str, capabilities: cri::Capability) -> Result<Capabilities, Invalid> {
    let names = |list: &str, names: Vec<String>| {
        let letters = |name: &String| {
            !name.is_empty()
                && name.len() < 64
                && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        match names.iter().find(|name| !letters(name)) {
            Some(name) => {
                Err(Invalid::new(format_args!("{at}.{list}"), format!("{name:?} is not a capability")))
            }
            None => Ok(names),
        }
    };
    Ok(Capabilities {
        add: names("add_capabilities", capabilities.add_capabilities)?,
        drop: names("drop_capabilities", capabilities.drop_capabilities)?,
        add_ambient: names("add_ambient_capabilities", capabilities.add_ambient_capabilities)?,
    })
}

fn seccomp(at: &str, profile: Option<cri::SecurityProfile>, replaced: &str) -> Result<Profile, Invalid> {
    if !["", "unconfined"].contains(&replaced) && profile.is_none() {
        return Err(Invalid::new(format_args!("{at}.seccomp_profile_path"), "no longer read: give seccomp"));
    }
    let field = format!("{at}.seccomp");
    let profile = parse_profile(&field, profile)?;
    if let Profile::Localhost(file) = &profile {
        // Below the directory of profiles when it is relative.
        let straight = match file.starts_with('/') {
            true => field::absolute(format_args!("{field}.localhost_ref"), file)?,
            false => field::relative(format_args!("{field}.localhost_ref"), file)?,
        };
        return Ok(Profile::Localhost(straight.display().to_string()));
    }
    Ok(profile)
}

/// The profile that is asked for, in the field of today or, where that is missing, the one that it replaced.
fn apparmor(
    at: &str,
    profile: Option<cri::SecurityProfile>,
    replaced: &str,
) -> Result<Option<Profile>, Invalid> {
    let (field, profile) = match (profile, replaced) {
        (Some(profile), _) => {
            let field = format!("{at}.apparmor");
            let profile = parse_profile(&field, Some(profile))?;
            (format!("{field}.localhost_ref"), profile)
        }
        (None, "") => return Ok(None),
        (None, "runtime/default") => return Ok(Some(Profile::RuntimeDefault)),
        (None, "unconfined") => return Ok(Some(Profile::Unconfined)),
        (None, name) if name.starts_with("localhost/") => {
            (format!("{at}.apparmor_profile"), Profile::Localhost(name.to_owned()))
        }
        (None, _) => {
            let reason = "neither runtime/default, unconfined nor localhost/NAME";
            return Err(Invalid::new(format_args!("{at}.apparmor_profile"), reason));
        }
    };
    let Profile::Localhost(name) = profile else { return Ok(Some(profile)) };
    let name = field::plain(&field, name.strip_prefix("localhost/").unwrap_or(&name).to_owned())?;
    // `unconfined` is no profile: who wants none says so.
    match name.as_str() {
        "" => Err(Invalid::new(field, "missing: Localhost needs a profile")),
        "unconfined" => Err(Invalid::new(field, "not the name of a profile: ask for Unconfined")),
        _ => Ok(Some(Profile::Localhost(name))),
    }
}

/// A profile; none is Unconfined.
fn parse_profile(at: &str, profile: Option<cri::SecurityProfile>) -> Result<Profile, Invalid> {
    let Some(profile) = profile else { return Ok(Profile::Unconfined) };
    let reference = field::plain(format_args!("{at}.localhost_ref"), profile.localhost_ref)?;
    match field::one_of(format_args!("{at}.profile_type"), profile.profile_type)? {
        cri::security_profile::ProfileType::RuntimeDefault => Ok(Profile::RuntimeDefault),
        cri::security_profile::ProfileType::Unconfined => Ok(Profile::Unconfined),
        cri::security_profile::ProfileType::Localhost if reference.is_empty() => {
            Err(Invalid::new(format_args!("{at}.localhost_ref"), "missing: Localhost needs a profile"))
        }
        cri::security_profile::ProfileType::Localhost => Ok(Profile::Localhost(reference)),
    }
}

fn selinux(at: &str, options: Option<cri::SeLinuxOption>) -> Result<Option<SelinuxOptions>, Invalid> {
    let Some(options) = options else { return Ok(None) };
    let part = |name: &str, text: String| field::plain(format_args!("{at}.{name}"), text);
    Ok(Some(SelinuxOptions {
        user: part("user", options.user)?,
        role: part("role", options.role)?,
        kind: part("type", options.r#type)?,
        level: part("level", options.level)?,
    }))
}

fn paths(at: std::fmt::Arguments<'_>, paths: &[String]) -> Result<Vec<PathBuf>, Invalid> {
    paths.iter().map(|path| field::absolute(at, path)).collect()
}

/// The namespaces that a pod has, for its status: the kubelet compares them with what it asked for.
pub(super) fn report(namespaces: &Namespaces) -> cri::NamespaceOption {
    let mode = |mode: PodOrNode| match mode {
        PodOrNode::Node => cri::NamespaceMode::Node,
        PodOrNode::Pod => cri::NamespaceMode::Pod,
    };
    let (pid, target) = match &namespaces.pid {
        PidMode::Container => (cri::NamespaceMode::Container, String::new()),
        PidMode::Node => (cri::NamespaceMode::Node, String::new()),
        PidMode::Pod => (cri::NamespaceMode::Pod, String::new()),
        PidMode::Target(id) => (cri::NamespaceMode::Target, id.clone()),
    };
    cri::NamespaceOption {
        network: mode(namespaces.network).into(),
        pid: pid.into(),
        ipc: mode(namespaces.ipc).into(),
        target_id: target,
        userns_options: namespaces.users.map(users::report),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::refused;
    use super::*;

    const fn number(value: i64) -> Option<cri::Int64Value> {
        Some(cri::Int64Value { value })
    }

    fn check(
        change: impl FnOnce(&mut cri::LinuxContainerSecurityContext),
    ) -> Result<SecurityContext, Invalid> {
        let mut context = cri::LinuxContainerSecurityContext::default();
        change(&mut context);
        container("s", Some(context))
    }

    fn namespaces(change: impl FnOnce(&mut cri::NamespaceOption)) -> Result<Namespaces, Invalid> {
        let mut options = cri::NamespaceOption::default();
        change(&mut options);
        super::namespaces("n", options)
    }

    fn profile(kind: cri::security_profile::ProfileType, reference: &str) -> Option<cri::SecurityProfile> {
        Some(cri::SecurityProfile { profile_type: kind.into(), localhost_ref: reference.to_owned() })
    }

    #[test]
    fn nothing_asked_for_is_nothing_special() {
        let nothing = container("s", None).unwrap();
        assert_eq!(nothing, pod("s", None).unwrap());
        assert_eq!(
            nothing.namespaces,
            Namespaces { network: PodOrNode::Pod, pid: PidMode::Pod, ipc: PodOrNode::Pod, users: None }
        );
        assert_eq!((nothing.seccomp, nothing.apparmor), (Profile::Unconfined, None));
        assert_eq!((nothing.run_as, nothing.privileged), (None, false));
    }

    #[test]
    fn users_are_one_number_or_one_name() {
        assert_eq!(check(|s| s.run_as_user = number(0)).unwrap().run_as, Some(RunAs::Uid(0)));
        let named = check(|s| s.run_as_username = "nobody".to_owned()).unwrap();
        assert_eq!(named.run_as, Some(RunAs::Name("nobody".to_owned())));
        let both = |s: &mut cri::LinuxContainerSecurityContext| {
            s.run_as_user = number(1);
            s.run_as_username = "nobody".to_owned();
        };
        refused(check(both), "s.run_as_username");
        refused(check(|s| s.run_as_username = "a\nb".to_owned()), "s.run_as_username");
        refused(check(|s| s.run_as_user = number(-1)), "s.run_as_user");
        refused(check(|s| s.run_as_user = number(1 << 31)), "s.run_as_user");
        refused(check(|s| s.run_as_user = number(1 << 32)), "s.run_as_user");
        refused(check(|s| s.supplemental_groups = vec![1, -1]), "s.supplemental_groups");
        refused(check(|s| s.supplemental_groups_policy = 2), "s.supplemental_groups_policy");
    }

    #[test]
    fn a_group_needs_a_user() {
        refused(check(|s| s.run_as_group = number(1)), "s.run_as_group");
        let with_user = |s: &mut cri::LinuxContainerSecurityContext| {
            (s.run_as_user, s.run_as_group) = (number(1), number(2));
        };
        assert_eq!(check(with_user).unwrap().run_as_group, Some(2));
        let context = cri::LinuxSandboxSecurityContext { run_as_group: number(1), ..Default::default() };
        refused(pod("s", Some(context)), "s.run_as_group");
    }

    #[test]
    fn namespaces_are_the_pods_the_nodes_or_a_target() {
        use cri::NamespaceMode::{Container, Node, Target};
        assert_eq!(namespaces(|n| n.pid = Container.into()).unwrap().pid, PidMode::Container);
        assert_eq!(namespaces(|n| n.network = Node.into()).unwrap().network, PodOrNode::Node);
        refused(namespaces(|n| n.network = Container.into()), "n.network");
        refused(namespaces(|n| n.ipc = Target.into()), "n.ipc");
        refused(namespaces(|n| n.ipc = 4), "n.ipc");
        refused(namespaces(|n| n.pid = -1), "n.pid");
        refused(namespaces(|n| n.pid = Target.into()), "n.target_id");
        refused(namespaces(|n| n.target_id = "x".to_owned()), "n.target_id");
        let target = |n: &mut cri::NamespaceOption| {
            (n.pid, n.target_id) = (Target.into(), "abc".to_owned());
        };
        let targeted = namespaces(target).unwrap();
        assert_eq!(targeted.pid, PidMode::Target("abc".to_owned()));
        assert_eq!(super::namespaces("n", report(&targeted)).unwrap(), targeted);
        let context = cri::LinuxSandboxSecurityContext {
            namespace_options: Some(report(&targeted)),
            ..Default::default()
        };
        refused(pod("s", Some(context)), "s.namespace_options.pid");
    }

    #[test]
    fn profiles_are_honoured_or_refused() {
        use cri::security_profile::ProfileType::{Localhost, RuntimeDefault};
        let seccomp =
            |kind, reference: &str| check(|s| s.seccomp = profile(kind, reference)).map(|s| s.seccomp);
        assert_eq!(seccomp(RuntimeDefault, "").unwrap(), Profile::RuntimeDefault);
        assert_eq!(seccomp(Localhost, "/p/x.json").unwrap(), Profile::Localhost("/p/x.json".to_owned()));
        assert_eq!(seccomp(Localhost, "x.json").unwrap(), Profile::Localhost("x.json".to_owned()));
        for reference in ["", "/p/../x", "../x", "/p\n"] {
            refused(seccomp(Localhost, reference), "s.seccomp.localhost_ref");
        }
        let unknown = cri::SecurityProfile { profile_type: 3, localhost_ref: String::new() };
        refused(check(|s| s.seccomp = Some(unknown)), "s.seccomp.profile_type");
        refused(check(|s| s.seccomp_profile_path = "runtime/default".to_owned()), "s.seccomp_profile_path");
    }

    #[test]
    fn a_profile_of_apparmor_is_in_the_new_field_or_the_old_one() {
        use cri::security_profile::ProfileType::{Localhost, RuntimeDefault, Unconfined};
        let asked = |new: Option<(cri::security_profile::ProfileType, &str)>, old: &str| {
            let parsed = check(|s| {
                s.apparmor = new.and_then(|(kind, name)| profile(kind, name));
                s.apparmor_profile = old.to_owned();
            });
            parsed.map(|security| security.apparmor)
        };
        let named = |name: &str| Some(Profile::Localhost(name.to_owned()));
        for (new, old, expected) in [
            (None, "", None),
            (None, "unconfined", Some(Profile::Unconfined)),
            (None, "runtime/default", Some(Profile::RuntimeDefault)),
            (None, "localhost/x", named("x")),
            (Some((Unconfined, "")), "localhost/x", Some(Profile::Unconfined)),
            (Some((RuntimeDefault, "")), "", Some(Profile::RuntimeDefault)),
            (Some((Localhost, "x")), "localhost/y", named("x")),
            (Some((Localhost, "localhost/a b")), "", named("a b")),
        ] {
            assert_eq!(asked(new, old).unwrap(), expected, "{new:?} {old:?}");
        }
        for name in ["", "localhost/", "a\nb", "unconfined", "localhost/unconfined"] {
            refused(asked(Some((Localhost, name)), ""), "s.apparmor.localhost_ref");
        }
        for name in ["x", "localhost/", "Unconfined", "localhost/a\n"] {
            refused(asked(None, name), "s.apparmor_profile");
        }
    }

    #[test]
    fn capabilities_and_paths_are_words() {
        let add = |name: &str| {
            let capabilities =
                cri::Capability { add_capabilities: vec![name.to_owned()], ..Default::default() };
            check(|s| s.capabilities = Some(capabilities))
        };
        assert!(add("ALL").is_ok());
        assert!(add("CAP_NET_ADMIN").is_ok());
        for name in ["", "NET ADMIN", "NET\0", "é"] {
            refused(add(name), "s.capabilities.add_capabilities");
        }
        refused(check(|s| s.masked_paths = vec!["proc".to_owned()]), "s.masked_paths");
        refused(check(|s| s.readonly_paths = vec!["/proc/../x".to_owned()]), "s.readonly_paths");
    }
}
