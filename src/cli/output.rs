//! What a command prints, and why it fails.

use crate::client::CallError;
use crate::env::{Env, Signal};
use crate::wire::errors::exit;
use crate::wire::escape::{Escaped, escape_json};

/// Why a command fails.
pub(super) enum CliError {
    /// An exit code and a text.
    Failed(u8, String),
    Call(CallError),
    /// A signal arrived; there is nothing more to say.
    Signalled(Signal),
    /// The reader of stdout has closed it, because it has seen enough.
    PipeClosed,
}

impl From<CallError> for CliError {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<std::io::Error> for CliError {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::PipeClosed
        } else {
            Self::Failed(exit::FAILED, format!("cannot write: {error}"))
        }
    }
}

impl CliError {
    pub(super) fn usage(text: impl Into<String>) -> Self {
        Self::Failed(exit::USAGE, text.into())
    }
}

/// Whether to print colours: only on a terminal, and not if `NO_COLOR` is set (no-color.org).
pub(super) fn is_coloured(env: &Env<'_>) -> bool {
    env.is_terminal && env.var("NO_COLOR").is_none()
}

/// Prints JSON for programs on stdout.
pub(super) fn print_json<T: serde::Serialize>(env: &mut Env<'_>, value: &T) -> Result<(), CliError> {
    let mut text = escape_json(&serde_json::to_string_pretty(value).map_err(std::io::Error::other)?);
    text.push('\n');
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

/// Prints one line for people on stdout.
pub(super) fn print_line(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    writeln!(env.stdout, "{}", Escaped(text))?;
    Ok(env.stdout.flush()?)
}

/// Prints one line of progress or advice on stderr.
pub(super) fn say(env: &mut Env<'_>, text: &str) {
    // Write the line in one piece: other programs, such as the command of `run`, may write to the same place.
    let line = format!("{}\n", Escaped(text));
    // If nobody reads stderr, that is no reason to fail: there is still the exit code.
    let _ = env.stderr.write_all(line.as_bytes());
}
