//! `locker notify`: tries the file of targets, without a server.

use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, Subcommand};

use super::output::{CliError, print_line, say};
use crate::client::when;
use crate::env::{Env, random_hex};
use crate::server::notify::message;
use crate::server::notify::receiver::{Parcel, Receiver};
use crate::server::notify::settings::{Settings, Target, To};
use crate::wire::errors::exit;
use crate::wire::escape::escape;
use crate::wire::problems::unknown;

/// Arguments of `notify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  locker notify check notify.yml                    names every fault with its line
  locker notify test notify.yml                     sends a test to every target
  locker notify test notify.yml --target ops        to one target

docs/notifications.md explains the file. Exit codes: 0 done, 1 a target did not take it, 2 the file cannot be used.")]
pub(super) struct NotifyArgs {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Send a test to each target, and say what it answered; a resource of Concourse is checked
    Test {
        /// The file of targets, as for `locker server --notify`
        file: PathBuf,
        /// Only the target of this name
        #[arg(long, value_name = "NAME")]
        target: Option<String>,
    },
    /// Check the file of targets, and the files that it names; nothing is sent
    Check {
        /// The file of targets, as for `locker server --notify`
        file: PathBuf,
    },
}

pub(super) fn run(args: &NotifyArgs, env: &mut Env<'_>) -> Result<u8, CliError> {
    let (Action::Test { file, .. } | Action::Check { file }) = &args.action;
    let settings = Settings::open(file).map_err(|bad| {
        bad.lines().iter().for_each(|line| say(env, line));
        CliError::usage(format!("{} cannot be used", file.display()))
    })?;
    match &args.action {
        Action::Check { .. } => {
            for target in &settings.targets {
                print_line(env, &format!("{}: {}", target.name, escape(&describe(target))))?;
            }
            Ok(exit::OK)
        }
        Action::Test { target, .. } => test(&settings, target.as_deref(), env),
    }
}

fn describe(target: &Target) -> String {
    match &target.to {
        To::Webhook(_) => target.place(),
        To::Concourse(concourse) => format!("checks {}", concourse.url.join(&concourse.path)),
    }
}

fn test(settings: &Settings, only: Option<&str>, env: &mut Env<'_>) -> Result<u8, CliError> {
    let names: Vec<&str> = settings.targets.iter().map(|target| target.name.as_str()).collect();
    if let Some(only) = only.filter(|only| !names.contains(only)) {
        return Err(CliError::usage(unknown("target", only, &names)));
    }
    let mut code = exit::OK;
    for target in settings.targets.iter().filter(|target| only.is_none_or(|only| target.name == only)) {
        let began = Instant::now();
        let line = match attempt(target, env) {
            Ok(status) => format!("{status}, after {} ms", began.elapsed().as_millis()),
            Err(why) => {
                code = exit::FAILED;
                format!("failed: {why}")
            }
        };
        print_line(env, &format!("{} ({}): {line}", target.name, escape(&target.place())))?;
    }
    Ok(code)
}

fn attempt(target: &Target, env: &Env<'_>) -> Result<u16, String> {
    let receiver = Receiver::open(target, &env.vars)?;
    let now = when::now(&*env.clock);
    let notification = message::test(&random_hex::<8>(), now);
    let parcel = match target.to {
        To::Webhook(_) => Parcel::Notifications(&[&notification]),
        To::Concourse(_) => Parcel::Check,
    };
    receiver.send(parcel, now).map_err(|failure| failure.why)
}
