//! What `/proc` says of a group of processes: how many, and what they have open; see proc_pid_fd(5).

use std::fs;
use std::path::Path;

/// A group of processes at one time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Processes {
    /// How many there are.
    pub count: u64,
    /// Descriptors that they have open.
    pub files: u64,
    /// Those of them that are sockets.
    pub sockets: u64,
    /// How many descriptors the first one may have; none for no limit.
    pub max_files: Option<u64>,
}

impl Processes {
    /// Looks at these processes. One that ends meanwhile counts with what was seen of it.
    pub fn look(pids: &[i32]) -> Self {
        let mut found = Self::default();
        for pid in pids {
            let process = Path::new("/proc").join(pid.to_string());
            let Ok(files) = fs::read_dir(process.join("fd")) else { continue };
            found.count += 1;
            for file in files.flatten() {
                found.files += 1;
                let is_socket = |target: &Path| target.as_os_str().as_encoded_bytes().starts_with(b"socket:");
                if fs::read_link(file.path()).is_ok_and(|target| is_socket(&target)) {
                    found.sockets += 1;
                }
            }
        }
        let limits = pids.first().and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
        found.max_files = limits.as_deref().and_then(max_files);
        found
    }
}

/// `Max open files            1024                 4096                 files`: the soft limit.
fn max_files(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn counts_descriptors_and_sockets() {
        let own = [i32::try_from(std::process::id()).unwrap()];
        let _pair = UnixStream::pair().unwrap();
        let found = Processes::look(&own);
        assert_eq!(found.count, 1);
        assert!(found.sockets >= 2 && found.files > found.sockets, "{found:?}");
        assert_eq!(Processes::look(&[-1]), Processes::default());
    }

    #[test]
    fn reads_the_soft_limit() {
        let limits = "Limit                     Soft Limit           Hard Limit           Units\n\
            Max open files            1024                 4096                 files\n";
        assert_eq!(max_files(limits), Some(1024));
        assert_eq!(max_files("Max open files            unlimited  unlimited files\n"), None);
    }
}
