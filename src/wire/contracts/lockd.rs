//! lockd's API: valid names, and the empty answer.

use schemars::JsonSchema;
use serde::Serialize;

use crate::core::limits;
use crate::core::names::PoolName;

/// lockd's answer on success: `{}`.
#[derive(Debug, Serialize, JsonSchema)]
pub struct EmptyView {}

/// Why a text is not a valid lockd name. The messages are those of the original.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LockdNameError {
    /// There is nothing to lock at `/lock/`.
    #[error("Name is empty")]
    Empty,
    #[error("Name is too long ({bytes} bytes > max of {max})", max = limits::NAME_BYTES)]
    TooLong { bytes: usize },
    #[error("Name contains non-printable/non-ascii byte {byte} at offset {offset}")]
    BadByte { byte: u8, offset: usize },
    /// lockd has no such rule, but every other API sees the same lock and refuses such names.
    #[error("Name starts with a dot, which is reserved for files that are not locks")]
    LeadingDot,
}

/// Parses a name: 1 to 128 bytes of `A-Z a-z 0-9 $ - _ .`, of which the first is not a dot.
///
/// # Errors
/// Says what is wrong with it and where.
pub fn name(text: &str) -> Result<PoolName, LockdNameError> {
    check_bytes(text.as_bytes())?;
    // At this point the name follows all other rules of pool names.
    PoolName::parse(text).map_err(|_| LockdNameError::LeadingDot)
}

/// Checks the length and the bytes of a name, which may not even be text.
///
/// # Errors
/// Says what is wrong with it and where.
pub fn check_bytes(name: &[u8]) -> Result<(), LockdNameError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'$' | b'-' | b'_' | b'.');
    let bytes = name.len();
    if bytes == 0 {
        return Err(LockdNameError::Empty);
    }
    if bytes > limits::NAME_BYTES {
        return Err(LockdNameError::TooLong { bytes });
    }
    match name.iter().enumerate().find(|&(_, byte)| !allowed(*byte)) {
        Some((offset, byte)) => Err(LockdNameError::BadByte { byte: *byte, offset }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_messages_are_lockds() {
        let long = "x".repeat(128);
        for good in ["a", "A-b_c.9$", "$", "-", "a.", long.as_str()] {
            assert_eq!(name(good).unwrap().as_str(), good);
        }
        let longer = "x".repeat(129);
        let cases = [
            ("", "Name is empty"),
            (longer.as_str(), "Name is too long (129 bytes > max of 128)"),
            ("a+b", "Name contains non-printable/non-ascii byte 43 at offset 1"),
            ("a b", "Name contains non-printable/non-ascii byte 32 at offset 1"),
            ("ab/", "Name contains non-printable/non-ascii byte 47 at offset 2"),
            ("\u{e4}", "Name contains non-printable/non-ascii byte 195 at offset 0"),
            ("a\0", "Name contains non-printable/non-ascii byte 0 at offset 1"),
            (".a", "Name starts with a dot, which is reserved for files that are not locks"),
            ("..", "Name starts with a dot, which is reserved for files that are not locks"),
        ];
        for (bad, message) in cases {
            assert_eq!(name(bad).unwrap_err().to_string(), message);
        }
    }
}
