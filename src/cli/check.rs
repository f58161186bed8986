//! `locker check|in|out`: runs the resource's programs as Concourse would, for debugging.

use clap::Args;

use crate::env::Env;
use crate::resource;

/// Arguments of `in` and `out`.
#[derive(Debug, Args)]
pub(super) struct StepArgs {
    /// Directory of the step
    #[arg(default_value = ".")]
    dir: String,
}

pub(super) fn check(env: &mut Env<'_>) -> u8 {
    env.args = vec!["check".to_owned()];
    resource::check(env)
}

pub(super) fn get(args: &StepArgs, env: &mut Env<'_>) -> u8 {
    env.args = vec!["in".to_owned(), args.dir.clone()];
    resource::get(env)
}

pub(super) fn put(args: &StepArgs, env: &mut Env<'_>) -> u8 {
    env.args = vec!["out".to_owned(), args.dir.clone()];
    resource::out(env)
}
