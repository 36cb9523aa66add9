//! Who is measured, how they are built and started.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde::Serialize;

use crate::options::{Options, Pin};

/// A column of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum System {
    Purlin,
    Bare,
    BareDefaults,
    OtpTcp,
    OtpTls,
    Ractor,
    Kameo,
    Zestors,
    Coerce,
}

impl System {
    pub(crate) const ALL: [Self; 9] = [
        Self::Purlin,
        Self::Bare,
        Self::BareDefaults,
        Self::OtpTcp,
        Self::OtpTls,
        Self::Ractor,
        Self::Kameo,
        Self::Zestors,
        Self::Coerce,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Purlin => "purlin",
            Self::Bare => "bare",
            Self::BareDefaults => "bare-defaults",
            Self::OtpTcp => "otp-tcp",
            Self::OtpTls => "otp-tls",
            Self::Ractor => "ractor",
            Self::Kameo => "kameo",
            Self::Zestors => "zestors",
            Self::Coerce => "coerce",
        }
    }

    /// Whether it does what Purlin does: not a ceiling.
    pub(crate) fn is_peer(self) -> bool {
        !matches!(self, Self::Purlin | Self::Bare | Self::BareDefaults)
    }

    pub(crate) fn is_encrypted(self) -> bool {
        !matches!(self, Self::OtpTcp | Self::Ractor | Self::Coerce)
    }

    /// The head of its column, which says whether it encrypts.
    pub(crate) fn heading(self) -> &'static str {
        match self {
            Self::Purlin => "Purlin\nQUIC, mTLS",
            Self::Bare => "bare quinn\nas Purlin's\nQUIC, TLS",
            Self::BareDefaults => "bare quinn\ndefaults\nQUIC, TLS",
            Self::OtpTcp => "OTP\nTCP, not\nencrypted",
            Self::OtpTls => "OTP\nTCP, mTLS",
            Self::Ractor => "ractor_cluster\nTCP, not\nencrypted",
            Self::Kameo => "kameo\nTCP, Noise",
            Self::Zestors => "zestors\nQUIC, mTLS",
            Self::Coerce => "coerce\nTCP, not\nencrypted",
        }
    }

    fn package(self) -> &'static str {
        match self {
            Self::Purlin => "purlin",
            Self::Bare | Self::BareDefaults => "bare",
            Self::OtpTcp | Self::OtpTls => "otp",
            Self::Ractor => "ractor",
            Self::Kameo => "kameo",
            Self::Zestors => "zestors",
            Self::Coerce => "coerce",
        }
    }

    /// The crate whose version is worth printing.
    fn version_of(self) -> Option<&'static str> {
        match self {
            Self::Purlin => Some("purlin"),
            Self::Bare | Self::BareDefaults => Some("quinn"),
            Self::OtpTcp | Self::OtpTls => None,
            Self::Ractor => Some("ractor_cluster"),
            Self::Kameo => Some("kameo"),
            Self::Zestors => Some("zestors"),
            Self::Coerce => Some("coerce"),
        }
    }
}

/// A system that may be run, or why not.
#[derive(Debug)]
pub(crate) struct Ready {
    pub(crate) system: System,
    pub(crate) runner: Result<PathBuf, String>,
}

impl Ready {
    /// The runner, kept to the cores of the options.
    pub(crate) fn command(&self, runner: &Path, pin: Pin) -> Command {
        let mut command = Command::new(runner);
        match self.system {
            System::BareDefaults => drop(command.env("PEER_BARE", "defaults")),
            System::OtpTls => drop(command.env("PEER_OTP", "tls")),
            _ => {}
        }
        if pin == Pin::Halves {
            let (client, server) = halves();
            command.env("METER_CLIENT_CPUS", client).env("METER_SERVER_CPUS", server);
        }
        command.stdin(Stdio::null());
        command
    }
}

fn halves() -> (String, String) {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let list = |range: std::ops::Range<usize>| {
        range.map(|core| core.to_string()).collect::<Vec<_>>().join(",")
    };
    if cores == 1 {
        return (list(0..1), list(0..1));
    }
    (list(0..cores / 2), list(cores / 2..cores))
}

