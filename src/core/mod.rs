//! The pure core: every decision of Locker as values in, values out.
//!
//! No clock, IO, thread, randomness or serde: [`step::step`] gets a command and the time, changes the state and
//! answers. The same function serves the product, the scenarios and the model tests.
//!
//! Reading order, from the ground up; nothing names what stands below it in this list:
//! 1. [`limits`], [`time`], [`names`], [`settings`]: values that cannot be wrong.
//! 2. [`claim`], [`latch`], [`stuck`], [`history`], [`pool`], [`command`]: the words of the design as data: what there is,
//!    what can happen, what is said about it.
//! 3. [`state`]: all of it, with indexes (`entangled`, `line`) and what a batch has touched.
//! 4. `fit`, `cycles`, `turn`: which locks fit, who waits for whom, whose turn it is. `runs`: which process acts.
//! 5. `claims` (the life of a claim), `latches`, [`builds`] (what their ends mean for claims), `supersede` and `lookout`
//!    (who waits in vain).
//! 6. `ask` (the way into the queue), [`queue`] (freed locks are handed on), `pools` (declaring), `by_hand` (what persons
//!    do to claims and locks of others), `ops` (what is done once, however often it is asked for), `timers` (what happens by itself), [`mod@restart`].
//! 7. [`mod@step`]: the way in. [`invariants`]: what is always true.

mod ask;
pub mod builds;
mod by_hand;
pub mod claim;
mod claims;
pub mod command;
mod cycles;
mod entangled;
mod fit;
pub mod history;
pub mod invariants;
pub mod latch;
mod latches;
pub mod limits;
mod line;
mod lookout;
#[cfg(test)]
mod model_tests;
pub mod names;
mod ops;
pub mod pool;
mod pools;
pub mod queue;
pub mod restart;
mod runs;
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
mod turn;
