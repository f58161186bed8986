//! Secrets that a person types or a script hands over.

use std::io::IsTerminal as _;

use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};

use super::output::{CliError, say};
use crate::env::{Env, read_at_most};
use crate::wire::secret::Secret;

/// Longest secret that is read, bytes: an id token has up to 8 KiB.
const SECRET_BYTES: u64 = 8 * 1024;

/// One line of stdin. On a terminal it is asked for, as `what`, and not shown.
pub(super) fn ask(what: &str, env: &mut Env<'_>) -> Result<Secret, CliError> {
    let stdin = std::io::stdin();
    let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
    if let Some(before) = &before {
        say(env, &format!("The {what} (it is not shown):"));
        let mut hidden = before.clone();
        hidden.local_modes.remove(LocalModes::ECHO);
        // If that fails, it is shown: the person who types it sees that.
        let _ = tcsetattr(&stdin, OptionalActions::Flush, &hidden);
    }
    let read = read_line(what, env);
    if let Some(before) = &before {
        let _ = tcsetattr(&stdin, OptionalActions::Flush, before);
    }
    let text = read?;
    if text.is_empty() {
        return Err(CliError::usage(format!("the {what} is empty")));
    }
    Ok(Secret::new(text))
}

fn read_line(what: &str, env: &mut Env<'_>) -> Result<String, CliError> {
    let mut line = Vec::new();
    while let Some([byte]) = read_at_most(&mut std::io::Read::take(&mut *env.stdin, 1), 1)?.as_deref()
        && *byte != b'\n'
    {
        if line.len() as u64 >= SECRET_BYTES {
            return Err(CliError::usage(format!("the {what} has more than {SECRET_BYTES} bytes")));
        }
        line.push(*byte);
    }
    let text = String::from_utf8(line).map_err(|_| CliError::usage(format!("the {what} is not valid UTF-8")))?;
    Ok(text.strip_suffix('\r').unwrap_or(&text).to_owned())
}
