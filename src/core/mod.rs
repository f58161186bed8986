//! The pure core: every decision of Locker as values in, values out.
//!
//! There is no clock, IO, thread, randomness or serde here. [`step::step`] takes a command and the time, changes the
//! state and returns a reply. The product, the scenarios and the model tests all use this one function.
//!
//! Reading order, from the ground up; each module names only modules that come before it in this list:
//! 1. [`limits`], [`time`], [`names`], [`origin`], [`settings`]: values that cannot be wrong. [`layered`]: a map.
//! 2. [`claim`], [`latch`], [`history`], [`pool`], [`command`]: the things of the domain, what can happen to them, and
//!    the replies, as data. [`figures`]: what the history says about waits and holds.
//! 3. [`state`]: everything that the engine owns, its indexes, and what the current batch has touched.
//! 4. `candidates` (which locks could serve a claim), `deadlock` (which claim waits for which build, and which waits in
//!    vain), `turn` (whose turn it is), `runs` (which process acts for a claim).
//! 5. `supersede`, `claims` (the life of a claim), `marks` (holds that last until their build is over), `latches`,
//!    [`builds`] (what the end of a build means for its claims).
//! 6. `admission` (the way into the queue), [`queue`] (handing on freed locks), `pools` (declaring pools and locks),
//!    `by_hand` (what people do to other people's claims and locks), `ops` (a repeated operation is done only once),
//!    `timers` (what happens by itself), [`mod@restart`].
//! 7. [`mod@step`]: the entry point. [`invariants`]: what is always true.

mod admission;
pub mod builds;
mod by_hand;
mod candidates;
pub mod claim;
mod claims;
pub mod command;
mod deadlock;
pub mod figures;
pub mod history;
pub mod invariants;
pub mod latch;
mod latches;
pub mod layered;
pub mod limits;
mod marks;
#[cfg(test)]
mod model_tests;
pub mod names;
mod ops;
pub mod origin;
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
mod supersede;
#[cfg(test)]
mod test_store;
pub mod time;
mod timers;
pub mod token;
mod tokens;
mod turn;
