//! The tests that can share a process. Each subject is a module; most use the real binary and real sockets.
//!
//! `cargo test --features plant --test it resource::` runs one subject. A test that changes its whole process, such as
//! its system limits, starts itself again in a separate process; see `door`. Tests that always need a separate process
//! are in `tests/proofs`. What both use is in `tests/support`.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod acceptance;
mod access;
mod agent;
mod api;
mod backup;
mod cli;
mod client_faults;
#[cfg(feature = "plant")]
mod cluster;
mod contracts;
mod deposed;
mod docs;
mod doctor;
mod door;
mod empty;
mod feeds;
mod floors;
mod gates;
mod history;
mod idtoken;
mod kill_matrix;
mod latches;
mod lint;
#[cfg(feature = "plant")]
mod logs;
mod looking;
mod metrics;
mod migration;
mod migrations;
mod names;
mod nested;
mod notify;
#[cfg(feature = "plant")]
mod operating;
mod other_cis;
mod people;
mod pipelines;
mod pool_resource;
mod pools;
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
mod tokens;
mod transfer;
mod trying;
mod upgrades;
mod watch;
mod web;
