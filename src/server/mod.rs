//! `locker server`: the coordinator.

pub mod http;
pub mod notices;
