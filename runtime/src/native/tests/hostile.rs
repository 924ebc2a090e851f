//! Images and requests that try to reach the host.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use serde_json::json;

use super::fixture::{Pod, alone};
use crate::sys::clone::{self, Cloned};

/// A directory of the host that nothing may touch, with a file in it.
fn canary(pod: &Pod) -> std::path::PathBuf {
    let dir = pod.path("canary");
    fs::create_dir(&dir).unwrap();
    fs::write(dir.join("file"), "untouched").unwrap();
    dir
}

fn is_untouched(canary: &Path) {
    let names: Vec<_> = fs::read_dir(canary).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["file"]);
    assert_eq!(fs::read_to_string(canary.join("file")).unwrap(), "untouched");
}

#[test]
fn kernel_trees_are_not_mounted_through_links() {
    alone("hostile::kernel_trees_are_not_mounted_through_links", |pod| {
        let canary = canary(pod);
        for name in ["proc", "sys", "dev"] {
            let path = pod.image(name);
            for target in [canary.to_str().unwrap(), "/tmp", "tmp", "../../../../..", "dangling"] {
                fs::remove_dir(&path).or_else(|_| fs::remove_file(&path)).unwrap();
                symlink(target, &path).unwrap();
                let (what, errno, _) = pod.create(&pod.spec("true")).err().expect(name);
                assert_eq!((what.as_str(), errno), (format!("mount on /{name}").as_str(), libc::ELOOP));
                is_untouched(&canary);
            }
            fs::remove_file(&path).unwrap();
            fs::create_dir(&path).unwrap();
        }
    });
}

#[test]
fn what_the_image_has_in_dev_does_not_matter() {
    alone("hostile::what_the_image_has_in_dev_does_not_matter", |pod| {
        let canary = canary(pod);
        for name in ["null", "console", "pts", "shm", "mqueue", "ptmx", "fd", "tty"] {
            symlink(canary.join("file"), pod.image("dev").join(name)).unwrap();
        }
        let output = pod.output(
            &pod.spec("echo x > /dev/null; echo x > /dev/shm/x; stat -c %F /dev/null /dev/pts /dev/tty"),
        );
        assert_eq!(output, "character special file\ndirectory\ncharacter special file\n");
        is_untouched(&canary);
    });
}

#[test]
fn targets_stay_inside_whatever_links_the_image_has() {
    alone("hostile::targets_stay_inside_whatever_links_the_image_has", |pod| {
        let canary = canary(pod);
        let out = canary.to_str().unwrap();
        let up = format!("../../../../../../..{out}");
        for (name, target) in [
            ("etc/absolute", out),
            ("etc/relative", up.as_str()),
            ("etc/top", "/"),
            ("etc/self", "/proc/self/root"),
        ] {
            symlink(target, pod.image(name)).unwrap();
        }
        fs::remove_file(pod.image("etc/hosts")).ok();
        symlink(canary.join("made"), pod.image("etc/hosts")).unwrap();
        let mut spec = pod.spec("true");
        let mut targets = vec!["/etc/absolute/x/y", "/etc/relative/z", "/etc/top/x", "/etc/absolute/../../w"];
        // Below a link of procfs nothing can be made; the attempt must fail and not reach the host.
        let through_proc = "/etc/self/x";
        for target in &targets {
            let bind = json!({ "destination": target, "type": "bind", "source": "/etc/hostname", "options": ["bind"] });
            spec["mounts"].as_array_mut().unwrap().push(bind);
        }
        pod.output(&spec);
        is_untouched(&canary);
        targets.clear();
        let bind =
            json!({ "destination": through_proc, "type": "bind", "source": "/etc", "options": ["bind"] });
        spec["mounts"].as_array_mut().unwrap().push(bind);
        assert!(pod.create(&spec).is_err());
        is_untouched(&canary);
        assert!(!Path::new("/x").exists());
    });
}

