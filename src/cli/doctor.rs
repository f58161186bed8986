//! `locker doctor`: what the resource would see of its server and its pool, step by step, and what to do about it.
//!
//! - this file: arguments, the source, the order of the checks.
//! - `report`: one finding, and how it is shown.
//! - `network`: finding and reaching the server, before any HTTP.
//! - `tls`: the handshake, with the certificates that it shows.
//! - `service`: what the server says of itself; whether it takes the credentials.
//! - `pool`: the pool, its queue, and a claim on trial.
//!
//! A finding that fails ends the examination: what comes later needs it.

mod network;
mod pool;
mod report;
mod service;
mod tls;

use std::io::Read as _;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::{CliError, Connection};
use crate::client::Client;
use crate::client::flight::Flights;
use crate::core::names::PoolName;
use crate::env::{Clock, Env, Signal};
use crate::wire::concourse::{CheckRequest, Place, Source};
use crate::wire::errors::exit;
use crate::wire::server_url::{Credentials, ServerUrl};

use network::Address;
use report::Report;

/// Longest source that is read, bytes: those of pipelines are a few KiB.
const SOURCE_BYTES: u64 = 4 * 1024 * 1024;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker doctor --uri https://locker.example.com --pool staging
  locker doctor --source source.json               the `source` of the resource, as JSON
  LOCKER_SOURCE='{\"locker_uri\": ...}' locker doctor --try
  fly -t ci execute -c pipelines/debug.yml         the same, from a container of a worker

