//! `locker lock add|set|quarantine|return|move|remove`.

use std::time::Duration;

use clap::{Args, Subcommand};

use super::output::{CliError, print_line, say};
use super::values::{by, parse_duration, parse_label};
use crate::client::{Client, who};
use crate::core::limits::METADATA_BYTES;
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{DoneView, LockBody, MoveLockBody, QuarantineBody, RemoveBody, ReturnBody};
use crate::wire::errors::exit;
use crate::wire::text::api_duration;
use crate::wire::text::show_metadata;

/// Arguments of `lock`.
#[derive(Debug, Args)]
pub(super) struct LockArgs {
    #[command(subcommand)]
    command: LockCommand,
}

#[derive(Debug, Subcommand)]
enum LockCommand {
    /// Add a lock to a pool; creates the pool if it does not exist
    #[command(
        after_help = "Examples:\n  locker lock add environments eu-1 --metadata eu-1.yml --label region=eu\n  generate | locker lock add environments eu-2 --metadata -"
    )]
    Add(ContentArgs),
    /// Change the metadata or labels of a lock, held or not; what is not given stays as it is
    Set(ContentArgs),
    /// Take a lock out of service: its holder keeps it, but nobody else gets it
    #[command(
        after_help = "Examples:\n  locker lock quarantine environments eu-1 --reason 'disk full'\n  locker lock quarantine environments eu-1 --reason 'upgrade' --for 2h"
    )]
    Quarantine {
        /// Pool of the lock
        pool: PoolName,
        /// Lock to take out of service
        lock: LockName,
        /// The reason, shown to everybody who waits and in the history
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Put the lock back into service after this time
        #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
        span: Option<Duration>,
    },
    /// Put a lock back into service
    Return {
        /// Pool of the lock
        pool: PoolName,
        /// Lock to put back into service
        lock: LockName,
        /// The reason, shown in the history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Move a lock to another pool, with its metadata and labels; it is free there
    Move {
        /// Pool of the lock
        pool: PoolName,
        /// Lock to move
        lock: LockName,
        /// The other pool; created if it does not exist
        to: PoolName,
        /// Id of the claim that holds the lock; the claim ends with it
        #[arg(long, value_name = "ID")]
        claim: Option<ClaimId>,
        /// The reason, shown in the history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Remove a lock from its pool
    Remove {
        /// Pool of the lock
        pool: PoolName,
        /// Lock to remove
        lock: LockName,
        /// Id of the claim that holds the lock; the claim ends with it
        #[arg(long, value_name = "ID")]
        claim: Option<ClaimId>,
        /// The reason, shown in the history
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

#[derive(Debug, Args)]
struct ContentArgs {
    pool: PoolName,
    lock: LockName,
    /// File with the metadata (any bytes); - for stdin
    #[arg(long, value_name = "FILE")]
    metadata: Option<String>,
    /// Label of the lock; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = parse_label)]
    labels: Vec<(String, String)>,
    /// The reason, shown in the history
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

pub(super) fn run(args: &LockArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        LockCommand::Add(args) => {
            let done = client.put_lock(args.pool.as_str(), args.lock.as_str(), &content(args, env)?)?;
            say_new_pool(&done, env);
            print_line(env, &format!("added lock {:?} to pool {:?}", args.lock, args.pool))?;
        }
        LockCommand::Set(args) => {
            if args.metadata.is_none() && args.labels.is_empty() {
                return Err(CliError::usage("nothing to change: give --metadata or --label"));
            }
            client.patch_lock(args.pool.as_str(), args.lock.as_str(), &content(args, env)?)?;
            print_line(env, &format!("lock {:?} of pool {:?} is set", args.lock, args.pool))?;
        }
        LockCommand::Quarantine { pool, lock, reason, span } => {
            let body = QuarantineBody { span: span.map(api_duration), by: by(env, Some(reason)) };
            client.quarantine(pool.as_str(), lock.as_str(), &body)?;
            print_line(env, &format!("lock {lock:?} of pool {pool:?} is out of service"))?;
        }
        LockCommand::Return { pool, lock, reason } => {
            let body = ReturnBody { by: Some(by(env, reason.as_ref())) };
            client.put_back(pool.as_str(), lock.as_str(), &body)?;
            print_line(env, &format!("lock {lock:?} of pool {pool:?} is back in service"))?;
        }
        LockCommand::Move { pool, lock, to, claim, reason } => {
            let claim = claim.as_ref().map(|claim| claim.as_str().to_owned());
            let by = Some(by(env, reason.as_ref()));
            let body = MoveLockBody { to: to.to_string(), claim, by, ..MoveLockBody::default() };
            let done = client.move_lock(pool.as_str(), lock.as_str(), &body)?;
            say_new_pool(&done, env);
            print_line(env, &format!("moved lock {lock:?} of pool {pool:?} to pool {to:?}"))?;
        }
        LockCommand::Remove { pool, lock, claim, reason } => {
            let claim = claim.as_ref().map(|claim| claim.as_str().to_owned());
            let body = RemoveBody { claim, by: Some(by(env, reason.as_ref())) };
            client.delete_lock(pool.as_str(), lock.as_str(), &body)?;
            print_line(env, &format!("removed lock {lock:?} of pool {pool:?}"))?;
        }
    }
    Ok(exit::OK)
}

/// Says that a lock has made its pool, which may be a mistyped name.
fn say_new_pool(done: &DoneView, env: &mut Env<'_>) {
    if let Some(made) = &done.made {
        say(env, &who::new_pool(made, "it was made for this lock"));
    }
}

fn content(args: &ContentArgs, env: &mut Env<'_>) -> Result<LockBody, CliError> {
    let labels = (!args.labels.is_empty()).then(|| args.labels.iter().cloned().collect());
    let body = LockBody { labels, by: Some(by(env, args.reason.as_ref())), ..LockBody::default() };
    let Some(file) = &args.metadata else { return Ok(body) };
    let read = env.read_input(file, METADATA_BYTES as u64);
    let bytes = read.map_err(|error| CliError::usage(format!("cannot read {file:?}: {error}")))?;
    let bytes = bytes.ok_or_else(|| CliError::usage(format!("{file:?} is longer than {METADATA_BYTES} bytes")))?;
    let (metadata, metadata_base64) = show_metadata(&bytes);
    Ok(LockBody { metadata, metadata_base64, ..body })
}
