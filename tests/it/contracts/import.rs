//! The state file of an original locker, given as `LOCKER_CONFIG` and to `locker import locker-state`.

use std::path::PathBuf;

use super::table::run;
use crate::support::{Done, Server, Setup};

struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("state.json")
    }

    /// A server on a store in this directory. `LOCKER_CONFIG` is a file with this text, or the file as it is.
    fn setup(&self, config: Option<&str>) -> Setup {
        if let Some(text) = config {
            std::fs::write(self.config(), text).unwrap();
        }
        Setup::sqlite(self.dir.path()).vars(&[("LOCKER_CONFIG", self.config().to_str().unwrap())])
    }

    fn server(&self, config: Option<&str>) -> Server {
        Server::start_as(&self.setup(config))
    }

    /// Starts a server that must refuse. Returns its message.
    #[track_caller]
    fn refusal(&self, config: Option<&str>) -> String {
        let done = self.setup(config).launch().finish();
        assert_eq!(done.code, 1, "{config:?}: {done:?}");
        done.stderr
    }
}

const STATE: &str = r#"{"prod":{"key":"cf","locked_by":{"a":2,"b":1}},"dev":{"key":"","locked_by":{}},"old":"cloud"}"#;

#[test]
fn an_empty_store_imports_the_file_once() {
    let place = Place::new();
    let mut server = place.server(Some(STATE));
    server.until_log("imported 3 pools with 4 holds from LOCKER_CONFIG");
    run(
        &server,
        r#"
        GET    /locks     |                             | 200 = {"dev":{"key":"","locked_by":{}},"old":{"key":"cloud","locked_by":{"cloud":1}},"prod":{"key":"cf","locked_by":{"a":2,"b":1}}}
        PUT    /lock/prod | {"key":"other"}             | 423
        PUT    /lock/prod | {"key":"cf","requestor":"a"} | 200
        DELETE /lock/prod | {"key":"cf","requestor":"a"} | 200 3~of
        DELETE /lock/prod | {"key":"cf","requestor":"b"} | 200
        PUT    /lock/prod | {"key":"other"}             | 200
        DELETE /lock/old  | {"lock":"cloud"}            | 200
        PUT    /lock/dev  | {"lock":"x"}                | 200
        "#,
    );
    let list = server.call("GET /locks", "");
    server.stop();
    assert_eq!(std::fs::read_to_string(place.config()).unwrap(), STATE, "the file is never written");
    // At the second start the store is not empty, so the server does not read the file.
    let mut server = place.server(None);
    server.until_log("not imported: the store is not empty");
    assert_eq!(server.call("GET /locks", "").body, list.body);
    server.stop();
    let server = place.server(Some("damaged"));
    assert_eq!(server.call("GET /locks", "").body, list.body);
}

