//! Limits on guessing passwords: what a failed login costs its address, and which clients are not affected.
//!
//! An address that has failed too often is refused before its credentials are checked, until its debt has worn off.
//! Behind a proxy all clients share one address. So credentials that were right before, from the same address, always
//! pass. Only a keyed hash of them is remembered.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::address::{Address, RateLimiter};
use super::limits;
use crate::server::http::Request;

/// The failed logins of all addresses.
pub(super) struct Logins {
    failed: RateLimiter,
    /// Hashes of address and credentials that were right.
    right: Mutex<HashSet<u64>>,
    key: RandomState,
}

/// The credentials of one request, as a keyed hash of them and their address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Credentials(u64);

impl Logins {
    pub fn new() -> Self {
        let step = Duration::from_millis(limits::DOOR_LOGIN_STEP_MS);
        Self {
            failed: RateLimiter::new(step, limits::DOOR_LOGIN_BURST),
            right: Mutex::default(),
            key: RandomState::new(),
        }
    }

    /// The credentials of a request. `None` if it has none that somebody could guess. Tokens cannot be guessed: builds whose
    /// token has expired or was revoked must not hold up the others on their worker.
    pub fn credentials(&self, address: Address, request: &Request) -> Option<Credentials> {
        if request.signed_token().is_some() || request.own_token().is_some() {
            return None;
        }
        Some(Credentials(self.key.hash_one((address, request.header("authorization")?))))
    }

    /// Whether these credentials may be checked now.
    ///
    /// # Errors
    /// They may not. Returns how long to wait until they may.
    pub fn may_try(&self, address: Address, credentials: Credentials, now: Instant) -> Result<(), Duration> {
        if self.right.lock().unwrap_or_else(PoisonError::into_inner).contains(&credentials.0) {
            return Ok(());
        }
        self.failed.has_room(address, now)
    }

    /// The credentials were wrong. Returns how long to delay the answer.
    pub fn failed(&self, address: Address, now: Instant) -> Duration {
        self.failed.spend(address, now, Duration::from_millis(limits::DOOR_LOGIN_DELAY_MS))
    }

    /// The credentials were right.
    pub fn succeeded(&self, credentials: Credentials) {
        let mut right = self.right.lock().unwrap_or_else(PoisonError::into_inner);
        if right.len() >= limits::DOOR_ADDRESSES && !right.contains(&credentials.0) {
            // Clients that are still active are remembered again.
            right.clear();
        }
        right.insert(credentials.0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guesses_are_refused_and_those_who_were_right_pass() {
        let logins = Logins::new();
        let address = |last| Address::from(std::net::IpAddr::from([10, 0, 0, last]));
        let (now, second) = (Instant::now(), Duration::from_secs(1));
        let (known, guess) = (Credentials(1), Credentials(2));
        logins.succeeded(known);
        for _ in 0..limits::DOOR_LOGIN_BURST {
            assert_eq!(logins.may_try(address(1), guess, now), Ok(()));
            assert_eq!(logins.failed(address(1), now), Duration::ZERO, "typing errors are free");
        }
        assert!(logins.may_try(address(1), guess, now).is_err(), "not looked at, right or wrong");
        assert_eq!(logins.may_try(address(1), known, now), Ok(()), "right before, from this address");
        assert_eq!(logins.may_try(address(2), guess, now), Ok(()), "another address owes nothing");
        assert_eq!(logins.may_try(address(1), guess, now + second), Ok(()), "one each second");
    }
}
