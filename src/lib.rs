//! Locker: locks for CI.

pub mod core;
pub mod store;
pub mod wire;
pub mod server;
