//! The pause program: an ELF file of one page with two calls at its beginning and a loop around a third that waits.

/// ELF header and two program headers, see elf(5).
const HEADERS_BYTES: usize = 64 + 2 * 56;

/// Where it is loaded, as static programs usually are.
const ADDRESS: u64 = 0x40_0000;

/// Dies with the parent, which the stage saw to as well: the kernel forgets it where SELinux puts a label on.
///
/// `mov eax, SYS_prctl; mov edi, PR_SET_PDEATHSIG; mov esi, SIGKILL; syscall`
#[cfg(target_arch = "x86_64")]
const DIE_WITH_PARENT: &[u8] = &[0xb8, 157, 0, 0, 0, 0xbf, 1, 0, 0, 0, 0xbe, 9, 0, 0, 0, 0x0f, 0x05];
/// Ignores SIGCHLD. The stage did that, too, and the kernel undoes it likewise.
///
/// `mov eax, SYS_rt_sigaction; mov edi, SIGCHLD; mov esi, IGNORE; xor edx, edx; mov r10d, 8; syscall`
#[cfg(target_arch = "x86_64")]
const REAP: &[u8] = &[
    0xb8, 13, 0, 0, 0, 0xbf, 17, 0, 0, 0, 0xbe, 0xb0, 0, 0x40, 0, 0x31, 0xd2, 0x41, 0xba, 8, 0, 0, 0, 0x0f,
    0x05,
];
/// `1: mov eax, SYS_pause; syscall; jmp 1b`
#[cfg(target_arch = "x86_64")]
const WAIT: &[u8] = &[0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// `mov x0, PR_SET_PDEATHSIG; mov x1, SIGKILL; mov x8, SYS_prctl; svc #0`
#[cfg(target_arch = "aarch64")]
const DIE_WITH_PARENT: &[u8] =
    &[0x20, 0x00, 0x80, 0xd2, 0x21, 0x01, 0x80, 0xd2, 0xe8, 0x14, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4];
/// `mov x0, SIGCHLD; mov x1, IGNORE; movk x1, IGNORE, lsl 16; mov x2, #0; mov x3, #8; mov x8, SYS_rt_sigaction; svc #0`
#[cfg(target_arch = "aarch64")]
const REAP: &[u8] = &[
    0x20, 0x02, 0x80, 0xd2, 0x01, 0x16, 0x80, 0xd2, 0x01, 0x08, 0xa0, 0xf2, 0x02, 0x00, 0x80, 0xd2, 0x03,
    0x01, 0x80, 0xd2, 0xc8, 0x10, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4,
];
/// `1: mov x0, #0; mov x1, #0; mov x2, #0; mov x3, #0; mov x8, #SYS_ppoll; svc #0; b 1b`
#[cfg(target_arch = "aarch64")]
const WAIT: &[u8] = &[
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28,
    0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The kernel's struct sigaction: SIG_IGN, and neither flags, restorer nor mask.
const IGNORE: [u8; 32] = {
    let mut action = [0; 32];
    action[0] = 1;
    action
};
const _: () = assert!(ADDRESS + HEADERS_BYTES as u64 == 0x40_00b0, "where the code has it");

/// The file, as a child of the monitor.
pub(super) static CHILD: [u8; bytes(CHILD_CODE)] = program(CHILD_CODE);
const CHILD_CODE: &[&[u8]] = &[DIE_WITH_PARENT, REAP, WAIT];

/// The file, as a process of whom another runtime makes its parent: a thread that may end.
pub(super) static ORPHAN: [u8; bytes(ORPHAN_CODE)] = program(ORPHAN_CODE);
const ORPHAN_CODE: &[&[u8]] = &[REAP, WAIT];

const fn bytes(code: &[&[u8]]) -> usize {
    let mut bytes = HEADERS_BYTES + IGNORE.len();
    let mut part = 0;
    while part < code.len() {
        bytes += code[part].len();
        part += 1;
    }
    bytes
}

const fn program<const BYTES: usize>(code: &[&[u8]]) -> [u8; BYTES] {
    let mut file = [0; BYTES];
    // 64 bits, little endian, version 1.
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut file, 16, &2_u16.to_le_bytes()); // an executable
    put(&mut file, 18, &MACHINE.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    put(&mut file, 24, &(ADDRESS + (HEADERS_BYTES + IGNORE.len()) as u64).to_le_bytes()); // entry
    put(&mut file, 32, &64_u64.to_le_bytes()); // program headers
    put(&mut file, 52, &64_u16.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &2_u16.to_le_bytes());
    // PT_LOAD, readable and executable: the whole file.
    put(&mut file, 64, &1_u32.to_le_bytes());
    put(&mut file, 68, &5_u32.to_le_bytes());
    put(&mut file, 80, &ADDRESS.to_le_bytes());
    put(&mut file, 88, &ADDRESS.to_le_bytes());
    put(&mut file, 96, &(BYTES as u64).to_le_bytes());
    put(&mut file, 104, &(BYTES as u64).to_le_bytes());
    put(&mut file, 112, &0x1_0000_u64.to_le_bytes()); // the largest page size
    // PT_GNU_STACK, readable and writable: its stack is not executable.
    put(&mut file, 120, &0x6474_e551_u32.to_le_bytes());
    put(&mut file, 124, &6_u32.to_le_bytes());
    put(&mut file, HEADERS_BYTES, &IGNORE);
    let mut at = HEADERS_BYTES + IGNORE.len();
    let mut part = 0;
    while part < code.len() {
        put(&mut file, at, code[part]);
        at += code[part].len();
        part += 1;
    }
    file
}

const fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    let mut i = 0;
    while i < bytes.len() {
        file[at + i] = bytes[i];
        i += 1;
    }
}
