//! The files that a put reads: regular files inside the directory that its param names, and nothing else.
//!
//! The directory may come from any task. So symbolic links are not followed, `..` cannot leave the directory, a pipe
//! does not block, and nothing is read beyond its limit. A put must not send another input's file, or its own
//! environment, to the server.

use std::fs::{self, File};
use std::io;
use std::path::{Component, Path};

use rustix::fs::{Mode, OFlags, open, openat};
use rustix::io::Errno;

use crate::core::limits::{METADATA_BYTES, NAME_BYTES};
use crate::core::names::{ClaimId, LockName};
use crate::env::read_at_most;

/// The largest file `name` or `claim` that is read, in bytes: a name with white space around it.
const SMALL_FILE_BYTES: usize = NAME_BYTES * 4;
/// The largest `locker.json` that is read, in bytes. It is read only for a version without a lock, so it has no
/// metadata in it.
const LOCKER_JSON_BYTES: usize = 64 * 1024;
const NAME: &str = "name";
const METADATA: &str = "metadata";
const CLAIM: &str = "claim";

/// An input directory of a put.
pub(super) struct Input {
    /// The param that names it.
    param: &'static str,
    /// Its name, as given in the param.
    name: String,
    dir: File,
}

impl Input {
    /// Opens the directory `name` among the put's inputs, which are in `base`.
    pub(super) fn open(base: &Path, param: &'static str, name: &str) -> Result<Self, String> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let failed = |errno: Errno| match errno {
            Errno::NOENT => missing_dir(base, param, name),
            Errno::LOOP | Errno::NOTDIR => format!("{param}: {name:?} is not a directory, or is a symbolic link"),
            other => format!("{param}: cannot open the directory {name:?}: {}", io::Error::from(other)),
        };
        let mut dir = open(base, flags, Mode::empty()).map_err(failed)?;
        for part in Path::new(name).components() {
            match part {
                Component::CurDir => {}
                Component::Normal(part) => {
                    dir = openat(&dir, part, flags | OFlags::NOFOLLOW, Mode::empty()).map_err(failed)?;
                }
                _ => return Err(format!("{param}: {name:?} is not inside the inputs of this put")),
            }
        }
        Ok(Self { param, name: name.to_owned(), dir: dir.into() })
    }

    /// The lock's name from the file `name`, without surrounding white space.
    pub(super) fn lock_name(&self) -> Result<LockName, String> {
        self.name_if_there()?.ok_or_else(|| self.missing("the file name; it is missing"))
    }

    /// The name and the unchanged metadata of the lock that the directory describes.
    pub(super) fn lock(&self) -> Result<(LockName, Vec<u8>), String> {
        let missing = match (self.name_if_there()?, self.read(METADATA, METADATA_BYTES)?) {
            (Some(name), Some(metadata)) => return Ok((name, metadata)),
            (Some(_), None) => "metadata is missing (it may be empty)",
            (None, Some(_)) => "name is missing",
            (None, None) => "both are missing",
        };
        Err(self.missing(&format!("the files name and metadata; {missing}")))
    }

    /// The claim that the directory stands for, or else the lock. Only our own `in` writes the file `claim`.
    pub(super) fn claim_or_lock(&self) -> Result<ClaimOrLock, String> {
        if let Some(text) = self.text(CLAIM)? {
            let id = ClaimId::parse(&text).map_err(|error| self.wrong(CLAIM, error))?;
            return Ok(ClaimOrLock::Claim(id.to_string()));
        }
        match self.name_if_there()? {
            Some(name) => Ok(ClaimOrLock::Lock(name)),
            None if self.is_of_no_lock()? => Ok(ClaimOrLock::Nothing),
            None => Err(self.missing("the file claim or the file name; both are missing")),
        }
    }

    /// The lock's name from this file. `None` if the file is empty.
    pub(super) fn name_in(&self, file: &str) -> Result<Option<LockName>, String> {
        let text = self.text(file)?.ok_or_else(|| self.missing(&format!("the file {file}; it is missing")))?;
        if text.is_empty() { Ok(None) } else { self.parse_name(file, &text).map(Some) }
    }

    /// The fence of the hold, as written by our `in`.
    pub(super) fn fence(&self) -> Result<Option<u64>, String> {
        self.text("fence")?.map(|text| text.parse().map_err(|_| self.wrong("fence", "it is not a number"))).transpose()
    }

    fn name_if_there(&self) -> Result<Option<LockName>, String> {
        self.text(NAME)?.map(|text| self.parse_name(NAME, &text)).transpose()
    }

    fn parse_name(&self, file: &str, text: &str) -> Result<LockName, String> {
        if text.contains('\n') {
            return Err(format!("{}: the file {}/{file} has more than one line", self.param, self.name));
        }
        LockName::parse(text).map_err(|error| self.wrong(file, error))
    }

    /// Whether our `in` wrote the directory for a version without a lock.
    fn is_of_no_lock(&self) -> Result<bool, String> {
        let Some(content) = self.read("locker.json", LOCKER_JSON_BYTES)? else { return Ok(false) };
        let json: serde_json::Value = serde_json::from_slice(&content).unwrap_or_default();
        Ok(json["revision"].is_u64() && (json["kind"].is_null() || json["kind"] == "noted"))
    }

    fn text(&self, file: &str) -> Result<Option<String>, String> {
        let Some(content) = self.read(file, SMALL_FILE_BYTES)? else { return Ok(None) };
        let text = String::from_utf8(content).map_err(|_| self.wrong(file, "it is not UTF-8 text"))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Reads a regular file. `None` if it does not exist.
    fn read(&self, file: &str, max: usize) -> Result<Option<Vec<u8>>, String> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = match openat(&self.dir, file, flags, Mode::empty()) {
            Ok(opened) => File::from(opened),
            Err(Errno::NOENT) => return Ok(None),
            Err(Errno::LOOP) => return Err(self.wrong(file, "it is a symbolic link, which a put does not follow")),
            Err(errno) => return Err(self.wrong(file, io::Error::from(errno))),
        };
        if !opened.metadata().map_err(|error| self.wrong(file, error))?.is_file() {
            return Err(self.wrong(file, "it is not a regular file"));
        }
        let content = read_at_most(opened, max as u64).map_err(|error| self.wrong(file, error))?;
        content.map(Some).ok_or_else(|| self.wrong(file, format!("it is longer than {max} bytes")))
    }

    fn wrong(&self, file: &str, why: impl std::fmt::Display) -> String {
        format!("{}: cannot use the file {}/{file}: {why}", self.param, self.name)
    }

    fn missing(&self, what: &str) -> String {
        format!("{}: directory {:?} needs {what}", self.param, self.name)
    }
}

