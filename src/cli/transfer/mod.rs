//! `locker import` and `locker export`: move pools in and out over the API of a running server
//! (`docs/import-export.md`).
//!
//! - [`wanted`]: what a server should have, from any kind of input.
//! - [`plan`]: what is missing on the server. Nothing that exists is overwritten unless the user names it.
//! - [`pool_repo`]: checkouts of pool-resource repositories. [`build_link`]: the builds that their commits name.
//!   [`document`]: the JSON of a whole state. [`jenkins`]: the lockable resources of a Jenkins.
//!
//! Everything is read and checked before the first change, and every command is safe to run again.

mod build_link;
mod document;
mod jenkins;
mod plan;
mod pool_repo;
mod wanted;

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};

use self::wanted::Wanted;
use super::connection::Connection;
use super::latch::latch_client;
use super::output::{CliError, print_line, say};
use crate::client::Client;
use crate::client::latches::LatchClient;
use crate::core::names::{LockName, PoolName};
use crate::env::Env;
use crate::wire::errors::exit;
use crate::wire::text::counted;

/// The most lines about what is not imported. A repository may contain anything.
const NOT_TAKEN: usize = 100;

/// Arguments of `export`.
#[derive(Debug, Args)]
pub(super) struct ExportArgs {
    #[command(subcommand)]
    to: ExportTo,
}

#[derive(Debug, Subcommand)]
enum ExportTo {
    /// Pools in the layout of a pool-resource repository: POOL/claimed/NAME and POOL/unclaimed/NAME
    PoolRepo {
        /// Directory to write to; created if it does not exist
        dir: PathBuf,
        /// Only this pool
        #[arg(long, value_name = "NAME")]
        pool: Option<PoolName>,
        #[command(flatten)]
        how: How,
    },
    /// Pools, locks, live holds and latches as JSON on stdout; it contains the metadata of all locks
    Json {
        /// Only say what would be written
        #[arg(long)]
        dry_run: bool,
    },
}

/// How to import or export.
#[derive(Debug, Args)]
pub(super) struct How {
    /// Only say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
    /// Overwrite this if it differs: POOL for a policy, POOL/LOCK for a lock; may be repeated
    #[arg(long, value_name = "POOL[/LOCK]")]
    overwrite: Vec<Overwrite>,
}

/// How to import.
#[derive(Debug, Args)]
pub(super) struct ImportHow {
    #[command(flatten)]
    how: How,
    /// Remove the locks of this pool that the import does not contain, unless they are held; may be repeated
    #[arg(long, value_name = "POOL")]
    prune: Vec<PoolName>,
}

impl ImportHow {
    /// What the import may change.
    fn allowed(&self, wanted: &Wanted) -> Result<Allowed, CliError> {
        if let Some(stray) = self.prune.iter().find(|pool| !wanted.pools.contains_key(pool)) {
            return Err(CliError::usage(format!("--prune {stray}: the import does not contain this pool")));
        }
        let overwrite = self.how.overwritten("import", |named| wanted.names(named))?;
        Ok(Allowed { overwrite, prune: self.prune.iter().cloned().collect() })
    }
}

/// A pool or a lock.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Named {
    pool: PoolName,
    lock: Option<LockName>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.lock {
            Some(lock) => write!(f, "{}/{lock}", self.pool),
            None => write!(f, "{}", self.pool),
        }
    }
}

/// What may be overwritten. Of `a/b` only the import can tell whether it is the pool `a/b` or the lock `b` of pool `a`.
/// `a/b/` is always the pool.
#[derive(Debug, Clone)]
struct Overwrite {
    text: String,
    /// What the text can mean, the lock first. Never empty.
    meanings: Vec<Named>,
}

impl FromStr for Overwrite {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let pool = |name: &str| name.parse::<PoolName>().map_err(|error| error.to_string());
        let as_lock = |(of, lock): (&str, &str)| {
            let lock = lock.parse::<LockName>().map_err(|error| error.to_string())?;
            Ok::<_, String>(Named { pool: pool(of)?, lock: Some(lock) })
        };
        let as_pool = pool(text.strip_suffix('/').unwrap_or(text)).map(|pool| Named { pool, lock: None });
        let as_lock = text.rsplit_once('/').map(as_lock).transpose();
        let meanings: Vec<Named> = as_lock.iter().flatten().chain(&as_pool).cloned().collect();
        if meanings.is_empty() {
            return Err(as_lock.err().or(as_pool.err()).unwrap_or_default());
        }
        Ok(Self { text: text.to_owned(), meanings })
    }
}