The source is that of --source, else of the variable LOCKER_SOURCE, else --uri and its companions.
The exit code is that of the first line that fails; warnings are no failure.")]
pub(super) struct DoctorArgs {
    /// Read the `source` of a resource from this file, as JSON; - is stdin
    #[arg(long, value_name = "FILE")]
    source: Option<String>,
    /// Look at this pool instead of that of the source
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Claim and release a lock: of this pool, or of a new one that is removed again
    #[arg(long = "try", value_name = "POOL", num_args = 0..=1)]
    trial: Option<Option<PoolName>>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Why the examination ends before its end.
enum Stop {
    /// A finding has said why.
    Enough,
    Signalled(Signal),
    Cannot(CliError),
}

impl From<CliError> for Stop {
    fn from(error: CliError) -> Self {
        Self::Cannot(error)
    }
}

impl From<Signal> for Stop {
    fn from(signal: Signal) -> Self {
        Self::Signalled(signal)
    }
}

/// Which server is examined, and how it is spoken to.
struct Target {
    server: ServerUrl,
    address: Address,
    credentials: Option<Credentials>,
    pool: Option<PoolName>,
    client: Client,
}

/// The instruments of the examination.
struct Tools {
    flights: Flights,
    clock: Arc<dyn Clock>,
}

impl Tools {
    /// Runs what may block, unless a signal comes first; says how long it took.
    fn time<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<(T, Duration), Stop> {
        let start = self.clock.monotonic();
        let answer = self.flights.run(work)?;
        Ok((answer, self.clock.monotonic().saturating_sub(start)))
    }
}

pub(super) fn run(args: &DoctorArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let tools = Tools { flights: Flights::new(&env.signals), clock: Arc::clone(&env.clock) };
    let mut report = Report::new(args.json);
    match examine(args, connection, &tools, &mut report, env) {
        Ok(()) | Err(Stop::Enough) => report.finish(env),
        Err(Stop::Signalled(signal)) => Ok(signal.exit_code()),
        Err(Stop::Cannot(error)) => Err(error),
    }
}

fn examine(
    args: &DoctorArgs,
    connection: &Connection,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    let target = target(args, connection, report, env)?;
    report.server(target.client.server());
    service::exposure(&target, report, env)?;
    if service::proxy(&target, report, env)? {
        report.ok(env, "connect", "left to the proxy, as the name and the TLS of the server are")?;
    } else {
        network::examine(&target.address, tools, report, env)?;
    }
    service::examine(&target, tools, report, env)?;
    if let Some(name) = &target.pool {
        pool::examine(&target.client, name, tools, report, env)?;
    } else {
        report.warn(env, "pool", "no pool is named, so none was looked at", "name one with --pool")?;
    }
    if let Some(trial) = &args.trial {
        pool::try_one(&target.client, trial.as_ref(), tools, report, env)?;
    }
    Ok(())
}

/// What is to be examined: the first of `--source`, `LOCKER_SOURCE` and `--uri`.
fn target(args: &DoctorArgs, connection: &Connection, report: &mut Report, env: &mut Env<'_>) -> Result<Target, Stop> {
    let (server, credentials, pool, from) = match source_text(args, env)? {
        Some((text, from)) => {
            let source = parse_source(&text, from, report, env)?;
            let pool = match source.place {
                Place::Named(pool) => Some(pool),
                Place::Director(_) => None,
            };
            // The others must be the same store; the resource says so when they are not.
            let server = source.servers.into_iter().next();
            let Some(server) = server else {
                let text = format!("{from} names no server");
                return Err(report.fail(env, "source", exit::USAGE, text, "set locker_uri")?);
            };
            (server, source.credentials, pool, from)
        }
        None => {
            let (server, credentials) = connection.target()?;
            (server, credentials, None, "--uri")
        }
    };
    let Some(address) = Address::of(&server) else {
        let text = format!("{server} from {from} has no usable host and port");
        return Err(report.fail(env, "source", exit::USAGE, text, "write it as https://HOST:PORT")?);
    };
    let credentials = credentials.or_else(|| server.credentials().cloned());
    let pool = args.pool.clone().or(pool);
    let named = pool.as_ref().map(|pool| format!(", pool {:?}", pool.as_str())).unwrap_or_default();
    report.ok(env, "source", format!("{server}{named}, from {from}"))?;
    let client = Client::new(server.clone(), credentials.clone(), &env.vars);
    Ok(Target { server, address, credentials, pool, client })
}

/// The JSON of the source and where it stood, if one was given.
fn source_text(args: &DoctorArgs, env: &mut Env<'_>) -> Result<Option<(Vec<u8>, &'static str)>, CliError> {
    let Some(file) = &args.source else {
        return Ok(env.var("LOCKER_SOURCE").map(|text| (text.as_bytes().to_vec(), "LOCKER_SOURCE")));
    };
    let mut text = Vec::new();
    let read = if file == "-" {
        (&mut *env.stdin).take(SOURCE_BYTES + 1).read_to_end(&mut text)
    } else {
        std::fs::File::open(file).and_then(|file| file.take(SOURCE_BYTES + 1).read_to_end(&mut text))
    };
    read.map_err(|error| CliError::usage(format!("cannot read the source {file:?}: {error}")))?;
    if text.len() as u64 > SOURCE_BYTES {
        return Err(CliError::usage(format!("the source {file:?} is longer than {SOURCE_BYTES} bytes")));
    }
    Ok(Some((text, "--source")))
}

/// Reads the source with the types of the resource. What Concourse gives to `check`, `in` and `out`, with `source`
/// in it, is understood as well, so that a payload can be pasted.
fn parse_source(text: &[u8], from: &str, report: &mut Report, env: &mut Env<'_>) -> Result<Source, Stop> {
    let advice = "give what stands under `source:` of the resource, as JSON, with every ((var)) filled in";
    let source = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(mut map)) if map.contains_key("source") => map.remove("source").unwrap_or_default(),
        Ok(value) => value,
        Err(error) => {
            let text = format!("{from} is no JSON: {error}");
            return Err(report.fail(env, "source", exit::USAGE, text, advice)?);
        }
    };
    match CheckRequest::parse(json!({ "source": source }).to_string().as_bytes()) {
        Ok(CheckRequest { source, .. }) => {
            if !source.ignored.is_empty() {
                let keys = source.ignored.join(", ");
                let text = format!("{keys}: without effect, because no git repository is behind a pool");
                report.warn(env, "source", text, "take these keys out when convenient")?;
            }
            Ok(source)
        }
        Err(error) => {
            let text = format!("{from}: {}", error.0.join("; "));
            Err(report.fail(env, "source", exit::USAGE, text, advice)?)
        }
    }
}
