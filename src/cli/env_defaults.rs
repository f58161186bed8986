//! Environment variables as defaults of options, read from [`crate::env::Env`] instead of from the process, so that
//! tests can set their own. The command line overrides the environment. Help names the variable, never its value.

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
        ArgAction::SetTrue => value.trim().to_ascii_lowercase(),
        _ => value.clone(),
    });
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let arg = match arg.get_long_help().map(ToString::to_string) {
        // `--help` shows the long text alone.
        Some(long) => arg.long_help(format!("{long}\n\n[env: {name}]")),
        None => arg,
    };
    let arg = arg.env(Resettable::<OsStr>::Reset).help(format!("{help} [env: {name}]"));
    match value {
        // A switch takes no value, so help shows none.
        Some(value) if matches!(arg.get_action(), ArgAction::SetTrue) => {
            arg.default_value(value).value_parser(move |word: &str| yes_or_no(&name, word))
        }
        Some(value) => arg.default_value(value).hide_default_value(true),
        None => arg,
    }
}

/// Whether a variable turns a switch on. An unclear word is refused: a wrong guess could open a server to everybody.
fn yes_or_no(name: &str, word: &str) -> Result<bool, String> {
    match word {
        "1" | "true" | "yes" | "on" | "y" | "t" => Ok(true),
        "0" | "false" | "no" | "off" | "n" | "f" => Ok(false),
        _ => Err(format!("{name} must be true or false (or yes, no, on, off, 1, 0)")),
    }
}
