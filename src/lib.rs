//! Locker: locks for CI.

pub mod core;
pub mod server;
pub mod store;
pub mod wire;
