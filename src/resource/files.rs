//! Files that a get writes and a put reads.
//!
//! The destination belongs to a container that may have been used before: links in it are never followed. Each file
//! is written under a temporary name inside the destination and renamed, so that it is there whole or not at all.
//! Names become parts of paths only as [`PoolName`] and [`LockName`], which hold no `/` and no leading `.`.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::core::limits::{METADATA_BYTES, NAME_BYTES};
use crate::core::names::{ClaimId, LockName, PoolName};
use crate::env::read_at_most;

/// Largest file `name` or `claim` that is read, bytes: a name with white space around it.
const SMALL_FILE_BYTES: usize = NAME_BYTES * 4;

/// Writes the files of one version. What was written is taken away again unless [`Self::done`] is called.
pub(super) struct Destination {
    dir: PathBuf,
    /// Files and directories that came with this get, in the order of their making.
    made: Vec<Made>,
}

enum Made {
    File(PathBuf),
    Dir(PathBuf),
}

impl Destination {
    /// The directory that Concourse gave; it must exist.
    pub(super) fn open(dir: PathBuf) -> Result<Self, String> {
        match fs::metadata(&dir) {
            Ok(found) if found.is_dir() => Ok(Self { dir, made: Vec::new() }),
            Ok(_) => Err(format!("{} is no directory", dir.display())),
            Err(error) => Err(format!("cannot use the directory {}: {error}", dir.display())),
        }
    }

    /// Writes a file directly in the destination.
    pub(super) fn write(&mut self, name: &'static str, content: &[u8]) -> Result<(), String> {
        let path = self.dir.join(name);
        self.put(path, content)
    }

    /// Writes `locks/POOL/LOCK/metadata`.
    pub(super) fn write_lock(&mut self, pool: &PoolName, lock: &LockName, metadata: &[u8]) -> Result<(), String> {
        let mut dir = self.dir.clone();
        for part in ["locks", pool.as_str(), lock.as_str()] {
            dir.push(part);
            self.make_dir(&dir)?;
        }
        self.put(dir.join("metadata"), metadata)
    }

    /// Keeps what was written.
    pub(super) fn done(mut self) {
        self.made.clear();
    }

    /// A real directory: whatever else has its name is taken away first.
    fn make_dir(&mut self, path: &Path) -> Result<(), String> {
        let failed = |error: io::Error| format!("cannot make the directory {}: {error}", path.display());
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => return Ok(()),
            Ok(_) => fs::remove_file(path).map_err(failed)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed(error)),
        }
        fs::create_dir(path).map_err(failed)?;
        self.made.push(Made::Dir(path.to_owned()));
        Ok(())
    }

    /// Replaces whatever has this name; a link is replaced, not followed, because renaming does so.
    fn put(&mut self, path: PathBuf, content: &[u8]) -> Result<(), String> {
        let written = self.temporary(content).and_then(|file| file.persist(&path).map_err(|error| error.error));
        written.map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        self.made.push(Made::File(path));
        Ok(())
    }

    fn temporary(&self, content: &[u8]) -> io::Result<tempfile::NamedTempFile> {
        let mut builder = tempfile::Builder::new();
        builder.prefix(".locker-");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            // Tasks may run as another user than the resource.
            builder.permissions(fs::Permissions::from_mode(0o644));
        }
        let mut file = builder.tempfile_in(&self.dir)?;
        file.write_all(content)?;
        file.as_file().sync_data()?;
        Ok(file)
    }
}

impl Drop for Destination {
    fn drop(&mut self) {
        for made in self.made.iter().rev() {
            // Best effort: the step fails anyway, and `name`, which is written last, is not there.
            let _ = match made {
                Made::File(path) => fs::remove_file(path),
                Made::Dir(path) => fs::remove_dir(path),
            };
        }
    }
}

/// An input directory of a put, as `params` names it.
pub(super) fn input_dir(base: &Path, dir: &str) -> Result<PathBuf, String> {
    let path = base.join(dir);
    if path.is_dir() {
        return Ok(path);
    }
    let mut there: Vec<String> = fs::read_dir(base)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect())
        .unwrap_or_default();
    there.sort();
    let there = if there.is_empty() { "none".to_owned() } else { there.join(", ") };
    Err(format!(
        "there is no directory {dir:?} among the inputs of this put ({there}): name the get or put step, or the task output, that made it"
    ))
}

/// The lock's name in the file `name`, without the white space around it.
pub(super) fn read_name(dir: &Path) -> Result<LockName, String> {
    let text =
        read_text(&dir.join("name"))?.ok_or_else(|| format!("there is no file {}", dir.join("name").display()))?;
    LockName::parse(&text).map_err(|error| format!("{}: {error}", dir.join("name").display()))
}

/// The claim's id in the file `claim`; `None` when there is no such file, which another tool did not write.
pub(super) fn read_claim(dir: &Path) -> Result<Option<String>, String> {
    let path = dir.join("claim");
    let Some(text) = read_text(&path)? else { return Ok(None) };
    let id = ClaimId::parse(&text).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Some(id.as_str().to_owned()))
}

/// The lock's metadata, byte for byte.
pub(super) fn read_metadata(dir: &Path) -> Result<Vec<u8>, String> {
    let path = dir.join("metadata");
    read(&path, METADATA_BYTES)?.ok_or_else(|| format!("there is no file {}", path.display()))
}

fn read_text(path: &Path) -> Result<Option<String>, String> {
    let Some(content) = read(path, SMALL_FILE_BYTES)? else { return Ok(None) };
    let text = String::from_utf8(content).map_err(|_| format!("{} is no UTF-8 text", path.display()))?;
    Ok(Some(text.trim().to_owned()))
}

fn read(path: &Path, max: usize) -> Result<Option<Vec<u8>>, String> {
    let failed = |error: io::Error| format!("cannot read {}: {error}", path.display());
    // Looked at first, because opening a pipe waits for whoever writes into it.
    match fs::metadata(path) {
        Ok(found) if found.is_file() => {}
        Ok(_) => return Err(format!("{} is no plain file", path.display())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let content = File::open(path).and_then(|file| read_at_most(file, max as u64)).map_err(failed)?;
    content.map(Some).ok_or_else(|| format!("{} is longer than {max} bytes", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn destination() -> (tempfile::TempDir, Destination) {
        let dir = tempfile::tempdir().unwrap();
        let destination = Destination::open(dir.path().to_owned()).unwrap();
        (dir, destination)
    }

    #[test]
    fn a_failed_get_leaves_nothing() {
        let (dir, mut files) = destination();
        files.write("metadata", b"x").unwrap();
        files.write_lock(&PoolName::parse("p").unwrap(), &LockName::parse("l").unwrap(), b"x").unwrap();
        drop(files);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[cfg(unix)]
    #[test]
    fn links_in_the_destination_are_replaced_not_followed() {
        let elsewhere = tempfile::tempdir().unwrap();
        let victim = elsewhere.path().join("victim");
        fs::write(&victim, "keep").unwrap();
        let (dir, mut files) = destination();
        std::os::unix::fs::symlink(&victim, dir.path().join("name")).unwrap();
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("locks")).unwrap();
        files.write("name", b"new").unwrap();
        files.write_lock(&PoolName::parse("p").unwrap(), &LockName::parse("l").unwrap(), b"new").unwrap();
        files.done();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "keep");
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 1);
        assert_eq!(fs::read(dir.path().join("name")).unwrap(), b"new");
        assert_eq!(fs::read(dir.path().join("locks/p/l/metadata")).unwrap(), b"new");
    }
}
