//! `locker queue move|cancel`: moves or cancels waiting claims.

use clap::{Args, Subcommand};

use super::output::{CliError, print_line};
use super::values::{by, person};
use crate::client::Client;
use crate::core::names::ClaimId;
use crate::env::Env;
use crate::wire::api::{MoveBody, QueueEnd};
use crate::wire::errors::exit;

/// Arguments of `queue`.
#[derive(Debug, Args)]
pub(super) struct QueueArgs {
    #[command(subcommand)]
    command: QueueCommand,
}

#[derive(Debug, Subcommand)]
enum QueueCommand {
    /// Move a waiting claim to another place in the queue
    #[command(
        group = clap::ArgGroup::new("where").required(true).args(["first", "last", "before"]),
        after_help = "Examples:\n  locker queue move 0f3a... --first --reason 'hotfix'\n  locker queue move 0f3a... --before 77c1... --reason 'they agreed'"
    )]
    Move(MoveArgs),
    /// Cancel somebody else's waiting claim; its step fails and shows the reason
    Cancel {
        /// Id of the claim (see `locker status POOL`)
        claim: ClaimId,
        /// The reason, shown to the owner of the claim and in the history
        #[arg(long, value_name = "TEXT")]
        reason: String,
    },
}

#[derive(Debug, Args)]
struct MoveArgs {
    /// Id of the claim (see `locker status POOL`)
    claim: ClaimId,
    /// Move it ahead of all others
    #[arg(long)]
    first: bool,
    /// Move it behind all others
    #[arg(long)]
    last: bool,
    /// Move it to just ahead of this claim
    #[arg(long, value_name = "CLAIM")]
    before: Option<ClaimId>,
    /// The reason, shown to the claims that are overtaken and in the history
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

pub(super) fn run(args: &QueueArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        QueueCommand::Move(args) => {
            let to = match (args.first, args.last) {
                (true, _) => Some(QueueEnd::First),
                (_, true) => Some(QueueEnd::Last),
                _ => None,
            };
            let before = args.before.as_ref().map(|id| id.as_str().to_owned());
            let body = MoveBody { to, before, by: by(env, Some(&args.reason)) };
            client.move_claim(args.claim.as_str(), &body)?;
            print_line(env, &format!("moved claim {}", args.claim))?;
        }
        QueueCommand::Cancel { claim, reason } => {
            let name = person(env).person.unwrap_or_default();
            client.cancel_claim(claim.as_str(), &name, reason)?;
            print_line(env, &format!("cancelled claim {claim}"))?;
        }
    }
    Ok(exit::OK)
}
