//! Clients whose requests a leader has admitted lately. A server that follows cannot check credentials; whom it knows makes
//! no room for strangers at its door. The leader checks every request all the same.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::limits::{LINK_KNOWN, LINK_KNOWN_MS};
use crate::server::door::Address;
use crate::server::http::Request;

#[derive(Default)]
pub(super) struct Known {
    key: RandomState,
    /// Keyed hashes of addresses with their credentials, and when each was last admitted.
    clients: Mutex<HashMap<u64, Instant>>,
}

impl Known {
    fn clients(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The client of a request: its address, and what it shows of itself.
    pub fn client(&self, request: &Request) -> u64 {
        let shown = [request.header("authorization"), request.header("cookie")];
        self.key.hash_one((Address::of_peer(&request.peer), shown, &request.identity))
    }

    pub fn is_known(&self, client: u64) -> bool {
        let lately = Duration::from_millis(LINK_KNOWN_MS);
        self.clients().get(&client).is_some_and(|at| at.elapsed() < lately)
    }

    pub fn note(&self, client: u64) {
        let mut clients = self.clients();
        if clients.len() >= LINK_KNOWN && !clients.contains_key(&client) {
            clients.clear();
        }
        clients.insert(client, Instant::now());
    }
}
