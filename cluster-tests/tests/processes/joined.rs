//! Joining with tokens, for tests of what comes afterwards.

use purlin_cluster_tests::process::{Cluster, Node};
use serde_json::Value;

/// Makes a token where the authority is; what the command line says of it.
pub(crate) fn new_token(cluster: &Cluster, more: &[&str]) -> Value {
    let made = cluster.purlin().args(["token", "create", "--format", "json"]).args(more).output();
    let made = made.expect("purlin runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    serde_json::from_slice(&made.stdout).expect("JSON")
}

/// The text of a token that is made for it.
pub(crate) fn token(cluster: &Cluster, more: &[&str]) -> String {
    new_token(cluster, more)["token"].as_str().expect("text").to_owned()
}

/// The data directory of a client `laptop` that has joined through a node, as if on another machine.
pub(crate) fn joined(cluster: &Cluster, node: &Node, role: &[&str]) -> Cluster {
    let elsewhere = Cluster::default();
    let mut join = elsewhere.purlin();
    join.env("PURLIN_TOKEN", token(cluster, role));
    let joined = join.args(["join", "--seed", &node.address, "--name", "laptop"]).output();
    let joined = joined.expect("purlin runs");
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    elsewhere
}
