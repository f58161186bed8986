//! What the command learns about its locks: variables, and files that only its user can read.

use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::Command;

use serde::Serialize;
use tempfile::TempDir;

use crate::wire::api::{ClaimView, LockView};
use crate::wire::text;

/// The files. Dropping this removes them.
pub(super) struct Files {
    _dir: TempDir,
    metadata: PathBuf,
    locks: PathBuf,
}

/// One lock in `LOCKER_LOCKS`.
#[derive(Serialize)]
struct Entry<'a> {
    pool: &'a str,
    lock: &'a str,
    labels: &'a std::collections::BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata_base64: Option<&'a str>,
}

impl<'a> Entry<'a> {
    fn of(view: &'a LockView) -> Self {
        let LockView { pool, lock, labels, metadata, metadata_base64, .. } = view;
        Self { pool, lock, labels, metadata: metadata.as_deref(), metadata_base64: metadata_base64.as_deref() }
    }
}

impl Files {
    /// Writes what is known about the locks to a new directory inside the temporary directory.
    pub(super) fn write(locks: &[LockView]) -> std::io::Result<Self> {
        let ours_alone = std::fs::Permissions::from_mode(0o700);
        let dir = tempfile::Builder::new().prefix("locker-").permissions(ours_alone).tempdir()?;
        let (metadata, list) = (dir.path().join("metadata"), dir.path().join("locks.json"));
        write(&metadata, &locks.first().map(bytes).transpose()?.unwrap_or_default())?;
        let entries: Vec<Entry<'_>> = locks.iter().map(Entry::of).collect();
        write(&list, &serde_json::to_vec_pretty(&entries)?)?;
        Ok(Self { _dir: dir, metadata, locks: list })
    }

    /// Sets the variables in the command's environment.
    pub(super) fn tell(&self, command: &mut Command, claim: &ClaimView, fence: u64) {
        command.env("LOCKER_CLAIM", &claim.id).env("LOCKER_FENCE", fence.to_string());
        if let Some(first) = claim.locks.first() {
            command.env("LOCKER_POOL", &first.pool).env("LOCKER_NAME", &first.lock);
        }
        command.env("LOCKER_METADATA", &self.metadata).env("LOCKER_LOCKS", &self.locks);
    }
}

/// The metadata of a lock, as the original bytes.
fn bytes(lock: &LockView) -> std::io::Result<Vec<u8>> {
    let mut problems = crate::wire::problems::Problems::default();
    let metadata = text::metadata(lock.metadata.clone(), lock.metadata_base64.clone(), &mut problems);
    problems
        .done(Some(metadata.map(|metadata| metadata.to_vec()).unwrap_or_default()))
        .map_err(|why| std::io::Error::other(why.into_list().join("; ")))
}

fn write(path: &std::path::Path, content: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(content)
}
