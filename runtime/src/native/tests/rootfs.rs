//! What the container finds in its tree.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use serde_json::json;

use super::fixture::{Pod, alone};

/// Mounts a tmpfs on the directory in the mount namespace of the test, shared as systemd has it.
fn shared_mount(pod: &Pod) -> std::path::PathBuf {
    let dir = pod.path("shared");
    fs::create_dir(&dir).unwrap();
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    for arguments in [
        ["--make-rprivate", "/"].as_slice(),
        &["-t", "tmpfs", "tmpfs", dir.to_str().unwrap()],
        &["--make-shared", dir.to_str().unwrap()],
    ] {
        assert!(Command::new("mount").args(arguments).status().unwrap().success());
    }
    dir
}

#[test]
fn a_container_runs() {
    alone("rootfs::a_container_runs", |pod| {
        assert_eq!(pod.output(&pod.spec("echo hello; pwd; hostname; echo $$")), "hello\n/\npod\n1\n");
    });
}

#[test]
fn the_mounts_are_those_of_the_spec() {
    alone("rootfs::the_mounts_are_those_of_the_spec", |pod| {
        let table = pod.output(&pod.spec("cat /proc/self/mountinfo"));
        let mut mounts: Vec<String> = table
            .lines()
            .map(|line| {
                let (left, right) = line.split_once(" - ").unwrap();
                let left: Vec<&str> = left.split(' ').collect();
                let kind = right.split(' ').next().unwrap();
                assert_eq!(left.get(6), None, "{line}: no mount is connected to another");
                format!("{} {} {kind}", left[4], left[5])
            })
            .collect();
        let host = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let of_host = host.lines().find(|line| line.contains(" / / ")).unwrap().split(' ').nth(5).unwrap();
        let device = if of_host.contains("relatime") { "rw,relatime" } else { of_host };
        let mut expected = [
            "/ rw,relatime overlay".to_owned(),
            "/proc rw,nosuid,nodev,noexec,relatime proc".to_owned(),
            "/dev rw,nosuid tmpfs".to_owned(),
            "/dev/pts rw,nosuid,noexec,relatime devpts".to_owned(),
            "/dev/mqueue rw,nosuid,nodev,noexec,relatime mqueue".to_owned(),
            "/sys ro,nosuid,nodev,noexec,relatime sysfs".to_owned(),
            "/sys/fs/cgroup ro,nosuid,nodev,noexec,relatime tmpfs".to_owned(),
            format!("/dev/shm {device} ext4"),
            format!("/etc/hosts {device} ext4"),
        ];
        mounts.sort();
        expected.sort();
        let covers = |line: &String| !expected.contains(line);
        for line in mounts.iter().filter(|line| covers(line)) {
            assert!(line.starts_with("/proc/") || line.starts_with("/sys/"), "{line}");
            let options: Vec<&str> = line.split(' ').nth(1).unwrap().split(',').collect();
            assert!(options.contains(&"ro"), "{line}");
        }
        mounts.retain(|line| !covers(line));
        assert_eq!(mounts, expected);
    });
}

