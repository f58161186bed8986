//! What the check of one id token costs with keys at hand: the token is taken apart, its signature is checked with the
//! key of an issuer, and its claims are read. Then what it costs when the same token comes again, as with each request of a
//! step that waits. The RS256 (4,096 bits) and ES256 tokens are those of a real Concourse. Run it with
//! `cargo bench --bench idtoken`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use locker::env::Clock;
use locker::server::auth::idtoken::issuers::{Issuers, Patience};
use locker::server::auth::idtoken::jwk::KeySet;
use locker::server::auth::idtoken::jws::Token;
use locker::server::auth::idtoken::settings::{self, IssuerSettings};
use locker::server::auth::idtoken::verify::verify;
use locker::wire::problems::Problems;
use serde_json::{Value, json};

/// Checks of each token.
const RUNS: usize = 5_000;

/// When the tokens were good, in seconds since 1970 UTC.
const NOW: i64 = 1_795_650_579;

fn check(token: &str, issuer: &IssuerSettings, keys: &KeySet) {
    verify(&Token::parse(token).unwrap(), issuer, keys, NOW).unwrap();
}

/// A clock that stands still when the tokens were good.
struct Then;

impl Clock for Then {
    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }
    fn wall_ms(&self) -> u64 {
        u64::try_from(NOW).unwrap() * 1_000
    }
}

/// The median and the 99th percentile of many checks.
fn spans(mut check: impl FnMut()) -> (Duration, Duration) {
    let mut spans: Vec<Duration> = Vec::with_capacity(RUNS);
    for _ in 0..RUNS {
        let start = Instant::now();
        check();
        spans.push(start.elapsed());
    }
    spans.sort_unstable();
    (spans[RUNS / 2], spans[RUNS * 99 / 100])
}

fn main() {
    let recorded: Value = serde_json::from_str(include_str!("../tests/support/idtoken.json")).unwrap();
    let files = tempfile::tempdir().unwrap();
    std::fs::write(files.path().join("keys.json"), recorded["jwks"].to_string()).unwrap();
    let issuers = json!([{
        "name": "ci", "kind": "concourse", "issuer": recorded["discovery"]["issuer"], "audience": "locker", "jwks": "keys.json",
    }]);
    let mut problems = Problems::default();
    let settings = settings::read("issuers", issuers, &mut problems);
    let keys = KeySet::parse(recorded["jwks"].to_string().as_bytes()).unwrap();
    let (clock, vars): (Arc<dyn Clock>, _) = (Arc::new(Then), BTreeMap::new());
    let known =
        Issuers::open(&settings, files.path(), &Issuers::default(), &vars, &clock, Patience::default()).unwrap();
    println!("{RUNS} checks of each token, one after the other");
    for (name, token) in ["RS256, 4,096 bits", "ES256"].iter().zip(recorded["tokens"].as_array().unwrap()) {
        let token = token.as_str().unwrap().trim();
        let (median, p99) = spans(|| check(token, &settings[0], &keys));
        println!("{name:<18} {} bytes   median {median:>9.2?}   99% {p99:>9.2?}", token.len());
        let (median, p99) = spans(|| drop(known.check(token).unwrap()));
        println!("{name:<18} again        median {median:>9.2?}   99% {p99:>9.2?}");
    }
}
