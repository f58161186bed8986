//! `locker access check` and `locker access explain`: the access file, without a server. `locker user hash`: a password
//! for it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::hidden;
use super::output::{CliError, print_line, say};
use crate::core::names::PoolName;
use crate::env::Env;
use crate::server::auth::access::Right;
use crate::server::auth::access::file::{AccessFile, text_of};
use crate::server::auth::access::rules::{Caller, Subject};
use crate::server::auth::passwords::PasswordHash;
use crate::wire::errors::exit;

/// Arguments of `locker access`.
#[derive(Debug, Args)]
pub(super) struct AccessArgs {
    #[command(subcommand)]
    command: AccessCommand,
}

#[derive(Debug, Subcommand)]
enum AccessCommand {
    /// Check an access file as a whole; each fault is named with its line
    Check(CheckArgs),
    /// Say whether somebody may do something, and which rule says so
    Explain(ExplainArgs),
}

#[derive(Debug, Args)]
struct CheckArgs {
    /// The access file
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

#[derive(Debug, Args)]
struct ExplainArgs {
    /// The access file
    #[arg(value_name = "FILE", env = "LOCKER_ACCESS")]
    file: PathBuf,
    /// Who: user:NAME, token:NAME, certificate:SUBJECT, team:NAME, pipeline:TEAM/NAME or anyone
    #[arg(long = "as", value_name = "WHO")]
    who: Subject,
    /// The pool, whether it exists or not
    #[arg(long, value_name = "NAME")]
    pool: PoolName,
    /// What: look, claim, manage, break, admin or metrics
    #[arg(long = "to", value_name = "RIGHT")]
    right: Right,
}

/// Arguments of `locker user`.
#[derive(Debug, Args)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Read a password from stdin, or ask for it, and print its hash for the access file
    Hash,
}

pub(super) fn run(args: &AccessArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        AccessCommand::Check(args) => {
            let file = read(&args.file, env)?;
            let (users, rules) = (file.users.len(), file.rules.len());
            print_line(env, &format!("{}: {users} users, {rules} rules, no faults", args.file.display()))?;
            Ok(exit::OK)
        }
        AccessCommand::Explain(args) => {
            let file = read(&args.file, env)?;
            explain(args, &file, env)
        }
    }
}

/// The file, or all of its faults.
fn read(path: &Path, env: &mut Env<'_>) -> Result<AccessFile, CliError> {
    let text = text_of(path).map_err(|error| CliError::Failed(exit::FAILED, error))?;
    AccessFile::parse(&text).map_err(|faults| {
        faults.iter().for_each(|fault| say(env, &format!("{}:{}: {}", path.display(), fault.line, fault.text)));
        let count = faults.len();
        let faults = if count == 1 { "a fault".to_owned() } else { format!("{count} faults") };
        CliError::Failed(exit::FAILED, format!("{} has {faults}", path.display()))
    })
}

fn explain(args: &ExplainArgs, file: &AccessFile, env: &mut Env<'_>) -> Result<u8, CliError> {
    let ExplainArgs { who, pool, right, .. } = args;
    let caller = Caller::by_rules(who.example(), &file.rules, 0);
    let checked = match right {
        Right::Metrics => caller.check_everywhere(*right),
        _ => caller.check(*right, pool),
    };
    let text = match &checked {
        Ok(rule) => {
            let rule = rule.as_deref().unwrap_or_default();
            format!("yes: {who} has the right {right} on pool {pool:?}, by the rule {rule}")
        }
        Err(_) => format!("no: no rule gives {who} the right {right} on pool {pool:?}"),
    };
    print_line(env, &text)?;
    Ok(if checked.is_ok() { exit::OK } else { exit::DENIED })
}

pub(super) fn user(args: &UserArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let UserCommand::Hash = args.command;
    let password = hidden::ask("password", env)?;
    let hash = PasswordHash::of(&password).map_err(|error| CliError::Failed(exit::FAILED, error))?;
    print_line(env, &hash)?;
    Ok(exit::OK)
}
