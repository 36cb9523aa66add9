//! Five hosts with addresses of their own, each with a node: cut off, in halves, one way; frozen,
//! killed, moved. On the real binary and the kernel's own network.
//!
//! Where network namespaces are not allowed each test says so and does nothing else.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use purlin_cluster_tests::hosts::Hosts;
use purlin_cluster_tests::process::{Cluster, Node, Watch};
use serde_json::Value;

/// Within this time a silent node is down.
const DETECT_IN: &str = "2";

/// What takes a detection takes no longer than this, also on a busy machine.
const SOON: Duration = Duration::from_secs(15);

/// And what takes a few of them.
const LATER: Duration = Duration::from_secs(40);

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// Five hosts with a node each, and a process `hits` on every node. Nodes first, so that they end
/// before their hosts.
struct World {
    nodes: Vec<Node>,
    cluster: Cluster,
    hosts: Hosts,
}

impl World {
    /// `None`, and a word about it, where there can be none.
    fn start(what: &str) -> Option<Self> {
        let hosts = match Hosts::new(5) {
            Ok(hosts) => hosts,
            Err(why) => {
                println!("SKIPPED {what}: no network namespaces here: {why}");
                return None;
            }
        };
        let mut world = Self { nodes: Vec::new(), cluster: Cluster::default(), hosts };
        for host in 1..=5 {
            let node = world.start_node(host, &Hosts::address(host));
            world.nodes.push(node);
        }
        world.until_all_see(&NAMES, SOON);
        for (node, name) in world.nodes.iter().zip(NAMES) {
            let of_it = format!("{name}1");
            world.cluster.ok(node, &["spawn", "counter", "1", "--name", &of_it]);
        }
        Some(world)
    }

    fn start_node(&self, host: u8, address: &str) -> Node {
        let name = NAMES[usize::from(host) - 1];
        let (first, second) =
            (format!("{}:7400", Hosts::address(1)), format!("{}:7400", Hosts::address(2)));
        let seeds = ["--seed", &first, "--seed", &second, "--detect-in", DETECT_IN];
        let listen = format!("{address}:7400");
        self.cluster.start_in(&self.hosts.namespace(host), name, &listen, &seeds)
    }

    fn node(&self, name: &str) -> &Node {
        self.nodes.iter().find(|node| node.name == name).unwrap()
    }

    fn members(&self, at: &str) -> Vec<Value> {
        self.cluster.json(self.node(at), &["members"]).as_array().unwrap().clone()
    }

