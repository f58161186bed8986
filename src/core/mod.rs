//! The pure core: every decision of Locker as values in, values out. No clock, IO, thread, randomness or serde.

pub mod limits;
pub mod names;
pub mod settings;
pub mod time;
