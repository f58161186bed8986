//! `locker completions` and `locker man`: generated from the definition of the command line, so they are always up to
//! date.

use std::path::PathBuf;

use clap::{Args, Command, ValueEnum};

use super::output::CliError;
use crate::env::Env;
use crate::wire::errors::exit;

/// The shells that completions exist for.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

/// Arguments of `completions`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  locker completions bash >/etc/bash_completion.d/locker
  locker completions zsh >~/.zfunc/_locker
  locker completions fish >~/.config/fish/completions/locker.fish")]
pub(super) struct CompletionsArgs {
    /// Shell to print the completions for
    shell: Shell,
}

/// Arguments of `man`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  locker man | man -l -
  locker man --dir /usr/local/share/man/man1      # locker.1, locker-server.1 and so on")]
pub(super) struct ManArgs {
    /// Write one page for each command to this directory, which must exist
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Prints the completions of `command`, the whole command line.
pub(super) fn completions(args: &CompletionsArgs, mut command: Command, env: &mut Env<'_>) -> Result<u8, CliError> {
    let shell = match args.shell {
        Shell::Bash => clap_complete::Shell::Bash,
        Shell::Zsh => clap_complete::Shell::Zsh,
        Shell::Fish => clap_complete::Shell::Fish,
    };
    // Generate into memory first, because the generator panics if a pipe is closed.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut command, "locker", &mut text);
    env.stdout.write_all(&text)?;
    Ok(exit::OK)
}

/// Prints or writes the man pages of `command`, the whole command line.
pub(super) fn man(args: &ManArgs, command: Command, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.dir {
        Some(dir) => clap_mangen::generate_to(command, dir).map_err(|error| {
            CliError::Failed(exit::FAILED, format!("cannot write man pages to {}: {error}", dir.display()))
        })?,
        None => {
            let mut text = Vec::new();
            clap_mangen::Man::new(command).render(&mut text)?;
            env.stdout.write_all(&text)?;
        }
    }
    Ok(exit::OK)
}