#[test]
fn the_devices_are_ours() {
    alone("rootfs::the_devices_are_ours", |pod| {
        let mut spec = pod.spec("cd /dev; stat -c '%n %F %t:%T %a %u:%g' * net/* /x/fuse; readlink fd");
        spec["linux"]["devices"] = json!([
            { "path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 5, "gid": 6 },
            { "path": "/x/fuse", "type": "c", "major": 10, "minor": 229 },
        ]);
        let output = pod.output(&spec);
        let expected = [
            "core symbolic link 0:0 777 0:0",
            "fd symbolic link 0:0 777 0:0",
            "full character special file 1:7 666 0:0",
            "mqueue directory 0:0 1777 0:0",
            "net directory 0:0 755 0:0",
            "null character special file 1:3 666 0:0",
            "ptmx symbolic link 0:0 777 0:0",
            "pts directory 0:0 755 0:0",
            "random character special file 1:8 666 0:0",
            "shm directory 0:0 755 0:0",
            "stderr symbolic link 0:0 777 0:0",
            "stdin symbolic link 0:0 777 0:0",
            "stdout symbolic link 0:0 777 0:0",
            "tty character special file 5:0 666 0:0",
            "urandom character special file 1:9 666 0:0",
            "zero character special file 1:5 666 0:0",
            "net/tun character special file a:c8 600 5:6",
            "/x/fuse character special file a:e5 666 0:0",
            "/proc/self/fd",
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn the_process_has_three_descriptors() {
    alone("rootfs::the_process_has_three_descriptors", |pod| {
        // The fourth is the directory that the shell reads.
        let census = "echo /proc/self/fd/*";
        assert_eq!(
            pod.output(&pod.spec(census)),
            "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n"
        );
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        let mut process = container.spec["process"].clone();
        process["args"] = json!(["sh", "-c", census]);
        let (code, output) = pod.exec(&container, &process).unwrap();
        assert_eq!(
            (code, output.as_str()),
            (0, "/proc/self/fd/0 /proc/self/fd/1 /proc/self/fd/2 /proc/self/fd/3\n")
        );
        container.kill();
    });
}

#[test]
fn the_root_is_written_to_the_upper_layer_or_not_at_all() {
    alone("rootfs::the_root_is_written_to_the_upper_layer_or_not_at_all", |pod| {
        let rootfs = pod.rootfs();
        let mut container = pod.create_with(&pod.spec("echo text > /new"), &rootfs, None).unwrap();
        container.start().unwrap();
        assert_eq!(container.wait().0, 0);
        assert_eq!(fs::read_to_string(rootfs.upper.join("new")).unwrap(), "text\n");
        assert!(!pod.image("new").exists());

        let mut spec = pod.spec("touch /new; touch /dev/new && touch /dev/shm/new");
        spec["root"]["readonly"] = json!(true);
        let output = pod.output(&spec);
        assert!(output.contains("/new: Read-only file system"), "{output}");
        assert!(pod.path("shm/new").exists());
    });
}

#[test]
fn binds_are_as_the_spec_says() {
    alone("rootfs::binds_are_as_the_spec_says", |pod| {
        let source = shared_mount(pod);
        fs::create_dir(source.join("sub")).unwrap();
        let mount =
            |arguments: &[&str]| assert!(Command::new("mount").args(arguments).status().unwrap().success());
        mount(&["-t", "tmpfs", "tmpfs", source.join("sub").to_str().unwrap()]);
        fs::write(source.join("file"), "text").unwrap();
        let bind = |target: &str, source: &Path, options: &[&str]| json!({ "destination": target, "type": "bind", "source": source, "options": options });
        let mut spec = pod.spec(
            "cat /a/file; touch /a/x /a/sub/x; touch /ro/x; touch /ro/sub/y; touch /rro/x /rro/sub/z; \
             ls /flat/sub; cat /deep/er/file; touch /made/x; grep -c ' /flags .*nosuid,nodev,noexec' /proc/mounts",
        );
        let more = [
            bind("/a", &source, &["rbind", "rw"]),
            bind("/ro", &source, &["rbind", "ro"]),
            bind("/rro", &source, &["rbind", "rro"]),
            bind("/flat", &source, &["bind"]),
            bind("/deep/er/file", &source.join("file"), &["bind", "ro"]),
            bind("/made", &pod.path("not/yet/there"), &["rbind"]),
            bind("/flags", &source, &["rbind", "nosuid", "nodev", "noexec"]),
        ];
        spec["mounts"].as_array_mut().unwrap().extend(more);
        let output = pod.output(&spec);
        let expected = [
            "texttouch: /ro/x: Read-only file system",
            "touch: /rro/x: Read-only file system",
            "touch: /rro/sub/z: Read-only file system",
            "text1",
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
        let names = |dir: &Path| {
            let mut names: Vec<_> =
                fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            names.sort();
            names
        };
        assert_eq!(names(&source.join("sub")), ["x", "y"]);
        assert_eq!(names(&pod.path("not/yet/there")), ["x"]);
    });
}

#[test]
fn propagation_is_as_the_spec_says() {
    alone("rootfs::propagation_is_as_the_spec_says", |pod| {
        let source = shared_mount(pod);
        for name in ["from-host", "from-slave", "from-shared"] {
            fs::create_dir(source.join(name)).unwrap();
        }
        let bind = |target: &str, propagation: &str| json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind", propagation] });
        let mut spec = pod.spec(
            "mount -t tmpfs t /slave/from-slave; mount -t tmpfs t /shared/from-shared; touch /shared/from-shared/x; \
             for i in /private /slave /shared; do test -e $i/from-host/x && echo $i; done; true",
        );
        spec["mounts"].as_array_mut().unwrap().extend([
            bind("/private", "rprivate"),
            bind("/slave", "rslave"),
            bind("/shared", "rshared"),
        ]);
        let capabilities = json!(["CAP_SYS_ADMIN"]);
        spec["process"]["capabilities"] =
            json!({ "bounding": capabilities, "permitted": capabilities, "effective": capabilities });
        let mut container = pod.create(&spec).unwrap();
        let from_host = source.join("from-host");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "t", from_host.to_str().unwrap()]).status();
        assert!(mounted.unwrap().success());
        fs::write(from_host.join("x"), "").unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(), (0, "/slave\n/shared\n".to_owned()));
        assert!(source.join("from-shared/x").exists(), "a mount came back through the shared bind");
        let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!table.contains("from-slave"), "none came back through the slave");
    });
}

#[test]
fn hidden_paths_are_hidden() {
    alone("rootfs::hidden_paths_are_hidden", |pod| {
        fs::write(pod.image("secret"), "text").unwrap();
        fs::create_dir(pod.image("closed")).unwrap();
        fs::write(pod.image("closed/file"), "text").unwrap();
        let mut spec = pod.spec(
            "cat /proc/keys /secret; ls /sys/firmware /closed; chmod 0 /secret; echo x > /secret; touch /closed/x; \
             touch /fixed/x; echo 1 > /proc/sys/kernel/domainname; stat -c %a /dev/null",
        );
        fs::create_dir(pod.image("fixed")).unwrap();
        spec["linux"]["maskedPaths"].as_array_mut().unwrap().extend([
            json!("/secret"),
            json!("/closed"),
            json!("/none/x"),
        ]);
        spec["linux"]["readonlyPaths"].as_array_mut().unwrap().push(json!("/fixed"));
        let output = pod.output(&spec);
        let expected = [
            "/closed:",
            "",
            "/sys/firmware:",
            "chmod: /secret: Read-only file system",
            "touch: /closed/x: Read-only file system",
            "touch: /fixed/x: Read-only file system",
            "sh: can't create /proc/sys/kernel/domainname: Read-only file system",
            "666",
        ];
        assert_eq!(output.lines().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn volumes_are_filled_once() {
    alone("rootfs::volumes_are_filled_once", |pod| {
        let data = pod.image("data/sub");
        fs::create_dir_all(&data).unwrap();
        fs::write(data.join("file"), "of the image").unwrap();
        fs::set_permissions(pod.image("data"), fs::Permissions::from_mode(0o750)).unwrap();
        std::os::unix::fs::chown(pod.image("data"), Some(7), Some(8)).unwrap();
        fs::create_dir(pod.path("volume")).unwrap();
        let mut spec = pod.spec("stat -c '%a %u:%g' /data; cat /data/sub/*; echo changed > /data/sub/file");
        let volume =
            json!({ "destination": "/data", "type": "volume", "source": pod.path("volume"), "options": [] });
        spec["mounts"].as_array_mut().unwrap().push(volume);
        assert_eq!(pod.output(&spec), "750 7:8\nof the image");
        assert_eq!(pod.output(&spec), "750 7:8\nchanged\n");
        assert_eq!(fs::read_to_string(pod.path("volume/sub/file")).unwrap(), "changed\n");
        assert_eq!(fs::read_to_string(data.join("file")).unwrap(), "of the image");
        assert_eq!(fs::metadata(pod.path("volume")).unwrap().uid(), 7);
    });
}

#[test]
fn namespaces_of_its_own_have_its_names_and_parameters() {
    alone("rootfs::namespaces_of_its_own_have_its_names_and_parameters", |pod| {
        let mut spec = pod
            .spec("hostname; cat /proc/sys/kernel/shmmni /proc/sys/net/ipv4/ip_forward; ls /sys/class/net");
        spec["linux"]["namespaces"] = json!([
            { "type": "pid" }, { "type": "mount" }, { "type": "cgroup" }, { "type": "ipc" }, { "type": "uts" },
            { "type": "network" }
        ]);
        spec["hostname"] = json!("its-own");
        spec["linux"]["sysctl"] = json!({ "kernel.shmmni": "1234", "net.ipv4.ip_forward": "1" });
        assert_eq!(pod.output(&spec), "its-own\n1234\n1\nlo\n");
    });
}

#[test]
fn many_layers_and_long_names_work() {
    alone("rootfs::many_layers_and_long_names_work", |pod| {
        let mut rootfs = pod.rootfs();
        for index in 0..200 {
            let name = format!("{index:0>64}");
            fs::create_dir(pod.path("layers").join(&name)).unwrap();
            fs::write(pod.path("layers").join(&name).join(format!("file{index}")), "").unwrap();
            rootfs.lowers.insert(0, name);
        }
        // A name that fsconfig(2) does not take: they are handed over in one page, by links.
        for (long, lowest) in [(false, "base"), (true, &format!("{}base", "./".repeat(150)))] {
            let mut rootfs = plan_with(&rootfs, pod);
            rootfs.lowers.pop();
            rootfs.lowers.push(lowest.to_owned());
            let mut container =
                pod.create_with(&pod.spec("ls / | grep -c file; echo $$ > /new"), &rootfs, None).unwrap();
            container.start().unwrap();
            assert_eq!(container.wait(), (0, "200\n".to_owned()), "long names: {long}");
            assert_eq!(fs::read_to_string(rootfs.upper.join("new")).unwrap(), "1\n");
        }
    });
}

/// The same layers with an upper of its own.
fn plan_with(layers: &crate::plan::Rootfs, pod: &Pod) -> crate::plan::Rootfs {
    crate::plan::Rootfs { lowers: layers.lowers.clone(), ..pod.rootfs() }
}

#[test]
fn long_directories_work() {
    alone("rootfs::long_directories_work", |pod| {
        let mut rootfs = pod.rootfs();
        let long = pod.path(&format!("{}/{}", "d".repeat(200), "e".repeat(200)));
        fs::create_dir_all(long.join("upper")).unwrap();
        fs::create_dir_all(long.join("work")).unwrap();
        fs::rename(pod.path("layers"), long.join("layers")).unwrap();
        rootfs.layers = long.join("layers");
        rootfs.upper = long.join("upper");
        rootfs.work = long.join("work");
        let mut container = pod.create_with(&pod.spec("echo $$ > /new"), &rootfs, None).unwrap();
        container.start().unwrap();
        assert_eq!(container.wait(), (0, String::new()));
        assert!(rootfs.upper.join("new").exists());
    });
}

#[test]
fn the_working_directory_is_made() {
    alone("rootfs::the_working_directory_is_made", |pod| {
        let mut spec = pod.spec("pwd");
        spec["process"]["cwd"] = json!("/not/there/../yet");
        assert_eq!(pod.output(&spec), "/not/yet\n");
    });
}

#[test]
fn v1_hierarchies_show_the_containers_own_part() {
    if !Path::new("/sys/fs/cgroup/pids").exists() {
        // On a host with v2 alone the mount is another.
        return;
    }
    alone("rootfs::v1_hierarchies_show_the_containers_own_part", |pod| {
        let name = format!("corten-test-init-{}", std::process::id());
        let group = Path::new("/sys/fs/cgroup/pids").join(&name);
        fs::create_dir(&group).unwrap();
        let mut spec = pod.spec(
            "cat /sys/fs/cgroup/pids/cgroup.procs; grep pids: /proc/self/cgroup; ls /sys/fs/cgroup; \
                                 echo 0 > /sys/fs/cgroup/pids/cgroup.procs",
        );
        spec["linux"]["cgroupsPath"] = json!(format!("/{name}"));
        let mut container = pod.create(&spec).unwrap();
        fs::write(group.join("cgroup.procs"), container.pid.to_string()).unwrap();
        container.start().unwrap();
        let (_, output) = container.wait();
        fs::remove_dir(&group).unwrap();
        let lines: Vec<&str> = output.lines().collect();
        assert_eq!(lines.first(), Some(&"1"), "{output}");
        assert!(lines.iter().any(|line| line.ends_with(":pids:/")), "{output}");
        assert!(output.contains("\npids\n"), "{output}");
        assert!(
            output.contains("can't create /sys/fs/cgroup/pids/cgroup.procs: Read-only file system"),
            "{output}"
        );
    });
}

#[test]
fn a_host_with_v2_alone_shows_the_containers_own_cgroup() {
    alone("rootfs::a_host_with_v2_alone_shows_the_containers_own_cgroup", |pod| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
        for arguments in
            [["--make-rprivate", "/"].as_slice(), &["-t", "cgroup2", "cgroup2", "/sys/fs/cgroup"]]
        {
            assert!(Command::new("mount").args(arguments).status().unwrap().success());
        }
        let group = Path::new("/sys/fs/cgroup").join(format!("corten-test-init-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        let directory =
            rustix::fs::open(&group, rustix::fs::OFlags::PATH, rustix::fs::Mode::empty()).unwrap();
        let script = "grep 0:: /proc/self/cgroup; cat /sys/fs/cgroup/cgroup.procs; \
                      grep -o ' /sys/fs/cgroup ro.* - cgroup2' /proc/self/mountinfo; mkdir /sys/fs/cgroup/x";
        let mut container = pod.create_in(&pod.spec(script), &directory).unwrap();
        container.start().unwrap();
        let (_, output) = container.wait();
        fs::remove_dir(&group).unwrap();
        let expected = [
            "0::/",
            "1",
            " /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2",
            "mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system",
        ];
        // Who reads the list is in it too.
        let is_reader = |line: &&str| line.parse::<u32>().is_ok_and(|pid| pid != 1);
        let lines: Vec<&str> = output.lines().filter(|line| !is_reader(line)).collect();
        assert_eq!(lines, expected);
    });
}

#[test]
fn devices_that_may_not_be_made_are_bound() {
    alone("rootfs::devices_that_may_not_be_made_are_bound", |pod| {
        let mut sets = rustix::thread::capabilities(None).unwrap();
        sets.effective.remove(rustix::thread::CapabilitySet::MKNOD);
        rustix::thread::set_capabilities(None, sets).unwrap();
        let mut spec = pod.spec("echo x > /dev/null; stat -c %t:%T /dev/null /dev/tty; cat /proc/keys");
        spec["process"]["terminal"] = json!(false);
        assert_eq!(pod.output(&spec), "1:3\n5:0\n");
    });
}

#[test]
fn what_does_not_fit_is_said() {
    alone("rootfs::what_does_not_fit_is_said", |pod| {
        for (target, source, text) in [
            ("/etc", "/etc/passwd", "a file cannot be mounted on the directory that is there"),
            ("/etc/passwd", "/etc", "a directory cannot be mounted on the file that is there"),
        ] {
            let mut spec = pod.spec("true");
            let bind =
                json!({ "destination": target, "type": "bind", "source": source, "options": ["bind"] });
            spec["mounts"].as_array_mut().unwrap().push(bind);
            let (what, errno, _) = pod.create(&spec).err().unwrap();
            assert_eq!((what, errno), (format!("mount on {target}: {text}"), 0));
        }
    });
}
