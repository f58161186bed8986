//! `locker import ...`: taking over what another system has.

use clap::{Args, Subcommand};

use super::{CliError, import_locker};
use crate::client::Client;
use crate::env::Env;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    command: ImportCommand,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// The state file of an original locker server, or what its GET /locks printed
    LockerState(import_locker::LockerStateArgs),
}

pub(super) fn run(args: &ImportArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        ImportCommand::LockerState(args) => import_locker::run(args, client, env),
    }
}
