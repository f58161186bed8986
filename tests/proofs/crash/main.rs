//! The crash proof: a real server on SQLite under random clients, killed again and again. Every answer is judged.
//!
//! The short form runs with the other tests. To run the long form, or to repeat a run:
//!
//! ```text
//! LOCKER_CRASH_KILLS=200 cargo test --release --test crash -- --nocapture nothing_is_lost
//! LOCKER_CRASH_SEED=42 cargo test --test crash -- --nocapture nothing_is_lost
//! ```
//!
//! The seed decides what the clients do and when the server dies. The machine decides how these interleave, so a seed
//! repeats the kind of run, not each step. With the feature `plant` the same proof must fail for each planted bug:
//! `cargo test --features plant --test crash`.
//!
//! | file | what |
//! |---|---|
//! | [`workload`] | clients that do random things, all decided by a seed ([`rng`]) |
//! | [`nemesis`] | kills, restarts and audits under this load |
//! | [`audit`] | the whole state, looked at while no client does anything |
//! | [`arena`] | where clients and the nemesis meet: the gate, the record, the clock |
//! | [`api`] | requests of our API, and what their answers say about a claim |
//! | [`history`] | what was done and seen in a run |
//! | [`checker`] | the judge of a history |

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::type_complexity,
    clippy::format_collect,
    clippy::cast_possible_truncation
)]

mod api;
mod arena;
mod audit;
mod checker;
mod history;
mod nemesis;
mod rng;
#[path = "../../support/mod.rs"]
mod support;
mod workload;

#[path = "checker/tests.rs"]
mod checker_tests;

use std::time::Duration;

use nemesis::{Campaign, Outcome, run};
use rng::fresh_seed;
use support::Setup;

/// The number of kills in the short form.
const KILLS: usize = 20;
/// More clients than locks, so that many wait.
const CLIENTS: usize = 12;

/// A number from the environment.
fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|e| panic!("{name}: {e}")))
}

fn campaign(seed: u64, kills: usize, plant: Option<&'static str>) -> Outcome {
    let directory = tempfile::tempdir().expect("a temporary directory");
    // A neglected claim keeps others waiting this long.
    let mut setup = Setup::sqlite(directory.path()).flag("--confirm", "3s");
    if let Some(bug) = plant {
        setup = setup.plant(bug);
    }
    let outcome = run(&Campaign { seed, kills, clients: CLIENTS, setup, attention: Duration::from_millis(1_500) });
    println!("{outcome}");
    outcome
}

#[test]
fn nothing_is_lost_and_nothing_is_given_twice() {
    let kills = number("LOCKER_CRASH_KILLS").map_or(KILLS, |kills| usize::try_from(kills).expect("a count"));
    let seed = number("LOCKER_CRASH_SEED").unwrap_or_else(fresh_seed);
    let outcome = campaign(seed, kills, None);
    assert!(outcome.violations.is_empty(), "{outcome}");
    // A kill that interrupts no request proves nothing.
    assert!(outcome.effective * 2 > outcome.kills, "too few kills hit a request: {outcome}");
    assert!(outcome.grants > 10 * kills && outcome.handovers > kills, "too little happened: {outcome}");
}

/// The counterparts with planted bugs: the proof must find them.
#[cfg(feature = "plant")]
mod planted {
    use super::{campaign, fresh_seed};
    use crate::checker::Rule;

    /// Runs until the bug is found; each attempt has a few kills.
    fn is_caught(plant: &'static str, by: &[Rule]) {
        for _ in 0..5 {
            let outcome = campaign(fresh_seed(), 5, Some(plant));
            if outcome.violations.iter().any(|violation| by.contains(&violation.rule)) {
                return;
            }
        }
        panic!("{plant} was not caught");
    }

    #[test]
    fn an_answer_before_its_commit() {
        // A claim that is no longer what it was answered to be is caught by the judge of identities, too.
        is_caught("answer-before-commit", &[Rule::Durable, Rule::Exclusion, Rule::Identity]);
    }

    #[test]
    fn a_release_that_does_not_look_at_the_holder() {
        is_caught("release-unchecked", &[Rule::Exclusion, Rule::Release, Rule::Identity]);
    }

    #[test]
    fn a_fence_that_only_memory_knows() {
        is_caught("fence-in-memory", &[Rule::Fences]);
    }

    #[test]
    fn a_call_of_an_earlier_process() {
        is_caught("earlier-run", &[Rule::Runs]);
    }
}
