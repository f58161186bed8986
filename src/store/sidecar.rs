//! The files of a store: their names and who may read them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Mode of all files of a store: metadata of locks may be secret.
pub(super) const PRIVATE: u32 = 0o600;

/// `FILE` with `suffix` appended to its name.
pub(super) fn sidecar(file: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(file);
    name.push(suffix);
    PathBuf::from(name)
}
