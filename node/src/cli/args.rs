//! What can be typed.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;
use purlin_proto::join::TokenId;
use purlin_proto::supervision::Restart;
use purlin_proto::{ChildId, ChildPlacement, Dest, Group, Name, NodeName, Permission, Placement};

/// A distributed actor cluster node, and its command line.
#[derive(Debug, Parser)]
#[command(
    name = "purlin",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  purlin start --name a                          start a node
  purlin start --name b --seed 127.0.0.1:7400    start another that joins it
  purlin spawn counter --on b --name hits        start a process on node b
  purlin call hits@b counter.add 5               call it through any node
  purlin members                                 who is in the cluster

Exit codes: 0 done, 1 the cluster said no, 2 wrong usage, 3 no connection,
130 interrupted while stopping."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Start a node and run it until it is stopped.
    #[command(after_help = "\
Examples:
  purlin start
  purlin start --name b --listen 127.0.0.1:0 --seed 127.0.0.1:7400 --label zone=b
  purlin start --name c --seed cluster.local:7400 --expect 3
  PURLIN_TOKEN=purlin-node-… purlin start --name d --seed 10.0.0.1:7400 --listen 10.0.0.2:7400
  purlin start --config /etc/purlin.toml")]
    Start(StartArgs),
    /// Show how a node is.
    #[command(after_help = "Example:\n  purlin status --format json")]
    Status(AskArgs),
    /// Show the members of the cluster, as one node sees them.
    #[command(after_help = "Example:\n  purlin members --at 127.0.0.1:7400")]
    Members(AskArgs),
    /// Show processes.
    #[command(after_help = "Example:\n  purlin ps --all")]
    Ps {
        /// Of the whole cluster.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show all about one process.
    #[command(after_help = "Examples:\n  purlin info hits@b\n  purlin info b.1763700000000.42")]
    Info {
        /// A pid, NAME, NAME@NODE or global:NAME.
        target: Dest,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the processes of a node under those that started them; or the children of cluster
    /// supervisors, where each runs, and why there.
    ///
    /// The cluster's name is given as --cluster-name here.
    #[command(
        after_help = "Examples:\n  purlin tree --on b\n  purlin tree --cluster",
        mut_arg("cluster", |arg| arg.long("cluster-name"))
    )]
    Tree {
        /// The children of cluster supervisors, as the asked node sees them.
        #[arg(long = "cluster")]
        children: bool,
        /// Of this node, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Have children of cluster supervisors run, or not any more; `purlin tree --cluster` shows them.
    #[command(
        subcommand,
        after_help = "\
Examples:
  purlin child start jobs/nightly counter --available
  purlin child start jobs/feed kv --available --on label:zone=eu --restart transient
  purlin child stop jobs/nightly"
    )]
    Child(ChildCommand),
    /// Show why a process ended, or was restarted; why a child of a cluster supervisor runs where it
    /// runs; or why a node was suspected, or is down.
    ///
    /// Of a node every member tells what it has seen: probes that failed, who suspected it, what
    /// refuted that, and the last events in order; the node itself tells how it was stalled.
    #[command(after_help = "\