/// What a directory stands for.
pub(super) enum ClaimOrLock {
    /// The id of the claim for which `in` wrote the directory.
    Claim(String),
    /// Only the name of a lock is known.
    Lock(LockName),
    /// No lock: the put before the get took none.
    Nothing,
}

fn missing_dir(base: &Path, param: &str, name: &str) -> String {
    let mut there: Vec<String> = fs::read_dir(base)
        .map(|entries| entries.filter_map(|e| Some(e.ok()?.file_name().to_string_lossy().into_owned())).collect())
        .unwrap_or_default();
    there.sort();
    let there = if there.is_empty() { "it has none".to_owned() } else { format!("it has {}", there.join(", ")) };
    format!(
        "{param}: this put has no input {name:?} ({there}): name the get or put step, or the task output, that made the \
         directory"
    )
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use rustix::fs::FileType;

    use super::*;

    /// A base with the input `d`, which has a good `name` and `metadata`.
    fn inputs() -> tempfile::TempDir {
        let base = tempfile::tempdir().unwrap();
        fs::create_dir(base.path().join("d")).unwrap();
        fs::write(base.path().join("d/name"), " env-1\n").unwrap();
        fs::write(base.path().join("d/metadata"), "a: b\n").unwrap();
        base
    }

    fn lock(base: &Path, name: &str) -> Result<(LockName, Vec<u8>), String> {
        Input::open(base, "add", name)?.lock()
    }

    #[test]
    fn a_directory_describes_a_lock() {
        let base = inputs();
        for name in ["d", "./d", "d/"] {
            let (name, metadata) = lock(base.path(), name).unwrap();
            assert_eq!((name.as_str(), metadata.as_slice()), ("env-1", &b"a: b\n"[..]));
        }
    }

    #[test]
    fn nothing_outside_the_directory_is_read() {
        let base = inputs();
        let d = base.path().join("d");
        fs::create_dir(base.path().join("secret")).unwrap();
        fs::write(base.path().join("secret/key"), "private").unwrap();
        symlink("secret", base.path().join("link")).unwrap();
        symlink("../secret", d.join("inner")).unwrap();
        for outside in ["../d", "/etc", "d/../secret", "link", "d/inner", "d/name"] {
            let error = lock(base.path(), outside).unwrap_err();
            assert!(error.contains("is not inside the inputs") || error.contains("is not a directory"), "{error}");
        }
        for target in ["../secret/key", "/proc/self/environ", "name", "nowhere"] {
            fs::remove_file(d.join("metadata")).unwrap();
            symlink(target, d.join("metadata")).unwrap();
            assert_eq!(
                lock(base.path(), "d").unwrap_err(),
                "add: cannot use the file d/metadata: it is a symbolic link, which a put does not follow"
            );
        }
    }

    #[test]
    fn files_that_are_not_regular_do_not_block() {
        let base = inputs();
        let metadata = base.path().join("d/metadata");
        fs::remove_file(&metadata).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, &metadata, FileType::Fifo, Mode::RWXU, 0).unwrap();
        let why = "add: cannot use the file d/metadata: it is not a regular file";
        assert_eq!(lock(base.path(), "d").unwrap_err(), why);
        fs::remove_file(&metadata).unwrap();
        fs::create_dir(&metadata).unwrap();
        assert_eq!(lock(base.path(), "d").unwrap_err(), why);
    }

    #[test]
    fn errors_name_the_file() {
        let name = |content: &[u8]| {
            let base = inputs();
            fs::write(base.path().join("d/name"), content).unwrap();
            lock(base.path(), "d").unwrap_err()
        };
        assert_eq!(name(b"a\nb\n"), "add: the file d/name has more than one line");
        assert_eq!(name(b"\n"), "add: cannot use the file d/name: lock name is empty");
        assert_eq!(name(b"\xff"), "add: cannot use the file d/name: it is not UTF-8 text");
        assert_eq!(name(&[b'x'; 600]), "add: cannot use the file d/name: it is longer than 512 bytes");
        let base = inputs();
        let without = |file: &str| {
            fs::remove_file(base.path().join("d").join(file)).unwrap();
            lock(base.path(), "d").unwrap_err()
        };
        let needs = "add: directory \"d\" needs the files name and metadata;";
        assert_eq!(without("metadata"), format!("{needs} metadata is missing (it may be empty)"));
        assert_eq!(without("name"), format!("{needs} both are missing"));
        assert_eq!(
            lock(base.path(), "e").unwrap_err(),
            "add: this put has no input \"e\" (it has d): name the get or put step, or the task output, that made the directory"
        );
    }
}
