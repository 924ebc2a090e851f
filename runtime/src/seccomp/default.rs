//! The RuntimeDefault profile: what the field's default lets a container do, as a list of what is allowed.
//!
//! Not in it, whatever the capabilities: io_uring, userfaultfd, keyrings (which are not namespaced), swap, kexec,
//! pivot_root, quotas by path, and calls that the kernel keeps for old programs only. Unlike the field's,
//! `socket` is an allow-list of whole 64-bit values, so that no bits above the family hide one from the filter,
//! and 32-bit `socketcall` is denied, since a filter cannot see the family in it.

use oci_spec::runtime::{
    Capability, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArgBuilder, LinuxSeccompOperator, LinuxSyscall,
};

use super::machine::Machine;

const FILES: &str = "access chdir chmod chown chown32 creat faccessat faccessat2 fchdir fchmod fchmodat fchmodat2 \
    fchown fchown32 fchownat file_getattr file_setattr fstat fstat64 fstatat64 fstatfs fstatfs64 futimesat getcwd \
    getdents getdents64 lchown lchown32 link linkat listmount lstat lstat64 mkdir mkdirat mknod mknodat \
    name_to_handle_at newfstatat open openat openat2 readlink readlinkat rename renameat renameat2 rmdir stat stat64 \
    statfs statfs64 statmount statx symlink symlinkat truncate truncate64 umask unlink unlinkat utime utimensat \
    utimensat_time64 utimes";

const ATTRIBUTES: &str = "fgetxattr flistxattr fremovexattr fsetxattr getxattr getxattrat lgetxattr listxattr \
    listxattrat llistxattr lremovexattr lsetxattr removexattr removexattrat setxattr setxattrat";

const DESCRIPTORS: &str = "_llseek cachestat close close_range copy_file_range dup dup2 dup3 fadvise64 fadvise64_64 \
    fallocate fcntl fcntl64 fdatasync flock fsync ftruncate ftruncate64 io_cancel io_destroy io_getevents \
    io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl lseek memfd_create memfd_secret pipe pipe2 pread64 \
    preadv preadv2 pwrite64 pwritev pwritev2 read readahead readv sendfile sendfile64 splice sync sync_file_range \
    syncfs tee vmsplice write writev";

const EVENTS: &str = "_newselect epoll_create epoll_create1 epoll_ctl epoll_ctl_old epoll_pwait epoll_pwait2 \
    epoll_wait epoll_wait_old eventfd eventfd2 fanotify_mark inotify_add_watch inotify_init inotify_init1 \
    inotify_rm_watch poll ppoll ppoll_time64 pselect6 pselect6_time64 select";

const MEMORY: &str = "brk madvise map_shadow_stack mincore mlock mlock2 mlockall mmap mmap2 mprotect mremap mseal \
    msync munlock munlockall munmap pkey_alloc pkey_free pkey_mprotect process_mrelease remap_file_pages";

/// Since Linux 4.8 a filter sees what a tracer makes of a call, so that tracing is no way around it.
const PROCESSES: &str = "execve execveat exit exit_group fork get_robust_list get_thread_area getpgid getpgrp getpid \
    getppid getrusage getsid gettid pidfd_open prctl process_vm_readv process_vm_writev ptrace rseq \
    rseq_slice_yield set_robust_list set_thread_area set_tid_address setpgid setsid times uprobe uretprobe vfork \
    wait4 waitid waitpid";

const LOCKS: &str = "futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake membarrier";

const IDENTITY: &str = "capget capset getegid getegid32 geteuid geteuid32 getgid getgid32 getgroups getgroups32 \
    getresgid getresgid32 getresuid getresuid32 getuid getuid32 landlock_add_rule landlock_create_ruleset \
    landlock_restrict_self seccomp setfsgid setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 \
    setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid setreuid32 setuid setuid32";

const SIGNALS: &str = "alarm kill pause pidfd_send_signal restart_syscall rt_sigaction rt_sigpending rt_sigprocmask \
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64 rt_tgsigqueueinfo sigaltstack \
    signalfd signalfd4 sigprocmask sigreturn tgkill tkill";

const SCHEDULING: &str = "getcpu getpriority getrlimit ioprio_get ioprio_set prlimit64 sched_get_priority_max \
    sched_get_priority_min sched_getaffinity sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval \
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler sched_yield \
    setpriority setrlimit ugetrlimit";

const TIME: &str = "adjtimex clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime \
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 getitimer gettimeofday nanosleep setitimer time \
    timer_create timer_delete timer_getoverrun timer_gettime timer_gettime64 timer_settime timer_settime64 \
    timerfd_create timerfd_gettime timerfd_gettime64 timerfd_settime timerfd_settime64";

/// Without `socket` itself.
const SOCKETS: &str = "accept accept4 bind connect getpeername getsockname getsockopt listen recv recvfrom recvmmsg \
    recvmmsg_time64 recvmsg send sendmmsg sendmsg sendto setsockopt shutdown socketpair";

const MESSAGES: &str = "ipc mq_getsetattr mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend \
    mq_timedsend_time64 mq_unlink msgctl msgget msgrcv msgsnd semctl semget semop semtimedop semtimedop_time64 shmat \
    shmctl shmdt shmget";

const SYSTEM: &str = "getrandom sysinfo uname";

const X86: &str = "arch_prctl modify_ldt";