    /// Which life of a node another sees. On a busy machine one of the two may be new itself.
    fn id(&self, at: &str, of: &str) -> String {
        let begun = std::time::Instant::now();
        loop {
            let members = self.members(at);
            if let Some(member) = members.iter().find(|member| member["name"] == of) {
                return member["id"].as_str().unwrap().to_owned();
            }
            assert!(begun.elapsed() < SOON, "{at} knows no {of}: {members:?}");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until these see each other as up, and nobody else, not even as suspect.
    fn until_all_see(&self, names: &[&str], limit: Duration) {
        for name in names {
            self.cluster.until(self.node(name), "its side", limit, |members| {
                let up = members.iter().filter(|member| member["state"] == "up");
                let up: Vec<_> = up.map(|member| member["name"].as_str().unwrap()).collect();
                let suspect = members.iter().any(|member| member["state"] == "suspect");
                up == names && !suspect
            });
        }
    }

    /// Whether a call from one node to a process on another is answered.
    fn reaches(&self, from: &str, to: &str) -> bool {
        let target = format!("{to}1@{to}");
        let args = ["call", &target, "counter.read", "--timeout", "6"];
        self.cluster.run(self.node(from), &args).status.success()
    }

    fn until_reaches(&self, from: &str, to: &str, limit: Duration) {
        let begun = std::time::Instant::now();
        while !self.reaches(from, to) {
            assert!(begun.elapsed() < limit, "{from} does not reach {to}");
        }
    }

    fn watch(&self, at: &str) -> Watch {
        self.cluster.watch(self.node(at))
    }

    /// Whether these events came about nobody.
    fn assert_none(watch: &Watch, events: &[&str]) {
        for event in watch.so_far() {
            assert!(!events.contains(&event["event"].as_str().unwrap()), "{event}");
        }
    }
}

#[test]
fn a_host_that_is_cut_off_is_down_and_comes_back_by_itself() {
    let Some(world) = World::start("a host that is cut off") else { return };
    let before: Vec<_> = NAMES.iter().map(|of| world.id("a", of)).collect();

    world.hosts.cut(&[5], &[1, 2, 3, 4]).unwrap();
    world.until_all_see(&NAMES[..4], SOON);
    world.until_all_see(&NAMES[4..], LATER);
    assert!(!world.reaches("a", "e"));
    world.hosts.heal();
    world.until_all_see(&NAMES, LATER);

    for (name, before) in NAMES.iter().zip(&before) {
        assert_eq!(world.id("a", name) == *before, *name != "e", "{name} was {before}");
    }
    world.until_reaches("a", "e", SOON);
    world.until_reaches("e", "a", SOON);
}

#[test]
fn halves_go_on_and_the_smaller_one_comes_back() {
    let Some(world) = World::start("halves") else { return };
    let before: Vec<_> = NAMES.iter().map(|of| world.id("a", of)).collect();

    world.hosts.cut(&[1, 2, 3], &[4, 5]).unwrap();
    world.until_all_see(&NAMES[..3], LATER);
    world.until_all_see(&NAMES[3..], LATER);
    assert!(world.reaches("a", "c") && world.reaches("d", "e"), "both sides work");
    world.hosts.heal();
    world.until_all_see(&NAMES, LATER);

    for (name, before) in NAMES.iter().zip(&before) {
        let smaller = ["d", "e"].contains(name);
        assert_eq!(world.id("a", name) != *before, smaller, "{name} was {before}");
    }
    world.until_reaches("a", "d", SOON);
    world.until_reaches("e", "b", SOON);
}

#[test]
fn two_hosts_between_which_packets_pass_one_way_stay_members_and_cannot_talk() {
    let Some(world) = World::start("packets one way") else { return };
    let watch = world.watch("c");

    world.hosts.cut_one_way(1, 2).unwrap();
    // Each call into the gap fails when its connection is given up, or cannot be made.
    assert!(!world.reaches("a", "b") && !world.reaches("b", "a"));
    assert!(world.reaches("c", "a") && world.reaches("c", "b"));
    for at in ["a", "b"] {
        let other = if at == "a" { "b" } else { "a" };
        let why = world.cluster.json(world.node("c"), &["why", other]);
        let views = why["views"].as_array().unwrap();
        let view = views.iter().find(|view| view["seen_by"] == at).unwrap();
        let events = view["events"].as_array().unwrap();
        assert!(events.iter().any(|event| event["event"] == "disconnected"), "{view}");
    }
    world.hosts.heal();
    world.until_reaches("a", "b", SOON);
    world.until_reaches("b", "a", SOON);

    World::assert_none(&watch, &["node_down"]);
}

#[test]
fn a_host_that_hears_nothing_is_down_and_comes_back() {
    let Some(world) = World::start("a host that hears nothing") else { return };
    let before = world.id("a", "e");

    for other in 1..=4 {
        world.hosts.cut_one_way(other, 5).unwrap();
    }
    world.until_all_see(&NAMES[..4], SOON);
    world.hosts.heal();
    world.until_all_see(&NAMES, LATER);

    assert_ne!(world.id("a", "e"), before);
    world.until_reaches("a", "e", SOON);
}

#[test]
fn a_frozen_host_comes_back_a_killed_one_is_seen_at_once_and_starts_elsewhere() {
    let Some(mut world) = World::start("freeze, kill, restart elsewhere") else { return };
    let watch = world.watch("a");
    let before = world.id("a", "d");
    world.node("d").signal("STOP");
    watch.until("node_down", "d", SOON);
    world.node("d").signal("CONT");
    world.until_all_see(&NAMES, LATER);
    assert_ne!(world.id("a", "d"), before);

    let mut e = world.nodes.pop().unwrap();
    e.kill_9();
    let killed = std::time::Instant::now();
    watch.until("node_down", "e", SOON);
    println!("kill -9 seen after {:.0?}", killed.elapsed());
    world.until_all_see(&NAMES[..4], SOON);

    let elsewhere = "10.77.0.105";
    world.hosts.set_address(5, elsewhere).unwrap();
    let e = world.start_node(5, elsewhere);
    world.nodes.push(e);
    world.until_all_see(&NAMES, SOON);
    for at in NAMES {
        let members = world.members(at);
        assert_eq!(members[4]["address"], format!("{elsewhere}:7400"), "as {at} sees it");
    }
}

#[test]
fn a_host_that_gets_another_address_stays_reachable() {
    let Some(mut world) = World::start("another address") else { return };
    let e = world.nodes.pop().unwrap();
    world.cluster.ok(&e, &["leave"]);
    drop(e);
    let mut e = world.start_node(5, "0.0.0.0");
    e.address = "127.0.0.1:7400".to_owned();
    world.nodes.push(e);
    world.until_all_see(&NAMES, SOON);
    world.cluster.ok(world.node("e"), &["spawn", "counter", "1", "--name", "e1"]);
    let members = world.members("d");
    assert_eq!(members[4]["address"], format!("{}:7400", Hosts::address(5)), "and not all");

    world.hosts.set_address(5, "10.77.0.15").unwrap();
    std::thread::sleep(Duration::from_secs(6));

    world.until_all_see(&NAMES, LATER);
    for other in &NAMES[..4] {
        world.until_reaches("e", other, LATER);
        world.until_reaches(other, "e", LATER);
    }
}
