//! What the kernel makes of the programs, in processes that this one starts for it.

use std::os::unix::process::ExitStatusExt as _;
use std::process::{Command, ExitStatus, Stdio};
use std::thread;

use oci_spec::runtime::{Capability, LinuxSeccomp};

use super::*;
use crate::seccomp;

/// Tells the test below what to do in a process of its own.
const SCENARIO: &str = "CORTEN_TEST_SECCOMP";

fn run(scenario: &str) -> ExitStatus {
    let program = std::env::current_exe().unwrap();
    let arguments = ["--exact", "sys::seccomp::tests::child", "--nocapture"];
    // What its panics say is of interest, its count of tests would only confuse.
    Command::new(program).args(arguments).env(SCENARIO, scenario).stdout(Stdio::null()).status().unwrap()
}

/// The error that a system call without arguments ends with.
fn errno_of(number: libc::c_long, first: libc::c_long) -> Option<i32> {
    // SAFETY: the calls made here are denied by the filter or fail for their null arguments.
    let result = unsafe { libc::syscall(number, first, 0, 0, 0, 0, 0) };
    (result == -1).then(|| io::Error::last_os_error().raw_os_error()).flatten()
}

fn install_profile(profile: &LinuxSeccomp) {
    rustix::thread::set_no_new_privs(true).unwrap();
    install(&seccomp::compile(profile).unwrap()).unwrap();
}

fn profile(action: &str) -> LinuxSeccomp {
    let json = format!(
        r#"{{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
            {{"names": ["getpriority"], "action": "{action}", "errnoRet": 77,
              "args": [{{"index": 0, "value": 3, "op": "SCMP_CMP_EQ"}}]}}]}}"#
    );
    seccomp::parse(json.as_bytes(), &[]).unwrap()
}

/// Does nothing in the test run itself.
#[test]
fn child() {
    match std::env::var(SCENARIO).as_deref() {
        Ok("default") => {
            install_profile(&seccomp::default_profile(&[]));
            let denied = [
                (libc::SYS_mount, 0),
                (libc::SYS_unshare, 0),
                (libc::SYS_io_uring_setup, 0),
                (libc::SYS_keyctl, 0),
                (libc::SYS_bpf, 0),
                (libc::SYS_socket, 38),
                (libc::SYS_socket, 40),
                (libc::SYS_socket, 0x1_0000_0026),
                (libc::SYS_clone, 0x1000_0000),
            ];
            for (number, first) in denied {
                assert_eq!(errno_of(number, first), Some(libc::EPERM), "{number} {first:#x}");
            }
            assert_eq!(errno_of(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            // Newer than everything that the profile names.
            assert_eq!(errno_of(3000, 0), Some(libc::ENOSYS));
            assert_eq!(errno_of(libc::SYS_getpid, 0), None);
            // A C library makes threads all the same.
            assert_eq!(thread::spawn(|| 5).join().unwrap(), 5);
        }
        Ok("admin") => {
            install_profile(&seccomp::default_profile(&[Capability::SysAdmin]));
            assert_ne!(errno_of(libc::SYS_clone3, 0), Some(libc::ENOSYS));
            assert_eq!(errno_of(libc::SYS_mount, 0), Some(libc::EFAULT));
        }
        Ok("errno") => {
            install_profile(&profile("SCMP_ACT_ERRNO"));
            assert_eq!(errno_of(libc::SYS_getpriority, 3), Some(77));
            assert_eq!(errno_of(libc::SYS_getpriority, 4), Some(libc::EINVAL));
        }
        Ok("kill") => {
            install_profile(&profile("SCMP_ACT_KILL_PROCESS"));
            errno_of(libc::SYS_getpriority, 3);
        }
        _ => {}
    }
}

#[test]
fn denies_what_the_default_profile_denies() {
    assert!(run("default").success());
    if rustix::process::geteuid().is_root() {
        assert!(run("admin").success());
    } else {
        eprintln!("skipped in part: needs root");
    }
}

#[test]
fn answers_with_the_error_asked_for() {
    assert!(run("errno").success());
}

#[test]
fn kills_the_process() {
    assert_eq!(run("kill").signal(), Some(libc::SIGSYS));
}

#[test]
fn refuses_without_the_right_to() {
    let garbage = seccomp::compile(&seccomp::default_profile(&[])).unwrap();
    let mut bytes = postcard::to_stdvec(&garbage).unwrap();
    // An instruction that no filter may have.
    let at = bytes.len() - 8;
    bytes[at] = 0xff;
    let garbage: Program = postcard::from_bytes(&bytes).unwrap();
    let answer = thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        install(&garbage).map_err(|error| error.raw_os_error())
    });
    assert_eq!(answer.join().unwrap(), Err(Some(libc::EINVAL)));
}
