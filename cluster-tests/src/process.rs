//! A cluster of real processes on loopback, driven through the command line.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Where `purlin` is; the gate builds it before the tests.
pub fn binary() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let profile = test.ancestors().find(|dir| dir.join("deps").is_dir()).unwrap();
    let binary = profile.join("purlin");
    assert!(binary.exists(), "{} is missing: run `cargo build -p purlin`", binary.display());
    binary
}

/// A home of credentials and the nodes started from it.
pub struct Cluster {
    pub home: tempfile::TempDir,
}

/// A node that runs as a process of its own; killed when it is dropped.
pub struct Node {
    pub name: String,
    pub address: String,
    pub ready: String,
    lines: Receiver<String>,
    log: Receiver<String>,
    namespace: Option<String>,
    child: Child,
}

impl Default for Cluster {
    fn default() -> Self {
        Self { home: tempfile::tempdir().unwrap() }
    }
}

impl Cluster {
    /// The command line with this cluster's credentials.
    pub fn purlin(&self) -> Command {
        self.purlin_in(None)
    }

    /// The same in a network namespace.
    fn purlin_in(&self, namespace: Option<&str>) -> Command {
        let mut command = match namespace {
            None => Command::new(binary()),
            Some(namespace) => {
                let mut command = Command::new("ip");
                command.args(["netns", "exec", namespace]).arg(binary());
                command
            }
        };
        command.env("PURLIN_HOME", self.data_dir()).env_remove("PURLIN_AT");
        command
    }

    pub fn data_dir(&self) -> PathBuf {
        self.home.path().join("home")
    }

    /// Starts a node on a free port; returns when it says that it is ready.
    pub fn start(&self, name: &str, more: &[&str]) -> Node {
        self.start_at(name, "127.0.0.1:0", more)
    }

    pub fn start_at(&self, name: &str, listen: &str, more: &[&str]) -> Node {
        Self::start_with(self.purlin(), name, listen, more)
    }

    /// Starts a node on a host of its own.
    pub fn start_in(&self, namespace: &str, name: &str, listen: &str, more: &[&str]) -> Node {
        let mut node = Self::start_with(self.purlin_in(Some(namespace)), name, listen, more);
        node.namespace = Some(namespace.to_owned());
        node
    }

    /// Starts one of the examples that have the whole command line.
    pub fn start_example(&self, example: &str, name: &str) -> Node {
        Self::start_with(self.example(example), name, "127.0.0.1:0", &[])
    }

    /// The command that runs an example with this cluster's credentials.
    pub fn example(&self, example: &str) -> Command {
        let example = binary().with_file_name("examples").join(example);
        assert!(example.exists(), "run `cargo build -p purlin --examples`");
        let mut command = Command::new(example);
        command.env("PURLIN_HOME", self.data_dir()).env_remove("PURLIN_AT");
        command
    }

    /// Starts a node by a command that takes the arguments of the command line.
    pub fn start_with(mut command: Command, name: &str, listen: &str, more: &[&str]) -> Node {
        let mut child = command
            .args(["start", "--name", name, "--listen", listen])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = lines_of(child.stdout.take().unwrap());
        let log = lines_of(child.stderr.take().unwrap());
        let ready = lines.recv_timeout(Duration::from_secs(10)).expect("a ready line");
        let address = ready.rsplit_once("listen=").expect("an address").1.to_owned();
        Node { name: name.to_owned(), address, ready, lines, log, namespace: None, child }
    }

    /// Three nodes `a`, `b`, `c` that all see each other.
    pub fn three(&self) -> [Node; 3] {
        let a = self.start("a", &[]);
        let b = self.start("b", &["--seed", &a.address]);
        let c = self.start("c", &["--seed", &a.address]);
        for node in [&a, &b, &c] {
            self.until_up(node, 3, Duration::from_secs(3));
        }
        [a, b, c]
    }

    /// Runs a command through a node.
    pub fn run(&self, at: &Node, args: &[&str]) -> Output {
        let mut command = self.purlin_in(at.namespace.as_deref());
        command.args(args).args(["--at", &at.address]).output().unwrap()
    }

