//! Starts two Erlang nodes for `otp.erl`, which does the rest.
//!
//! Distribution over TCP with OTP's defaults, or with `PEER_OTP=tls` over TLS where both sides have
//! to show a certificate of one authority, as OTP's guide "Using TLS for Erlang Distribution" has
//! it. No epmd: the module is its own.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use meter::{Outcome, Task};
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

const SOURCE: &str = include_str!("otp.erl");

fn main() -> ExitCode {
    let tls = std::env::var("PEER_OTP").as_deref() == Ok("tls");
    let mut arguments = std::env::args().skip(1);
    let first = arguments.next().unwrap_or_default();
    if first == "--about" {
        println!("{}", about(tls));
        return ExitCode::SUCCESS;
    }
    let outcome = match run(&first, arguments.next().as_deref().unwrap_or("1.5"), tls) {
        Ok(line) => line,
        Err(error) => Outcome::Failed(format!("{error:#}")),
    };
    match serde_json::to_string(&outcome) {
        Ok(line) => println!("{line}"),
        Err(error) => eprintln!("{error}"),
    }
    ExitCode::SUCCESS
}

fn about(tls: bool) -> String {
    let eval = "io:format(\"OTP ~s, ERTS ~s\", [erlang:system_info(otp_release), \
                erlang:system_info(version)]), halt().";
    let said = Command::new("erl").args(["-noshell", "-eval", eval]).output();
    let version = said.map(|said| String::from_utf8_lossy(&said.stdout).into_owned());
    let road = if tls { "TLS 1.3, both sides with certificates" } else { "TCP, not encrypted" };
    format!("{}; gen_server:call and `!`; defaults; {road}", version.unwrap_or_default())
}

/// A node that ends with us: its standard input does.
struct Node(Child);

impl Drop for Node {
    fn drop(&mut self) {
        // It may have been killed already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn run(name: &str, seconds: &str, tls: bool) -> Result<Outcome> {
    let task: Task = name.parse().map_err(anyhow::Error::msg)?;
    if task.loss.is_some() {
        return Ok(Outcome::Missing("over TCP".to_owned()));
    }
    let seconds: f64 = seconds.parse()?;
    let home = tempfile::tempdir()?;
    std::fs::write(home.path().join("otp.erl"), SOURCE)?;
    let compiled =
        Command::new("erlc").arg("otp.erl").current_dir(home.path()).output().context("erlc")?;
    ensure!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stdout));
    if tls {
        certificates(home.path())?;
    }
    let start = |role: &str, node: &str| {
        let mut command = Command::new("erl");
        command.args(["-noshell", "-pa"]).arg(home.path());
        command.args(["-start_epmd", "false", "-epmd_module", "otp"]);
        command.args(["-sname", node, "-setcookie", "bench", "-s", "otp", role]);
        command.args(["-kernel", "inet_dist_use_interface", "{127,0,0,1}"]);
        if tls {
            command.args(["-proto_dist", "inet_tls", "-ssl_dist_optfile"]);
            command.arg(home.path().join("ssl.conf"));
        }
        command.env("METER_HOME", home.path()).env("METER_FAR", "far@localhost");
        command.env("METER_TASK", name).env("METER_SECONDS", format!("{seconds:.3}"));
        command.env("ERL_CRASH_DUMP_SECONDS", "0");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let output = child.stdout.take().context("its output")?;
        anyhow::Ok((Node(child), BufReader::new(output)))
    };
    meter::pin_server()?;
    let (_far, mut output) = start("far", "far@localhost")?;
    until(&mut output, |line| line == "ready").context("the far node")?;
    meter::pin_client()?;
    let (_near, mut output) = start("near", "near@localhost")?;
    let line = until(&mut output, |line| line.starts_with("{\"done\"")).context("the near node")?;
    // Its output is Latin-1.
    let line = line.replace("\"us\"", "\"µs\"");
    serde_json::from_str(&line).with_context(|| line.clone())
}

/// The first line that is meant, and what was said before it if it does not come.
fn until(output: &mut BufReader<ChildStdout>, meant: impl Fn(&str) -> bool) -> Result<String> {
    let mut said = String::new();
    for line in output.lines() {
        let line = line?;
        if meant(line.trim()) {
            return Ok(line);
        }
        said += &line;
        said.push(' ');
    }
    anyhow::bail!("it ended: {said}")
}

/// An authority, a certificate for each node, and the options of the distribution.
fn certificates(home: &Path) -> Result<()> {
    let key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    // Not the name that rcgen gives to all: a certificate by its own name would be self-signed.
    authority.distinguished_name.push(DnType::CommonName, "authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let root = authority.self_signed(&key)?;
    let issuer = Issuer::new(authority, key);
    std::fs::write(home.join("ca.pem"), root.pem())?;
    // The same certificate serves both nodes: they share a host.
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec!["localhost".to_owned()])?;
    params.distinguished_name.push(DnType::CommonName, "node");
    let certificate = params.signed_by(&key, &issuer)?;
    std::fs::write(home.join("node.pem"), certificate.pem())?;
    std::fs::write(home.join("key.pem"), key.serialize_pem())?;
    let file = |name: &str| format!("{:?}", home.join(name).display().to_string());
    let (ca, node, key) = (file("ca.pem"), file("node.pem"), file("key.pem"));
    let options = format!(
        "{{cacertfile,{ca}}},{{certfile,{node}}},{{keyfile,{key}}},{{verify,verify_peer}},\
         {{secure_renegotiate,true}}"
    );
    let conf =
        format!("[{{server,[{options},{{fail_if_no_peer_cert,true}}]}},{{client,[{options}]}}].");
    Ok(std::fs::write(home.join("ssl.conf"), conf)?)
}