#[test]
fn a_server_with_declared_pools_only_imports_it_too() {
    let place = Place::new();
    let server = Server::start_as(&place.setup(Some(STATE)).flags(&["--declared-only"]));
    assert_eq!(server.call("PUT /lock/prod", r#"{"key":"other"}"#).status, 423);
}

/// The original server, started on a file that a crash has truncated, grants every lock.
#[test]
fn story_29_a_damaged_file_stops_the_start_and_changes_nothing() {
    let cut: Vec<&str> = [0, 1, 20, STATE.len() - 1].iter().map(|at| &STATE[..*at]).collect();
    let others = [r#"{"prod":{"key":"cf"}}"#, r#"{"a":"x","a":"y"}"#, "\u{0}\u{0}\u{0}"];
    for text in cut.into_iter().chain(others) {
        let place = Place::new();
        let error = place.refusal(Some(text));
        let file = place.config().display().to_string();
        assert!(error.contains(&file) && error.contains("damaged") && error.contains("unset"), "{text:?}: {error}");
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), text);
        // The store has none of it: the repaired file is imported as a whole.
        let server = place.server(Some(STATE));
        assert_eq!(server.call("GET /locks", "").json().as_object().unwrap().len(), 3);
    }
}

#[test]
fn a_missing_or_binary_file_stops_the_start() {
    let place = Place::new();
    let error = place.refusal(None);
    assert!(error.contains("cannot read LOCKER_CONFIG") && error.contains("unset"), "{error}");
    std::fs::write(place.config(), b"{\"a\": \"\xff\"}").unwrap();
    place.refusal(None);
}

#[test]
fn a_running_server_imports_the_file() {
    let place = Place::new();
    std::fs::write(place.config(), STATE).unwrap();
    let file = place.config().display().to_string();
    let server = Server::start();
    let before = server.call("GET /locks", "");
    let Done { code, stdout: said, .. } = server.cli(&["import", "locker-state", "--dry-run", &file]);
    assert_eq!(code, 0);
    assert!(said.contains(r#"would import pool "prod", held 3 times with key "cf""#), "{said}");
    assert_eq!(server.call("GET /locks", "").body, before.body, "a dry run changes nothing");
    let Done { code, stdout: said, .. } = server.cli(&["import", "locker-state", &file]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("3 pools created, 4 holds in place, 0 released"), "{said}");
    run(
        &server,
        r#"
        GET    /locks     |                              | 200 = {"dev":{"key":"","locked_by":{}},"old":{"key":"cloud","locked_by":{"cloud":1}},"prod":{"key":"cf","locked_by":{"a":2,"b":1}}}
        DELETE /lock/old  | {"lock":"cloud"}             | 200
        DELETE /lock/prod | {"key":"cf","requestor":"b"} | 200
        "#,
    );
    // Import again: what was released stays released.
    let list = server.call("GET /locks", "");
    let Done { code, stdout: said, .. } = server.cli(&["import", "locker-state", &file]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 pools created, 2 holds in place, 2 released since"), "{said}");
    assert_eq!(server.call("GET /locks", "").body, list.body);
}

#[test]
fn conflicts_are_named_and_nothing_is_imported() {
    let place = Place::new();
    std::fs::write(place.config(), STATE).unwrap();
    let file = place.config().display().to_string();
    let server = Server::start();
    server.call("PUT /api/v1/pools/prod", r#"{"capacity":1}"#);
    server.call("PUT /lock/old", r#"{"lock":"cloud"}"#);
    let before = server.call("GET /locks", "");
    for args in [&["import", "locker-state", file.as_str()][..], &["import", "locker-state", "--dry-run", &file]] {
        let Done { code, stderr: said, .. } = server.cli(args);
        assert_eq!(code, 5, "{said}");
        assert!(said.contains(r#"pool "prod" exists"#) && said.contains(r#"pool "old" is held by claim"#), "{said}");
        assert_eq!(server.call("GET /locks", "").body, before.body);
    }
    std::fs::write(place.config(), &STATE[..30]).unwrap();
    let Done { code, stderr: said, .. } = server.cli(&["import", "locker-state", &file]);
    assert_eq!(code, 1);
    assert!(said.contains("is damaged, so nothing was imported"), "{said}");
}

#[test]
fn a_free_lock_with_a_name_that_is_not_allowed_is_left_out() {
    let place = Place::new();
    let odd = r#"{"prod":{"key":"cf","locked_by":{"a":1}},".hidden":{"key":""},"/x":""}"#;
    let server = place.server(Some(odd));
    let line = server.until_log("imported 1 pool with 1 hold from LOCKER_CONFIG");
    assert!(
        line.contains("; left out, because nobody holds it and its name is not allowed here: 2 pools, the first: "),
        "{line}"
    );
    let other = Server::start();
    let file = place.config();
    let done = other.cli(&["import", "locker-state", file.to_str().unwrap()]).ok().printed("imported pool \"prod\"");
    assert_eq!(done.stderr.matches("warning: left out, because nobody holds it").count(), 2, "{}", done.stderr);
    let held = Place::new();
    let error = held.refusal(Some(r#"{".hidden":{"key":"k","locked_by":{"a":1}}}"#));
    assert!(error.contains("is damaged, nothing was imported"), "{error}");
}
