//! `locker backup`, `locker restore` and `locker store`: they work on the store itself, without the server.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{CliError, print_line, say};
use crate::env::Env;
use crate::store::copies::{self, Contents, CopyError};
use crate::wire::errors::exit;
use crate::wire::text::counted;

/// Which store to use.
#[derive(Debug, Args)]
struct Which {
    /// The store, as given to the server
    #[arg(long, env = "LOCKER_STORE", value_name = "STORE", default_value = "sqlite:locker.db")]
    store: String,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
The server may be running. Run it as the server's user, on its machine:
  locker backup --store sqlite:/var/lib/locker/locker.db /backup/locker-$(date +%F).db
The file has mode 0600 and contains everything, including the metadata of locks.")]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    which: Which,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
Stop the server first. Afterwards, claims made since the backup are unknown, and those released since are held again.
Fences stay safe: the next server's fences are larger than any in the backup and in the replaced store, and larger than
any that the clock can have given. If the replaced store is lost and the clock was set back, pass the largest fence that
you find in build logs as --fence-above.")]
pub(super) struct RestoreArgs {
    /// The backup file
    file: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Replace an existing store, which is kept as FILE.replaced-N
    #[arg(long)]
    replace: bool,
    /// A fence that was given after the backup; all new fences will be larger
    #[arg(long, value_name = "FENCE", value_parser = clap::value_parser!(u64).range(..=MAX_FENCE))]
    fence_above: Option<u64>,
}

/// Half of the largest fence (2^53), which leaves room for all later ones.
const MAX_FENCE: u64 = 1 << 52;

/// Arguments of `store`.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    what: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check every page and every record, even while the server runs; exit code 0 if the store is sound
    Check(Which),
    /// Move everything into another store, which must not exist yet; stop all servers first
    ///
    /// A store is sqlite:FILE, etcd:... or postgres:... (docs/cluster.md). The first one stays as it is: never start a
    /// server on it again.
    Copy(CopyArgs),
}

#[derive(Debug, Args)]
struct CopyArgs {
    /// The store as it is
    from: String,
    /// The store that is made
    to: String,
}

impl From<CopyError> for CliError {
    fn from(error: CopyError) -> Self {
        let code = match error {
            CopyError::Exists { .. } => exit::CONFLICT,
            CopyError::Failed(_) => exit::FAILED,
        };
        Self::Failed(code, error.to_string())
    }
}

pub(super) fn backup(args: &BackupArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let contents = copies::backup(&args.which.store, &args.file)?;
    print_line(env, &format!("backup {}: {}", args.file.display(), told(&contents)))?;
    Ok(exit::OK)
}

pub(super) fn restore(args: &RestoreArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let restored = copies::restore(&args.file, &args.which.store, args.replace, args.fence_above)?;
    if let Some(aside) = &restored.aside {
        say(env, &format!("the store that was there is now {}", aside.display()));
    }
    if restored.old_fences_unknown && args.fence_above.is_none() {
        say(
            env,
            "warning: the store that was there cannot be read, so new fences are larger than those of the backup and of the \
             clock; if the clock was ever set back, restore again with --fence-above",
        );
    }
    print_line(env, &format!("restored {}: {}", args.which.store, told(&restored.contents)))?;
    Ok(exit::OK)
}

pub(super) fn store(args: &StoreArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let line = match &args.what {
        StoreCommand::Check(which) => {
            let contents = copies::check(&which.store).map_err(CopyError::from)?;
            format!("{} is sound: {}", which.store, told(&contents))
        }
        StoreCommand::Copy(CopyArgs { from, to }) => {
            let contents = copies::move_store(from, to)?;
            format!("copied to {to}: {}", told(&contents))
        }
    };
    print_line(env, &line)?;
    Ok(exit::OK)
}

fn told(contents: &Contents) -> String {
    let records = contents.records.map_or_else(
        || "records of an earlier schema, not checked".to_owned(),
        |r| {
            let all = [(r.pools, "pool"), (r.locks, "lock"), (r.claims, "claim"), (r.changes, "change")];
            all.map(|(count, what)| counted(count, what)).join(", ")
        },
    );
    format!("{records}, revision {}, store id {}, {} bytes", contents.revision, contents.store_id, contents.bytes)
}
