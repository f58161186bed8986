//! What tests of the real binary stand on. Nothing here sleeps to be in step with something: [`eventually`] looks until
//! a condition holds.
//!
//! | file | what |
//! |---|---|
//! | [`process`] | processes whose output is gathered, the binary under test |
//! | [`server`] | a real `locker server` on a port of its own choice |
//! | [`build`] | a build of Concourse: `check`, `in` and `out` as it runs them |
//! | [`http`] | a raw HTTP client that shows every byte, and can behave badly |
//! | [`wait`], [`clock`] | the one wait; a clock that moves when told to |
//! | [`in_process`] | engine, routes and door in the test's own process |
//! | [`concourse`], [`impostor`], [`proxy`] | a pretend Concourse, a server that is none of ours, a network that fails |
//! | [`certs`], [`terminal`], [`files`], [`malformed`] | certificates; a terminal; directories; requests that are wrong |

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::format_collect,
    reason = "each test crate uses its own part of this, and tests fail by panicking"
)]

pub mod build;
pub mod certs;
pub mod clock;
pub mod concourse;
pub mod files;
pub mod http;
pub mod impostor;
pub mod in_process;
pub mod malformed;
pub mod process;
pub mod proxy;
pub mod server;
pub mod terminal;
pub mod wait;

pub use build::{Build, out_in};
pub use files::{file, tree};
pub use impostor::Impostor;
pub use process::{Done, Running, binary, clean};
pub use server::{Server, Setup};
pub use wait::{PATIENCE, eventually};
