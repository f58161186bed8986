//! The pure core: every decision of Locker as values in, values out.
//!
//! No clock, IO, thread, randomness or serde: [`step::step`] gets a command and the time, changes the state and
//! answers. The same function serves the product, the scenarios and the model tests.
//!
//! Reading order:
//! 1. [`names`], [`time`], [`limits`], [`settings`]: values that cannot be wrong.
//! 2. [`claim`], [`pool`], [`history`]: the words of the design as data.
//! 3. [`step`]: commands, answers and refusals; the way in.
//! 4. `ask` (the way into the queue), `claims` (the life of a claim), [`builds`] (what their ends mean for claims),
//!    `by_hand` (what persons do to claims and locks of others), `queue` and `cycles` (who is next), `supersede` and
//!    [`stuck`] (who waits in vain), `pools` (declaring), `ops` (what is done once, however often it is asked for),
//!    `timers` (what happens by itself); [`latch`]: the one-shot objects beside pools and claims.
//! 5. [`state`] and `entangled` (indexes, what a batch touched), `restart`, [`invariants`] (what is always true).

mod ask;
pub mod builds;
mod by_hand;
pub mod claim;
mod claims;
mod cycles;
mod entangled;
pub mod history;
pub mod invariants;
pub mod latch;
pub mod limits;
#[cfg(test)]
mod model_tests;
pub mod names;
mod ops;
pub mod pool;
mod pools;
pub mod queue;
mod restart;
#[cfg(test)]
mod scenarios;
pub mod settings;
pub mod state;
pub mod step;
pub mod stuck;
mod supersede;
#[cfg(test)]
mod test_store;
pub mod time;
mod timers;
