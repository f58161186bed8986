//! What the check of one id token costs with keys at hand: the token is taken apart, its signature is checked with the
//! key of an issuer, and its claims are read. The RS256 (4,096 bits) and ES256 tokens are those of a real Concourse. Run
//! it with `cargo bench --bench idtoken`.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a bench prints, and fails by panicking")]

use std::time::{Duration, Instant};

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

fn main() {
    let recorded: Value = serde_json::from_str(include_str!("../tests/support/idtoken.json")).unwrap();
    let issuer = json!([{
        "name": "ci", "kind": "concourse", "issuer": recorded["discovery"]["issuer"], "audience": "locker",
    }]);
    let mut problems = Problems::default();
    let issuer = settings::read("issuers", issuer, &mut problems).remove(0);
    let keys = KeySet::parse(recorded["jwks"].to_string().as_bytes()).unwrap();
    println!("{RUNS} checks of each token, one after the other");
    for (name, token) in ["RS256, 4,096 bits", "ES256"].iter().zip(recorded["tokens"].as_array().unwrap()) {
        let token = token.as_str().unwrap().trim();
        let mut spans: Vec<Duration> = Vec::with_capacity(RUNS);
        for _ in 0..RUNS {
            let start = Instant::now();
            check(token, &issuer, &keys);
            spans.push(start.elapsed());
        }
        spans.sort_unstable();
        let (median, p99) = (spans[RUNS / 2], spans[RUNS * 99 / 100]);
        println!("{name:<18} {} bytes   median {median:>9.2?}   99% {p99:>9.2?}", token.len());
    }
}
