//! The lock file next to a store: one server at a time. It is an advisory kernel lock on an open file (`flock`), so it
//! ends with the process however that ends, and a leftover file locks nobody out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::sidecar::{PRIVATE, sidecar};

/// Longest content of a lock file that is searched for a process id, bytes.
const PID_BYTES: u64 = 32;

/// A held lock file; dropping it lets the next server in. The file stays, because removing it could let two servers
/// lock two files of one name.
#[derive(Debug)]
pub struct LockFile {
    _file: File,
}

impl LockFile {
    /// Locks `FILE.lock` next to `store` and writes this process's id into it. Does not wait.
    ///
    /// # Errors
    /// Another process holds it (the message names the file and the process), or it cannot be made.
    pub fn acquire(store: &Path) -> anyhow::Result<Self> {
        Self::acquire_file(&Self::path(store), true)
    }

    /// The same for a new store in a directory of its own: whoever finds the lock file finds it locked.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn acquire_new(store: &Path) -> anyhow::Result<Self> {
        let (path, new) = (Self::path(store), sidecar(store, ".lock-new"));
        let lock = Self::acquire_file(&new, true)?;
        fs::rename(&new, &path).with_context(|| format!("cannot name the lock file {}", path.display()))?;
        Ok(lock)
    }

    /// The same for a store that somebody may have left, if it has a lock file.
    ///
    /// # Errors
    /// It has none, or another process holds it.
    pub fn acquire_left(store: &Path) -> anyhow::Result<Self> {
        Self::acquire_file(&Self::path(store), false)
    }

    fn acquire_file(path: &Path, may_create: bool) -> anyhow::Result<Self> {
        // Not truncated on opening: until this process has locked it, its content belongs to the holder.
        let mut options = OpenOptions::new();
        let mut file = options
            .read(true)
            .write(true)
            .create(may_create)
            .truncate(false)
            .mode(PRIVATE)
            .open(path)
            .with_context(|| format!("cannot open the lock file {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => bail!(
                "another server{} uses this store: it holds the lock file {}. Stop it first, or give this one a store of \
                 its own",
                holder(&file).map(|pid| format!(" (process {pid})")).unwrap_or_default(),
                path.display()
            ),
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the lock file {}", path.display()));
            }
        }
        let note_pid = |file: &mut File| {
            file.set_len(0)?;
            writeln!(file, "{}", std::process::id())
        };
        note_pid(&mut file).with_context(|| format!("cannot write the lock file {}", path.display()))?;
        Ok(Self { _file: file })
    }

    /// The lock file of the store in the file `store`.
    #[must_use]
    pub fn path(store: &Path) -> PathBuf {
        sidecar(store, ".lock")
    }
}

/// The process id in a lock file, if there is one.
fn holder(file: &File) -> Option<u32> {
    let mut text = String::new();
    file.take(PID_BYTES).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_at_a_time() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("x.db");
        // The content that a dead server left behind does not matter.
        std::fs::write(LockFile::path(&store), "999999999 and more than fits into the pid field\n").unwrap();
        let first = LockFile::acquire(&store).unwrap();
        let error = LockFile::acquire(&store).unwrap_err().to_string();
        let pid = format!("(process {})", std::process::id());
        assert!(error.contains(&pid) && error.contains("x.db.lock"), "{error}");
        std::fs::write(LockFile::path(&store), "nobody\n").unwrap();
        let error = LockFile::acquire(&store).unwrap_err().to_string();
        assert!(error.starts_with("another server uses this store"), "{error}");
        drop(first);
        LockFile::acquire(&store).unwrap();
    }
}
