//! Proofs over the real binary and real sockets.
//!
//! | file | what |
//! |---|---|
//! | [`history`] | what was done and seen in a run |
//! | [`checker`] | the judge of a history |
//! | [`http`] | raw connections: when was it sent, was it answered |
//! | [`server`] | a real `locker server`, to be killed |
//! | [`out`] | a real `out` process, as Concourse starts it |
//! | [`workload`] | clients that do random things, all decided by a seed |
//! | [`nemesis`] | kills, restarts and audits under that load |
//! | [`arena`] | where clients and nemesis meet: the gate, the record, the clock |
//! | [`api`] | requests of our API, and what their answers say of a claim |
//! | [`rng`] | randomness from one number |

// Each test program uses its part of these.
#![allow(dead_code)]

pub mod api;
pub mod arena;
pub mod checker;
pub mod history;
pub mod http;
pub mod nemesis;
pub mod out;
pub mod rng;
pub mod server;
pub mod workload;
