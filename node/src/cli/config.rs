//! The settings of `purlin start` from a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use purlin_proto::{GrantedPermissions, Name, NodeName, Permission, Permissions};
use serde::Deserialize;

use super::Failure;
use super::args::{LogFormat, StartArgs, check_seconds};
use crate::NodeBuilder;

/// What a file may say; each key is an option of `purlin start`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConfigFile {
    name: Option<NodeName>,
    cluster: Option<Name>,
    listen: Option<String>,
    advertise: Option<SocketAddr>,
    #[serde(default)]
    seeds: Vec<String>,
    expect: Option<u16>,
    data_dir: Option<PathBuf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// In seconds.
    detect_in: Option<f64>,
    /// In seconds.
    drain_limit: Option<f64>,
    log: Option<String>,
    log_format: Option<LogFormat>,
    #[serde(default)]
    network: NetworkSettings,
    /// What clients may do, by patterns of their names.
    #[serde(default)]
    clients: BTreeMap<String, Vec<String>>,
}

/// What an operator may have to know of the network; see the builder's methods for the reasons.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NetworkSettings {
    /// What messages of each other node may take up in mailboxes here, in MiB.
    inflow_mib: Option<u16>,
    /// What may wait in each of four lanes to another node, in KiB.
    lane_kib: Option<u32>,
    /// The largest UDP payload that is tried, in bytes.
    mtu: Option<u16>,
    /// What may be under way in one stream, in KiB.
    window_kib: Option<u16>,
    /// How long a worker looks for packets before it sleeps, in microseconds.
    busy_wait_us: Option<u16>,
}

impl NetworkSettings {
    /// Says what is out of range.
    fn check(&self) -> Result<(), String> {
        let within = |name: &str, value: Option<u32>, least: u32, most: u32| match value {
            Some(value) if !(least..=most).contains(&value) => {
                Err(format!("network.{name} is {value}; it must be {least} to {most}"))
            }
            _ => Ok(()),
        };
        within("inflow_mib", self.inflow_mib.map(u32::from), 8, u32::from(u16::MAX))?;
        within("lane_kib", self.lane_kib, 64, 1 << 20)?;
        within("mtu", self.mtu.map(u32::from), 1_200, 65_527)?;
        within("window_kib", self.window_kib.map(u32::from), 16, u32::from(u16::MAX))?;
        within("busy_wait_us", self.busy_wait_us.map(u32::from), 0, 1_000)
    }

    pub(super) fn apply(self, mut builder: NodeBuilder) -> NodeBuilder {
        if let Some(mib) = self.inflow_mib {
            builder = builder.inflow_bytes(usize::from(mib) << 20);
        }
        if let Some(kib) = self.lane_kib {
            builder = builder.lane_bytes((kib as usize) << 10);
        }
        if let Some(bytes) = self.mtu {
            builder = builder.mtu(bytes);
        }
        if let Some(kib) = self.window_kib {
            builder = builder.window(u32::from(kib) << 10);
        }
        if let Some(us) = self.busy_wait_us {
            builder = builder.busy_wait(Duration::from_micros(u64::from(us)));
        }
        builder
    }
}

/// Fills in from the file what was not typed. Seeds that were typed replace those of the file;
/// labels are added to them.
pub(super) fn merge(mut args: StartArgs) -> Result<StartArgs, Failure> {
    let Some(path) = args.config.clone() else { return Ok(args) };
    let file = read(&path)?;
    args.name = args.name.or(file.name);
    args.cluster = args.cluster.or(file.cluster);
    args.listen = args.listen.or(file.listen);
    args.advertise = args.advertise.or(file.advertise);
    if args.seeds.is_empty() {
        args.seeds = file.seeds;
    }
    if let Some(bad) = file.expect.filter(|expect| !(1..=4_096).contains(expect)) {
        let text = format!("{}: expect is {bad}; it must be 1 to 4096", path.display());
        return Err(Failure::Usage(text));
    }
    args.expect = args.expect.or(file.expect);
    args.data_dir = args.data_dir.or(file.data_dir);
    let mut labels: Vec<_> = file.labels.into_iter().collect();
    labels.append(&mut args.labels);
    args.labels = labels;
    let detect_in = file.detect_in.map(check_seconds).transpose();
    let detect_in = detect_in
        .map_err(|error| Failure::Usage(format!("{}: detect_in: {error}", path.display())))?;
    args.detect_in = args.detect_in.or(detect_in);
    let drain_limit = file.drain_limit.map(check_seconds).transpose();
    let drain_limit = drain_limit
        .map_err(|error| Failure::Usage(format!("{}: drain_limit: {error}", path.display())))?;
    args.drain_limit = args.drain_limit.or(drain_limit);
    let place = |error| Failure::Usage(format!("{}: {error}", path.display()));
    file.network.check().map_err(place)?;
    args.network = file.network;
    args.clients = granted(&file.clients).map_err(place)?;
    args.log = args.log.or(file.log);
    args.log_format = args.log_format.or(file.log_format);
    Ok(args)
}

