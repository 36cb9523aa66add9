//! The settings of `purlin start` from a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use purlin_proto::{Name, NodeName};
use serde::Deserialize;

use super::Failure;
use super::args::{LogFormat, StartArgs, check_seconds};

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
    data_dir: Option<PathBuf>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// In seconds.
    detect_in: Option<f64>,
    log: Option<String>,
    log_format: Option<LogFormat>,
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
    args.data_dir = args.data_dir.or(file.data_dir);
    let mut labels: Vec<_> = file.labels.into_iter().collect();
    labels.append(&mut args.labels);
    args.labels = labels;
    let detect_in = file.detect_in.map(check_seconds).transpose();
    let detect_in = detect_in
        .map_err(|error| Failure::Usage(format!("{}: detect_in: {error}", path.display())))?;
    args.detect_in = args.detect_in.or(detect_in);
    args.log = args.log.or(file.log);
    args.log_format = args.log_format.or(file.log_format);
    Ok(args)
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
            "#,
        )
        .expect("a valid file");
        assert_eq!(file.name, Some("a".into()));
        assert_eq!(file.detect_in, Some(2.5));
        assert_eq!(file.labels["zone"], "b");
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
    fn an_unknown_key_is_an_error_that_names_it() {
        let error = toml::from_str::<ConfigFile>("lisn = 1").expect_err("a typo");
        assert!(error.to_string().contains("lisn"), "{error}");
    }
}
