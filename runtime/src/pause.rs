//! pause, the process that holds a pod's namespaces, and is PID 1 of a shared PID namespace.
//!
//! It is a clone of the monitor that makes and joins the namespaces, sets the host name and the sysctls, and
//! then becomes a program of a few instructions, so that no copy of the monitor's memory stays behind in a
//! namespace that containers can look into. What they may reach through it is nothing: its root is an empty
//! directory, it is nobody without a capability, and its program cannot be read, which forbids ptrace(2) and
//! all that asks the same questions. SIGCHLD is ignored, so that the kernel reaps the orphans that it inherits.
//! Where SELinux is on, it has the label of the pod's processes, so that containers see what their PID 1 is.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::AtFlags;
use rustix::fs::{Gid, Mode, Uid};
use rustix::io::Errno;
use rustix::process::Signal;
use rustix::thread::{CapabilitySet, CapabilitySets, LinkNameSpaceType};

use crate::monitor::wire::SandboxOrder;
use crate::native::labels::Gate;
use crate::native::link::{self, FailureKind, FromStage, ToStage};
use crate::plan::steps::Labels;
use crate::sys::{clone, signal};
use crate::{Failure, NamespaceMode, seal, selinux};

mod elf;
mod root;
mod sysctl;

/// Who pause is: an id that no container is expected to have.
const NOBODY: u32 = 65535;

/// What the stage works with.
#[derive(Debug)]
pub(crate) struct Stage {
    pub(crate) program: OwnedFd,
    pub(crate) network: Option<OwnedFd>,
    pub(crate) link: OwnedFd,
    pub(crate) order: SandboxOrder,
}

/// The pause program, sealed. Anyone may execute it and nobody read it.
pub(crate) fn program() -> io::Result<OwnedFd> {
    seal::executable("pause", &mut elf::CHILD.as_slice(), Mode::XUSR | Mode::XGRP | Mode::XOTH)
}

/// The program as a file, for other runtimes.
pub(crate) fn file() -> &'static [u8] {
    &elf::ORPHAN
}

/// The namespaces that the stage is to be cloned into.
pub(crate) fn namespaces(order: &SandboxOrder) -> i32 {
    let mut flags = libc::CLONE_NEWNS;
    if order.own_network {
        flags |= libc::CLONE_NEWUTS;
    }
    if order.users.is_some() {
        // The kernel makes it first, and the others belong to it.
        flags |= libc::CLONE_NEWUSER;
        if order.own_network {
            flags |= libc::CLONE_NEWNET;
        }
    }
    // The file system of message queues belongs to who makes the namespace: in a user namespace, to its root.
    if order.ipc == NamespaceMode::Pod && order.users.is_none() {
        flags |= libc::CLONE_NEWIPC;
    }
    if order.pid == NamespaceMode::Pod {
        flags |= libc::CLONE_NEWPID;
    }
    flags
}

/// Becomes pause; the end of the link says that it is.
pub(crate) fn stage(stage: Stage) -> ! {
    let Err(failure) = become_pause(&stage);
    let word = FromStage::Failed { what: failure.what, errno: failure.errno, kind: FailureKind::Setup };
    // With the monitor gone there is nobody to tell.
    link::send(&stage.link, &word, None).ok();
    clone::exit(1)
}

fn become_pause(stage: &Stage) -> Result<std::convert::Infallible, Failure> {
    let order = &stage.order;
    if order.users.is_some() {
        wait_for_ids(stage)?;
        if order.ipc == NamespaceMode::Pod {
            own_ipc().map_err(|errno| Failure::setup("make the IPC namespace", errno as i32))?;
        }
    }
    if let Some(network) = &stage.network {
        rustix::thread::move_into_link_name_space(network.as_fd(), Some(LinkNameSpaceType::Network))
            .map_err(failed("join the network namespace"))?;
    }
    if order.own_network {
        rustix::system::sethostname(order.hostname.as_bytes())
            .map_err(failed(format!("set the host name {:?}", order.hostname)))?;
    }
    if order.users.is_some() {
        // Before Linux 6.11 those of the IPC namespace are the node's root's alone, after it the pod's root's.
        let others = sysctl::apply_allowed(&order.sysctls)?;
        become_own_root().map_err(failed("become the root of the user namespace"))?;
        sysctl::apply(&others)?;
    } else {
        sysctl::apply(&order.sysctls)?;
    }
    let own_program = enter_root(order.labels.as_ref())?;
    signal::ignore(libc::SIGCHLD).map_err(|error| Failure::io("ignore SIGCHLD", &error))?;
    if own_program.is_none() {
        // A label counts as a privilege that is new; and pause executes nothing after it.
        rustix::thread::set_no_new_privs(true).map_err(failed("forbid new privileges"))?;
    }
    drop_privileges().map_err(failed("give up privileges"))?;
    // Changing the user has cleared it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
        .map_err(failed("die with the monitor"))?;
    rustix::io::ioctl_fionbio(&stage.link, true).map_err(failed("look at the link"))?;
    if !matches!(link::receive::<FromStage>(&stage.link), Err(Errno::AGAIN)) {
        return Err(failed("go on without a monitor")(Errno::OWNERDEAD));
    }
    nix::unistd::execveat(
        own_program.as_ref().unwrap_or(&stage.program),
        c"",
        &[c"/pause"],
        &[] as &[&std::ffi::CStr],
        AtFlags::AT_EMPTY_PATH,
    )
    .map_err(|errno| Failure::setup("execute pause", errno as i32))
}