    /// Runs a command that must succeed; what it printed.
    pub fn ok(&self, at: &Node, args: &[&str]) -> String {
        let output = self.run(at, args);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {errors}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    /// Runs a command with `--format json`.
    pub fn json(&self, at: &Node, args: &[&str]) -> Value {
        let mut args = args.to_vec();
        args.extend(["--format", "json"]);
        serde_json::from_str(&self.ok(at, &args)).unwrap()
    }

    /// The state of each member, as a node sees it.
    pub fn states(&self, at: &Node) -> Vec<(String, String)> {
        let members = self.json(at, &["members"]);
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        members
            .as_array()
            .unwrap()
            .iter()
            .map(|member| (text(&member["name"]), text(&member["state"])))
            .collect()
    }

    /// Waits until a node sees so many members up.
    pub fn until_up(&self, at: &Node, count: usize, limit: Duration) {
        let begun = Instant::now();
        loop {
            let states = self.states(at);
            if states.iter().filter(|(_, state)| state == "up").count() == count {
                return;
            }
            assert!(begun.elapsed() < limit, "{} sees {states:?} after {limit:?}", at.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until a node has a lease, and knows so many members of the ring view and voters.
    pub fn until_view(&self, at: &Node, members: usize, voters: usize, limit: Duration) {
        let begun = Instant::now();
        let count = |value: &Value| value.as_array().map_or(0, Vec::len);
        loop {
            let status = self.json(at, &["status"]);
            let view = &status["exclusive"];
            let fine = count(&view["members"]) == members && count(&view["voters"]) == voters;
            if fine && !view["lease_s"].is_null() {
                return;
            }
            assert!(begun.elapsed() < limit, "{} after {limit:?}: {view}", at.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Waits until what `purlin members` shows at a node is as it should be.
    pub fn until(&self, at: &Node, what: &str, limit: Duration, fine: impl Fn(&[Value]) -> bool) {
        let begun = Instant::now();
        loop {
            let members = self.json(at, &["members"]);
            if fine(members.as_array().unwrap()) {
                return;
            }
            assert!(begun.elapsed() < limit, "{} waited for {what}: {members}", at.name);
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// Follows `purlin watch`; returns when it watches.
    pub fn watch(&self, at: &Node) -> Watch {
        self.watch_with(at, &[])
    }

    pub fn watch_with(&self, at: &Node, more: &[&str]) -> Watch {
        Self::watch_by(self.purlin_in(at.namespace.as_deref()), &at.address, more)
    }

    pub fn watch_at(&self, address: &str, more: &[&str]) -> Watch {
        Self::watch_by(self.purlin(), address, more)
    }

    fn watch_by(mut command: Command, address: &str, more: &[&str]) -> Watch {
        let mut child = command
            .args(["watch", "--format", "json", "--at", address])
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let errors = lines_of(child.stderr.take().unwrap());
        let limit = Duration::from_secs(10);
        while !errors.recv_timeout(limit).expect("it watches").starts_with("watching ") {}
        Watch { lines: lines_of(child.stdout.take().unwrap()), child }
    }
}

impl Node {
    /// Ends it without a word, as the kernel does.
    pub fn kill_9(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Sends it a signal by name: STOP, CONT, TERM.
    pub fn signal(&self, name: &str) {
        let signal = format!("-{name}");
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([&signal, &pid]).status().unwrap().success());
    }

    /// Of the operating system.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The next line that it prints.
    pub fn next_line(&self, limit: Duration) -> String {
        self.lines.recv_timeout(limit).expect("a line")
    }

    /// The next line of its log with this text.
    pub fn until_logged(&self, text: &str, limit: Duration) -> String {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left);
            let line = line.unwrap_or_else(|_| panic!("{} did not log {text:?}", self.name));
            println!("{}: {line}", self.name);
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Waits for its end.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        exits_within(&mut self.child, limit)
    }

    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
        // Shown where a test fails.
        while let Ok(line) = self.log.recv_timeout(Duration::from_secs(1)) {
            println!("{}: {line}", self.name);
        }
    }
}

/// A running `purlin watch`.
pub struct Watch {
    lines: Receiver<String>,
    child: Child,
}

impl Watch {
    /// The next event of this name, within a time.
    pub fn next(&self, event: &str, limit: Duration) -> Value {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left).unwrap_or_else(|_| panic!("no {event}"));
            let value: Value = serde_json::from_str(&line).unwrap();
            if value["event"] == event {
                return value;
            }
        }
    }
}

impl Watch {
    /// All events that have come and were not asked for.
    pub fn so_far(&self) -> Vec<Value> {
        self.lines.try_iter().map(|line| serde_json::from_str(&line).unwrap()).collect()
    }

    /// Waits for an event of this name about this node, whoever saw it.
    pub fn until(&self, event: &str, name: &str, limit: Duration) {
        let begun = Instant::now();
        while self.next(event, limit.saturating_sub(begun.elapsed()))["name"] != name {}
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It may have ended already.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Waits for the end of a process.
pub fn exits_within(child: &mut Child, limit: Duration) -> ExitStatus {
    let begun = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begun.elapsed() < limit, "{} still runs after {limit:?}", child.id());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The lines of a stream, as they come.
fn lines_of(stream: impl std::io::Read + Send + 'static) -> Receiver<String> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    receiver
}
