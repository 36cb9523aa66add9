//! `purlin start`.

use std::io::{IsTerminal, Write};

use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use super::args::{LogFormat, StartArgs};
use super::{Failure, config, executor, join};
use crate::builder::{NodeBuilder, StartError};

/// quinn warns of every packet to a closed port, which is how we notice that a node is gone; openraft
/// of every word to a voter that is away, again and again.
const DEFAULT_LOG: &str = "info,quinn_udp=error,openraft=error,openraft::replication=off";

pub(super) fn run(args: StartArgs, builder: NodeBuilder) -> Result<(), Failure> {
    let args = config::merge(args)?;
    log(&args)?;
    let executor = executor::start(Builder::new_multi_thread())?;
    let served = executor.block_on(serve(args, builder));
    // A process that never yields must not keep the program.
    executor.shutdown_background();
    served
}

fn log(args: &StartArgs) -> Result<(), Failure> {
    let text = args.log.as_deref().unwrap_or(DEFAULT_LOG);
    let filter = EnvFilter::try_new(text).map_err(|error| {
        Failure::Usage(format!("--log {text:?}: {error}; as in info or purlin=debug,warn"))
    })?;
    let to_stderr = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    match args.log_format.unwrap_or(LogFormat::Text) {
        LogFormat::Text => to_stderr.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => to_stderr.json().init(),
    }
    Ok(())
}

async fn serve(mut args: StartArgs, mut builder: NodeBuilder) -> Result<(), Failure> {
    if let Some(text) = args.token.take() {
        builder = builder.token(join::token(&text)?);
    }
    let builder = configured(args, builder);
    let no_signals = |error| Failure::No(format!("cannot wait for signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(no_signals)?;
    let (node, applications) = builder.begin().await.map_err(failed)?;
    let say = |word: &str, more: &str| {
        let (id, at) = (node.id(), node.listen_address());
        let line = format!("{word} name={} id={id} {more}listen={at}\n", id.name);
        // Whoever started it may not listen; the node runs all the same.
        let mut stdout = std::io::stdout();
        drop(stdout.write_all(line.as_bytes()).and_then(|()| stdout.flush()));
    };
    if node.0.expects > 1 {
        say("waiting", &format!("expect={} ", node.0.expects));
    }
    let run = async {
        node.gathered().await;
        node.begin_applications(applications).await.map_err(failed)?;
        say("ready", "");
        Err(Failure::No(node.application_ended().await.to_string()))
    };
    let ended = tokio::select! {
        _ = interrupt.recv() => {
            tracing::info!("interrupted, stopping");
            Ok(())
        }
        _ = terminate.recv() => {
            tracing::info!("terminated, stopping");
            Ok(())
        }
        () = node.asked_to_leave() => {
            tracing::info!("asked to leave, stopping");
            Ok(())
        }
        ended = run => ended,
    };
    let leave = async {
        node.drain().await;
        node.stop().await;
    };
    tokio::select! {
        () = leave => ended,
        _ = interrupt.recv() => Err(Failure::Interrupted),
        _ = terminate.recv() => Err(Failure::Interrupted),
    }
}

fn failed(error: StartError) -> Failure {
    match error {
        StartError::Listen { .. } | StartError::Labels(_) => Failure::Usage(error.to_string()),
        StartError::Join(error) => join::failed(&error),
        other => Failure::No(other.to_string()),
    }
}

fn configured(args: StartArgs, mut builder: NodeBuilder) -> NodeBuilder {
    builder = args.network.apply(builder).clients(args.clients);
    if let Some(cluster) = args.cluster {
        builder = builder.cluster(cluster);
    }
    if let Some(detect_in) = args.detect_in {
        builder = builder.detect_in(detect_in);
    }
    if let Some(limit) = args.drain_limit {
        builder = builder.drain_limit(limit);
    }
    if let Some(expect) = args.expect {
        builder = builder.expect(expect.into());
    }
    if let Some(name) = args.name {
        builder = builder.name(name);
    }
    if let Some(listen) = args.listen {
        builder = builder.listen(listen);
    }
    if let Some(advertise) = args.advertise {
        builder = builder.advertise(advertise);
    }
    if let Some(data_dir) = args.data_dir {
        builder = builder.data_dir(data_dir);
    }
    builder = args.seeds.into_iter().fold(builder, NodeBuilder::seed);
    args.labels.into_iter().fold(builder, |builder, (key, value)| builder.label(key, value))
}
