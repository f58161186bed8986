//! `locker import ...`: takes over the locks of another system.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::connection::Connection;
use super::import_locker;
use super::output::CliError;
use super::transfer::{self, ImportHow};
use crate::core::names::PoolName;
use crate::env::Env;

/// Arguments of `import`.
#[derive(Debug, Args)]
pub(super) struct ImportArgs {
    #[command(subcommand)]
    command: ImportCommand,
}

#[derive(Debug, Subcommand)]
enum ImportCommand {
    /// The state file of an original locker server, or the answer to its GET /locks
    LockerState(import_locker::LockerStateArgs),
    /// The pools in a checkout of a pool-resource repository
    #[command(after_help = "\
Claimed locks are held by a claim of scope `flow` afterwards; its reason is the message of the last commit, if git is installed.
What differs on the server is overwritten only if you name it; exit code 5 if something was left alone.
Locks that only the server has stay, unless you name their pool with --prune; --dry-run shows which would go.")]
    PoolRepo {
        /// Directory of the checkout
        dir: PathBuf,
        /// Only this pool
        #[arg(long, value_name = "NAME")]
        pool: Option<PoolName>,
        #[command(flatten)]
        how: ImportHow,
    },
    /// The resources of Jenkins's Lockable Resources plugin, from its API or from configuration as code
    #[command(after_help = "\
FILE is the answer to JENKINS/lockable-resources/api/json, or configuration as code (YAML). Each resource becomes a lock, each
word of its labels a label with the value x. What is reserved or held in Jenkins is held afterwards.
What differs on the server is overwritten only if you name it; exit code 5 if something was left alone.

Examples:
  curl -gfsu USER:TOKEN 'https://jenkins.example.com/lockable-resources/api/json' | locker import jenkins - --dry-run
  locker import jenkins casc.yaml --pool printers")]
    Jenkins {
        /// The file; - for stdin
        file: String,
        /// The pool that gets all of the resources
        #[arg(long, value_name = "NAME", default_value = "jenkins")]
        pool: PoolName,
        #[command(flatten)]
        how: ImportHow,
    },
    /// The state that `locker export json` wrote
    #[command(after_help = "\
What differs on the server is overwritten only if you name it; exit code 5 if something was left alone.
Locks that only the server has stay, unless you name their pool with --prune; --dry-run shows which would go.")]
    Json {
        /// The file; - for stdin
        file: PathBuf,
        #[command(flatten)]
        how: ImportHow,
    },
}

pub(super) fn run(args: &ImportArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        ImportCommand::LockerState(args) => import_locker::run(args, &connection.client(env)?, env),
        ImportCommand::PoolRepo { dir, pool, how } => {
            transfer::import_pool_repo(dir, pool.as_ref(), how, connection, env)
        }
        ImportCommand::Jenkins { file, pool, how } => transfer::import_jenkins(file, pool, how, connection, env),
        ImportCommand::Json { file, how } => transfer::import_json(file, how, connection, env),
    }
}
