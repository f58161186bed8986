//! `locker backup`, `locker restore` and `locker store check`: copies of a store in a file, without the server.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::output::{CliError, print_line, say};
use crate::env::Env;
use crate::store::copies::{self, Contents, CopyError};
use crate::wire::errors::exit;

/// Which store.
#[derive(Debug, Args)]
struct Which {
    /// The store, as the server is told: sqlite:FILE
    #[arg(long, env = "LOCKER_STORE", value_name = "STORE", default_value = "sqlite:locker.db")]
    store: String,
}

/// Arguments of `backup`.
#[derive(Debug, Args)]
#[command(after_help = "\
The server may be running. Run it as the server's user, on its machine:
  locker backup --store sqlite:/var/lib/locker/locker.db /backup/locker-$(date +%F).db
The file has mode 0600 and everything in it, metadata of locks too.")]
pub(super) struct BackupArgs {
    /// The file to write; it must not exist
    file: PathBuf,
    #[command(flatten)]
    which: Which,
}

/// Arguments of `restore`.
#[derive(Debug, Args)]
#[command(after_help = "\
End the server first. Claims made since the backup are unknown then, and those released since are held again.
Fences stay safe: the next server's are larger than any that the backup and the replaced store know, and than the clock
has given. Where the replaced store is lost and the clock was set back, name the largest fence you find in build logs
with --fence-above.")]
pub(super) struct RestoreArgs {
    /// The backup
    file: PathBuf,
    #[command(flatten)]
    which: Which,
    /// Replace an existing store, which is moved aside as FILE.replaced-N
    #[arg(long)]
    replace: bool,
    /// A fence that was given after the backup: all new ones will be larger
    #[arg(long, value_name = "FENCE", value_parser = clap::value_parser!(u64).range(..=MAX_FENCE))]
    fence_above: Option<u64>,
}

/// Half of the largest fence (2^53): room for all that come after it.
const MAX_FENCE: u64 = 1 << 52;

/// Arguments of `store`.
#[derive(Debug, Args)]
pub(super) struct StoreArgs {
    #[command(subcommand)]
    what: StoreCommand,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Check every page and every record, even while the server runs; exit code 0 if all is sound
    Check(Which),
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
    let StoreCommand::Check(which) = &args.what;
    let contents = copies::check(&which.store).map_err(CopyError::from)?;
    print_line(env, &format!("{} is sound: {}", which.store, told(&contents)))?;
    Ok(exit::OK)
}

fn told(contents: &Contents) -> String {
    let records = contents.records.map_or_else(
        || "records of an earlier schema, not checked".to_owned(),
        |r| format!("{} pools, {} locks, {} claims, {} changes", r.pools, r.locks, r.claims, r.changes),
    );
    format!("{records}, revision {}, store id {}, {} bytes", contents.revision, contents.store_id, contents.bytes)
}
