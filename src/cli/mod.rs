//! The command line: `locker ...`. [`crate::wire::errors::exit`] defines the exit codes.
//!
//! - `dispatch`: from arguments to a command, and from its result to an exit code.
//! - One file for each command. None of them uses `dispatch`.
//! - `claim_request`: what `claim` and `run` have in common.
//! - `connection`, `output`, `values`, `table`: what all commands share. `hidden`: secrets that somebody types. `kept`:
//!   tokens that `login` keeps.
//! - `env_defaults`: options with an environment variable read it from [`crate::env::Env`], not from the process.

mod access;
mod agent;
mod breaking;
mod check;
mod claim;
mod claim_request;
mod claims;
mod connection;
mod dispatch;
mod doctor;
mod env_defaults;
mod hidden;
mod history;
mod import;
mod import_locker;
mod kept;
mod latch;
mod lint;
mod lock;
mod login;
mod manual;
mod notify;
mod output;
mod pool;
mod pool_apply;
mod pool_words;
mod queue;
mod ready;
mod release;
mod run;
pub mod server;
mod stats;
mod status;
mod store;
mod table;
mod token;
mod transfer;
mod values;
mod verify;
mod version;
mod wait;
mod watch;

pub use dispatch::{command, lockagt, lockcli, locker};
