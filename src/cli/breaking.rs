//! `locker break`: ends a hold by force.

use clap::Args;

use super::output::{CliError, print_line};
use super::values::by;
use crate::client::{Client, when, who};
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::api::BreakBody;
use crate::wire::errors::exit;

/// Arguments of `break`.
#[derive(Debug, Args)]
#[command(
    group = clap::ArgGroup::new("what").required(true).args(["claim", "lock"]),
    after_help = "Examples:\n  locker break 0f3a... --reason 'its build is gone'\n  locker break --pool environments --lock eu-1 --reason 'runaway deploy' --drain"
)]
pub(super) struct BreakArgs {
    /// Id of the claim
    claim: Option<ClaimId>,
    /// Pool of the lock
    #[arg(long, value_name = "NAME", requires = "lock")]
    pool: Option<PoolName>,
    /// Break the hold on this lock
    #[arg(long, value_name = "NAME", requires = "pool")]
    lock: Option<LockName>,
    /// The reason, shown to the holder and in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Keep the lock out of use for the drain time of the pool, because its holder may still be working
    #[arg(long)]
    drain: bool,
}

pub(super) fn run(args: &BreakArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let id = match (&args.claim, &args.pool, &args.lock) {
        (Some(id), ..) => id.as_str().to_owned(),
        (None, Some(pool), Some(lock)) => holder(pool, lock, client, when::now(&*env.clock))?,
        _ => return Err(CliError::usage("name a claim, or give --pool and --lock")),
    };
    let body = BreakBody { drain: args.drain, by: by(env, Some(&args.reason)) };
    let broken = client.break_claim(&id, &body)?;
    let text = if broken.again { format!("claim {id} was already broken") } else { format!("broke claim {id}") };
    print_line(env, &text)?;
    Ok(exit::OK)
}

/// The claim that has the lock, confirmed or not. Fails if there are several.
fn holder(pool: &PoolName, lock: &LockName, client: &Client, now: WallMs) -> Result<String, CliError> {
    let view = client.get_lock(pool.as_str(), lock.as_str())?;
    match view.holders.as_slice() {
        [] => Err(CliError::Failed(exit::CONFLICT, format!("lock {lock:?} of pool {pool:?} is not held"))),
        [holder] => Ok(holder.claim.clone()),
        several => {
            let who = who::holders(several, now);
            Err(CliError::Failed(exit::CONFLICT, format!("the lock is shared: break one of its claims; held: {who}")))
        }
    }
}
