//! Passwords of the users in the access file: hashes, and who has shown the right one.
//!
//! A check takes tens of milliseconds and as many MiB, so few are made at one time, on threads that may block, and few
//! may wait. A password that was right is remembered for a short time, as a keyed hash.

use std::collections::HashMap;
use std::fmt;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use argon2::password_hash::phc;
use argon2::{Argon2, PasswordHasher, PasswordVerifier};
use sha2::{Digest, Sha256};

use super::access::Live;
use crate::env::random_bytes;
use crate::server::blocking::{Blocking, Urgency};
use crate::server::limits::{LOGIN_KEPT_MS, LOGINS_AT_ONCE, LOGINS_KEPT, LOGINS_WAITING, PASSWORD_HASH_KIB};
use crate::wire::secret::Secret;

/// An argon2id hash of a password, in the PHC form.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash(Arc<str>);

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PasswordHash(...)")
    }
}

impl FromStr for PasswordHash {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let not = || "is not an argon2id hash: make one with `locker user hash`".to_owned();
        let hash = phc::PasswordHash::new(text).map_err(|_| not())?;
        let is_whole = hash.algorithm.as_str() == "argon2id" && hash.salt.is_some() && hash.hash.is_some();
        let params = argon2::Params::try_from(&hash).map_err(|_| not())?;
        if !is_whole {
            return Err(not());
        }
        if params.m_cost() > PASSWORD_HASH_KIB || params.t_cost() > 10 || params.p_cost() > 4 {
            return Err(format!("costs too much: at most m={PASSWORD_HASH_KIB}, t=10 and p=4 are allowed"));
        }
        Ok(Self(text.into()))
    }
}

impl PasswordHash {
    /// The hash of a new password.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn of(password: &Secret) -> Result<String, String> {
        let salt = random_bytes::<16>();
        let hash = Argon2::default().hash_password_with_salt(password.expose().as_bytes(), &salt);
        hash.map(|hash| hash.to_string()).map_err(|error| format!("the password cannot be hashed: {error}"))
    }

    fn is_of(&self, password: &[u8]) -> bool {
        Argon2::default().verify_password(password, &*self.0).is_ok()
    }
}

/// What came of a user name and a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    Right,
    Wrong,
    /// Too many others are being checked.
    Busy,
}

/// Checks passwords. Cheap to clone; clones are the same.
#[derive(Clone)]
pub struct Passwords(Arc<Inner>);

struct Inner {
    live: Live,
    work: Blocking,
    /// How many are checked or wait for that.
    checked: AtomicUsize,
    /// Until when what was right is known to be right, and by which file.
    right: Mutex<HashMap<[u8; 32], (Instant, usize)>>,
    key: [u8; 32],
}

impl Passwords {
    /// Of the users in this file.
    #[must_use]
    pub fn new(live: Live) -> Self {
        Self(Arc::new(Inner {
            live,
            work: Blocking::new(LOGINS_AT_ONCE, Urgency::Normal),
            checked: AtomicUsize::new(0),
            right: Mutex::default(),
            key: random_bytes(),
        }))
    }

    /// Whether this is the password of that user. A user that does not exist takes as long as one that does.
    pub async fn check(&self, user: &str, password: &[u8]) -> Login {
        let Some(now) = self.0.live.now() else { return Login::Wrong };
        let user_hash = now.file.users.get(user).cloned();
        let key = self.0.key_of(user, password);
        if user_hash.is_some() && self.0.is_known(&key, now.number) {
            return Login::Right;
        }
        let Some(_place) = Place::take(&self.0.checked) else { return Login::Busy };
        let is_user = user_hash.is_some();
        let (hash, password) = (user_hash.unwrap_or_else(|| NOBODY.clone()), password.to_vec());
        match self.0.work.run(move || hash.is_of(&password)).await {
            Ok(true) if is_user => {
                self.0.remember(key, now.number);
                Login::Right
            }
            Ok(_) => Login::Wrong,
            Err(_) => Login::Busy,
        }
    }
}

/// A hash for those who do not exist. Nobody has its password.
static NOBODY: LazyLock<PasswordHash> = LazyLock::new(|| {
    let salt = [0; 16];
    let hash = Argon2::default().hash_password_with_salt(&random_bytes::<32>(), &salt);
    PasswordHash(hash.map(|hash| hash.to_string()).unwrap_or_default().into())
});

/// One of the places of those who are checked or wait for it.
struct Place<'c>(&'c AtomicUsize);

impl<'c> Place<'c> {
    fn take(count: &'c AtomicUsize) -> Option<Self> {
        let place = Self(count);
        (count.fetch_add(1, Ordering::SeqCst) < LOGINS_WAITING).then_some(place)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    fn key_of(&self, user: &str, password: &[u8]) -> [u8; 32] {
        let mut digest = Sha256::new();
        // The key is as long as what comes behind it is not: nobody outside can guess or extend it.
        digest.update(self.key);
        digest.update((user.len() as u64).to_be_bytes());
        digest.update(user);
        digest.update(password);
        digest.finalize().into()
    }

    fn is_known(&self, key: &[u8; 32], number: usize) -> bool {
        let right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        right.get(key).is_some_and(|(until, of)| *of == number && Instant::now() < *until)
    }

    fn remember(&self, key: [u8; 32], number: usize) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if right.len() >= LOGINS_KEPT {
            right.retain(|_, (until, of)| *of == number && now < *until);
            if right.len() >= LOGINS_KEPT {
                right.clear();
            }
        }
        right.insert(key, (now + Duration::from_millis(LOGIN_KEPT_MS), number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_the_right_password_of_a_user_gets_in() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("access.yml");
        let hash = PasswordHash::of(&Secret::new("hunter2")).unwrap();
        std::fs::write(&path, format!("users:\n  ada: {hash}\nrules: []\n")).unwrap();
        let passwords = Passwords::new(Live::open(path, None).unwrap());
        for (user, password, expected) in [
            ("ada", "hunter2", Login::Right),
            ("ada", "hunter2", Login::Right),
            ("ada", "hunter", Login::Wrong),
            ("ada", "", Login::Wrong),
            ("bob", "hunter2", Login::Wrong),
        ] {
            assert_eq!(passwords.check(user, password.as_bytes()).await, expected, "{user} {password}");
        }
        assert_eq!(passwords.0.right.lock().unwrap().len(), 1);
        passwords.0.checked.store(LOGINS_WAITING, Ordering::SeqCst);
        assert_eq!(passwords.check("ada", b"other").await, Login::Busy);
        assert_eq!(passwords.check("ada", b"hunter2").await, Login::Right, "known ones need no room");
        assert_eq!(Passwords::new(Live::default()).check("ada", b"hunter2").await, Login::Wrong);
    }

    #[test]
    fn hashes_are_checked_and_never_shown() {
        let hash = PasswordHash::of(&Secret::new("x")).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert!(!format!("{:?}", hash.parse::<PasswordHash>().unwrap()).contains("argon2id"));
        for bad in
            ["", "x", "$2b$12$abc", "$argon2id$v=19$m=19456,t=2,p=1$AAAAAAAAAAA", &hash.replace("argon2id", "argon2i")]
        {
            assert!(bad.parse::<PasswordHash>().is_err(), "{bad}");
        }
        let dear = hash.replace("m=19456", "m=9999999").parse::<PasswordHash>().unwrap_err();
        assert!(dear.starts_with("costs too much"), "{dear}");
    }
}
