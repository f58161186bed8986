//! The Concourse resource: `check`, `in` (get) and `out` (put); see `docs/design.md#the-resource` and
//! `docs/concourse.md`.
//!
//! - `check`: lists versions.
//! - [`get()`]: fetches one version. `destination` writes its files; `tree` adds those that pool-resource writes.
//! - [`out()`]: runs one put. It takes locks (`acquire`), releases them (`release`, and `lost`, which
//!   tells what was taken away before), adds and removes them (`add`,
//!   `remove`), waits for them to change (`wait_for_lock`), or asserts that a hold lasts (`verify`). `put` has what
//!   these share, `input` reads their files, `persist` retries what must not fail, and `progress` reports what a wait
//!   is for.
//! - `session`: the start of all three: finds the servers, the pool and the store.
//! - `build`: what the environment says about the build.
//!
//! stdout carries only the answer; stderr is the build log. Exit codes: 0, 1, and 143 or 130 after a signal.
//!
//! Only tests need these variables. Each is a duration such as `500ms`:
//!
//! | variable | default | what it shortens |
//! |---|---|---|
//! | `LOCKER_WAIT` | 25s | how long one request of `out` waits at the server; at least 100ms |
//! | `LOCKER_RETRY_MAX` | 10s | the longest pause between two attempts of `out`; 50ms to 10s |
//! | `LOCKER_PROGRESS` | 20s | least time between two lines about changes while it waits; others take 3 and 9 times as long |
//! | `LOCKER_RELEASE_LIMIT` | 60s | time for a whole `release`, `unlock`, `add`, `add_claimed` or `remove` |
//! | `LOCKER_GET_LIMIT` | 60s | how long `in` asks a server that does not answer |
//! | `LOCKER_SELF_WAIT` | 60s | how long `out` with `self_wait: fail` waits for a lock that its own build holds |

mod acquire;
mod add;
mod build;
mod check;
mod destination;
mod get;
mod input;
mod lost;
mod out;
mod persist;
mod progress;
mod put;
mod release;
mod remove;
mod session;
mod tree;
mod verify;
mod wait_for_lock;

use std::io::Write;

use serde::Serialize;

use crate::client::interruptible::Interruptible;
use crate::client::{CallError, NoAnswer};
use crate::env::{Env, Signal, read_at_most};
use crate::wire::escape::{Escaped, escape_json};

pub use check::check;
pub use get::get;
pub use out::out;
pub use session::pool_of;

/// The largest payload that is read from stdin, in bytes. Concourse's own payloads are a few KiB.
const PAYLOAD_BYTES: u64 = 4 * 1024 * 1024;

/// What to do when no server answers, for the person who reads the log.
const ADVICE: &str = "run `locker doctor` with this source to see where it fails";

/// Why no server answers, with the next step for the reader.
fn away(why: &NoAnswer) -> String {
    match &why.next {
        Some(_) => why.with_next(),
        None => format!("{why}; {ADVICE}"),
    }
}

/// The text of a call's error, with the next step for the reader.
fn told(error: &CallError) -> String {
    match error {
        CallError::NoAnswer(why) | CallError::Hopeless(why) => away(why),
        CallError::Refused(refused) => refused.to_string(),
    }
}

/// Prints one line for the reader of the build log, escaped so that it cannot control a terminal.
fn say(out: &mut dyn Write, text: impl AsRef<str>) {
    // A closed log is no reason to fail.
    let line = format!("{}\n", Escaped(text.as_ref()));
    let _ = out.write_all(line.as_bytes()).and_then(|()| out.flush());
}

/// Reports what ended a step, and returns its exit code.
fn fail(env: &mut Env<'_>, text: impl AsRef<str>) -> u8 {
    say(env.stderr, format!("error: {}", text.as_ref()));
    1
}

/// Why a `check` or an `in` ends without an answer.
enum Failure {
    Signalled(Signal),
    Failed(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Failed(text)
    }
}

impl Failure {
    /// Reports the failure, and returns the exit code.
    fn report(self, env: &mut Env<'_>) -> u8 {
        match self {
            Self::Failed(text) => fail(env, text),
            Self::Signalled(signal) => {
                say(env.stderr, format!("{} received: nothing was written", signal.name()));
                signal.exit_code()
            }
        }
    }
}

/// Runs work that calls servers. If a signal arrives first, the work is abandoned.
fn interruptible<T: Send + 'static>(
    env: &Env<'_>,
    work: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Result<T, Failure> {
    let done = Interruptible::new(&env.signals).run(work).map_err(Failure::Signalled)?;
    done.map_err(Failure::Failed)
}

fn read_payload(env: &mut Env<'_>) -> Result<Vec<u8>, String> {
    let payload =
        read_at_most(&mut *env.stdin, PAYLOAD_BYTES).map_err(|error| format!("cannot read stdin: {error}"))?;
    payload.ok_or_else(|| format!("stdin is longer than {PAYLOAD_BYTES} bytes"))
}

fn print<T: Serialize>(env: &mut Env<'_>, answer: &T) -> Result<(), String> {
    let mut text = escape_json(&serde_json::to_string(answer).map_err(|error| error.to_string())?);
    text.push('\n');
    env.stdout
        .write_all(text.as_bytes())
        .and_then(|()| env.stdout.flush())
        .map_err(|error| format!("cannot write stdout: {error}"))
}

/// The directory that Concourse passes as the only argument.
fn directory(env: &Env<'_>) -> Result<std::path::PathBuf, String> {
    match env.args.get(1) {
        Some(dir) if !dir.is_empty() => Ok(dir.into()),
        _ => Err("missing argument: the directory of the step".to_owned()),
    }
}
