//! `locker server`: the coordinator.

pub mod auth;
pub mod engine;
pub mod http;
pub mod notices;
pub mod watchers;
