//! The client of our HTTP API: used by the resource, the command line and the agent.
//!
//! - [`http`]: one request, one typed outcome: done, refused for good, or no usable answer (ask again).
//! - [`connect`]: servers, identities and limits; `trust`: certificates; `proxy`: which proxy; `transport`: how bytes
//!   travel.
//! - [`calls`]: one method for each call of the API.
//! - [`latches`]: the calls of the Argo contract.
//! - [`interruptible`]: a request that a signal interrupts.
//! - [`acquire`]: asking until the locks are held, or giving up without leaving anything behind.
//! - [`lease`]: when a lease is renewed, and when its program must have stopped; values only.
//! - [`backoff`], [`claim_id`], [`who`]: pauses, ids that a re-run finds again, words for people.
//!
//! Nothing here prints; callers show what they are told through [`crate::wire::escape`].

pub mod acquire;
pub mod backoff;
pub mod calls;
pub mod claim_id;
pub mod connect;
pub mod http;
pub mod interruptible;
pub mod latches;
pub mod lease;
pub(crate) mod proxy;
mod transport;
pub(crate) mod trust;
pub mod who;

pub use http::{CallError, Client, NoAnswer, Refused};
