//! bpf(2): loads device programs and attaches them to cgroups.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// BPF_PROG_LOAD, BPF_PROG_ATTACH, ... of linux/bpf.h.
#[derive(Clone, Copy)]
enum Command {
    Load = 5,
    Attach = 8,
    FdById = 13,
    Query = 16,
}

const PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_TYPE_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 1 << 1;
const REPLACE: u32 = 1 << 2;

/// How many attached programs are listed; more is nothing that Corten would have made.
const LISTED: u32 = 16;

/// Loads a device program and has the kernel verify it.
pub fn load_device_program(instructions: &[u64]) -> io::Result<OwnedFd> {
    let count = u32::try_from(instructions.len()).map_err(|_| io::Error::from_raw_os_error(libc::E2BIG))?;
    let license = c"Apache-2.0";
    let mut attributes = Attributes::default();
    attributes.set_u32(0, PROG_TYPE_CGROUP_DEVICE);
    attributes.set_u32(4, count);
    attributes.set_pointer(8, instructions.as_ptr());
    attributes.set_pointer(16, license.as_ptr());
    attributes.set_bytes(48, b"corten_devices");
    attributes.call_for_fd(Command::Load)
}

/// Attaches a device program to a cgroup, in one step in the place of another one if that is given.
pub fn attach_device_program(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    replaced: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let mut attributes = Attributes::default();
    attributes.set_fd(0, cgroup);
    attributes.set_fd(4, program);
    attributes.set_u32(8, ATTACH_TYPE_CGROUP_DEVICE);
    attributes.set_u32(12, ALLOW_MULTI | if replaced.is_some() { REPLACE } else { 0 });
    if let Some(replaced) = replaced {
        attributes.set_fd(16, replaced);
    }
    attributes.call(Command::Attach).map(drop)
}

/// The ids of the device programs that are attached to the cgroup itself.
pub fn attached_device_programs(cgroup: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut ids = vec![0_u32; LISTED as usize];
    let mut attributes = Attributes::default();
    attributes.set_fd(0, cgroup);
    attributes.set_u32(4, ATTACH_TYPE_CGROUP_DEVICE);
    attributes.set_pointer(16, ids.as_mut_ptr().cast_const());
    attributes.set_u32(24, LISTED);
    attributes.call(Command::Query)?;
    ids.truncate(attributes.u32(24) as usize);
    Ok(ids)
}

/// Opens a loaded program by its id.
pub fn program_by_id(id: u32) -> io::Result<OwnedFd> {
    let mut attributes = Attributes::default();
    attributes.set_u32(0, id);
    attributes.call_for_fd(Command::FdById)
}

/// `union bpf_attr`, zeroed and larger than any kernel's: some kernels write back beyond the size they are
/// told, so it is neither short nor on the stack.
struct Attributes(Box<[u32; 128]>);

impl Default for Attributes {
    fn default() -> Self {
        Self(Box::new([0; 128]))
    }
}

impl Attributes {
    fn set_u32(&mut self, offset: usize, value: u32) {
        self.0[offset / 4] = value;
    }

    fn u32(&self, offset: usize) -> u32 {
        self.0[offset / 4]
    }

    fn set_fd(&mut self, offset: usize, fd: BorrowedFd<'_>) {
        self.set_u32(offset, fd.as_raw_fd().cast_unsigned());
    }

    fn set_pointer<T>(&mut self, offset: usize, pointer: *const T) {
        self.set_bytes(offset, &(pointer as u64).to_ne_bytes());
    }

    fn set_bytes(&mut self, offset: usize, bytes: &[u8]) {
        for (word, chunk) in self.0[offset / 4..].iter_mut().zip(bytes.chunks(4)) {
            let mut padded = [0; 4];
            padded[..chunk.len()].copy_from_slice(chunk);
            *word = u32::from_ne_bytes(padded);
        }
    }

    fn call(&mut self, command: Command) -> io::Result<RawFd> {
        let size = size_of_val(&*self.0);
        // SAFETY: the attributes are `size` bytes that live through the call, and each pointer that the callers
        // put in leads to memory of theirs, as long as they say, that does so too.
        let result =
            unsafe { libc::syscall(libc::SYS_bpf, command as libc::c_int, self.0.as_mut_ptr(), size) };
        // Nothing but a descriptor, which fits, or -1.
        RawFd::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
    }

    fn call_for_fd(&mut self, command: Command) -> io::Result<OwnedFd> {
        let fd = self.call(command)?;
        // SAFETY: these commands return a new descriptor that nobody else has.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }
}
