//! The tests that may share a process: each subject is a module, most of them over the real binary and real sockets.
//!
//! `cargo test --features plant --test it resource::` runs one subject. A test that changes its whole process (limits
//! of the system, say) starts itself again in a process of its own; see `door`. What takes a process for itself all
//! the time is in `tests/proofs`; what both use is in `tests/support`.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod agent;
mod api;
mod backup;
mod cli;
mod client_faults;
mod contracts;
mod docs;
mod doctor;
mod door;
mod floors;
mod gates;
mod kill_matrix;
mod latches;
mod names;
mod pipelines;
mod pool_resource;
mod references;
mod resource;
mod resource_access;
mod resource_params;
mod run;
mod store_failure;
mod stories;
mod stories_server;
mod strangers;
mod tls;
mod transfer;
mod watch;
