//! The build watch from end to end: the real server and the real resource against a pretend Concourse over real
//! sockets.
//!
//! | file | what |
//! |---|---|
//! | [`status`] | every row of the status table, for every kind of claim |
//! | [`failures`] | every way in which a Concourse fails: the hold stays and is marked, until its build can be seen again |
//! | [`login`] | passwords, tokens, no login; several installations and names |
//! | [`admit`] | `scope: build`, `--verify-builds`, and what the server says about its watch |
//! | [`reruns`] | a Concourse that runs builds again when a worker vanishes |
//! | [`stories`] | failure stories of lock tools in Concourse, each under its name |

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod admit;
mod failures;
mod login;
mod reruns;
mod status;
mod stories;

use crate::support::concourse::Concourse;
use crate::support::{Build, Server, eventually};
use serde_json::{Value, json};

/// The rules of the watch with short times, instead of 15 s, 60 s and 30 s.
const SHORT: [&str; 6] = ["--watch-period", "150ms", "--watch-gone", "600ms", "--drain", "100ms"];

/// A server that watches these installations.
fn watching(concourses: &[&str], more: &[&str]) -> Server {
    let mut options = SHORT.to_vec();
    concourses.iter().for_each(|concourse| options.extend(["--concourse", concourse]));
    options.extend(more);
    Server::start_with("memory:", &options, &[])
}

/// A build of this Concourse, with a resource of this pool.
fn build(server: &Server, concourse: &Concourse, id: u32, pool: &str) -> Build {
    Build::new(server, id, pool).var("ATC_EXTERNAL_URL", &concourse.url)
}

fn acquire(scope: &str) -> Value {
    json!({"acquire": true, "scope": scope})
}

/// A claim as it is now.
fn claim(server: &Server, id: &str) -> Value {
    server.api("GET", &format!("/claims/{id}"), &Value::Null).1
}

/// The owner of a claim by build `id`.
fn owner(concourse: &Concourse, id: u32) -> Value {
    json!({"cluster": concourse.url, "build_id": id.to_string(), "team": "main", "pipeline": "app", "job": "deploy"})
}

/// Asks for a lock with a claim of this id. Returns the status and the answer.
fn ask(server: &Server, id: &str, body: &Value) -> (u16, Value) {
    server.api("PUT", &format!("/claims/{id}"), body)
}

/// Takes a lock of a pool for a build. The lock must be free.
fn take(server: &Server, concourse: &Concourse, id: u32, pool: &str, scope: &str) -> String {
    let claim = format!("{pool}-{id}");
    let body = json!({"pool": pool, "scope": scope, "owner": owner(concourse, id)});
    let (status, answer) = ask(server, &claim, &body);
    assert_eq!(status, 200, "{answer}");
    claim
}

/// Waits until a claim has ended. Returns how it ended.
fn until_ended(server: &Server, id: &str) -> String {
    eventually(&format!("the end of claim {id}"), || {
        let claim = claim(server, id);
        (claim["state"] == "ended").then(|| claim["how"].as_str().unwrap().to_owned())
    })
}

/// Waits until a claim is suspect for a reason with this text.
fn until_suspect(server: &Server, id: &str, why: &str) -> Value {
    eventually(&format!("claim {id} is suspect: {why}"), || {
        let suspect = claim(server, id)["suspect"].clone();
        suspect["why"].as_str().is_some_and(|text| text.contains(why)).then_some(suspect)
    })
}

/// Waits until a claim is not suspect.
fn until_clear(server: &Server, id: &str) {
    eventually(&format!("claim {id} is not suspect"), || claim(server, id)["suspect"].is_null().then_some(()));
}

fn is_held(server: &Server, id: &str) -> bool {
    claim(server, id)["state"] == "held"
}
