//! The access file that counts now.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;

use super::file::{AccessFile, text_of};
use super::rules::Caller;
use crate::core::origin::Identity;
use crate::server::auth::idtoken::issuers::Trusted;
use crate::server::door::Stop;
use crate::server::limits::ACCESS_LOOK_MS;

/// The access file that counts now, if there is one. Cheap to clone; clones are the same.
#[derive(Clone, Default)]
pub struct Live(Option<Arc<Inner>>);

struct Inner {
    path: PathBuf,
    /// The user of `AUTH_USER`, whose password is not in the file.
    other_user: Option<String>,
    /// The issuers of the file.
    trusted: Trusted,
    now: ArcSwapOption<Numbered>,
    text: std::sync::Mutex<String>,
    read: AtomicUsize,
}

/// A file, and how many were read before it.
#[derive(Debug)]
pub struct Numbered {
    pub file: AccessFile,
    pub number: usize,
}

/// What a look at the file has found.
#[derive(Debug, PartialEq, Eq)]
enum Looked {
    Same,
    New,
    /// What is wrong with it. What it said before still counts.
    Bad(String),
}

impl Live {
    /// Reads the file.
    ///
    /// # Errors
    /// It cannot be read or has faults.
    pub fn open(path: PathBuf, other_user: Option<String>) -> Result<Self, String> {
        Self::open_with(path, other_user, Trusted::default())
    }

    /// The same, where the issuers of the file are trusted by means of `trusted`.
    ///
    /// # Errors
    /// As [`Self::open`], or a file of an issuer cannot be used.
    pub fn open_with(path: PathBuf, other_user: Option<String>, trusted: Trusted) -> Result<Self, String> {
        let inner = Inner {
            path,
            other_user,
            trusted,
            now: ArcSwapOption::empty(),
            text: std::sync::Mutex::default(),
            read: AtomicUsize::new(0),
        };
        match inner.look() {
            Looked::Bad(why) => Err(why),
            Looked::Same | Looked::New => Ok(Self(Some(Arc::new(inner)))),
        }
    }

    /// The issuers of the file; nobody without one.
    #[must_use]
    pub fn trusted(&self) -> Trusted {
        self.0.as_ref().map(|inner| inner.trusted.clone()).unwrap_or_default()
    }

    /// Whether there is a file.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// The file that counts now.
    #[must_use]
    pub fn now(&self) -> Option<Arc<Numbered>> {
        self.0.as_ref().and_then(|inner| inner.now.load_full())
    }

    /// Whether the file has users.
    #[must_use]
    pub fn has_users(&self) -> bool {
        self.now().is_some_and(|now| !now.file.users.is_empty())
    }

    /// What somebody may do now. Without a file, everything.
    #[must_use]
    pub fn caller(&self, identity: Option<&Identity>) -> Caller {
        match self.now() {
            Some(now) => Caller::by_rules(identity.cloned(), &now.file.rules, now.number),
            None => Caller::unlimited(identity.cloned()),
        }
    }

    /// Reads the file again when it has changed, and on SIGHUP, until the stop. Says so where there is none.
    ///
    /// # Errors
    /// The system cannot start a thread, or SIGHUP cannot be noted.
    pub fn keep_fresh(&self, stop: Stop) -> anyhow::Result<()> {
        let Some(inner) = self.0.clone() else {
            tracing::info!("there is no access file (--access): everybody who may come in may do everything");
            return Ok(());
        };
        let asked = Arc::new(std::sync::atomic::AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, Arc::clone(&asked))?;
        let run = move || {
            let mut said = String::new();
            while !stop.is_triggered() {
                std::thread::sleep(Duration::from_millis(ACCESS_LOOK_MS));
                let is_asked = asked.swap(false, Ordering::SeqCst);
                match inner.look() {
                    Looked::New => {
                        said.clear();
                        tracing::info!(file = inner.path.display().to_string(), "the access file was read again");
                    }
                    Looked::Same => {
                        said.clear();
                        if is_asked {
                            inner.read_keys();
                            tracing::info!(file = inner.path.display().to_string(), "the access file has not changed");
                        }
                    }
                    Looked::Bad(why) if is_asked || why != said => {
                        tracing::error!(error = why, "the access file is not used: what it said before still counts");
                        said = why;
                    }
                    Looked::Bad(_) => {}
                }
            }
        };
        // It ends within a moment of the stop, and nobody need wait for that.
        std::thread::Builder::new().name("access".into()).spawn(run)?;
        Ok(())
    }
}

impl Inner {
    /// Trusts the issuers of the file.
    fn trust(&self, file: &AccessFile) -> Result<(), String> {
        self.trusted.trust(&file.issuers, self.path.parent().unwrap_or(&self.path))
    }

    /// Reads the files with keys and certificates again, although the access file is the same.
    fn read_keys(&self) {
        let Some(now) = self.now.load_full() else { return };
        if let Err(error) = self.trust(&now.file) {
            tracing::error!(error, "the keys of the issuers are not read again: those from before still count");
        }
    }

    fn look(&self) -> Looked {
        let text = match text_of(&self.path) {
            Ok(text) => text,
            Err(error) => return Looked::Bad(error),
        };
        let mut last = self.text.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.now.load().is_some() && *last == text {
            return Looked::Same;
        }
        let path = self.path.display();
        let file = match AccessFile::parse(&text) {
            Ok(file) => file,
            Err(faults) => {
                let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
                return Looked::Bad(format!("the access file {path} has faults: {}", faults.join("; ")));
            }
        };
        if let Some(user) = self.other_user.as_ref().filter(|user| file.users.contains_key(*user)) {
            return Looked::Bad(format!(
                "the access file {path} has a user {user:?}, and AUTH_USER is one too: remove one"
            ));
        }
        if let Err(why) = self.trust(&file) {
            return Looked::Bad(format!("the access file {path}: {why}"));
        }
        *last = text;
        let number = self.read.fetch_add(1, Ordering::SeqCst);
        self.now.store(Some(Arc::new(Numbered { file, number })));
        Looked::New
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_file_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.yml");
        let rules = |pools: &str| format!("rules:\n- {{to: anyone, may: look, pools: {pools}}}\n");
        std::fs::write(&path, rules("a")).unwrap();
        let live = Live::open(path.clone(), Some("ci".to_owned())).unwrap();
        let sees = |pool: &str| live.caller(None).sees(&pool.parse().unwrap());
        let key = live.caller(None).key();
        assert_eq!((sees("a"), sees("b")), (true, false));
        let inner = live.0.as_ref().unwrap();
        assert_eq!(inner.look(), Looked::Same);
        for bad in ["", "rules: [", "rules: [{to: anyone}]", "users: {ci: x}\nrules: []"] {
            std::fs::write(&path, bad).unwrap();
            assert!(matches!(inner.look(), Looked::Bad(_)), "{bad}");
            assert_eq!((sees("a"), sees("b")), (true, false), "{bad}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(inner.look(), Looked::Bad(why) if why.contains("cannot read the access file")));
        std::fs::write(&path, rules("b")).unwrap();
        assert_eq!(inner.look(), Looked::New);
        assert_eq!((sees("a"), sees("b")), (false, true));
        assert_ne!(
            live.caller(None).key(),
            key,
            "what was made for readers by the old file is not for those of the new"
        );
        assert!(Live::default().caller(None).sees(&"a".parse().unwrap()), "without a file, everything is as before");
    }
}
