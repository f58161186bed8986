//! Locker: locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits.
//!
//! One binary holds several programs. The name it is called by selects one ([`run`]):
//!
//! | base name of argv\[0\] | program |
//! |---|---|
//! | `check`, `in`, `out` | the Concourse resource type ([`resource`]) |
//! | `lockcli` | the client of Argo latches ([`cli`]) |
//! | `lockagt` | the agent that resumes Argo workflows ([`agent`]) |
//! | anything else | the `locker` command line with the server in it ([`cli`], [`server`]) |
//!
//! Reading order:
//! 1. [`core`]: every rule, pure. Begin with its `step`.
//! 2. [`wire`]: the types of everything that crosses a wire: our API, Concourse, errors.
//! 3. [`store`], [`server`]: the state on disk, the engine that owns it, the routes, the door.
//! 4. [`client`]: the API from the client's side; [`resource`], [`agent`] and [`cli`] build on it.
//! 5. [`mod@env`]: the machine as a value. Nothing else reads the process's environment, clock or signals. `priority`: which
//!    threads go first.
//!
//! Arrows point down only: binary -> this file -> server, resource, agent, cli -> store -> client -> wire -> core.

pub mod agent;
pub mod cli;
pub mod client;
pub mod core;
pub mod env;
mod priority;
pub mod resource;
pub mod server;
pub mod store;
pub mod wire;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use env::Env;
use wire::errors::exit;
use wire::escape::Escaped;

/// Runs the program that `env.args[0]` names and returns the process's exit code. A panic is reported as an error.
pub fn run(env: &mut Env<'_>) -> u8 {
    let name = env.args.first().map(Path::new).and_then(Path::file_name).and_then(|name| name.to_str());
    let name = name.unwrap_or_default().to_owned();
    // After a panic only the streams are used, and these are always consistent.
    catch_unwind(AssertUnwindSafe(|| run_as(&name, env))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        // If stderr cannot be written, there is nowhere else to report it.
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
