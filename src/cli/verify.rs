//! `locker verify`: whether a fence belongs to a current holder, for scripts that are about to change something.

use clap::Args;

use super::output::{CliError, print_line};
use crate::client::{Client, when, who};
use crate::core::names::{LockName, PoolName};
use crate::env::Env;
use crate::wire::errors::exit;

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code: 0 only if the fence belongs to the current holder; 5 if it does not, or no longer; 6 if the server does not answer; \
7 if it refuses the credentials. Anything but 0 means: do not go on.

Example, in a deploy script under `locker run` (LOCKER_POOL, LOCKER_NAME and LOCKER_FENCE are set):
  locker verify \"$LOCKER_POOL\" \"$LOCKER_NAME\" \"$LOCKER_FENCE\" || exit")]
pub(super) struct VerifyArgs {
    /// Pool of the lock
    pool: PoolName,
    /// Name of the lock
    lock: LockName,
    /// Fence that came with the grant
    fence: u64,
    /// Print nothing; the exit code tells
    #[arg(long, short)]
    quiet: bool,
}

pub(super) fn run(args: &VerifyArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match client.verify(args.pool.as_str(), args.lock.as_str(), args.fence) {
        Ok(view) if view.holder.fence == args.fence => {
            if !args.quiet {
                let now = when::now(&*env.clock);
                // The fence is valid even if nobody reads this line.
                match print_line(env, &format!("held: {}", who::holder(&view.holder, now))) {
                    Ok(()) | Err(CliError::PipeClosed) => {}
                    Err(other) => return Err(other),
                }
            }
            Ok(exit::OK)
        }
        Ok(_) => Err(CliError::Failed(exit::FAILED, "the server answered for another fence".to_owned())),
        Err(error) if args.quiet => Ok(error.exit()),
        Err(error) => Err(error.into()),
    }
}
