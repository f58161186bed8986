//! What a command prints, and why it ends without success.

use crate::client::CallError;
use crate::env::{Env, Signal};
use crate::wire::errors::exit;
use crate::wire::escape::{Escaped, escape_json};

/// Why a command ends without success.
pub(super) enum CliError {
    /// With this exit code and text.
    Failed(u8, String),
    Call(CallError),
    /// A signal came; there is no more to say.
    Signalled(Signal),
    /// The reader of stdout has left: it has seen enough.
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

/// Colour is for people: only on a terminal, and not against their will (no-color.org).
pub(super) fn is_coloured(env: &Env<'_>) -> bool {
    env.is_terminal && env.var("NO_COLOR").is_none()
}

/// JSON for programs, on stdout.
pub(super) fn print_json<T: serde::Serialize>(env: &mut Env<'_>, value: &T) -> Result<(), CliError> {
    let mut text = escape_json(&serde_json::to_string_pretty(value).map_err(std::io::Error::other)?);
    text.push('\n');
    env.stdout.write_all(text.as_bytes())?;
    Ok(env.stdout.flush()?)
}

/// One line for people, on stdout.
pub(super) fn print_line(env: &mut Env<'_>, text: &str) -> Result<(), CliError> {
    writeln!(env.stdout, "{}", Escaped(text))?;
    Ok(env.stdout.flush()?)
}

/// One line of progress or advice, on stderr.
pub(super) fn say(env: &mut Env<'_>, text: &str) {
    // In one piece: others may write to the same place, such as the command of `run`.
    let line = format!("{}\n", Escaped(text));
    // Nobody reads it any more: no reason to fail, the exit code still tells.
    let _ = env.stderr.write_all(line.as_bytes());
}
