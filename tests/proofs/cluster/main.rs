//! The proof of the cluster: three real servers on one real PostgreSQL or etcd, under random clients of all kinds, with one
//! fault after the other. Every answer is judged by the judge of the crash proof.
//!
//! The short form runs with the other tests. To run the long form, or to repeat a run:
//!
//! ```text
//! LOCKER_CLUSTER_FAULTS=500 cargo test --test cluster -- --nocapture nothing_is_lost
//! LOCKER_CLUSTER_SEED=42 cargo test --test cluster -- --nocapture nothing_is_lost
//! LOCKER_CLUSTER_ONLY=SIGSTOP LOCKER_CLUSTER_FAULTS=20 cargo test --test cluster -- --nocapture nothing_is_lost
//! ```
//!
//! The seed decides what the clients do and which faults happen, not how these interleave. `LOCKER_CLUSTER_ONLY` chooses
//! the faults with this text in their names.
//!
//! | file | what |
//! |---|---|
//! | [`campaign`] | fault after fault under load, and the judgement |
//! | [`faults`] | what happens to servers and connections |
//! | [`bases`], [`postgres`], [`etcd`] | databases, and what happens to them |
//! | [`nodes`] | the servers, and the proxies between everybody |
//! | `planted` | planted bugs, which must be found: with the feature `plant` |
//! | [`arena`], [`lookouts`] | where clients and faults meet; clients with one task each |
//! | `../crash` | the workload, the record and the judge, which both proofs share |

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

#[path = "../crash/api.rs"]
mod api;
mod arena;
#[path = "../crash/audit.rs"]
mod audit;
mod bases;
mod campaign;
#[path = "../crash/checker/mod.rs"]
mod checker;
mod etcd;
mod faults;
#[path = "../crash/history.rs"]
mod history;
mod lookouts;
mod nodes;
#[cfg(feature = "plant")]
mod planted;
mod postgres;
#[path = "../crash/rng.rs"]
mod rng;
#[path = "../../support/mod.rs"]
mod support;
#[path = "../crash/workload.rs"]
mod workload;

use std::time::Duration;

use bases::Base;
use campaign::{Campaign, run};

/// The number of faults in the short form.
const FAULTS: usize = 16;
/// The seed of the short form: the same faults in each run.
const SEED: u64 = 20;
/// How long a leader may give no sign: short, so that a run has many faults.
const FAILOVER: Duration = Duration::from_secs(2);
/// The longest time that a fault lasts: in the short form, and in the long one.
const LONGEST: (Duration, Duration) = (Duration::from_secs(6), Duration::from_secs(60));

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn storm_over(base: &Base) {
    let faults = number("LOCKER_CLUSTER_FAULTS").map(|faults| usize::try_from(faults).expect("a count"));
    let seed = || if faults.is_some() { rng::fresh_seed() } else { SEED };
    let campaign = Campaign {
        seed: number("LOCKER_CLUSTER_SEED").unwrap_or_else(seed),
        faults: faults.unwrap_or(FAULTS),
        failover: number("LOCKER_CLUSTER_FAILOVER_MS").map_or(FAILOVER, Duration::from_millis),
        longest: if faults.is_some() { LONGEST.1 } else { LONGEST.0 },
        only: std::env::var("LOCKER_CLUSTER_ONLY").unwrap_or_default(),
        plant: None,
    };
    let outcome = run(&campaign, base);
    println!("{outcome}");
    assert!(outcome.violations.is_empty(), "{outcome}");
    assert!(outcome.grants() > 10 * outcome.faults(), "too little happened: {outcome}");
}

#[test]
fn nothing_is_lost_and_nothing_is_given_twice_on_postgres() {
    storm_over(&Base::postgres());
}

#[test]
fn nothing_is_lost_and_nothing_is_given_twice_on_etcd() {
    storm_over(&Base::etcd());
}
