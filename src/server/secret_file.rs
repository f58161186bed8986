//! Secrets in files: read when they are needed, so that a renewed one counts at once.

use std::path::Path;

use crate::env;
use crate::wire::secret::Secret;

/// The secret in a file, without newlines at its end.
///
/// # Errors
/// The file cannot be read, is empty, or has more than `max` bytes. The text has nothing of its content. `what` says what
/// should be in it.
pub fn read(file: &Path, max: usize, what: &str) -> Result<Secret, String> {
    let broken = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", file.display());
    // Read a little more than a secret may have, so that the error can state the length of a longer one.
    let read = env::read_file(file, 16 * max as u64).map_err(|error| broken(&error))?;
    let text = read.ok_or_else(|| broken(&format!("it is too long for {what}")))?;
    let text = String::from_utf8(text).map_err(|_| broken(&"it is not valid UTF-8"))?;
    let text = text.trim_end_matches(['\r', '\n']);
    match text.len() {
        0 => Err(format!("{} is empty", file.display())),
        length if length > max => Err(format!("{} is not {what}: it has {length} bytes", file.display())),
        _ => Ok(Secret::new(text)),
    }
}
