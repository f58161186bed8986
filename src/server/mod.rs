//! `locker server`: the coordinator.

pub mod engine;
pub mod http;
pub mod notices;
pub mod openapi;
pub mod routes;
pub mod views;
pub mod watchers;
