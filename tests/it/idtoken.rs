//! Id tokens: what is accepted, what is refused and with which words, and how the keys of an issuer are kept.
//!
//! | file | what |
//! |---|---|
//! | [`server`] | the real server and the real resource |
//! | [`truth`] | every way in which a token can be wrong; two tokens of a real Concourse |
//! | [`claims`] | claims that outlive their tokens |
//! | [`file`] | issuers in the access file |
//! | [`keys`] | keys over real sockets: rotation, an issuer that is away, slow or hostile, tokens that name keys at random |

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod claims;
mod file;
mod keys;
mod server;
mod truth;

use std::sync::Arc;
use std::time::Duration;

use locker::env::{Clock, SystemClock};
use locker::server::auth::idtoken::settings::{self, IssuerSettings};
use locker::wire::problems::Problems;
use serde_json::{Value, json};

/// The wall clock of these tests, in seconds since 1970 UTC.
const NOW: i64 = 1_800_000_000;

/// Its wall clock shows [`NOW`], give or take some seconds. Monotonic time is real.
#[derive(Default)]
struct Shifted {
    clock: SystemClock,
    /// How many seconds the wall clock is ahead of [`NOW`] at the start.
    ahead: i64,
}

impl Clock for Shifted {
    fn monotonic(&self) -> Duration {
        self.clock.monotonic()
    }
    fn wall_ms(&self) -> u64 {
        u64::try_from(NOW + self.ahead).unwrap() * 1_000 + u64::try_from(self.monotonic().as_millis()).unwrap()
    }
}

fn clock_ahead(ahead: i64) -> Arc<dyn Clock> {
    Arc::new(Shifted { ahead, ..Shifted::default() })
}

/// Issuers of an access file.
fn issuers(list: Value) -> Vec<IssuerSettings> {
    let mut problems = Problems::default();
    let found = settings::read("issuers", list, &mut problems);
    assert!(problems.is_empty(), "{:?}", problems.into_list());
    found
}

/// A Concourse at this address.
fn concourse(url: &str) -> Value {
    json!({"name": "ci", "kind": "concourse", "issuer": url, "audience": "locker"})
}

/// What a Concourse at this address puts into a token.
fn claims(url: &str) -> Value {
    json!({
        "iss": url, "aud": "locker", "iat": NOW, "exp": NOW + 900, "sub": "payments/app",
        "team": "payments", "pipeline": "app", "job": "deploy",
    })
}

/// A change of a member, or its removal by null.
fn with(mut object: Value, member: &str, value: Value) -> Value {
    match value {
        Value::Null => drop(object.as_object_mut().unwrap().remove(member)),
        value => object[member] = value,
    }
    object
}