Examples:
  purlin why hits@b
  purlin why b.1763700000000.42
  purlin why child:jobs/nightly
  purlin why b")]
    Why {
        /// A pid, also of a process that is gone, NAME, NAME@NODE or global:NAME; a child as
        /// child:SUPERVISOR/CHILD; or a node's name, which goes before a process of the same name.
        target: Dest,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the registered names of a node, or the global ones.
    #[command(after_help = "Examples:\n  purlin names --on b\n  purlin names --global")]
    Names {
        /// The global names of the cluster, as the asked node knows them.
        #[arg(long)]
        global: bool,
        /// Of this node, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the groups of processes, or who is in one.
    #[command(after_help = "Examples:\n  purlin groups\n  purlin groups jobs/workers")]
    Groups {
        /// NAME or SCOPE/NAME; all groups unless said otherwise.
        group: Option<Group>,
        /// As this node sees them, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the topics that anybody subscribes to.
    #[command(after_help = "Example:\n  purlin topics")]
    Topics {
        /// As this node sees them, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show which member owns a key.
    #[command(after_help = "Example:\n  purlin ring user:42")]
    Ring {
        /// Any text.
        key: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Show the keyed processes of a node: which keys are in use, and where.
    ///
    /// IDLE is for how long a process has handled nothing, as far as anybody has looked.
    #[command(after_help = "\
Examples:
  purlin keyed --all
  purlin keyed cart --on b --limit 50
  purlin ring cart/anna")]
    Keyed {
        /// Of this kind only.
        kind: Option<Name>,
        /// Of the whole cluster.
        #[arg(long)]
        all: bool,
        /// Of this node, instead of the one that is asked.
        #[arg(long, value_name = "NODE", conflicts_with = "all")]
        on: Option<NodeName>,
        /// Show so many at most.
        #[arg(long, value_name = "N", default_value_t = 1_000)]
        limit: usize,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Start a process.
    #[command(after_help = "\
Examples:
  purlin spawn counter 10 --name hits
  purlin spawn kv --on b --name settings
  purlin spawn kv --on label:zone=eu,disk=ssd
  purlin spawn counter --on c --global hits --group counters")]
    Spawn {
        /// The kind of actor; `purlin status` lists those of a node.
        kind: Name,
        /// Its arguments, as JSON; null unless said otherwise.
        #[arg(value_name = "ARGS-JSON")]
        args: Option<String>,
        /// Register it under this name on its node.
        #[arg(long)]
        name: Option<Name>,
        /// Give it this global name, which no other process in the cluster has.
        #[arg(long, value_name = "NAME")]
        global: Option<Name>,
        /// Give it that name also where the majority of voters cannot be reached; after a split
        /// another process may have it too, until one of the two loses it.
        #[arg(long, requires = "global")]
        available: bool,
        /// Have it join this group; may be repeated.
        #[arg(long = "group", value_name = "GROUP")]
        groups: Vec<Group>,
        /// Start it on this node, instead of the one that is asked, or on a member with these
        /// labels: label:KEY=VALUE, several with commas between. Of several members each in turn.
        #[arg(long, value_name = "NODE|LABELS")]
        on: Option<Placement>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Call a process and print its reply as JSON.
    #[command(after_help = "\
Examples:
  purlin call hits@b counter.add 5
  purlin call global:hits counter.add 5
  purlin call group:counters:nearest counter.read
  purlin call key:counter/anna counter.add 5
  purlin call child:jobs/nightly counter.read
  purlin call settings kv.put '{\"key\": \"color\", \"value\": \"blue\"}'
  purlin call purlin@b node.status")]
    Call {
        /// A pid, NAME, NAME@NODE, global:NAME, group:NAME, key:KIND/KEY or child:SUPERVISOR/CHILD.
        target: Dest,
        /// The message's name; `purlin info` lists those of a process.
        message: Name,
        /// Its body, as JSON; null unless said otherwise.
        json: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Send a message to a process, group or topic, without waiting for anything.
    #[command(after_help = "\
Examples:
  purlin send hits@b counter.add 5
  purlin send group:counters counter.add 5
  purlin send group:counters:key=user:42 counter.add 5")]
    Send {
        /// A pid, NAME, NAME@NODE, global:NAME, key:KIND/KEY, topic:NAME or
        /// group:[SCOPE/]NAME[:PICK], where PICK is all, random, round-robin, nearest or key=KEY.
        target: Dest,
        /// The message's name.
        message: Name,
        /// Its body, as JSON; null unless said otherwise.
        json: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Publish a message to a topic.
    #[command(after_help = "Example:\n  purlin publish news paper.news '\"it rains\"'")]
    Publish {
        /// The topic.
        topic: Name,
        /// The message's name.
        message: Name,
        /// Its body, as JSON; null unless said otherwise.
        json: Option<String>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print what is published to topics, as it comes.
    ///
    /// What is published as JSON is printed; of what Rust programs publish, name and size.
    #[command(after_help = "Example:\n  purlin subscribe news weather --format json")]
    Subscribe {
        /// The topics.
        #[arg(required = true)]
        topics: Vec<Name>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Ask a process to end.
    #[command(after_help = "Examples:\n  purlin exit hits@b\n  purlin exit hits@b --kill")]
    Exit {
        /// A pid, NAME, NAME@NODE or global:NAME.
        target: Dest,
        /// End it at once; it cannot refuse.
        #[arg(long, conflicts_with = "reason")]
        kill: bool,
        /// The reason that it ends with.
        #[arg(long, default_value = "shutdown")]
        reason: String,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Take a node out of service: nothing is placed on it any more, what runs there moves to other
    /// members, then it leaves and stops.
    ///
    /// Keyed processes and children of cluster supervisors move with their state, exclusive ones when
    /// the voters have agreed to it; calls that are out are waited for. Other processes end with the
    /// node, and names that they have with them. Prints what moves where,
    /// and returns when all has moved, or the node's --drain-limit is up. Meanwhile `purlin members`
    /// shows the node as draining, and calls to what moves go on without an error.
    #[command(after_help = "\
Examples:
  purlin drain --node b --dry-run
  purlin drain --node b")]
    Drain {
        /// This node, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        node: Option<NodeName>,
        /// Print what would move where, which names end with the node and how many calls are out, and do
        /// nothing.
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Make a node leave the cluster and stop. It moves what can move first, as `purlin drain` does;
    /// this does not wait for it.
    #[command(after_help = "Example:\n  purlin leave --at 127.0.0.1:7401")]
    Leave {
        /// This node, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print what happens in the cluster, as it happens.
    #[command(after_help = "Example:\n  purlin watch --format json")]
    Watch {
        /// Only what this node sees; may be repeated. All members unless said otherwise.
        #[arg(long = "on", value_name = "NODE")]
        on: Vec<NodeName>,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Make, show or revoke tokens that let nodes and clients of other machines join.
    ///
    /// Works where the authority's key is (authority.key in the data directory), for a user who may
    /// read it; no other node or client can make tokens. A token is good while a node runs from that
    /// directory; `--seed` may name any member.
    #[command(
        subcommand,
        after_help = "\
Examples:
  purlin token create
  purlin token create --ttl 30m --uses 5
  purlin token create --role operator
  purlin token create --role client --may call:hits --may 'send:topic:*'
  purlin token list
  purlin token revoke 3f9c2a7be0d1845f"
    )]
    Token(TokenCommand),
    /// Get the credentials of a client or operator with a token, for this command line and programs.
    ///
    /// They are kept in the data directory. A node joins with `purlin start --token`.
    #[command(after_help = "\
Example:
  PURLIN_TOKEN=purlin-operator-… purlin join --seed 10.0.0.1:7400
  purlin members --at 10.0.0.1:7400")]
    Join(JoinArgs),
    /// Show certificates and when they expire, have them made anew, or revoke them; rotate the
    /// authority.
    ///
    /// `show` tells what is in the data directory. `revoke` works where the authority's key is, and
    /// tells all members through one that runs: they close the connections of whoever has such a
    /// certificate, and refuse it from then on.
    #[command(
        subcommand,
        after_help = "\
Examples:
  purlin cert show
  purlin cert renew
  purlin cert revoke client:laptop
  purlin cert revoke 019aa4db6d0007070707070707070707 --at 10.0.0.2:7400"
    )]
    Cert(CertCommand),
    /// Measure the cluster through one client: round trips, calls, one-way messages.
    ///
    /// A process of the kind `echo` is started for it and removed afterwards.
    #[command(after_help = "\
Examples:
  purlin bench
  purlin bench --on b --seconds 10
  purlin bench --at 10.0.0.1:7400 --format json")]
    Bench {
        /// Against a process on this node, instead of the one that is asked.
        #[arg(long, value_name = "NODE")]
        on: Option<NodeName>,
        /// Measure each figure for so many seconds.
        #[arg(long, value_name = "SECONDS", default_value = "2", value_parser = seconds)]
        seconds: Duration,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Print a script that completes commands in a shell.
    #[command(
        after_help = "Example:\n  purlin completions bash > ~/.local/share/bash-completion/completions/purlin"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
}

impl Command {
    /// How it reaches the cluster; `None` for what asks nobody.
    pub(crate) fn ask(&self) -> Option<&AskArgs> {
        match self {
            Self::Start(_)
            | Self::Token(_)
            | Self::Cert(_)
            | Self::Join(_)
            | Self::Completions { .. } => None,
            Self::Status(ask)
            | Self::Members(ask)
            | Self::Ps { ask, .. }
            | Self::Info { ask, .. }
            | Self::Tree { ask, .. }
            | Self::Why { ask, .. }
            | Self::Child(
                ChildCommand::Start { ask, .. }
                | ChildCommand::Stop { ask, .. }
                | ChildCommand::Restart { ask, .. },
            )
            | Self::Names { ask, .. }
            | Self::Groups { ask, .. }
            | Self::Topics { ask, .. }
            | Self::Publish { ask, .. }
            | Self::Subscribe { ask, .. }
            | Self::Ring { ask, .. }
            | Self::Keyed { ask, .. }
            | Self::Drain { ask, .. }
            | Self::Spawn { ask, .. }
            | Self::Call { ask, .. }
            | Self::Send { ask, .. }
            | Self::Exit { ask, .. }
            | Self::Leave { ask, .. }
            | Self::Watch { ask, .. }
            | Self::Bench { ask, .. } => Some(ask),
        }
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum ChildCommand {
    /// Have a child run, on whichever node. Nothing happens if it is there with the same plan.
    #[command(after_help = "Example:\n  purlin child start jobs/nightly counter 10 --available")]
    Start {
        /// SUPERVISOR/CHILD.
        child: ChildId,
        /// Its kind; each node that it may run on has to know it.
        kind: Name,
        /// What it is started with, as JSON; null unless said otherwise.
        args: Option<String>,
        /// Where: ring, least-loaded, or label:KEY=VALUE, several with commas between.
        #[arg(long, value_name = "PLACEMENT", default_value_t = ChildPlacement::Ring)]
        on: ChildPlacement,
        /// Whether it is started again when it has ended: permanent always, transient after a crash,
        /// temporary never.
        #[arg(long, value_parser = restart, default_value = "permanent")]
        restart: Restart,
        /// In each part of a split one may run, instead of one at most in the cluster.
        #[arg(long)]
        available: bool,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Stop a child for good.
    #[command(after_help = "Example:\n  purlin child stop jobs/nightly")]
    Stop {
        /// SUPERVISOR/CHILD.
        child: ChildId,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Start a child again that was given up, is poison, or done.
    #[command(after_help = "Example:\n  purlin child restart jobs/nightly")]
    Restart {
        /// SUPERVISOR/CHILD.
        child: ChildId,
        #[command(flatten)]
        ask: AskArgs,
    },
}

fn restart(text: &str) -> Result<Restart, String> {
    match text {
        "permanent" => Ok(Restart::Permanent),
        "transient" => Ok(Restart::Transient),
        "temporary" => Ok(Restart::Temporary),
        _ => Err("permanent, transient or temporary".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token and print it; it is not shown again.
    #[command(after_help = "Example:\n  purlin token create --ttl 30m --uses 5")]
    Create {
        /// How long it may be used, as 90s, 30m, 1h or 7d; at most 30d. It does not limit the
        /// certificates that are given for it.
        #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
        ttl: Duration,
        /// How many may join with it.
        #[arg(long, value_name = "N", default_value_t = 1,
            value_parser = clap::value_parser!(u32).range(1..=1_000))]
        uses: u32,
        /// What it lets them be.
        #[arg(long, value_enum, default_value_t = TokenRole::Node)]
        role: TokenRole,
        /// What a client may do; may be repeated, up to 32 times. `read`, or `call:`, `send:` or
        /// `exit:` and a target (NAME, NAME@NODE, global:NAME, group:NAME, topic:NAME,
        /// key:KIND/KEY, kind:KIND, pid:NODE), `spawn:KIND`, `subscribe:TOPIC`; `*` stands for any
        /// characters.
        #[arg(long, value_name = "PERMISSION")]
        may: Vec<Permission>,
        #[command(flatten)]
        tokens: TokenArgs,
    },
    /// Show the tokens and who has joined with them, also those that were over within 30 days.
    #[command(after_help = "Example:\n  purlin token list --format json")]
    List(TokenArgs),
    /// Let nobody join with a token any more. Who has joined stays.
    #[command(after_help = "Example:\n  purlin token revoke 3f9c2a7be0d1845f")]
    Revoke {
        /// Its id; `purlin token list` shows it.
        id: TokenId,
        #[command(flatten)]
        tokens: TokenArgs,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum CertCommand {
    /// Show the certificates of the data directory, when they expire, what a client may do, and what
    /// has been revoked.
    #[command(after_help = "Example:\n  purlin cert show --format json")]
    Show(TokenArgs),
    /// Have certificates made anew, for the same keys, roles, names and permissions.
    ///
    /// Where the authority's key is, all of the data directory; elsewhere the client's, by a member
    /// that has the key. Nodes do it by themselves when a quarter of the time is left. Nothing is
    /// stopped: connections go on, and new ones begin with the new certificate.
    #[command(after_help = "Example:\n  purlin cert renew")]
    Renew(AskArgs),
    /// Give the cluster another authority, without stopping anything; in two steps.
    ///
    /// First another is made, which signs from now on, and members have their certificates made anew
    /// by it; both are believed. Clients of other machines say `purlin cert renew`, and programs
    /// read that when they start. Then `--finish` ends the belief in the old one: a member that was
    /// away since the first step, or a client that has not renewed, is not believed any more and
    /// needs a new token.
    #[command(
        after_help = "Examples:\n  purlin cert rotate-authority\n  purlin cert rotate-authority --finish"
    )]
    RotateAuthority {
        /// End the belief in the old authority, when all members have certificates of the new one.
        #[arg(long)]
        finish: bool,
        /// Also if some have not, or do not answer.
        #[arg(long, requires = "finish")]
        force: bool,
        #[command(flatten)]
        ask: AskArgs,
    },
    /// Let nobody use these certificates any more.
    ///
    /// Of a holder all that were made until now; one that is made later is good. To keep somebody
    /// out revoke the tokens that it knows as well. Of a node that runs from this directory it is
    /// made anew at its next start.
    #[command(
        after_help = "Examples:\n  purlin cert revoke node:b\n  purlin cert revoke client:laptop operator:anna"
    )]
    Revoke {
        /// node:NAME, client:NAME, operator:NAME, or a certificate's serial, in hexadecimal.
        #[arg(required = true, value_name = "HOLDER|SERIAL")]
        targets: Vec<super::cert::Target>,
        #[command(flatten)]
        ask: AskArgs,
    },
}

/// Where tokens are, and how they are printed.
#[derive(Debug, Clone, Args)]
pub(crate) struct TokenArgs {
    /// Where the authority is kept [default: `$PURLIN_HOME` or `~/.purlin`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
}

/// What a token lets its bearer be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenRole {
    /// A node: a member that runs processes.
    Node,
    /// A client: a program that may do what `--may` says.
    Client,
    /// An operator: whoever uses this command line, or a program that may do the same.
    Operator,
}

#[derive(Debug, Args)]
pub(crate) struct JoinArgs {
    /// The token, of the role client or operator; better given as the environment variable, which other users of
    /// this machine do not see.
    #[arg(long, env = "PURLIN_TOKEN", hide_env_values = true)]
    pub(crate) token: String,
    /// A node of the cluster, HOST:PORT; may be repeated, any may be down.
    #[arg(long = "seed", value_name = "ADDR", required = true)]
    pub(crate) seeds: Vec<String>,
    /// The client's name in logs and certificates [default: the host's name].
    #[arg(long)]
    pub(crate) name: Option<NodeName>,
    /// The cluster's name.
    #[arg(long, default_value = "purlin")]
    pub(crate) cluster: Name,
    /// Where credentials are kept [default: `$PURLIN_HOME` or `~/.purlin`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// Give up after so many seconds without an answer.
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// How a command reaches the cluster and prints.
#[derive(Debug, Clone, Args)]
pub(crate) struct AskArgs {
    /// The node to ask, HOST:PORT; a node running from the data directory unless said otherwise.
    #[arg(long, env = "PURLIN_AT", hide_env_values = true, value_name = "ADDR")]
    pub(crate) at: Option<String>,
    /// Where credentials are kept [default: `$PURLIN_HOME` or `~/.purlin`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The cluster's name.
    #[arg(long, default_value = "purlin")]
    pub(crate) cluster: Name,
    /// For people or for programs.
    #[arg(long, value_enum, default_value_t = Format::Table)]
    pub(crate) format: Format,
    /// Give up after so many seconds.
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

/// How answers are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs; field names stay.
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct StartArgs {
    /// Its name, unique in the cluster [default: the host's name].
    #[arg(long)]
    pub(crate) name: Option<NodeName>,
    /// The cluster's name [default: purlin].
    #[arg(long)]
    pub(crate) cluster: Option<Name>,
    /// Where to listen, HOST:PORT; port 0 for any free one [default: 127.0.0.1:7400, or any free
    /// port if that is taken].
    #[arg(long, value_name = "ADDR")]
    pub(crate) listen: Option<String>,
    /// Where others reach it, if that is not where it listens.
    #[arg(long, value_name = "ADDR")]
    pub(crate) advertise: Option<SocketAddr>,
    /// A node to find the others through, HOST:PORT; may be repeated, any may be down.
    #[arg(long = "seed", value_name = "ADDR")]
    pub(crate) seeds: Vec<String>,
    /// Join with this token, made by `purlin token create` on another machine, through a seed; not
    /// used any more once the data directory has the node's credentials. Better given as the
    /// environment variable, which other users of this machine do not see.
    #[arg(long, env = "PURLIN_TOKEN", hide_env_values = true)]
    pub(crate) token: Option<String>,
    /// Be ready, and start applications, when so many members are seen at once, this one included;
    /// until then wait, and say so [default: 1].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) expect: Option<u16>,
    /// Where credentials are kept [default: `$PURLIN_HOME` or `~/.purlin`].
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// A label, for people and placement; may be repeated.
    #[arg(long = "label", value_name = "K=V", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Declare a silent member down within so many seconds [default: 5].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) detect_in: Option<Duration>,
    /// When told to end, take so many seconds at most to move what runs here to other members
    /// [default: 20].
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub(crate) drain_limit: Option<Duration>,
    /// What to log to stderr, as `info` or `purlin=debug,warn` [default: info].
    #[arg(long, env = "PURLIN_LOG", hide_env_values = true, value_name = "FILTER")]
    pub(crate) log: Option<String>,
    /// How to log [default: text].
    #[arg(long, value_enum)]
    pub(crate) log_format: Option<LogFormat>,
    /// Read settings from this TOML file, named as the options are, with `_` for `-`; options given
    /// here win. `seeds` is a list, `labels` a table. A table `network` may set `inflow_mib`
    /// [default: 256], `lane_kib` [4096], `window_kib` [256], `mtu` [8952] and `busy_wait_us` [50]; a
    /// table `clients` says what clients may do, whatever their certificates say; see the README.
    #[arg(long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// Only in the file.
    #[arg(skip)]
    pub(crate) network: super::config::NetworkSettings,
    /// Only in the file.
    #[arg(skip)]
    pub(crate) clients: purlin_proto::GrantedPermissions,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "not a number of seconds".to_owned())?;
    check_seconds(seconds)
}

pub(crate) fn check_seconds(seconds: f64) -> Result<Duration, String> {
    if !(0.01..=86_400.0).contains(&seconds) {
        return Err("between 0.01 and 86400 seconds".to_owned());
    }
    Ok(Duration::from_secs_f64(seconds))
}

/// A time to live, as people write it.
fn ttl(text: &str) -> Result<Duration, String> {
    const MOST: u64 = 30 * 86_400;
    let wrong = || "a time is as 90s, 30m, 1h or 7d, at most 30d".to_owned();
    let unit = text.chars().last().ok_or_else(wrong)?;
    let factor = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3_600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let number = text.strip_suffix(unit).unwrap_or_default();
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let seconds = number.checked_mul(factor).filter(|seconds| (1..=MOST).contains(seconds));
    seconds.map(Duration::from_secs).ok_or_else(wrong)
}

fn label(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("a label is KEY=VALUE")?;
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_time_to_live_is_a_number_and_a_unit() {
        assert_eq!(ttl("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(ttl("30d"), Ok(Duration::from_hours(720)));
        for wrong in ["", "1", "s", "0s", "31d", "-1h", "1hh", "1é", "99999999999999999999d"] {
            assert!(ttl(wrong).is_err(), "{wrong}");
        }
    }

    /// Whoever changes what users read sees it here.
    #[test]
    fn the_help_of_every_command() {
        let mut cli = Cli::command().term_width(100);
        cli.build();
        let mut pages = vec![cli.render_long_help().to_string()];
        for command in cli.get_subcommands_mut().filter(|command| command.get_name() != "help") {
            let help = command.render_long_help();
            pages.push(format!("===== {} =====\n{help}", command.get_name()));
            let name = command.get_name().to_owned();
            for sub in command.get_subcommands_mut().filter(|sub| sub.get_name() != "help") {
                let help = sub.render_long_help();
                pages.push(format!("===== {name} {} =====\n{help}", sub.get_name()));
            }
        }
        insta::assert_snapshot!(pages.join("\n"));
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("purlin "), "{} has no example", command.get_name());
        }
    }
}
