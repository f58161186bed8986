//! Where the command of `locker run` begins: after `--`, or with the first word after the pool that is not an option. In
//! the second case, no word of the command may be an option of `locker run` as well: nobody could say whose it is.

use clap::{Args as _, Command};

use super::RunArgs;
use crate::cli::connection::Connection;
use crate::core::names::PoolName;

/// How to call it.
const EXAMPLE: &str = "locker run POOL -- make deploy";

/// Checks the words of a command, which are the last of `all`, all words of the command line.
///
/// # Errors
/// The pool is missing, or a word may be meant for `locker run`.
pub(super) fn check(pool: &PoolName, command: &[String], all: &[String]) -> Result<(), String> {
    let before = &all[..all.len().saturating_sub(command.len())];
    if before.ends_with(&["--".to_owned()]) {
        return Ok(());
    }
    if before.ends_with(&["--".to_owned(), pool.as_str().to_owned()]) {
        return Err(format!("the pool is missing; it comes before --, such as: {EXAMPLE}"));
    }
    let options = Connection::augment_args(RunArgs::augment_args(Command::new("run")));
    // Behind a `--` of its own, all words belong to the command.
    let own = command.iter().take_while(|word| *word != "--");
    match own.skip(1).find(|word| is_option(word, &options)) {
        None => Ok(()),
        Some(word) => Err(format!(
            "{word:?} may be meant for `locker run` or for the command: write the options of `locker run` before the \
             command, and -- between them, such as: {EXAMPLE}"
        )),
    }
}

/// Whether a word looks like one of these options, alone or with its value.
fn is_option(word: &str, options: &Command) -> bool {
    options.get_arguments().any(|option| {
        let takes_value = option.get_action().takes_values();
        let is_long = option.get_long().is_some_and(|long| {
            word.strip_prefix("--").is_some_and(|name| name.split_once('=').map_or(name, |(name, _)| name) == long)
        });
        let is_short = option.get_short().is_some_and(|short| {
            word.strip_prefix('-')
                .and_then(|rest| rest.strip_prefix(short))
                .is_some_and(|v| takes_value || v.is_empty())
        });
        is_long || is_short
    })
}

/// What to write instead, if `run` was called without a command.
pub(in crate::cli) fn missing_command(error: &clap::Error, args: &[String]) -> Option<String> {
    let is_run = error.render().to_string().contains("Usage: locker run ");
    let is_wrong = matches!(
        error.kind(),
        clap::error::ErrorKind::UnknownArgument | clap::error::ErrorKind::MissingRequiredArgument
    );
    let tip = format!("locker: the command of `locker run` comes after the pool, such as: {EXAMPLE}");
    (is_run && is_wrong && !args.iter().any(|arg| arg == "--")).then_some(tip)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_needs_no_dashes_unless_it_is_ambiguous() {
        let table: &[(&[&str], usize, Option<&str>)] = &[
            (&["run", "p", "make", "deploy"], 2, None),
            (&["run", "p", "-n", "make", "-j4", "deploy"], 3, None),
            (&["run", "p", "npm", "test", "--", "--timeout", "5"], 5, None),
            (&["run", "p", "--", "make", "--timeout", "5"], 3, None),
            (&["run", "p", "-c", "make -n"], 1, None),
            (&["run", "p", "make", "--timeout", "5"], 3, Some("\"--timeout\" may be meant")),
            (&["run", "p", "make", "--timeout=5"], 2, Some("\"--timeout=5\" may be meant")),
            (&["run", "p", "make", "-n"], 2, Some("\"-n\" may be meant")),
            (&["run", "p", "make", "-w5"], 2, Some("\"-w5\" may be meant")),
            (&["run", "p", "curl", "--uri", "x"], 3, Some("\"--uri\" may be meant")),
            (&["run", "--", "p", "deploy"], 1, Some("the pool is missing")),
        ];
        for (line, words, expected) in table {
            let line: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
            let checked = check(&"p".parse().unwrap(), &line[line.len() - words..], &line);
            match expected {
                None => assert_eq!(checked, Ok(()), "{line:?}"),
                Some(text) => assert!(checked.as_ref().is_err_and(|why| why.contains(text)), "{line:?}: {checked:?}"),
            }
        }
    }
}
