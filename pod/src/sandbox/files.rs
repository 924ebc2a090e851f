//! The files that a pod's containers share: `/etc/hostname`, `/etc/resolv.conf`, `/etc/hosts`, and
//! the tmpfs of `/dev/shm`.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use super::Sandbox;
use crate::config::{Dns, PodConfig, PodOrNode};
use crate::container::volumes;
use crate::error::{Error, Result};

/// What Kubernetes' users expect of `/dev/shm`, as both peers have it.
const SHM_BYTES: u64 = 64 << 20;

/// Writes the pod's files into its state directory and mounts its `/dev/shm`.
pub(crate) fn create(pod: &Sandbox, hostname: &str) -> Result<()> {
    let (dir, config, label) = (&pod.dir, &pod.config, pod.labels().map(|labels| labels.mount));
    let resolv_conf = match &config.dns {
        Some(dns) => resolv_conf(dns)?,
        None => host_file("/etc/resolv.conf"),
    };
    write(&dir.join("hostname"), &format!("{hostname}\n"))?;
    write(&dir.join("resolv.conf"), &resolv_conf)?;
    write(&dir.join("hosts"), &host_file("/etc/hosts"))?;
    let root = config.security.namespaces.users.map_or(0, |ids| ids.host);
    if config.security.namespaces.ipc == PodOrNode::Pod {
        let shm = dir.join("shm");
        fs::create_dir_all(&shm).map_err(Error::file("make directory", &shm))?;
        runtime::mount::shared_memory(&shm, SHM_BYTES, root, label.as_deref())
            .map_err(Error::file("mount tmpfs on", &shm))?;
    }
    if root != 0 {
        for name in ["hostname", "resolv.conf", "hosts"] {
            let path = dir.join(name);
            std::os::unix::fs::lchown(&path, Some(root), Some(root)).map_err(Error::file("own", &path))?;
        }
    }
    if let Some(label) = label {
        for name in ["hostname", "resolv.conf", "hosts"] {
            let labelled = runtime::selinux::label(&dir.join(name), &label);
            labelled.map_err(|source| Error::Selinux { source: Arc::new(source) })?;
        }
    }
    Ok(())
}

/// Unmounts and deletes what [`create`] made, and the directory with it.
pub(crate) fn remove(dir: &Path) -> Result<()> {
    let shm = dir.join("shm");
    runtime::mount::detach(&shm).map_err(Error::file("unmount", &shm))?;
    volumes::detach_all(dir)?;
    // A bundle that no record speaks of any more.
    runtime::external::release_all(dir).map_err(Error::file("unmount the bundles in", dir))?;
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::file("remove", dir)(error)),
        _ => Ok(()),
    }
}

/// The host name that the pod gets: the request's, else the node's.
pub(crate) fn hostname(config: &PodConfig) -> Result<String> {
    if !config.hostname.is_empty() {
        return Ok(config.hostname.clone());
    }
    let path = Path::new("/proc/sys/kernel/hostname");
    Ok(fs::read_to_string(path).map_err(Error::file("read", path))?.trim().to_owned())
}

/// resolv.conf(5).
fn resolv_conf(dns: &Dns) -> Result<String> {
    let mut text = String::new();
    for server in &dns.servers {
        text.push_str(&format!("nameserver {}\n", word("dns_config.servers", server)?));
    }
    for (keyword, field, words) in
        [("search", "dns_config.searches", &dns.searches), ("options", "dns_config.options", &dns.options)]
    {
        if !words.is_empty() {
            let words: Result<Vec<_>> = words.iter().map(|value| word(field, value)).collect();
            text.push_str(&format!("{keyword} {}\n", words?.join(" ")));
        }
    }
    Ok(text)
}

/// A word that cannot add a line of its own to the file.
fn word<'a>(field: &'static str, value: &'a str) -> Result<&'a str> {
    if value.is_empty() || value.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(Error::invalid(field, format!("{value:?} must be one word without spaces")));
    }
    Ok(value)
}

/// The host's own file; a host without one has nothing to say.
fn host_file(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dns(servers: &[&str], searches: &[&str], options: &[&str]) -> Dns {
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Dns { servers: owned(servers), searches: owned(searches), options: owned(options) }
    }

    #[test]
    fn resolv_conf_has_a_line_for_each_kind() {
        let text = resolv_conf(&dns(&["10.0.0.1", "::1"], &["a.b", "c"], &["ndots:5"])).unwrap();
        assert_eq!(text, "nameserver 10.0.0.1\nnameserver ::1\nsearch a.b c\noptions ndots:5\n");
        assert_eq!(resolv_conf(&dns(&[], &[], &[])).unwrap(), "");
    }

    #[test]
    fn no_word_of_the_request_becomes_a_line() {
        for bad in ["", "a b", "1.1.1.1\nnameserver 6.6.6.6", "a\0"] {
            assert!(resolv_conf(&dns(&[bad], &[], &[])).is_err(), "{bad:?}");
            assert!(resolv_conf(&dns(&[], &[bad], &[])).is_err(), "{bad:?}");
        }
    }
}
