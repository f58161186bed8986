//! Support for tests of the real binary. Nothing here sleeps to synchronise: [`eventually`] checks until a condition
//! holds.
//!
//! | file | what |
//! |---|---|
//! | [`process`] | processes with captured output; the binary under test |
//! | [`server`] | a real `locker server` on a free port |
//! | [`build`] | a build of Concourse: `check`, `in` and `out` as Concourse runs them |
//! | [`http`] | a raw HTTP client that shows every byte, and can behave badly |
//! | [`wait`], [`clock`] | the one way to wait; clocks that tests move |
//! | [`in_process`] | engine, routes and door in the process of the test |
//! | [`concourse`], [`passes`] | a pretend Concourse; a build that it runs again in place |
//! | [`issuer`] | a pretend issuer of id tokens |
//! | [`impostor`], [`proxy`] | a server of another program; a network that fails |
//! | [`database`], [`cut`] | real etcd and PostgreSQL; a proxy that cuts connections to them |
//! | [`wires`] | proxies that cut, hold, delay and lose what travels, and lead elsewhere |
//! | [`receiver`] | a pretend receiver of webhooks |
//! | [`port`] | the port of the pretend servers |
//! | [`certs`], [`terminal`], [`files`], [`malformed`] | certificates; a terminal; directories; malformed requests |

#![allow(
    dead_code,
    unused_imports,
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::format_collect,
    reason = "each test crate uses its own part of this, and tests fail by panicking"
)]

pub mod browser;
pub mod build;
pub mod certs;
pub mod clock;
pub mod concourse;
pub mod cut;
pub mod database;
pub mod files;
pub mod http;
pub mod impostor;
pub mod in_process;
pub mod issuer;
pub mod malformed;
pub mod passes;
pub mod port;
pub mod process;
pub mod proxy;
pub mod receiver;
pub mod server;
pub mod terminal;
pub mod wait;
pub mod wires;

pub use build::{Build, out_in};
pub use files::{file, tree};
pub use impostor::Impostor;
pub use process::{Done, Running, binary, clean};
pub use receiver::{Manner, Receiver};
pub use server::{Server, Setup};
pub use wait::{PATIENCE, SetsAtEnd, eventually, within};
