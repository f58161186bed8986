//! Locker: locks for CI.

pub mod client;
pub mod core;
pub mod env;
pub mod resource;
pub mod server;
pub mod store;
pub mod wire;