#[test]
fn no_descriptor_is_a_working_directory() {
    alone("hostile::no_descriptor_is_a_working_directory", |pod| {
        let mut container = pod.create(&pod.spec("sleep 1000")).unwrap();
        container.start().unwrap();
        symlink("/proc/self/fd/9", pod.image("link")).unwrap();
        let numbers =
            (0..40).flat_map(|number| [format!("/proc/self/fd/{number}"), format!("/proc/1/fd/{number}")]);
        let others = ["/proc/self/cwd", "/proc/1/root", "/proc/self/exe", "/link"].map(str::to_owned);
        for cwd in numbers.chain(others) {
            let mut spec = pod.spec("ls");
            spec["process"]["cwd"] = json!(cwd);
            let outcome = pod.create(&spec).and_then(|mut container| {
                container.start()?;
                Ok(container.wait())
            });
            assert!(outcome.is_err(), "{cwd}: {outcome:?}");
            let outcome = pod.exec(&container, &spec["process"]);
            assert!(outcome.is_err(), "{cwd}: {outcome:?}");
        }
        container.kill();
    });
}

#[test]
fn hiding_does_not_follow_links_out() {
    alone("hostile::hiding_does_not_follow_links_out", |pod| {
        let canary = canary(pod);
        symlink(canary.join("file"), pod.image("secret")).unwrap();
        symlink("/proc/uptime", pod.image("trigger")).unwrap();
        let mut spec = pod.spec("cat /trigger; cat /proc/uptime; stat -c %F /proc/uptime");
        spec["linux"]["maskedPaths"].as_array_mut().unwrap().extend([json!("/secret"), json!("/trigger")]);
        assert_eq!(pod.output(&spec), "character special file\n");
        is_untouched(&canary);
    });
}

#[test]
fn the_stage_cannot_be_looked_into() {
    alone("hostile::the_stage_cannot_be_looked_into", |pod| {
        let mut container = pod.create(&pod.spec("true")).unwrap();
        // What belongs to root although its process does: it is not dumpable.
        let status = fs::read_to_string(format!("/proc/{}/status", container.pid)).unwrap();
        assert!(status.contains("\nTracerPid:\t0\n"));
        let root = fs::read_link(format!("/proc/{}/cwd", container.pid)).unwrap();
        assert_eq!(root, Path::new("/"));
        let maps = fs::read_to_string(format!("/proc/{}/mountinfo", container.pid)).unwrap();
        assert!(!maps.contains(" /work"), "nothing of the host is mounted");
        container.start().unwrap();
        container.wait();
    });
}

#[test]
fn nothing_is_left_on_the_host() {
    alone("hostile::nothing_is_left_on_the_host", |pod| {
        let mounted = || {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            table.lines().filter(|line| line.contains(pod.path("").to_str().unwrap())).count()
        };
        for _ in 0..5 {
            pod.output(&pod.spec("true"));
            let mut failing = pod.spec("true");
            failing["process"]["args"] = json!(["no-such-command"]);
            assert!(pod.run(&failing).is_err());
        }
        assert_eq!(mounted(), 0);
    });
}

#[test]
fn a_tree_that_changes_meanwhile_leads_nowhere() {
    alone("hostile::a_tree_that_changes_meanwhile_leads_nowhere", |pod| {
        let canary = canary(pod);
        let volume = pod.path("volume");
        fs::create_dir_all(volume.join("a/b")).unwrap();
        symlink(&canary, volume.join("swap")).unwrap();
        let racer = match clone::fork(0, None).unwrap() {
            Cloned::Child => loop {
                let (a, swap) = (volume.join("a"), volume.join("swap"));
                let flags = rustix::fs::RenameFlags::EXCHANGE;
                rustix::fs::renameat_with(rustix::fs::CWD, &a, rustix::fs::CWD, &swap, flags).unwrap();
            },
            Cloned::Parent { pidfd, .. } => pidfd,
        };
        let mut spec = pod.spec("true");
        let bind = |target: &str, source: &Path| json!({ "destination": target, "type": "bind", "source": source, "options": ["rbind"] });
        let more = [
            bind("/vol", &volume),
            bind("/vol/a/b/c", Path::new("/etc/hosts")),
            bind("/vol/a/d", Path::new("/etc")),
        ];
        spec["mounts"].as_array_mut().unwrap().extend(more);
        spec["linux"]["maskedPaths"].as_array_mut().unwrap().push(json!("/vol/a/b"));
        let mut built = 0;
        for _ in 0..150 {
            if pod.run(&spec).is_ok() {
                built += 1;
            }
            is_untouched(&canary);
        }
        rustix::process::pidfd_send_signal(&racer, rustix::process::Signal::KILL).unwrap();
        println!("{built} of 150 were built");
        assert!(!Path::new("/b").exists() && !Path::new("/d").exists());
    });
}
