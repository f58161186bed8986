//! What each target has been told, in a file beside the store or, if servers share it, in their log: after a restart or a
//! change of leaders they are told the rest.
//!
//! It is written now and then, not for each message, so a crash may let some be sent again: at least once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};

use super::conditions::Told;
use super::limits;
use crate::core::names::Revision;
use crate::core::time::WallMs;
use crate::env;
use crate::store::shared::Notes;

/// What is known of one target.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Known {
    pub told: Told,
    /// How many notifications were left out, which it has not been told yet.
    pub left_out: u64,
    /// Entries may be among them of which nobody knows.
    pub gone: bool,
}

/// Why what is known of a target changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum News {
    /// Nothing concerned it. If that is forgotten, it is only looked at again.
    Moved,
    /// It was told something, which would be sent again.
    Sent,
}

/// What is known of all targets, and where that is kept.
#[derive(Debug)]
pub struct Progress {
    place: Place,
    store: String,
    targets: BTreeMap<String, Known>,
    /// What has changed since the last write.
    unsaved: Option<News>,
    saved: Option<Instant>,
    /// The last write has failed, and that was logged.
    failed: bool,
}

/// Where that is kept.
#[derive(Debug)]
pub enum Place {
    /// Nowhere: the store keeps nothing either.
    Nowhere,
    /// In a file beside the store.
    File(PathBuf),
    /// In the log of the servers that share the store.
    Log(Box<Notes>),
}

/// The name of the note in the log.
const NOTE: &str = "notify";

impl Place {
    fn read(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        match self {
            Self::Nowhere => Ok(None),
            Self::File(file) => match env::read_file(file, limits::PROGRESS_BYTES) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                read => Ok(Some(env::whole(read, limits::PROGRESS_BYTES)?)),
            },
            Self::Log(notes) => notes.read(NOTE),
        }
    }

    fn write(&mut self, text: &str) -> anyhow::Result<()> {
        match self {
            Self::Nowhere => Ok(()),
            Self::File(file) => write(file, text),
            Self::Log(notes) => notes.write(NOTE, text.as_bytes()),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Nowhere => f.write_str("nothing"),
            Self::File(file) => file.display().fmt(f),
            Self::Log(_) => write!(f, "the note {NOTE:?} in the log"),
        }
    }
}

/// The content of the file or note.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    version: u32,
    /// The id of the store. The file of another store says nothing.
    store: String,
    targets: BTreeMap<String, KeptTarget>,
}

#[derive(Debug, Serialize, Deserialize)]
struct KeptTarget {
    revision: u64,
    /// Milliseconds since 1970.
    until: u64,
    #[serde(default)]
    left_out: u64,
    #[serde(default)]
    gone: bool,
}

/// The version of the file.
const VERSION: u32 = 1;

impl Progress {
    /// Reads it. What cannot be used is an error, because nobody would be told what happened meanwhile.
    ///
    /// # Errors
    /// It cannot be read, or is not such a file. Says what to do.
    pub fn open(mut place: Place, store: &str) -> anyhow::Result<Self> {
        let kept =
            place.read().and_then(|bytes| bytes.map_or_else(|| Ok(BTreeMap::new()), |bytes| read(&bytes, store)));
        let targets = kept.with_context(|| {
            format!("cannot use {place}: remove it, and the targets are told only what happens from now on")
        })?;
        Ok(Self { place, store: store.to_owned(), targets, unsaved: None, saved: None, failed: false })
    }