/// Builds each by itself, so that one that does not build hinders no other.
pub(crate) fn prepare(peers: &Path, systems: &[System]) -> Vec<Ready> {
    let mut ready: Vec<Ready> = Vec::new();
    for &system in systems {
        let built = ready.iter().find(|other| other.system.package() == system.package());
        let runner = match built {
            Some(other) => other.runner.clone(),
            None => build(peers, system.package()),
        };
        ready.push(Ready { system, runner });
    }
    ready
}

fn build(peers: &Path, package: &str) -> Result<PathBuf, String> {
    if package == "otp" && Command::new("erl").arg("-version").output().is_err() {
        return Err("no Erlang here: apt-get install erlang-base erlang-ssl".to_owned());
    }
    eprintln!("building peer-{package} …");
    let target = peers.join("../../target/peers");
    let built = Command::new("nice")
        .args(["-n", "15", "cargo", "build", "--release", "--quiet", "--color=never"])
        .args(["-p", &format!("peer-{package}")])
        .arg("--manifest-path")
        .arg(peers.join("Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .output()
        .map_err(|error| format!("cargo does not run: {error}"))?;
    if !built.status.success() {
        let errors = String::from_utf8_lossy(&built.stderr);
        let first = errors.lines().find(|line| line.starts_with("error"));
        return Err(format!("does not build: {}", first.unwrap_or("no reason given")));
    }
    Ok(target.join("release").join(format!("peer-{package}")))
}

/// Versions and settings, a line each.
pub(crate) fn settings(peers: &Path, options: &Options, ready: &[Ready]) -> Vec<String> {
    let mut lines = vec![format!(
        "{} rounds of {} s a workload after a warm-up of a third of it, interleaved; median ± half \
         the spread; loopback; {}",
        options.rounds,
        options.seconds,
        match options.pin {
            Pin::Halves => {
                let (client, server) = halves();
                format!("sender on core {client}, receiver on core {server}")
            }
            Pin::None => "not pinned".to_owned(),
        }
    )];
    lines.push(machine());
    let lock = std::fs::read_to_string(peers.join("Cargo.lock")).unwrap_or_default();
    for one in ready {
        let version = one.system.version_of().map_or_else(String::new, |package| {
            format!(" {}", version(&lock, package).unwrap_or_default())
        });
        let about = match &one.runner {
            Ok(runner) => about(one, runner),
            Err(why) => why.clone(),
        };
        lines.push(format!("{}{version}: {about}", one.system.name()));
    }
    lines.push(
        "loss-…: a userspace relay loses UDP datagrams each way and delays them by 10 ms; a relay \
         of TCP would stall a stream where the kernel would have retransmitted, which is not \
         comparable: only those over QUIC that can be led through it are shown"
            .to_owned(),
    );
    lines
}

fn about(one: &Ready, runner: &Path) -> String {
    let said = one.command(runner, Pin::None).arg("--about").output();
    said.map_or_else(
        |e| e.to_string(),
        |said| String::from_utf8_lossy(&said.stdout).trim().to_owned(),
    )
}

fn version(lock: &str, package: &str) -> Option<String> {
    let at = lock
        .split("[[package]]")
        .find(|entry| entry.lines().any(|line| line == format!("name = \"{package}\"")))?;
    let line = at.lines().find(|line| line.starts_with("version = "))?;
    Some(line.trim_start_matches("version = ").trim_matches('"').to_owned())
}

fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = read("/proc/cpuinfo");
    let model = cpus.lines().find(|line| line.starts_with("model name"));
    let model = model.and_then(|line| line.split(':').nth(1)).unwrap_or("unknown CPU").trim();
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = read("/proc/sys/kernel/osrelease");
    format!("{cores} × {model}, Linux {}", kernel.trim())
}

/// What the machine had to do, as a line of the settings.
pub(crate) fn load() -> String {
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    format!("load at the end {}", load.split(' ').next().unwrap_or("unknown"))
}
