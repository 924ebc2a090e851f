//! A pod network of a node's own: a bridge, two subnets and the conflist that names them.

use std::fs;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use serde_json::json;

use crate::Result;
use crate::wait::slowness;

/// How long plugins may go on whose daemon was killed.
const PLUGINS_LIMIT: Duration = Duration::from_secs(10);

/// What has the rules of each address family, iptables(8).
pub const PACKET_FILTERS: [&str; 2] = ["iptables", "ip6tables"];

/// Where Debian puts the plugins.
pub const PLUGINS: &str = "/usr/lib/cni";

/// A number that no other node of this machine has while it lives, and what follows from it.
#[derive(Debug)]
pub struct Network {
    number: u8,
    dir: PathBuf,
    /// Its name holds the number: the kernel frees it with the process.
    _reservation: UnixDatagram,
}

impl Network {
    /// Reserves a number and writes a conflist with bridge, portmap, bandwidth and two subnets.
    pub fn make(dir: &Path) -> Result<Self> {
        let (number, reservation) = reserve()?;
        let network = Self { number, dir: dir.to_owned(), _reservation: reservation };
        fs::create_dir_all(network.conf_dir()).context("make the CNI directory")?;
        network.write("10-bridge.conflist", &network.bridge())?;
        Ok(network)
    }

    /// The number that sets this network apart.
    pub fn number(&self) -> u8 {
        self.number
    }

    /// Name of the network and of its bridge.
    pub fn name(&self) -> String {
        format!("ctest{}", self.number)
    }

    /// The directory of configurations.
    pub fn conf_dir(&self) -> PathBuf {
        self.dir.join("conf")
    }

    /// The directory for plugins that a test writes.
    pub fn bin_dir(&self) -> PathBuf {
        self.dir.join("bin")
    }

    /// The first of 50 ports of the host that only this node may map.
    pub fn first_port(&self) -> i32 {
        20_000 + 50 * i32::from(self.number)
    }

    /// What all IPv4 addresses of its pods begin with.
    pub fn prefix(&self) -> String {
        format!("10.77.{}.", self.number)
    }

    /// Writes one configuration; nobody sees half of it.
    pub fn write(&self, file: &str, value: &serde_json::Value) -> Result {
        let (path, new) = (self.conf_dir().join(file), self.conf_dir().join(format!(".{file}.new")));
        fs::write(&new, value.to_string()).with_context(|| format!("write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("rename {}", new.display()))
    }

    /// The usual conflist.
    pub fn bridge(&self) -> serde_json::Value {
        json!({
            "cniVersion": "1.0.0",
            "name": self.name(),
            "plugins": [
                {
                    "type": "bridge", "bridge": self.name(), "isGateway": true, "ipMasq": true, "hairpinMode": true,
                    "ipam": {
                        "type": "host-local", "dataDir": self.dir.join("addresses"),
                        "ranges": [
                            [{"subnet": format!("10.77.{}.0/24", self.number)}],
                            [{"subnet": format!("fd00:77:{}::/64", self.number)}],
                        ],
                        "routes": [{"dst": "0.0.0.0/0"}, {"dst": "::/0"}],
                    },
                },
                {"type": "portmap", "capabilities": {"portMappings": true}},
                {"type": "bandwidth", "capabilities": {"bandwidth": true}},
            ],
        })
    }

    /// A conflist of one plugin, a shell script that this writes.
    pub fn write_script(&self, file: &str, plugin: &str, script: &str) -> Result {
        fs::create_dir_all(self.bin_dir()).context("make the plugin directory")?;
        let path = self.bin_dir().join(plugin);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).context("write the plugin")?;
        fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755))
            .context("make the plugin executable")?;
        self.write(file, &json!({"cniVersion": "1.0.0", "name": self.name(), "plugins": [{"type": plugin}]}))
    }

    /// What of this network is left on the host, once plugins that a killed daemon left running have ended.
    pub fn leftovers(&self) -> Vec<String> {
        let deadline = Instant::now() + PLUGINS_LIMIT * slowness();
        loop {
            let left = self.leftovers_now();
            if left.is_empty() || Instant::now() > deadline {
                return left;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Addresses, interfaces, packet filter rules.
    fn leftovers_now(&self) -> Vec<String> {
        let mut left = Vec::new();
        let addresses = self.dir.join("addresses").join(self.name());
        for entry in fs::read_dir(addresses).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with("last_reserved_ip") && name != "lock" {
                left.push(format!("address {name}"));
            }
        }
        for port in
            fs::read_dir(format!("/sys/class/net/{}/brif", self.name())).into_iter().flatten().flatten()
        {
            left.push(format!("interface {}", port.file_name().to_string_lossy()));
        }
        left.extend(self.rules().into_iter().map(|(program, rule)| format!("{program} rule {rule}")));
        left
    }

    /// The packet filter rules of this network's plugins: the program that has each, and its arguments for a shell.
    fn rules(&self) -> Vec<(&'static str, String)> {
        let quoted = format!("name: \"{}\"", self.name());
        let of = |program| -> Vec<(&'static str, String)> {
            let rules = output(program, &["-w", "-t", "nat", "-S"]);
            let ours = rules.lines().filter(|rule| rule.replace('\\', "").contains(&quoted));
            ours.map(|rule| (program, rule.to_owned())).collect()
        };
        PACKET_FILTERS.into_iter().flat_map(of).collect()
    }

    /// Removes its rules, as a restart of the machine does.
    pub fn forget_rules(&self) {
        for (program, rule) in self.rules() {
            let rule = rule.replacen("-A", "-D", 1);
            output("sh", &["-c", &format!("{program} -w -t nat {rule}")]);
            if let Some(chain) = rule.split(' ').nth(1).filter(|chain| chain.starts_with("CNI-")) {
                output(program, &["-w", "-t", "nat", "-X", chain]);
            }
        }
    }

    /// Removes the bridge, which the plugin leaves for the next pod, and what a failed test left.
    pub fn remove(&self) {
        self.forget_rules();
        output("ip", &["link", "delete", &self.name()]);
    }
}

fn output(program: &str, args: &[&str]) -> String {
    let output = Command::new(program).args(args).stderr(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

fn reserve() -> Result<(u8, UnixDatagram)> {
    for number in 1..=250 {
        let name = SocketAddr::from_abstract_name(format!("corten-test-network-{number}"))?;
        if let Ok(socket) = UnixDatagram::bind_addr(&name) {
            return Ok((number, socket));
        }
    }
    bail!("250 test networks are in use: is a test run hanging?")
}