/// What the table `clients` says; an error names the entry.
fn granted(clients: &BTreeMap<String, Vec<String>>) -> Result<GrantedPermissions, String> {
    let mut granted = GrantedPermissions::default();
    for (name, may) in clients {
        let bad = |error: &dyn std::fmt::Display| format!("clients.{name:?}: {error}");
        let may: Result<Vec<Permission>, _> = may.iter().map(|text| text.parse()).collect();
        let may = may.and_then(Permissions::new).map_err(|error| bad(&error))?;
        granted.add(name, may).map_err(|error| bad(&error))?;
    }
    Ok(granted)
}

fn read(path: &Path) -> Result<ConfigFile, Failure> {
    let place = path.display();
    let text = std::fs::read_to_string(path)
        .map_err(|error| Failure::Usage(format!("cannot read {place}: {error}")))?;
    toml::from_str(&text).map_err(|error| Failure::Usage(format!("{place}: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::super::args::{Cli, Command};
    use super::*;

    #[test]
    fn a_file_says_what_options_say() {
        let file: ConfigFile = toml::from_str(
            r#"
            name = "a"
            listen = "127.0.0.1:0"
            seeds = ["127.0.0.1:7400"]
            detect_in = 2.5
            log_format = "json"
            [labels]
            zone = "b"
            [network]
            inflow_mib = 64
            mtu = 1452
            busy_wait_us = 0
            "#,
        )
        .expect("a valid file");
        assert_eq!(file.name, Some("a".into()));
        assert_eq!(file.detect_in, Some(2.5));
        assert_eq!(file.labels["zone"], "b");
        assert_eq!(file.network.check(), Ok(()));
        let builder = file.network.apply(NodeBuilder::default());
        assert_eq!((builder.mtu, builder.busy_wait), (1_452, Duration::ZERO));
    }

    #[test]
    fn a_time_out_of_range_is_refused_as_on_the_command_line() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("purlin.toml");
        for bad in ["0.0", "-1.0", "nan", "1e9"] {
            std::fs::write(&path, format!("detect_in = {bad}")).expect("written");
            let path = path.to_str().expect("text");
            let args = Cli::try_parse_from(["purlin", "start", "--config", path]);
            let Ok(Cli { command: Command::Start(args) }) = args else { panic!("{args:?}") };
            let refused = merge(args).expect_err("refused");
            assert!(matches!(&refused, Failure::Usage(text) if text.contains("detect_in")));
        }
    }

    #[test]
    fn a_setting_of_the_network_out_of_range_is_named() {
        let bad = ["inflow_mib = 1", "mtu = 100", "lane_kib = 1", "window_kib = 0"];
        for bad in bad.into_iter().chain(["busy_wait_us = 1001"]) {
            let file: ConfigFile = toml::from_str(&format!("[network]\n{bad}")).expect("a number");
            let error = file.network.check().expect_err(bad);
            assert!(error.contains(bad.split(' ').next().expect("a name")), "{error}");
        }
    }

    #[test]
    fn what_clients_may_do_is_read_and_what_is_wrong_with_it_is_named() {
        let read = |text: &str| {
            let file: ConfigFile = toml::from_str(text).map_err(|error| error.to_string())?;
            granted(&file.clients)
        };
        let found =
            read("[clients]\n\"shop-*\" = [\"read\", \"call:hits\"]\nold = []").expect("valid");
        assert_eq!(found.of("shop-1".into()).map(|may| may.iter().count()), Some(2));
        assert_eq!(found.of("old".into()), Some(Permissions::default()));
        assert_eq!(found.of("bank".into()), None);

        for (bad, says) in [
            ("\"shop/1\" = [\"read\"]", "\"shop/1\""),
            ("\"\" = [\"read\"]", "\"\""),
            ("shop = [\"reed\"]", "\"reed\""),
            ("shop = [\"call:global:\"]", "\"call:global:\""),
            ("shop = \"read\"", "shop"),
        ] {
            let error = read(&format!("[clients]\n{bad}")).expect_err(bad);
            assert!(error.contains(says), "{error}");
        }
    }

    #[test]
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<ConfigFile>("lisn = 1").expect_err("a typo");
        assert!(error.to_string().contains("lisn"), "{error}");
    }
}
