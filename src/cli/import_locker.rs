//! `locker import locker-state FILE`: imports the state file of an original locker into a running server.
//!
//! The whole file is read and compared with the server before anything changes. Importing the same file again changes
//! nothing: the id of each hold follows from the file, and a hold that has been released since then stays released.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;

use super::output::{CliError, print_line, say};
use super::values::by;
use crate::client::calls::Asked;
use crate::client::{CallError, Client};
use crate::env::{Env, whole_text};
use crate::wire::api::PoolChangeBody;
use crate::wire::contracts::state_file::{self, ImportedPool, STATE_FILE_BYTES, StateFile};
use crate::wire::errors::{Code, exit};
use crate::wire::text::counted;

/// Arguments of `import locker-state`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  locker import locker-state --dry-run /var/vcap/store/locker/locker.json
  curl -s http://old-locker:8910/locks > locks.json && locker import locker-state locks.json

If somebody else holds one of the pools, the pool is named and nothing is imported (exit code 5).")]
pub(super) struct LockerStateArgs {
    /// The file; - for stdin
    file: String,
    /// Only say what would be done; change nothing
    #[arg(long)]
    dry_run: bool,
}

/// What an import did.
#[derive(Debug, Default)]
struct Summary {
    pools: usize,
    taken: usize,
    released: usize,
}

pub(super) fn run(args: &LockerStateArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let text = read(&args.file, env)?;
    let StateFile { pools, left_out } = state_file::parse(&text).map_err(|error| {
        CliError::Failed(exit::FAILED, format!("{:?} is damaged, so nothing was imported: {error}", args.file))
    })?;
    for error in &left_out {
        say(env, &format!("warning: left out, because nobody holds it and its name is not allowed here: {error}"));
    }
    let mut conflicts = Vec::new();
    for pool in &pools {
        conflicts.extend(conflict(pool, client)?);
    }
    if !conflicts.is_empty() {
        conflicts.iter().for_each(|conflict| say(env, conflict));
        let text = format!("nothing was imported, because of {}", counted(conflicts.len(), "pool"));
        return Err(CliError::Failed(exit::CONFLICT, text));
    }
    if args.dry_run {
        for pool in &pools {
            print_line(env, &format!("would import {}", describe(pool)))?;
        }
        return Ok(exit::OK);
    }
    let mut done = Summary::default();
    for pool in &pools {
        import(pool, client, env, &mut done)?;
        print_line(env, &format!("imported {}", describe(pool)))?;
    }
    let Summary { pools, taken, released } = done;
    let text = format!(
        "{} created, {} in place, {released} released since an earlier import",
        counted(pools, "pool"),
        counted(taken, "hold")
    );
    print_line(env, &text)?;
    Ok(exit::OK)
}

fn read(file: &str, env: &mut Env<'_>) -> Result<String, CliError> {
    let read = env.read_input(file, STATE_FILE_BYTES);
    whole_text(read, STATE_FILE_BYTES).map_err(|error| CliError::usage(format!("cannot read {file:?}: {error}")))
}

fn describe(pool: &ImportedPool) -> String {
    let mut text = format!("pool {:?}", pool.pool);
    let key = pool.holds.first().and_then(|hold| hold.body.key.as_deref());
    // Writing to a String cannot fail.
    let _ = match (pool.holds.len(), key) {
        (0, _) => write!(text, ", free"),
        (count, Some(key)) => write!(text, ", held {} with key {key:?}", counted(count, "time")),
        (_, None) => {
            let owner = pool.holds.first().and_then(|hold| hold.body.owner.person.as_deref()).unwrap_or_default();
            write!(text, ", held by {owner:?}")
        }
    };
    text
}

/// Who holds the pool's lock on the server; `None` if there is no such pool.
fn holders(pool: &ImportedPool, client: &Client) -> Result<Option<BTreeSet<String>>, CallError> {
    match client.get_lock(pool.pool.as_str(), pool.pool.own_lock().as_str()) {
        Ok(lock) => Ok(Some(lock.holders.into_iter().map(|holder| holder.claim).collect())),
        Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Why a pool cannot be imported, if it cannot.
fn conflict(pool: &ImportedPool, client: &Client) -> Result<Option<String>, CliError> {
    let name = &pool.pool;
    match holders(pool, client) {
        Ok(holders) => {
            let own: BTreeSet<&str> = pool.holds.iter().map(|hold| hold.id.as_str()).collect();
            let other = holders.iter().flatten().find(|claim| !own.contains(claim.as_str()));
            Ok(other.filter(|_| !own.is_empty()).map(|claim| format!("pool {name:?} is held by claim {claim:?}")))
        }
        Err(error) if error.code() == Some(Code::NoSuchLock) => {
            Ok(Some(format!("pool {name:?} exists, but has no lock named {:?}", name.own_lock())))
        }
        Err(error) => Err(error.into()),
    }
}

fn import(pool: &ImportedPool, client: &Client, env: &Env<'_>, done: &mut Summary) -> Result<(), CliError> {
    let reason = Some("imported from the state file of the original locker".to_owned());
    if holders(pool, client)?.is_none() {
        let body = PoolChangeBody { by: Some(by(env, reason.as_ref())), ..PoolChangeBody::default() };
        client.patch_pool(pool.pool.as_str(), &body)?;
        done.pools += 1;
    }
    for hold in &pool.holds {
        match client.put_claim(hold.id.as_str(), &hold.body, Duration::ZERO) {
            Ok(Asked::Given(_)) => done.taken += 1,
            Ok(Asked::Waiting(waiting)) => {
                let text = format!("pool {:?} was taken in the meantime: {}", pool.pool, waiting.error);
                return Err(CliError::Failed(exit::CONFLICT, text));
            }
            Err(error) if error.code() == Some(Code::Ended) => done.released += 1,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}
