//! `locker release`: gives locks back.

use clap::Args;

use super::output::{CliError, print_line};
use super::values::person;
use crate::client::{Client, when, who};
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::Env;
use crate::wire::api::{ClaimState, HolderView};
use crate::wire::errors::exit;

/// Arguments of `release`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["claim", "lock"]),
    after_help = "Examples:\n  locker release 0f3a...                                  the claim that `locker claim` printed\n  locker release --pool environments --lock eu-1        whoever holds it"
)]
pub(super) struct ReleaseArgs {
    /// Id of the claim
    claim: Option<ClaimId>,
    /// Pool of the lock
    #[arg(long, value_name = "NAME", requires = "lock")]
    pool: Option<PoolName>,
    /// Lock to release, whoever holds it
    #[arg(long, value_name = "NAME", requires = "pool")]
    lock: Option<LockName>,
}

pub(super) fn run(args: &ReleaseArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    if let Some(id) = &args.claim {
        let ended = client.end_claim_by(id.as_str(), person(env).person.as_deref())?;
        let text = match ended.how.as_deref() {
            _ if ended.again => format!("claim {id} had already ended"),
            Some("cancelled") => format!("cancelled claim {id}, which held nothing"),
            _ => format!("released claim {id}"),
        };
        print_line(env, &text)?;
        return Ok(exit::OK);
    }
    let (Some(pool), Some(lock)) = (&args.pool, &args.lock) else {
        return Err(CliError::usage("name a claim, or give --pool and --lock"));
    };
    let view = client.get_lock(pool.as_str(), lock.as_str())?;
    let now = when::now(&*env.clock);
    let held: Vec<&HolderView> = view.holders.iter().filter(|h| h.state == ClaimState::Held).collect();
    match held.as_slice() {
        [] => Err(CliError::Failed(exit::CONFLICT, format!("lock {lock:?} of pool {pool:?} is not held"))),
        [holder] => {
            client.end_claim_by(&holder.claim, person(env).person.as_deref())?;
            print_line(env, &format!("released {lock:?} of pool {pool:?}, held by {}", who::held_by(holder, now)))?;
            Ok(exit::OK)
        }
        _ => {
            let who = who::holders(&view.holders, now);
            Err(CliError::Failed(exit::CONFLICT, format!("the lock is shared: release one of its claims; held: {who}")))
        }
    }
}
