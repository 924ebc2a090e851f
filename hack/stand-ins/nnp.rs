//! Prints its effective user id, as the image for no_new_privs tests does: the
//! image carries it set-user-ID root. Read from proc(5), so that no libc call is needed.

fn main() {
    let status = std::fs::read_to_string("/proc/self/status").expect("read /proc/self/status");
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:")).expect("a Uid line");
    println!("Effective uid: {}", ids.split_whitespace().nth(1).expect("four user ids"));
}
