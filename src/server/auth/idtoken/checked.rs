//! Tokens that were found true. A step repeats its token with each request, and a signature of RSA costs more than all the
//! rest. What a token proves is remembered with the very keys that said so, and counts only while these keys are those of
//! its issuer, and while the token is good: newer keys, other settings and time make each token be checked again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::issuers::Fetched;
use super::jws::Token;
use super::limits::{IDTOKEN_CHECKED, IDTOKEN_LEEWAY_SECONDS};
use super::verify::Proved;

/// The hash of a whole token, with its signature.
pub(super) type Hash = [u8; 32];

/// The hash under which a token is remembered.
pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token).into()
}

/// What a token has proved.
#[derive(Clone)]
pub(super) struct Found {
    /// Its issuer, as a place among all.
    pub issuer: usize,
    /// The keys that were those of the issuer.
    pub keys: Arc<Fetched>,
    pub proved: Arc<Proved>,
    /// The times between which it is good without leeway, in seconds since 1970 UTC.
    from: i64,
    until: i64,
}

impl Found {
    /// What a token proves that was found true just now.
    pub fn new(issuer: usize, keys: Arc<Fetched>, token: &Token<'_>, proved: Arc<Proved>) -> Self {
        // It has all the times that it must have. Without one, it would be good at no time.
        let time = |claim: &str| token.time(claim);
        let from = time("nbf").into_iter().chain(time("iat")).max().unwrap_or(i64::MAX);
        Self { issuer, keys, proved, from, until: time("exp").unwrap_or(i64::MIN) }
    }

    /// Whether it is good now, by the same leeway as at the first check.
    pub fn is_good(&self, now: i64) -> bool {
        let is_over = now.saturating_sub(self.until) >= IDTOKEN_LEEWAY_SECONDS;
        !is_over && self.from.saturating_sub(now) <= IDTOKEN_LEEWAY_SECONDS
    }
}

/// The tokens that were found true lately.
#[derive(Default)]
pub(super) struct Checked(Mutex<HashMap<Hash, Found>>);

impl Checked {
    pub fn find(&self, hash: &Hash) -> Option<Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hash).cloned()
    }

    /// Remembers one. Where there are too many, all others are forgotten: those that are still used are checked once more.
    pub fn keep(&self, hash: Hash, found: Found) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() >= IDTOKEN_CHECKED {
            all.clear();
        }
        all.insert(hash, found);
    }
}
