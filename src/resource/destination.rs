//! The files that a get writes.
//!
//! The destination belongs to a container that may have been used before, so links in it are never followed. Each file
//! is written under a temporary name inside the destination and then renamed, so it appears either complete or not at
//! all. Names become parts of paths only as [`PoolName`] and [`LockName`], which have no part with a leading `.`.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use crate::core::names::{LockName, PoolName};

/// Writes the files of one version. Unless [`Self::done`] is called, everything written is removed again.
pub(super) struct Destination {
    dir: PathBuf,
    /// Files and directories that this get created, in order of creation.
    made: Vec<Made>,
}

enum Made {
    File(PathBuf),
    Dir(PathBuf),
}

impl Destination {
    /// The directory that Concourse gave. It is made if it does not exist: people who run `in` by hand need not.
    pub(super) fn open(dir: PathBuf) -> Result<Self, String> {
        let made = fs::create_dir_all(&dir);
        match made.and_then(|()| fs::metadata(&dir)) {
            Ok(found) if found.is_dir() => Ok(Self { dir, made: Vec::new() }),
            Ok(_) => Err(format!("{} is not a directory", dir.display())),
            Err(error) => Err(format!("cannot use the directory {}: {error}", dir.display())),
        }
    }

    /// Writes a file directly in the destination.
    pub(super) fn write(&mut self, name: &'static str, content: &[u8]) -> Result<(), String> {
        let path = self.dir.join(name);
        self.put(path, content)
    }

    /// Writes `locks/POOL/LOCK/metadata`, with [`PoolName::file_name`] as the directory of the pool.
    pub(super) fn write_lock(&mut self, pool: &PoolName, lock: &LockName, metadata: &[u8]) -> Result<(), String> {
        let dir = self.make_dirs(&["locks", &pool.file_name(), lock.as_str()])?;
        self.put(dir.join("metadata"), metadata)
    }

    /// Creates these directories, each inside the one before it.
    pub(super) fn make_dirs(&mut self, parts: &[&str]) -> Result<PathBuf, String> {
        let mut dir = self.dir.clone();
        for part in parts.iter().flat_map(|part| part.split('/')) {
            dir.push(part);
            self.make_dir(&dir)?;
        }
        Ok(dir)
    }

    /// Keeps the files.
    pub(super) fn done(mut self) {
        self.made.clear();
    }

    /// Creates a real directory. Anything else with its name is removed first.
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

    /// Replaces anything with this name. Renaming replaces a link instead of following it.
    pub(super) fn put(&mut self, path: PathBuf, content: &[u8]) -> Result<(), String> {
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
            // Tasks may run as a different user than the resource.
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
            // Best effort: the step fails anyway, and `name`, which is written last, does not exist.
            let _ = match made {
                Made::File(path) => fs::remove_file(path),
                Made::Dir(path) => fs::remove_dir(path),
            };
        }
    }
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
        files.write_lock(&PoolName::parse("a/p").unwrap(), &LockName::parse("l").unwrap(), b"x").unwrap();
        files.make_dirs(&["a/p", "claimed"]).unwrap();
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