impl How {
    /// What may be overwritten, of what this import or export contains.
    fn overwritten(&self, what: &str, contains: impl Fn(&Named) -> bool) -> Result<BTreeSet<Named>, CliError> {
        let meant = |given: &Overwrite| {
            let stray = || CliError::usage(format!("--overwrite {}: the {what} does not contain it", given.text));
            given.meanings.iter().find(|named| contains(named)).cloned().ok_or_else(stray)
        };
        self.overwrite.iter().map(meant).collect()
    }
}

/// What an import may change on the server besides adding what is missing.
struct Allowed {
    overwrite: BTreeSet<Named>,
    /// Pools that lose what the import does not contain.
    prune: BTreeSet<PoolName>,
}

/// The number of changes that were made, or would be.
#[derive(Debug, Default)]
struct Summary {
    done: usize,
    same: usize,
    left: usize,
}

impl Summary {
    /// Prints one line and returns the exit code: something that was left alone is a conflict.
    fn tell(&self, dry_run: bool, env: &mut Env<'_>) -> Result<u8, CliError> {
        let Self { done, same, left } = self;
        let verb = if dry_run { "to be done" } else { "done" };
        print_line(env, &format!("{done} {verb}, {same} unchanged, {left} left alone"))?;
        Ok(if *left > 0 { exit::CONFLICT } else { exit::OK })
    }
}

/// Reports the problems, if any, that prevent the whole import.
fn bad(problems: &[String], env: &mut Env<'_>) -> Result<(), CliError> {
    problems.iter().for_each(|problem| say(env, problem));
    match problems.len() {
        0 => Ok(()),
        n => Err(CliError::usage(format!("nothing was changed, because of {}", counted(n, "problem")))),
    }
}

pub(super) fn import_pool_repo(
    dir: &Path,
    pool: Option<&PoolName>,
    how: &ImportHow,
    connection: &Connection,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let pool_repo::Checkout { wanted, problems, not_taken } = pool_repo::read(dir, pool, env)?;
    bad(&problems, env)?;
    let allowed = how.allowed(&wanted)?;
    tell_not_taken(&not_taken, env)?;
    import(&wanted, &allowed, how.how.dry_run, connection, env)
}

pub(super) fn import_jenkins(
    file: &str,
    pool: &PoolName,
    how: &ImportHow,
    connection: &Connection,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let jenkins::Resources { wanted, problems, not_taken } = jenkins::read(file, pool, env)?;
    bad(&problems, env)?;
    let allowed = how.allowed(&wanted)?;
    tell_not_taken(&not_taken, env)?;
    import(&wanted, &allowed, how.how.dry_run, connection, env)
}

/// Names what is not imported, with the reasons.
fn tell_not_taken(not_taken: &[String], env: &mut Env<'_>) -> Result<(), CliError> {
    for what in not_taken.iter().take(NOT_TAKEN) {
        print_line(env, &format!("not taken: {what}"))?;
    }
    if let Some(more @ 1..) = not_taken.len().checked_sub(NOT_TAKEN) {
        print_line(env, &format!("not taken: {more} more"))?;
    }
    Ok(())
}

pub(super) fn import_json(
    file: &Path,
    how: &ImportHow,
    connection: &Connection,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let (wanted, problems) = document::read(file, env)?;
    bad(&problems, env)?;
    import(&wanted, &how.allowed(&wanted)?, how.how.dry_run, connection, env)
}

fn import(
    wanted: &Wanted,
    allowed: &Allowed,
    dry_run: bool,
    connection: &Connection,
    env: &mut Env<'_>,
) -> Result<u8, CliError> {
    let (client, latches) = (connection.client(env)?, latch_client(None, connection, env)?);
    let plan = plan::of(wanted, allowed, &client, &latches)?;
    plan.run(dry_run, &client, &latches, env)
}

pub(super) fn export(args: &ExportArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let client = connection.client(env)?;
    match &args.to {
        ExportTo::PoolRepo { dir, pool, how } => pool_repo::write(dir, pool.as_ref(), how, &client, env),
        ExportTo::Json { dry_run } => {
            let latches = latch_client(None, connection, env)?;
            document::write(*dry_run, &client, &latches, env)
        }
    }
}

/// Names of the pools to export.
fn pools(client: &Client, only: Option<&PoolName>) -> Result<Vec<PoolName>, CliError> {
    if let Some(pool) = only {
        return Ok(vec![pool.clone()]);
    }
    let names = client.list_pools()?.into_iter().map(|summary| summary.pool.parse::<PoolName>());
    names.collect::<Result<_, _>>().map_err(|error| CliError::Failed(exit::FAILED, format!("from the server: {error}")))
}

/// The latches on the server. A server that does not serve that contract has none.
fn latches(client: &LatchClient) -> Result<Vec<crate::wire::latch::LatchView>, CliError> {
    match client.list("all") {
        Err(error) if error.code() == Some(crate::wire::errors::Code::NoSuchRoute) => Ok(Vec::new()),
        other => Ok(other?),
    }
}
