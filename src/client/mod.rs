//! The client of our HTTP API. The resource, the command line and the agent use it.
//!
//! - [`http`]: one request, one typed outcome: done, refused for good, or no usable answer (retry).
//! - [`connect`]: servers, identities and limits; `trust`: certificates; `proxy`: which proxy to use; `transport`: how
//!   bytes travel; `trouble`: why there is no answer, and what to do.
//! - [`calls`]: one method for each call of the API.
//! - [`history`]: questions about what happened. [`events`]: following it. [`latches`]: the calls of the Argo contract. `tokens`: making
//!   and revoking them.
//! - [`interruptible`]: a request that a signal interrupts.
//! - [`acquire`]: asks until the locks are held, or gives up and leaves nothing behind.
//! - [`progress`]: what a person sees while a request waits.
//! - [`lease`]: when a lease is renewed, and when its program must have stopped. Values only.
//! - [`backoff`], [`claim_id`], [`when`], [`who`]: pauses between attempts, ids that a re-run finds again, text for people.
//!
//! Nothing here prints. Callers escape what they show with [`crate::wire::escape`].

pub mod acquire;
pub mod backoff;
pub mod calls;
pub mod claim_id;
pub mod connect;
pub mod events;
pub mod history;
pub mod http;
pub mod interruptible;
pub mod latches;
pub mod lease;
pub mod progress;
pub(crate) mod proxy;
mod tokens;
mod transport;
pub(crate) mod trouble;
pub(crate) mod trust;
pub mod when;
pub mod who;

pub use http::{CallError, Client, NoAnswer, Refused};
