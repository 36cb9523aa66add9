//! Hosts with addresses of their own: network namespaces on a bridge, made and removed by a test.
//!
//! Needs root and the program `ip`. The bridge is in a namespace too, so nothing of this machine's
//! own network is touched and nothing gets out. Packets are dropped where they arrive, by a rule of
//! the receiving host: silently, one way.
//!
//! Everything is removed when the hosts are dropped, also by a panic. What a killed test has left is
//! removed by the next.

use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, Ordering};

static NETWORKS: AtomicU32 = AtomicU32::new(0);

const PREFIX: &str = "purlin-";

/// Some hosts, from number 1, that reach each other.
pub struct Hosts {
    name: String,
    count: u8,
}

fn ip(args: &[&str]) -> Result<(), String> {
    let output = Command::new("ip").args(args).output().map_err(|error| format!("ip: {error}"))?;
    let Output { status, stderr, .. } = output;
    if status.success() {
        return Ok(());
    }
    Err(format!("ip {}: {}", args.join(" "), String::from_utf8_lossy(&stderr).trim()))
}

impl Hosts {
    /// Makes them; or says why that is not allowed here.
    pub fn new(count: u8) -> Result<Self, String> {
        sweep();
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        let hosts = Self { name: format!("{PREFIX}{}-{number}", std::process::id()), count };
        hosts.make().map(|()| hosts)
    }

    fn make(&self) -> Result<(), String> {
        let switch = &self.namespace(0);
        ip(&["netns", "add", switch])?;
        ip(&["-n", switch, "link", "add", "bridge", "type", "bridge"])?;
        ip(&["-n", switch, "link", "set", "bridge", "up"])?;
        for host in 1..=self.count {
            let (namespace, port) = (&self.namespace(host), &format!("port{host}"));
            ip(&["netns", "add", namespace])?;
            let pair = ["link", "add", port, "type", "veth", "peer", "name", "eth0", "netns"];
            ip(&[&["-n", switch], &pair[..], &[namespace]].concat())?;
            ip(&["-n", switch, "link", "set", port, "master", "bridge", "up"])?;
            ip(&["-n", namespace, "link", "set", "lo", "up"])?;
            ip(&["-n", namespace, "link", "set", "eth0", "up"])?;
            self.set_address(host, &Self::address(host))?;
            // Rules of cuts go before the one that says what is for this host.
            ip(&["-n", namespace, "rule", "add", "pref", "100", "lookup", "local"])?;
            ip(&["-n", namespace, "rule", "del", "pref", "0"])?;
        }
        Ok(())
    }

    /// The namespace of a host; 0 is the bridge's.
    pub fn namespace(&self, host: u8) -> String {
        format!("{}-{host}", self.name)
    }

    /// The first address of a host.
    pub fn address(host: u8) -> String {
        format!("10.77.0.{host}")
    }

    /// Gives a host this address in place of the one it has.
    pub fn set_address(&self, host: u8, address: &str) -> Result<(), String> {
        let (namespace, address) = (&self.namespace(host), format!("{address}/24"));
        ip(&["-n", namespace, "-4", "address", "flush", "dev", "eth0"])?;
        ip(&["-n", namespace, "address", "add", &address, "dev", "eth0"])
    }

    /// Drops what comes from one host to another, silently.
    pub fn cut_one_way(&self, from: u8, to: u8) -> Result<(), String> {
        let source = Self::address(from);
        ip(&["-n", &self.namespace(to), "rule", "add", "pref", "10", "from", &source, "blackhole"])
    }

    /// Drops all between the first hosts and the others.
    pub fn cut(&self, some: &[u8], others: &[u8]) -> Result<(), String> {
        for (&a, &b) in some.iter().flat_map(|a| others.iter().map(move |b| (a, b))) {
            self.cut_one_way(a, b)?;
            self.cut_one_way(b, a)?;
        }
        Ok(())
    }

    /// Lets everything through again.
    pub fn heal(&self) {
        for (to, from) in (1..=self.count).flat_map(|a| (1..=self.count).map(move |b| (a, b))) {
            let source = Self::address(from);
            // There may be no such rule.
            let rule = ["rule", "del", "pref", "10", "from", &source, "blackhole"];
            drop(ip(&[&["-n", &self.namespace(to)], &rule[..]].concat()));
        }
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in 0..=self.count {
            // It may not have been made.
            drop(ip(&["netns", "del", &self.namespace(host)]));
        }
    }
}

/// Removes the namespaces of tests that are no more.
fn sweep() {
    let Ok(listed) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&listed.stdout).lines() {
        let name = line.split_whitespace().next().unwrap_or_default();
        let pid = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        let pid = pid.and_then(|pid| pid.parse::<u32>().ok());
        if pid.is_some_and(|pid| !std::path::Path::new(&format!("/proc/{pid}")).exists()) {
            // Another test may have been faster.
            drop(ip(&["netns", "del", name]));
        }
    }
}
