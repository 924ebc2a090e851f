//! The pause program: an ELF file of one page with a loop around a system call that waits for signals.

/// ELF header and two program headers, see elf(5).
const HEADERS_BYTES: usize = 64 + 2 * 56;

/// Where it is loaded, as static programs usually are.
const ADDRESS: u64 = 0x40_0000;

/// `1: mov eax, SYS_pause; syscall; jmp 1b`
#[cfg(target_arch = "x86_64")]
const CODE: [u8; 9] = [0xb8, 34, 0, 0, 0, 0x0f, 0x05, 0xeb, 0xf7];
#[cfg(target_arch = "x86_64")]
const MACHINE: u16 = 62;

/// `1: mov x0, #0; mov x1, #0; mov x2, #0; mov x3, #0; mov x8, #SYS_ppoll; svc #0; b 1b`
#[cfg(target_arch = "aarch64")]
const CODE: [u8; 28] = [
    0x00, 0x00, 0x80, 0xd2, 0x01, 0x00, 0x80, 0xd2, 0x02, 0x00, 0x80, 0xd2, 0x03, 0x00, 0x80, 0xd2, 0x28,
    0x09, 0x80, 0xd2, 0x01, 0x00, 0x00, 0xd4, 0xfa, 0xff, 0xff, 0x17,
];
#[cfg(target_arch = "aarch64")]
const MACHINE: u16 = 183;

/// The file.
pub(super) static PROGRAM: [u8; HEADERS_BYTES + CODE.len()] = program();

const fn program() -> [u8; HEADERS_BYTES + CODE.len()] {
    const BYTES: u64 = (HEADERS_BYTES + CODE.len()) as u64;
    let mut file = [0; HEADERS_BYTES + CODE.len()];
    // 64 bits, little endian, version 1.
    put(&mut file, 0, &[0x7f, b'E', b'L', b'F', 2, 1, 1]);
    put(&mut file, 16, &2_u16.to_le_bytes()); // an executable
    put(&mut file, 18, &MACHINE.to_le_bytes());
    put(&mut file, 20, &1_u32.to_le_bytes());
    put(&mut file, 24, &(ADDRESS + HEADERS_BYTES as u64).to_le_bytes()); // entry
    put(&mut file, 32, &64_u64.to_le_bytes()); // program headers
    put(&mut file, 52, &64_u16.to_le_bytes());
    put(&mut file, 54, &56_u16.to_le_bytes());
    put(&mut file, 56, &2_u16.to_le_bytes());
    // PT_LOAD, readable and executable: the whole file.
    put(&mut file, 64, &1_u32.to_le_bytes());
    put(&mut file, 68, &5_u32.to_le_bytes());
    put(&mut file, 80, &ADDRESS.to_le_bytes());
    put(&mut file, 88, &ADDRESS.to_le_bytes());
    put(&mut file, 96, &BYTES.to_le_bytes());
    put(&mut file, 104, &BYTES.to_le_bytes());
    put(&mut file, 112, &0x1_0000_u64.to_le_bytes()); // the largest page size
    // PT_GNU_STACK, readable and writable: its stack is not executable.
    put(&mut file, 120, &0x6474_e551_u32.to_le_bytes());
    put(&mut file, 124, &6_u32.to_le_bytes());
    put(&mut file, HEADERS_BYTES, &CODE);
    file
}

const fn put(file: &mut [u8], at: usize, bytes: &[u8]) {
    let mut i = 0;
    while i < bytes.len() {
        file[at + i] = bytes[i];
        i += 1;
    }
}
