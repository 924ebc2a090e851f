//! Which controller is mounted where, read from `/proc/self/mountinfo` (see proc_pid_mountinfo(5)).

use std::path::{Path, PathBuf};

use super::directory::Directory;
use super::{CgroupPath, Error, Layout};

/// The controllers that Corten sets limits with or reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Controller {
    Cpu,
    Cpuacct,
    Cpuset,
    Devices,
    Freezer,
    Hugetlb,
    Io,
    Memory,
    Pids,
}

/// Every mounted hierarchy that matters.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// The v2 hierarchy.
    pub(super) unified: Option<Unified>,
    /// The v1 hierarchies that a container is put into.
    pub(super) v1: Vec<V1>,
}

/// The v2 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Unified {
    pub(super) root: PathBuf,
    /// What v1 hierarchies have not taken.
    pub(super) controllers: Vec<Controller>,
}

/// One v1 hierarchy.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct V1 {
    pub(super) root: PathBuf,
    /// Empty for `name=systemd`, which is joined only to leave the daemon's own unit.
    pub(super) controllers: Vec<Controller>,
}

/// A cgroup's directory in the hierarchy of one controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    V1(Directory),
    V2(Directory),
}

// === impl Controller ===

impl Controller {
    /// Those that v2 can enable for children.
    pub(super) const ENABLED: [Self; 6] =
        [Self::Cpu, Self::Cpuset, Self::Io, Self::Memory, Self::Pids, Self::Hugetlb];

    /// The name that v2 lists in `cgroup.controllers`.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cpuacct => "cpuacct",
            Self::Cpuset => "cpuset",
            Self::Devices => "devices",
            Self::Freezer => "freezer",
            Self::Hugetlb => "hugetlb",
            Self::Io => "io",
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    fn from_v1_option(option: &str) -> Option<Self> {
        Some(match option {
            "blkio" => Self::Io,
            "cpu" => Self::Cpu,
            "cpuacct" => Self::Cpuacct,
            "cpuset" => Self::Cpuset,
            "devices" => Self::Devices,
            "freezer" => Self::Freezer,
            "hugetlb" => Self::Hugetlb,
            "memory" => Self::Memory,
            "pids" => Self::Pids,
            _ => return None,
        })
    }
}

// === impl Hierarchies ===

impl Hierarchies {
    pub(super) fn detect() -> Result<Self, Error> {
        let own = Directory::new(PathBuf::from("/proc/self"));
        let mut found = Self::parse(&own.read("mountinfo")?, &own.read("cgroup")?);
        if let Some(unified) = &mut found.unified {
            let names = Directory::new(unified.root.clone()).read("cgroup.controllers")?;
            unified.controllers = listed(&names);
        }
        if found.unified.is_none() && found.v1.is_empty() {
            return Err(Error::NoHierarchy);
        }
        Ok(found)
    }

    /// Reads the table of mounts and the process's own cgroups; which controllers v2 has is in neither.
    fn parse(mountinfo: &str, own: &str) -> Self {
        let mut unified: Option<PathBuf> = None;
        let mut v1: Vec<V1> = Vec::new();
        let mut named = None;
        for mount in mountinfo.lines().filter_map(Mount::parse) {
            if mount.kind == "cgroup2" {
                // The same tree may be mounted elsewhere too, as Cilium does.
                let preferred = mount.root.starts_with("/sys/fs/cgroup");
                if unified.as_ref().is_none_or(|known| preferred && !known.starts_with("/sys/fs/cgroup")) {
                    unified = Some(mount.root);
                }
                continue;
            }
            let controllers: Vec<Controller> =
                mount.options.split(',').filter_map(Controller::from_v1_option).collect();
            if !controllers.is_empty() {
                if !v1.iter().any(|known| known.controllers == controllers) {
                    v1.push(V1 { root: mount.root, controllers });
                }
            } else if mount.options.split(',').any(|option| option == "name=systemd") && named.is_none() {
                named = Some(V1 { root: mount.root, controllers });
            }
        }
        // The v2 tree freezes on its own.
        if unified.is_some() {
            v1.retain(|hierarchy| hierarchy.controllers != [Controller::Freezer]);
        }
        // A daemon that is in no unit has none to leave.
        let is_in_a_unit = own.lines().any(|line| line.contains(":name=systemd:/") && !line.ends_with(":/"));
        if !v1.is_empty() && is_in_a_unit {
            v1.extend(named);
        }
        Self { unified: unified.map(|root| Unified { root, controllers: Vec::new() }), v1 }
    }

    pub(super) fn layout(&self) -> Layout {
        if self.v1.is_empty() { Layout::V2 } else { Layout::Hybrid }
    }

    /// The cgroup's directory where the controller is; none where the host does not have the controller.
    pub(super) fn place(&self, path: &CgroupPath, controller: Controller) -> Option<Place> {
        if let Some(v1) = self.v1.iter().find(|v1| v1.controllers.contains(&controller)) {
            return Some(Place::V1(v1.directory(path)));
        }
        let unified = self.unified.as_ref()?;
        // v2 accounts time, freezes and filters devices without a controller.
        let built_in = matches!(controller, Controller::Cpuacct | Controller::Devices | Controller::Freezer);
        (built_in || unified.controllers.contains(&controller)).then(|| Place::V2(unified.directory(path)))
    }

