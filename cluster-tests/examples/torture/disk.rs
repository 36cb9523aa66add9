//! Disks that take no more: full, or read-only, when a node starts and while it runs.
//!
//! In a mount namespace of the trial's own, which the kernel takes away with its last process.

use std::process::{Command, Output, Stdio};
use std::time::Duration;

use purlin_cluster_tests::process::Cluster;

use crate::Outcome;
use crate::support::{check, client, run};

/// Runs the program under a shell, in a namespace with a small disk of its own at `$DISK`.
fn on_disk(cluster: &Cluster, prepare: &str, arguments: &[&str]) -> Command {
    let program = std::env::current_exe().unwrap();
    let script = format!(
        "set -e; mount -t tmpfs -o size=256k tmpfs \"$DISK\"; {prepare}; exec \"$0\" \"$@\""
    );
    let disk = cluster.home.path().join("disk");
    std::fs::create_dir_all(&disk).unwrap();
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]).arg(program).args(arguments);
    command.env("DISK", &disk).env("PURLIN_HOME", disk.join("home")).env_remove("PURLIN_AT");
    command
}

const FILL: &str = "dd if=/dev/zero of=\"$DISK/filler\" bs=1k count=10000 2>/dev/null || true";

/// What it says at its end: it must say something, without a panic.
fn refusal(output: &Output) -> Result<String, String> {
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().last().unwrap_or_default().to_owned();
    match output.status.code() {
        Some(code)
            if code != 0 && code != 101 && !said.contains("panicked") && !last.is_empty() =>
        {
            Ok(format!("exit code {code}, {last:?}"))
        }
        _ => Err(format!("{}: {said}", output.status)),
    }
}

const START: [&str; 5] = ["start", "--name", "a", "--listen", "127.0.0.1:0"];

/// A node whose disk becomes what it is while it runs: it goes on, and what cannot be written is said.
fn at_run_time(spoil: &str) -> Outcome {
    run(async {
        let cluster = Cluster::default();
        // The node first; then its disk is spoiled from within its namespace, by another process.
        let command = on_disk(&cluster, "true", &[]);
        let node = Cluster::start_with(command, "a", "127.0.0.1:0", &[]);
        let disk = cluster.home.path().join("disk");
        let inside = |script: &str| {
            Command::new("nsenter")
                .args(["--mount", "--target", &node.pid().to_string(), "sh", "-c", script])
                .env("DISK", &disk)
                .env("PURLIN_HOME", disk.join("home"))
                .stdin(Stdio::null())
                .output()
                .unwrap()
        };
        let copied = inside(&format!("cp -r \"$PURLIN_HOME\" {}", cluster.data_dir().display()));
        assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        let spoiled = inside(spoil);
        assert!(spoiled.status.success(), "{}", String::from_utf8_lossy(&spoiled.stderr));
        let program = std::env::current_exe().unwrap();
        let token = inside(&format!("{} token create", program.display()));
        let token = refusal(&token).map_err(|why| format!("a token: {why}"))?;
        // It is still a node.
        let client = client(&cluster, &node).await?;
        let status = client.status().await.map_err(|error| error.to_string())?;
        client.exit("purlin", purlin::ExitReason::Killed).await.map_err(|e| e.to_string())?;
        tokio::time::sleep(Duration::from_millis(500)).await;
        client.status().await.map_err(|error| format!("after a crash of a process: {error}"))?;
        check(status.ready, format!("at run time it goes on, and a token cannot be made: {token}"))
    })
}

pub(crate) fn full(_: Duration) -> Outcome {
    let cluster = Cluster::default();
    let output = on_disk(&cluster, FILL, &START).output().unwrap();
    let said = refusal(&output).map_err(|why| format!("at start: {why}"))?;
    let later = at_run_time(FILL)?;
    Ok(format!("at start: {said}; {later}"))
}

pub(crate) fn read_only(_: Duration) -> Outcome {
    let cluster = Cluster::default();
    let output = on_disk(&cluster, "mount -o remount,ro \"$DISK\"", &START).output().unwrap();
    let said = refusal(&output).map_err(|why| format!("at start: {why}"))?;
    // What is open already stays so; paths lead to what cannot be written.
    let later =
        at_run_time("mount --bind \"$DISK\" \"$DISK\" && mount -o remount,bind,ro \"$DISK\"")?;
    Ok(format!("at start: {said}; {later}"))
}