    /// Keeps only the targets of these names. A new one has been told every entry up to this revision, and no limit that
    /// was passed.
    pub fn keep<'n>(&mut self, names: impl Iterator<Item = &'n str>, revision: Revision) {
        let new = Known { told: Told { revision, until: WallMs::default() }, ..Known::default() };
        let mut before = std::mem::take(&mut self.targets);
        self.targets = names.map(|name| (name.to_owned(), before.remove(name).unwrap_or(new))).collect();
        self.unsaved = Some(News::Sent);
    }

    /// What is known of a target. Nothing if it is no target any more.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Known> {
        self.targets.get(name).copied()
    }

    /// Notes what a target has been told, unless it is no target any more.
    pub fn set(&mut self, name: &str, known: Known, why: News) {
        if let Some(old) = self.targets.get_mut(name)
            && *old != known
        {
            *old = known;
            self.unsaved = self.unsaved.max(Some(why));
        }
    }

    /// Writes it if something has changed, and it was not written just before.
    pub fn save(&mut self, now: Instant) {
        let pause = match self.unsaved {
            None => return,
            Some(News::Sent) => limits::SAVE_PAUSE_MS,
            Some(News::Moved) => limits::SAVE_MOVED_PAUSE_MS,
        };
        let pause = Duration::from_millis(pause);
        if self.saved.is_none_or(|saved| now.saturating_duration_since(saved) >= pause) {
            self.saved = Some(now);
            self.save_now();
        }
    }

    /// Writes it if something has changed.
    pub fn save_now(&mut self) {
        if self.unsaved.is_none() {
            return;
        }
        match self.text().and_then(|text| self.place.write(&text)) {
            Ok(()) => (self.unsaved, self.failed) = (None, false),
            Err(error) if !std::mem::replace(&mut self.failed, true) => tracing::warn!(
                place = %self.place,
                reason = format!("{error:#}"),
                "it cannot be kept which notifications were sent: after a restart some may be sent again"
            ),
            Err(_) => {}
        }
    }

    fn text(&self) -> anyhow::Result<String> {
        let kept = |(name, known): (&String, &Known)| {
            let Known { told, left_out, gone } = *known;
            (name.clone(), KeptTarget { revision: told.revision.0, until: told.until.0, left_out, gone })
        };
        let targets = self.targets.iter().map(kept).collect();
        Ok(serde_json::to_string(&Kept { version: VERSION, store: self.store.clone(), targets })?)
    }
}

fn write(file: &Path, text: &str) -> anyhow::Result<()> {
    // Private by itself, like the other files of a store.
    let dir = file.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(dir)?;
    std::io::Write::write_all(&mut new, text.as_bytes())?;
    new.as_file().sync_all()?;
    new.persist(file)?;
    Ok(())
}

fn read(bytes: &[u8], store: &str) -> anyhow::Result<BTreeMap<String, Known>> {
    let kept: Kept = serde_json::from_slice(bytes)?;
    anyhow::ensure!(kept.version == VERSION, "it was written by a newer release");
    if kept.store != store {
        return Ok(BTreeMap::new());
    }
    let known = |(name, kept): (String, KeptTarget)| {
        let KeptTarget { revision, until, left_out, gone } = kept;
        (name, Known { told: Told { revision: Revision(revision), until: WallMs(until) }, left_out, gone })
    };
    Ok(kept.targets.into_iter().map(known).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_outlives_the_server() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("x.db-notify");
        let open = |store: &str| Progress::open(Place::File(file.clone()), store).unwrap();
        let mut progress = open("one");
        progress.keep(["a", "b"].into_iter(), Revision(7));
        let known = Known { told: Told { revision: Revision(9), until: WallMs(3) }, left_out: 2, gone: true };
        progress.set("b", known, News::Moved);
        progress.set("gone", known, News::Sent);
        progress.save_now();
        let mut progress = open("one");
        progress.keep(["b", "c"].into_iter(), Revision(11));
        assert_eq!((progress.get("a"), progress.get("b"), progress.get("gone")), (None, Some(known), None));
        assert_eq!(progress.get("c").unwrap().told, Told { revision: Revision(11), until: WallMs(0) });
        assert_eq!(open("another").get("b"), None);
        std::fs::write(&file, "{").unwrap();
        let error = format!("{:#}", Progress::open(Place::File(file), "one").unwrap_err());
        assert!(error.contains("remove it"), "{error}");
    }
}
