//! `locker server`: the coordinator.

pub mod door;
pub mod http;
mod inner;
pub mod notices;