const ARM: &str = "arm_fadvise64_64 arm_sync_file_range breakpoint cacheflush set_tls sync_file_range2";

/// What single capabilities add; the kernel asks for the capability as well.
const BY_CAPABILITY: [(Capability, &str); 14] = [
    (Capability::Bpf, "bpf"),
    (Capability::DacReadSearch, "open_by_handle_at"),
    (Capability::Perfmon, "perf_event_open"),
    (
        Capability::SysAdmin,
        "bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick listns lookup_dcookie lsm_get_self_attr \
            lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree open_tree_attr \
            perf_event_open quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare",
    ),
    (Capability::SysBoot, "reboot"),
    (Capability::SysChroot, "chroot"),
    (Capability::SysModule, "delete_module finit_module init_module"),
    (Capability::SysNice, "get_mempolicy mbind set_mempolicy set_mempolicy_home_node"),
    (Capability::SysPacct, "acct"),
    (Capability::SysPtrace, "kcmp pidfd_getfd process_madvise"),
    (Capability::SysRawio, "ioperm iopl"),
    (Capability::SysTime, "clock_settime clock_settime64 settimeofday stime"),
    (Capability::SysTtyConfig, "vhangup"),
    (Capability::Syslog, "syslog"),
];

/// CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET: what makes a namespace.
const NAMESPACE_FLAGS: u64 = 0x7e02_0000;

/// AF_ALG, which has let containers write to shared page cache (CVE-2026-31431).
const FAMILY_ALG: u64 = 38;
/// AF_VSOCK, which leads past the network namespace to the hypervisor.
const FAMILY_VSOCK: u64 = 40;
/// The last that is known, AF_MCTP; a family that is newer is denied until it is looked at.
const FAMILY_LAST: u64 = 45;

/// PER_LINUX, PER_LINUX32, UNAME26, UNAME26 with PER_LINUX32, and the question which one it is.
const PERSONALITIES: [u64; 5] = [0, 8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// The RuntimeDefault profile for a process with these capabilities.
pub fn default_profile(capabilities: &[Capability]) -> LinuxSeccomp {
    default_for(capabilities, Machine::HOST)
}

pub(super) fn default_for(capabilities: &[Capability], machine: Machine) -> LinuxSeccomp {
    let always = [
        FILES,
        ATTRIBUTES,
        DESCRIPTORS,
        EVENTS,
        MEMORY,
        PROCESSES,
        LOCKS,
        IDENTITY,
        SIGNALS,
        SCHEDULING,
        TIME,
        SOCKETS,
        MESSAGES,
        SYSTEM,
        own(machine),
    ];
    let by_capability = BY_CAPABILITY
        .iter()
        .filter(|(capability, _)| capabilities.contains(capability))
        .map(|(_, names)| *names);
    let mut names: Vec<String> = always
        .into_iter()
        .chain(by_capability)
        .flat_map(str::split_ascii_whitespace)
        .map(str::to_owned)
        .collect();
    names.sort_unstable();
    names.dedup();

    let mut calls = vec![call(names, LinuxSeccompAction::ScmpActAllow)];
    calls.push(allow("socket", LinuxSeccompOperator::ScmpCmpLt, FAMILY_ALG));
    let families = (FAMILY_ALG + 1..=FAMILY_LAST).filter(|family| *family != FAMILY_VSOCK);
    calls.extend(families.map(|family| allow("socket", LinuxSeccompOperator::ScmpCmpEq, family)));
    calls.extend(PERSONALITIES.map(|value| allow("personality", LinuxSeccompOperator::ScmpCmpEq, value)));
    if !capabilities.contains(&Capability::SysAdmin) {
        calls.push(allow("clone", LinuxSeccompOperator::ScmpCmpMaskedEq, NAMESPACE_FLAGS));
        // Its flags are in memory, where no filter sees them; C libraries fall back to clone.
        let mut clone3 = call(vec!["clone3".to_owned()], LinuxSeccompAction::ScmpActErrno);
        clone3.set_errno_ret(Some(libc::ENOSYS.cast_unsigned()));
        calls.push(clone3);
    }
    let mut profile = LinuxSeccomp::default();
    profile
        .set_default_action(LinuxSeccompAction::ScmpActErrno)
        .set_default_errno_ret(Some(libc::EPERM.cast_unsigned()))
        .set_architectures(Some(machine.architectures().to_vec()))
        .set_syscalls(Some(calls));
    profile
}

fn own(machine: Machine) -> &'static str {
    match machine {
        Machine::Aarch64 => ARM,
        Machine::X86_64 => X86,
    }
}

fn call(names: Vec<String>, action: LinuxSeccompAction) -> LinuxSyscall {
    let mut call = LinuxSyscall::default();
    call.set_names(names).set_action(action);
    call
}

/// Allows a call when its first argument compares so; masked, when it has none of the bits.
fn allow(name: &str, operator: LinuxSeccompOperator, value: u64) -> LinuxSyscall {
    let argument =
        LinuxSeccompArgBuilder::default().index(0_usize).op(operator).value(value).value_two(0_u64);
    // A builder fails on a field without a default, and this one has none.
    let argument = argument.build().expect("every field has a default");
    let mut call = call(vec![name.to_owned()], LinuxSeccompAction::ScmpActAllow);
    call.set_args(Some(vec![argument]));
    call
}