    pub(super) fn unified(&self, path: &CgroupPath) -> Option<Directory> {
        self.unified.as_ref().map(|unified| unified.directory(path))
    }

    /// The cgroup's directories in all hierarchies, v2 first.
    pub(super) fn directories(&self, path: &CgroupPath) -> impl Iterator<Item = Directory> {
        let v1 = self.v1.iter().map(|v1| v1.directory(path));
        self.unified(path).into_iter().chain(v1)
    }

    /// A directory that lists the cgroup's processes.
    pub(super) fn any(&self, path: &CgroupPath) -> Option<Directory> {
        self.directories(path).next()
    }
}

impl Unified {
    pub(super) fn directory(&self, path: &CgroupPath) -> Directory {
        below(&self.root, path)
    }
}

impl V1 {
    pub(super) fn directory(&self, path: &CgroupPath) -> Directory {
        below(&self.root, path)
    }
}

fn below(root: &Path, path: &CgroupPath) -> Directory {
    Directory::new(root.join(path.relative()))
}

/// The known ones among names separated by blanks, as in `cgroup.controllers`.
pub(super) fn listed(names: &str) -> Vec<Controller> {
    let known = |name: &str| Controller::ENABLED.into_iter().find(|controller| controller.name() == name);
    names.split_ascii_whitespace().filter_map(known).collect()
}

/// A mount of a control group file system.
struct Mount<'a> {
    root: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let kind = after.next().filter(|kind| matches!(*kind, "cgroup" | "cgroup2"))?;
        let options = after.nth(1)?;
        let root = PathBuf::from(unescape(before.split(' ').nth(4)?));
        Some(Self { root, kind, options })
    }
}

/// Takes back the `\ooo` that the kernel writes for blanks and backslashes.
fn unescape(field: &str) -> String {
    let mut parts = field.split('\\');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let code = part.get(..3).and_then(|octal| u8::from_str_radix(octal, 8).ok());
        if let Some(code) = code.filter(u8::is_ascii) {
            plain.push(char::from(code));
            plain.push_str(&part[3..]);
        } else {
            plain.push('\\');
            plain.push_str(part);
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(mountinfo: &str, unified: Option<&str>, v1: &[&str]) -> Hierarchies {
        let found =
            Hierarchies::parse(mountinfo, "4:memory:/\n1:name=systemd:/system.slice/corten.service\n");
        assert_eq!(found.unified.as_ref().map(|unified| unified.root.to_str().unwrap()), unified);
        assert_eq!(found.v1.iter().map(|v1| v1.root.to_str().unwrap()).collect::<Vec<_>>(), v1);
        found
    }

    #[test]
    fn pure_v2() {
        let table = "25 1 8:1 / / rw - ext4 /dev/sda1 rw\n\
            31 23 0:28 / /sys/fs/cgroup rw,nosuid shared:9 - cgroup2 cgroup2 rw,nsdelegate\n\
            90 23 0:28 / /run/cilium/cgroupv2 rw - cgroup2 none rw\n";
        let found = check(table, Some("/sys/fs/cgroup"), &[]);
        assert_eq!(found.layout(), Layout::V2);
    }

    #[test]
    fn hybrid_with_controllers_mounted_together() {
        let table = "31 23 0:28 / /sys/fs/cgroup ro shared:9 - tmpfs tmpfs ro,mode=755\n\
            32 31 0:29 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw\n\
            33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            34 31 0:31 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
            35 31 0:32 / /mnt/odd\\040name rw - cgroup cgroup rw,memory\n\
            36 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n\
            37 31 0:34 / /sys/fs/cgroup/net_cls rw - cgroup cgroup rw,net_cls\n\
            38 31 0:32 / /again rw - cgroup cgroup rw,memory\n";
        let found = check(
            table,
            Some("/sys/fs/cgroup/unified"),
            &["/sys/fs/cgroup/cpu,cpuacct", "/mnt/odd name", "/sys/fs/cgroup/systemd"],
        );
        assert_eq!(found.layout(), Layout::Hybrid);
        let path = CgroupPath::parse("/pods/a").unwrap();
        let memory = Directory::new(PathBuf::from("/mnt/odd name/pods/a"));
        assert_eq!(found.place(&path, Controller::Memory), Some(Place::V1(memory)));
        assert_eq!(found.place(&path, Controller::Pids), None);
        let unified = Directory::new(PathBuf::from("/sys/fs/cgroup/unified/pods/a"));
        assert_eq!(found.place(&path, Controller::Devices), Some(Place::V2(unified)));
        assert_eq!(Hierarchies::parse(table, "1:name=systemd:/\n").v1.len(), 2);
    }

    #[test]
    fn v1_alone_keeps_its_freezer() {
        let table = "36 31 0:33 / /sys/fs/cgroup/freezer rw - cgroup cgroup rw,freezer\n";
        check(table, None, &["/sys/fs/cgroup/freezer"]);
    }

    #[test]
    fn a_lone_systemd_hierarchy_is_not_a_layout() {
        let table = "31 23 0:28 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n\
            33 31 0:30 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
        assert_eq!(check(table, Some("/sys/fs/cgroup"), &[]).layout(), Layout::V2);
    }

    #[test]
    fn odd_lines_are_passed_over() {
        check("\n - \na - cgroup2\n1 2 3 - cgroup x rw,memory\nnonsense", None, &[]);
        assert_eq!(unescape("a\\134b\\x\\04"), "a\\b\\x\\04");
    }
}
