//! `locker doctor`: checks step by step what the resource would see of its server and its pool, and says what to do.
//!
//! - This file: arguments, the source, the order of the checks.
//! - `report`: the findings, and how they are shown.
//! - `network`: resolving and reaching the server, before any HTTP.
//! - `tls`: the handshake, and the certificates in it.
//! - `service`: what the server says about itself, and whether it accepts the credentials.
//! - `builds`: whether the server can see the builds behind claims.
//! - `pool`: the pool, its queue, and a trial claim.
//!
//! The first failure ends the examination, because the later checks depend on the earlier ones.

mod builds;
mod network;
mod pool;
mod report;
mod service;
mod tls;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::connection::Connection;
use super::output::CliError;
use crate::client::Client;
use crate::client::connect::{Access, Authorization, Identity};
use crate::client::interruptible::Interruptible;
use crate::core::names::PoolName;
use crate::env::{Clock, Env, Signal};
use crate::resource;
use crate::wire::concourse::{CheckRequest, Source};
use crate::wire::errors::exit;
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;
use crate::wire::tls::Tls;

use network::Address;
use report::Report;

/// The longest source that is read, in bytes. The sources of pipelines are a few KiB.
const SOURCE_BYTES: u64 = 4 * 1024 * 1024;

/// Arguments of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  locker doctor --uri https://locker.example.com --pool staging
  locker doctor --source source.json               the `source` of the resource, as JSON
  LOCKER_SOURCE='{\"locker_uri\": ...}' locker doctor --try
  fly -t ci execute -c pipelines/debug.yml         the same, inside a container of a worker

The source comes from --source, else from the variable LOCKER_SOURCE, else from --uri and the other connection options.
The exit code is that of the first check that fails; warnings do not count as failures.")]
pub(super) struct DoctorArgs {
    /// Read the `source` of a resource from this file, as JSON; - for stdin
    #[arg(long, value_name = "FILE")]
    source: Option<String>,
    /// Check this pool instead of the one in the source
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Claim and release a lock of this pool; without POOL, of a new pool that is removed afterwards
    #[arg(long = "try", value_name = "POOL", num_args = 0..=1, default_missing_value = "")]
    trial: Option<String>,
    /// Print one JSON object instead of lines
    #[arg(long)]
    json: bool,
}

/// Why the examination ends early.
enum Stop {
    /// A finding, already reported, says why.
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

/// Which servers to examine, and how to talk to them.
struct Target {
    /// Servers of one store; never empty.
    servers: Vec<ServerUrl>,
    authorization: Option<Authorization>,
    /// The source has a user name and a password that are not sent.
    held_back: bool,
    tls: Tls,
    proxy: Option<Secret>,
    pool: Option<PoolName>,
}

/// One of these servers.
struct Subject<'t> {
    target: &'t Target,
    server: &'t ServerUrl,
    address: Address,
    client: Client,
}

impl Target {
    /// A client of these servers, with or without the credentials.
    fn client(&self, servers: &[ServerUrl], with_credentials: bool, env: &Env<'_>) -> Result<Client, String> {
        let identity = if with_credentials { Identity::of(self.authorization.clone()) } else { Identity::Nobody };
        let (servers, tls, proxy) = (servers.to_vec(), self.tls.clone(), self.proxy.clone());
        Client::open(Access { servers, identity, tls, proxy, held_back: self.held_back }, &env.vars)
    }

    /// Whether credentials are sent.
    fn has_credentials(&self) -> bool {
        self.authorization.is_some() || self.servers.iter().any(|server| server.credentials().is_some())
    }
}

/// What the checks work with.
struct Tools {
    interruptible: Interruptible,
    clock: Arc<dyn Clock>,
}

impl Tools {
    /// Runs work that may block, unless a signal arrives first. Also returns how long it took.
    fn time<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<(T, Duration), Stop> {
        let start = self.clock.monotonic();
        let answer = self.interruptible.run(work)?;
        Ok((answer, self.clock.monotonic().saturating_sub(start)))
    }
}

pub(super) fn run(args: &DoctorArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let tools = Tools { interruptible: Interruptible::new(&env.signals), clock: Arc::clone(&env.clock) };
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
    let target = target(args, connection, tools, report, env)?;
    let mut stores = BTreeSet::new();
    for server in &target.servers {
        stores.insert(examine_server(&target, server, tools, report, env)?);
    }
    if stores.len() > 1 {
        let text = "the servers in locker_uri have different stores: a lock in one is unknown in the other";
        return Err(report.fail(env, "store", exit::CONFLICT, text, "name only servers of one store")?);
    }
    let client = target.client(&target.servers, true, env).map_err(CliError::usage)?;
    if let Some(name) = &target.pool {
        pool::examine(&client, name, tools, report, env)?;
    } else {
        report.warn(env, "pool", "no pool is named, so no pool was checked", "name one with --pool")?;
    }
    if let Some(trial) = &args.trial {
        let pool = Some(trial).filter(|trial| !trial.is_empty()).map(|name| PoolName::parse(name)).transpose();
        let pool = pool.map_err(|error| CliError::usage(format!("--try: {error}")))?;
        pool::try_one(&client, pool.as_ref(), tools, report, env)?;
    }
    Ok(())
}