/// Sleeps until the monitor has given the user namespace its ids.
fn wait_for_ids(stage: &Stage) -> Result<(), Failure> {
    match link::receive::<ToStage>(&stage.link).map_err(failed("wait for the user namespace's ids"))? {
        Some((ToStage::Go, _)) => Ok(()),
        None => clone::exit(1),
    }
}

fn own_ipc() -> Result<(), nix::Error> {
    nix::unistd::setfsgid(nix::unistd::Gid::from_raw(0));
    nix::unistd::setfsuid(nix::unistd::Uid::from_raw(0));
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWIPC)
}

fn become_own_root() -> Result<(), Errno> {
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)
}

/// Leaves the host's tree for an empty one.
///
/// With a label of processes, the next execve(2) puts it on, and is to be of the file that is returned: a policy says
/// by which files a process may come to a label, and those of the pod are among them.
fn enter_root(labels: Option<&selinux::Labels>) -> Result<Option<OwnedFd>, Failure> {
    let label = labels.and_then(|labels| labels.process.as_deref());
    let root =
        root::make(labels.map(|labels| labels.mount.as_str())).map_err(failed("make a root directory"))?;
    let program = label.map(|_| root::place(&root, &elf::CHILD)).transpose();
    let program = program.map_err(|error| Failure::io("place pause in its root directory", &error))?;
    if let Some(label) = label {
        label_next(label)?;
    }
    root::enter(root, program.is_some())
        .map_err(|error| Failure::io("enter an empty root directory", &error))?;
    Ok(program)
}

fn label_next(label: &str) -> Result<(), Failure> {
    let label = CString::new(label).map_err(|error| Failure::setup(error.to_string(), libc::EINVAL))?;
    let labels = Labels { apparmor: None, selinux: Some(label) };
    Ok(Gate::of_node()?.set(&labels)?)
}

fn drop_privileges() -> Result<(), Errno> {
    rustix::thread::set_thread_groups(&[])?;
    let (gid, uid) = (Gid::from_raw(NOBODY), Uid::from_raw(NOBODY));
    // A user namespace, the pod's or the daemon's, may have no such id; then pause is a root that can do nothing.
    match rustix::thread::set_thread_res_gid(gid, gid, gid) {
        Ok(()) => rustix::thread::set_thread_res_uid(uid, uid, uid)?,
        Err(Errno::INVAL) => {}
        Err(errno) => return Err(errno),
    }
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )
}

fn failed(what: impl Into<String>) -> impl FnOnce(Errno) -> Failure {
    move |errno| Failure::setup(what, errno.raw_os_error())
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;
    use std::{thread, time};

    use rustix::process::{WaitId, WaitIdOptions, WaitIdStatus};

    use super::*;

    const POLL: time::Duration = time::Duration::from_millis(1);

    /// Has a thread start the program, with nothing seen to before; returns when the program has run its first
    /// instructions and the thread is gone.
    fn start(program: OwnedFd) -> OwnedFd {
        let starting = thread::spawn(move || {
            let program =
                clone::Program { file: program.as_fd(), arguments: &[c"/pause"], fds: &[], namespaces: 0 };
            let (pid, pidfd) = clone::spawn(&program, None, &mut vec![0; 64 << 10]).unwrap();
            while !ignores_sigchld(pid) {
                thread::sleep(POLL);
            }
            (pidfd, rustix::thread::gettid())
        });
        let (pidfd, starter) = starting.join().unwrap();
        // It can be joined a little before it is gone, which is when children hear of it.
        while Path::new("/proc/self/task").join(starter.to_string()).exists() {
            thread::sleep(POLL);
        }
        pidfd
    }

    fn ignores_sigchld(pid: i32) -> bool {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:\t")).unwrap();
        u64::from_str_radix(mask, 16).unwrap() & (1 << (libc::SIGCHLD - 1)) != 0
    }

    fn end(pidfd: &OwnedFd, options: WaitIdOptions) -> Option<WaitIdStatus> {
        rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED | options).unwrap()
    }

    /// Also when what the stage did for it was undone.
    #[test]
    fn pause_dies_with_who_started_it() {
        let status = end(&start(program().unwrap()), WaitIdOptions::empty()).unwrap();
        assert_eq!(status.terminating_signal(), Some(libc::SIGKILL));
    }

    /// Of another runtime that may be a thread, which ends at any time.
    #[test]
    fn the_file_for_other_runtimes_outlives_who_started_it() {
        let pause = start(seal::executable("pause", &mut file(), Mode::XUSR).unwrap());
        assert!(end(&pause, WaitIdOptions::NOHANG).is_none());
        rustix::process::pidfd_send_signal(&pause, Signal::KILL).unwrap();
        end(&pause, WaitIdOptions::empty());
    }
}
