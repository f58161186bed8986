//! Models that are searched exhaustively: every order of requests, answers, losses, deaths, pauses, restarts and ticks
//! of the clock, within small bounds. The rules in them are not copies: the server is the real core (`locker::core`),
//! and the program with a lease is the real `locker::client::lease`. Only the model of leaders is one of a protocol alone.
//!
//! Each model prints how many states were searched and which properties hold in all of them. Naive variants of the
//! rules must fail, or the search would prove nothing. Run `cargo test --test models -- --nocapture` to see it.

// Test code: a panic is a failed test, and figures go to the terminal.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests fail by panicking and print what was searched")]

#[path = "models/agent.rs"]
mod agent;
#[path = "models/handoff.rs"]
mod handoff;
#[path = "models/leaders/mod.rs"]
mod leaders;
#[path = "models/lease.rs"]
mod lease;
#[path = "models/server.rs"]
mod server;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker as _, Expectation, Model};

/// Most steps of one search.
const MOST: usize = 3_000_000;

/// A number that is the same for equal states. The search compares states by it.
fn digest(state: &impl Hash) -> u64 {
    let mut hasher = std::hash::DefaultHasher::new();
    state.hash(&mut hasher);
    std::hash::Hasher::finish(&hasher)
}

/// Searches all states. Prints and returns what was found, by property.
fn search<M>(name: &str, model: M) -> Vec<&'static str>
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + Send + Sync + PartialEq + 'static,
    M::Action: Clone + Debug + Send + Sync + PartialEq + 'static,
{
    let properties: Vec<(Expectation, &'static str)> =
        model.properties().iter().map(|p| (p.expectation.clone(), p.name)).collect();
    let checker = model.checker().threads(2).target_state_count(MOST).spawn_bfs().join();
    assert!(checker.state_count() < MOST, "{name}: more than {MOST} states: the model has no bound");
    println!("{name}: {} states, depth {}", checker.unique_state_count(), checker.max_depth());
    let mut wrong = Vec::new();
    for (expectation, property) in properties {
        let found = checker.discovery(property);
        let (good, word) = match (&expectation, &found) {
            (Expectation::Sometimes, Some(_)) => (true, "happens"),
            (Expectation::Sometimes, None) => (false, "NEVER HAPPENS"),
            (_, None) => (true, "always"),
            (_, Some(_)) => (false, "COUNTEREXAMPLE"),
        };
        println!("  {word}: {property}");
        if let (false, Some(path)) = (good, found) {
            for action in path.into_actions() {
                println!("    {action:?}");
            }
        }
        if !good {
            wrong.push(property);
        }
    }
    wrong
}
