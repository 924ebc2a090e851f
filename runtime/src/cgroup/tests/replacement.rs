//! Device rules that change again and again while the container runs.

use super::*;

/// How often a device plugin may come and go in a long life.
const ROUNDS: usize = 1000;

/// Programs of all kinds that the kernel holds; none where it does not tell.
fn programs() -> Option<usize> {
    let areas = fs::read_to_string("/proc/vmallocinfo").ok()?;
    let count = areas.lines().filter(|line| line.contains("bpf_prog_alloc")).count();
    Some(count).filter(|count| *count > 0)
}

fn wait_until_fewer_than(limit: usize) -> usize {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        // They go when nobody can be running them any more.
        let now = programs().unwrap_or(0);
        if now < limit || Instant::now() > deadline {
            return now;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_thousand_programs_leave_one_and_no_moment_without() {
    let Some(scene) = Scene::new() else { return };
    let rules = DeviceRule::defaults();
    let Some((cgroup, unified)) = guarded(&scene, &rules) else { return };
    let stop = tempfile::tempdir().unwrap();
    let file = stop.path().join("stop");
    // /dev/null is allowed at all times, and /dev/kmsg at none.
    let script = format!(
        "echo ready; until [ -e {} ]; do test / </dev/null || exit 10; test / </dev/kmsg && exit 11; done; exit 0",
        file.display()
    );
    let mut child = run_in(&cgroup, &script);
    wait_for_line(&mut child);

    let before = programs();
    for round in 0..ROUNDS {
        let mut rules = rules.clone();
        rules.push(DeviceRule {
            allow: true,
            kind: DeviceKind::Char,
            major: Some(240),
            minor: Some(u32::try_from(round).unwrap()),
            access: DeviceAccess::ALL,
        });
        v2::devices::replace(cgroup.path(), &unified, &rules).unwrap();
    }
    fs::write(&file, "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let open = fs::File::open(unified.path()).unwrap();
    assert_eq!(crate::sys::bpf::attached_device_programs(open.as_fd()).unwrap().len(), 1);
    match before {
        // Others come and go with other software's filters.
        Some(before) => {
            let after = wait_until_fewer_than(before + ROUNDS / 4);
            assert!(after < before + ROUNDS / 4, "{before} programs before, {after} after");
        }
        None => eprintln!("not counted: /proc/vmallocinfo does not name programs"),
    }
}
