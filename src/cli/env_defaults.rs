//! Environment variables as defaults of options, taken from [`crate::env::Env`] instead of from the process, so that
//! a test can give its own. The command line wins over the environment; help names the variable, never its value.

use std::collections::BTreeMap;

use clap::builder::{OsStr, Resettable};
use clap::{Arg, ArgAction, Command};

/// The command with every `env` of its arguments read from `vars`.
pub(super) fn with_env(command: Command, vars: &BTreeMap<String, String>) -> Command {
    let command = command.mut_args(|arg| from_vars(arg, vars));
    let names: Vec<String> = command.get_subcommands().map(|sub| sub.get_name().to_owned()).collect();
    names.into_iter().fold(command, |command, name| command.mut_subcommand(name, |sub| with_env(sub, vars)))
}

fn from_vars(arg: Arg, vars: &BTreeMap<String, String>) -> Arg {
    let Some(name) = arg.get_env().and_then(|name| name.to_str()).map(str::to_owned) else { return arg };
    let value = vars.get(&name).filter(|value| !value.is_empty()).map(|value| match arg.get_action() {
        ArgAction::SetTrue => if is_yes(value) { "true" } else { "false" }.to_owned(),
        _ => value.clone(),
    });
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let arg = arg.env(Resettable::<OsStr>::Reset).help(format!("{help} [env: {name}]"));
    match value {
        // A switch takes no value, so it shows none.
        Some(value) if matches!(arg.get_action(), ArgAction::SetTrue) => arg.default_value(value),
        Some(value) => arg.default_value(value).hide_default_value(true),
        None => arg,
    }
}

/// Whether a variable switches something on.
fn is_yes(value: &str) -> bool {
    !matches!(value.to_ascii_lowercase().as_str(), "0" | "false" | "no" | "off")
}
