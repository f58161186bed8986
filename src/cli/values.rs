//! Values that several commands read from arguments or the environment.

use crate::core::limits::OWNER_FIELD_BYTES;
use crate::env::{Env, random_hex};
use crate::wire::api::{ByBody, Owner};
use crate::wire::escape::cut;

/// The person at the command line, as far as the environment says.
pub(super) fn person(env: &Env<'_>) -> Owner {
    let name = env.var("USER").or_else(|| env.var("LOGNAME")).unwrap_or("somebody");
    let place = if env.hostname.is_empty() { String::new() } else { format!("@{}", env.hostname) };
    let person = format!("{name}{place}");
    Owner { person: Some(cut(&person, OWNER_FIELD_BYTES).to_owned()), ..Owner::default() }
}

/// Who changes something, with a fresh id that makes the call safe to repeat.
pub(super) fn by(env: &Env<'_>, reason: Option<&String>) -> ByBody {
    ByBody { op: Some(random_hex::<16>()), owner: person(env), reason: reason.cloned() }
}

/// `NAME=VALUE` as given to `--label`.
pub(super) fn parse_label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("must be NAME=VALUE".to_owned()),
    }
}

pub(super) fn parse_duration(text: &str) -> Result<std::time::Duration, String> {
    crate::wire::text::parse_duration(text)
}
