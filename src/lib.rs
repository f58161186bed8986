//! Locker: locks for CI.

pub mod core;
pub mod server;