/// Examines one server, from its name to its store.
fn examine_server(
    target: &Target,
    server: &ServerUrl,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<String, Stop> {
    let opened = target.client(std::slice::from_ref(server), true, env);
    let (Some(address), Ok(client)) = (Address::of(server), &opened) else {
        let why = opened.err().unwrap_or_else(|| format!("{server} has no usable host and port"));
        return Err(report.fail(env, "source", exit::USAGE, why, "correct the source")?);
    };
    let subject = Subject { target, server, address, client: client.clone() };
    service::exposure(&subject, report, env)?;
    if service::proxy(&subject, report, env)? {
        report.ok(env, "connect", "not checked: the proxy connects, and checks the name of the server")?;
    } else {
        let socket = network::reach(&subject.address, tools, report, env)?;
        if subject.address.is_tls {
            tls::examine(&subject.address, &target.tls, socket, tools, report, env)?;
        }
    }
    service::examine(&subject, tools, report, env)
}

/// What to examine: the first of `--source`, `LOCKER_SOURCE` and `--uri` that is given.
fn target(
    args: &DoctorArgs,
    connection: &Connection,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<Target, Stop> {
    let (mut target, source, from) = match source_text(args, env)? {
        Some((text, from)) => {
            let source = parse_source(&text, from, report, env)?;
            let Source { servers, credentials, tls, proxy, held_back, .. } = source.clone();
            let authorization = credentials.map(Authorization::Basic);
            (Target { servers, authorization, held_back, tls, proxy, pool: None }, Some(source), from)
        }
        None => {
            let (server, authorization) = connection.target(env)?;
            let (servers, tls) = (vec![server], connection.tls()?);
            (Target { servers, authorization, held_back: false, tls, proxy: None, pool: None }, None, "--uri")
        }
    };
    let servers: Vec<String> = target.servers.iter().map(ToString::to_string).collect();
    let servers = servers.join(", ");
    report.server(servers.clone());
    target.pool = match (&args.pool, source) {
        (Some(pool), _) => Some(pool.clone()),
        (None, Some(source)) => Some(pool_of(source, tools, report, env)?),
        (None, None) => None,
    };
    let named = target.pool.as_ref().map(|pool| format!(", pool {:?}", pool.as_str())).unwrap_or_default();
    report.ok(env, "source", format!("{servers}{named}, from {from}"))?;
    if let Some(key) = target.tls.skip_verification {
        let text = format!("{key}: anybody in between can read the password and pretend to grant locks");
        report.warn(env, "source", text, "give `ca_cert` instead")?;
    }
    Ok(target)
}

/// The pool that the source names, or the pool of the BOSH director that it names instead.
fn pool_of(source: Source, tools: &Tools, report: &mut Report, env: &mut Env<'_>) -> Result<PoolName, Stop> {
    let vars = env.vars.clone();
    match tools.time(move || resource::pool_of(&source, &vars).map(|meant| meant.pool))? {
        (Ok(pool), _) => Ok(pool),
        (Err(why), _) => {
            let next = "try its address with curl: GET /info of a director needs no credentials and gives its name";
            Err(report.fail(env, "source", exit::UNAVAILABLE, why, next)?)
        }
    }
}

/// The JSON of the source and where it came from, if one was given.
fn source_text(args: &DoctorArgs, env: &mut Env<'_>) -> Result<Option<(Vec<u8>, &'static str)>, CliError> {
    let Some(file) = &args.source else {
        return Ok(env.var("LOCKER_SOURCE").map(|text| (text.as_bytes().to_vec(), "LOCKER_SOURCE")));
    };
    let read = env.read_input(file, SOURCE_BYTES);
    let text = read.map_err(|error| CliError::usage(format!("cannot read the source {file:?}: {error}")))?;
    let too_long = || CliError::usage(format!("the source {file:?} is longer than {SOURCE_BYTES} bytes"));
    Ok(Some((text.ok_or_else(too_long)?, "--source")))
}

/// Parses the source with the types of the resource. The whole input of `check`, `in` and `out`, which contains a
/// `source`, is also accepted, so that people can paste it.
fn parse_source(text: &[u8], from: &str, report: &mut Report, env: &mut Env<'_>) -> Result<Source, Stop> {
    let advice = "give the `source:` of the resource as JSON, with every ((var)) filled in";
    let source = match serde_json::from_slice::<Value>(text) {
        Ok(Value::Object(mut map)) if map.contains_key("source") => map.remove("source").unwrap_or_default(),
        Ok(value) => value,
        Err(error) => {
            let text = format!("{from} is not valid JSON: {error}");
            return Err(report.fail(env, "source", exit::USAGE, text, advice)?);
        }
    };
    match CheckRequest::parse(json!({ "source": source }).to_string().as_bytes()) {
        Ok(CheckRequest { source, .. }) => {
            if !source.ignored.is_empty() {
                let keys = source.ignored.join(", ");
                let text = format!("{keys}: no effect, because there is no git repository behind a pool");
                let next = if source.has_settings_of_uri() {
                    "the last ones count for that uri: to use them for the locker server, remove uri"
                } else {
                    "remove these keys when convenient"
                };
                report.warn(env, "source", text, next)?;
            }
            Ok(source)
        }
        Err(error) => {
            let problems: Vec<&str> = error.0.iter().map(|problem| problem.text.as_str()).collect();
            let text = format!("{from}: {}", problems.join("; "));
            Err(report.fail(env, "source", exit::USAGE, text, advice)?)
        }
    }
}
