//! Locker: locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits.
//!
//! One program, chosen by the name that it is called by ([`run`]):
//!
//! | base name of argv\[0\] | what it is |
//! |---|---|
//! | `check`, `in`, `out` | the Concourse resource type ([`resource`]) |
//! | `lockcli` | the client of Argo latches ([`cli`]) |
//! | `lockagt` | the agent that resumes Argo workflows ([`agent`]) |
//! | anything else | the `locker` command line with the server in it ([`cli`], [`server`]) |
//!
//! Reading order:
//! 1. [`core`]: every rule, pure. Begin with its `step`.
//! 2. [`wire`]: what crosses a wire, as types: our API, Concourse, errors.
//! 3. [`store`], [`server`]: the truth on disk, the engine that owns it, the routes, the door.
//! 4. [`client`]: the API from the other side; [`resource`], [`agent`] and [`cli`] stand on it.
//! 5. [`mod@env`]: the machine as a value. Nothing else reads the process's environment, clock or signals.
//!
//! Arrows point down only: binary -> this file -> server, resource, agent, cli -> client, store, wire -> core.

pub mod agent;
pub mod cli;
pub mod client;
pub mod core;
pub mod env;
pub mod resource;
pub mod server;
pub mod store;
pub mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use env::Env;
use wire::errors::exit;
use wire::escape::Escaped;

/// Runs the program that `env.args[0]` names and gives the process's exit code. A bug that panics is an error, too.
pub fn run(env: &mut Env<'_>) -> u8 {
    let name = env.args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let name = name.unwrap_or_default().to_owned();
    // Nothing is used afterwards but the streams, which are whole at any time.
    catch_unwind(AssertUnwindSafe(|| run_as(&name, env))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        // stderr is all there is to tell it by.
        let _ = writeln!(env.stderr, "error: this is a bug in locker, please report it: {}", Escaped(&text));
        exit::FAILED
    })
}

fn run_as(name: &str, env: &mut Env<'_>) -> u8 {
    match name {
        "check" => resource::check(env),
        "in" => resource::get(env),
        "out" => resource::out(env),
        "lockcli" => cli::lockcli(env),
        "lockagt" => cli::lockagt(env),
        _ => cli::locker(env),
    }
}
