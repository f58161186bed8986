//! `lockagt`, also as `locker agent`: resumes the Argo workflows whose latches are released (docs/latches.md).

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use clap::{ArgMatches, Args, FromArgMatches, Parser};

use super::connection::Connection;
use super::latch::latch_client;
use super::output::CliError;
use super::values::parse_duration;
use crate::agent::cluster::{Cluster, Source, Wish};
use crate::agent::worker::{Agent, Settings};
use crate::core::latch::Namespace;
use crate::env::Env;
use crate::server::logs::{self, LogFormat, LogLevel, LogSettings};
use crate::wire::errors::exit;
use crate::wire::escape::escape;

/// Resume the Argo workflows whose latches are released.
#[derive(Debug, Parser)]
#[command(name = "lockagt", version, after_help = EXAMPLES)]
pub(super) struct LockAgt {
    #[command(flatten)]
    connection: Connection,
    #[command(flatten)]
    args: AgentArgs,
}

const EXAMPLES: &str = "\
Examples:
  lockagt --api-endpoint http://HOST:8910/lock --in-cluster --namespace ci
  lockagt --api-endpoint http://HOST:8910/lock --kubeconfig ~/.kube/config --once --dry-run

Exit codes: 0 ended by a signal, or with --once nothing failed; 1 failed, or a latch needs somebody;
2 wrong usage; 6 no answer; 7 credentials refused; 130 and 143 after a second signal.";

/// Arguments of `agent`, and of `lockagt`.
#[derive(Debug, Args)]
#[command(after_help = "The same as the program `lockagt`; examples: lockagt --help")]
pub(super) struct AgentArgs {
    /// URL of the latches, such as `http://HOST:8910/lock`; used as given (default: --uri with /lock)
    #[arg(long, env = "API_ENDPOINT", value_name = "URL")]
    api_endpoint: Option<String>,
    /// Kubeconfig for the cluster (default: $KUBECONFIG, else ~/.kube/config, else the pod's service account)
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig (default: its current one)
    #[arg(long, value_name = "NAME", conflicts_with = "in_cluster")]
    context: Option<String>,
    /// Use the pod's service account and ignore any kubeconfig
    #[arg(long, conflicts_with = "kubeconfig")]
    in_cluster: bool,
    /// Time between two full listings: a duration, or a number of seconds; if the server announces releases, the agent
    /// acts on them at once
    #[arg(long, env = "LOCKER_AGENT_INTERVAL", value_name = "TIME", default_value = "60s", value_parser = parse_interval)]
    interval: Duration,
    /// Act only on latches in this namespace; may be repeated (default: all)
    #[arg(long, env = "LOCKER_AGENT_NAMESPACES", value_name = "NAME", value_delimiter = ',')]
    namespace: Vec<Namespace>,
    /// Give up on a latch once its workflow has been missing for this long
    #[arg(long, env = "LOCKER_AGENT_GONE_AFTER", value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    gone_after: Duration,
    /// Process each released latch once, then exit
    #[arg(long)]
    once: bool,
    /// Only say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Log lines as text or json
    #[arg(long, env = "LOCKER_LOG", value_name = "FORMAT", default_value = "text")]
    log: LogFormat,
    /// Log error, warn, info or debug
    #[arg(long, env = "LOCKER_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    log_level: LogLevel,
}

/// Parses a duration. A plain number means seconds, as in the original agent.
fn parse_interval(text: &str) -> Result<Duration, String> {
    let span = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => parse_duration(text)?,
    };
    if span.is_zero() { Err("must be longer than 0 s".to_owned()) } else { Ok(span) }
}

/// `lockagt`, parsed.
pub(super) fn execute(matches: &ArgMatches, env: &mut Env<'_>) -> Result<u8, CliError> {
    let cli = LockAgt::from_arg_matches(matches).map_err(|error| CliError::usage(error.to_string()))?;
    run(cli.args, &cli.connection, env)
}

pub(super) fn run(args: AgentArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    connection.warn(env);
    let latches = latch_client(args.api_endpoint, connection, env)?;
    let wish = Wish { kubeconfig: args.kubeconfig, context: args.context, in_cluster: args.in_cluster };
    let failed = |why: String| CliError::Failed(exit::FAILED, why);
    let source = Source::find(&wish, &env.vars).map_err(failed)?;
    let found = source.to_string();
    let cluster = Cluster::open(source, &env.vars).map_err(failed)?;
    let _log = logs::start(LogSettings { format: args.log, level: args.log_level });
    let names: Vec<&str> = args.namespace.iter().map(Namespace::as_str).collect();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        latches = escape(&latches.server()),
        cluster = escape(&cluster.server()),
        found = escape(&found),
        namespaces = if names.is_empty() { "all".to_owned() } else { names.join(",") },
        dry_run = args.dry_run,
        "lockagt is at work"
    );
    if cluster.is_unchecked() {
        tracing::warn!("insecure-skip-tls-verify: anybody could pose as the cluster");
    }
    let settings = Settings {
        interval: args.interval,
        gone_after: args.gone_after,
        namespaces: args.namespace,
        once: args.once,
        dry_run: args.dry_run,
    };
    let (clock, signals) = (Arc::clone(&env.clock), env.signals.clone());
    Ok(Agent { settings, latches, cluster, clock, signals }.run())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_number_is_seconds() {
        let table = [("60", 60_000), ("1", 1_000), ("90s", 90_000), ("1m30s", 90_000), ("200ms", 200)];
        for (text, ms) in table {
            assert_eq!(parse_interval(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for bad in ["", "0", "0s", "-1", "1.5", "soon"] {
            assert!(parse_interval(bad).is_err(), "{bad}");
        }
    }
}
