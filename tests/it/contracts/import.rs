//! The state file of an original locker, given as `LOCKER_CONFIG` and to `locker import locker-state`.

use std::path::PathBuf;

use locker::server::ServerSettings;

use super::harness::{Server, run, settings};

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

    fn settings(&self, config: Option<&str>) -> ServerSettings {
        if let Some(text) = config {
            std::fs::write(self.config(), text).unwrap();
        }
        let store = format!("sqlite:{}/locker.db", self.dir.path().display());
        ServerSettings { store, locker_config: Some(self.config()), ..settings() }
    }
}

const STATE: &str = r#"{"prod":{"key":"cf","locked_by":{"a":2,"b":1}},"dev":{"key":"","locked_by":{}},"old":"cloud"}"#;

#[test]
fn an_empty_store_takes_the_file_over_once() {
    let place = Place::new();
    let mut server = Server::with(place.settings(Some(STATE)));
    let line = server.said.last().unwrap();
    assert!(line.contains("imported 3 pool(s) with 4 hold(s) from LOCKER_CONFIG"), "{line}");
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
    assert_eq!(std::fs::read_to_string(place.config()).unwrap(), STATE, "it is never written");
    // The second start finds a store that is not empty, and no longer looks at the file.
    let mut server = Server::with(place.settings(None));
    assert!(server.said.last().unwrap().contains("not imported: the store is not empty"), "{:?}", server.said);
    assert_eq!(server.call("GET /locks", "").body, list.body);
    server.stop();
    let server = Server::with(place.settings(Some("damaged")));
    assert_eq!(server.call("GET /locks", "").body, list.body);
}

#[test]
fn a_server_of_declared_pools_takes_it_over_too() {
    let place = Place::new();
    let mut settings = place.settings(Some(STATE));
    settings.rules.declared_only = true;
    let server = Server::with(settings);
    assert_eq!(server.call("PUT /lock/prod", r#"{"key":"other"}"#).status(), 423);
}

/// The original, started on a file that a crash has cut off, grants every lock.
#[test]
fn story_29_a_damaged_file_stops_the_start_and_changes_nothing() {
    let cut: Vec<&str> = [0, 1, 20, STATE.len() - 1].iter().map(|at| &STATE[..*at]).collect();
    let others = [r#"{"prod":{"key":"cf"}}"#, r#"{"a":"x","a":"y"}"#, "\u{0}\u{0}\u{0}"];
    for text in cut.into_iter().chain(others) {
        let place = Place::new();
        let error = Server::try_with(place.settings(Some(text))).err().unwrap_or_else(|| panic!("{text:?} is taken"));
        let error = format!("{error:#}");
        let file = place.config().display().to_string();
        assert!(error.contains(&file) && error.contains("damaged") && error.contains("unset"), "{text:?}: {error}");
        assert_eq!(std::fs::read_to_string(place.config()).unwrap(), text);
        // Nothing of it is in the store: the repaired file is taken over whole.
        let server = Server::with(place.settings(Some(STATE)));
        assert_eq!(server.call("GET /locks", "").json().as_object().unwrap().len(), 3);
    }
}

#[test]
fn a_file_that_is_not_there_or_no_text_stops_the_start() {
    let place = Place::new();
    let error = format!("{:#}", Server::try_with(place.settings(None)).err().unwrap());
    assert!(error.contains("cannot read LOCKER_CONFIG") && error.contains("unset"), "{error}");
    std::fs::write(place.config(), b"{\"a\": \"\xff\"}").unwrap();
    assert!(Server::try_with(place.settings(None)).is_err());
}

/// Runs the program; brings its exit code, stdout and stderr.
fn locker(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_locker"));
    command.args(args).env("LOCKER_URI", format!("http://{}", server.address));
    let output = command.output().unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn a_running_server_takes_the_file_over() {
    let place = Place::new();
    std::fs::write(place.config(), STATE).unwrap();
    let file = place.config().display().to_string();
    let server = Server::start();
    let before = server.call("GET /locks", "");
    let (code, said, _) = locker(&server, &["import", "locker-state", "--dry-run", &file]);
    assert_eq!(code, Some(0));
    assert!(said.contains(r#"would import pool "prod", held 3 time(s) with key "cf""#), "{said}");
    assert_eq!(server.call("GET /locks", "").body, before.body, "a dry run changes nothing");
    let (code, said, _) = locker(&server, &["import", "locker-state", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("3 pool(s) made, 4 hold(s) there, 0 released"), "{said}");
    run(
        &server,
        r#"
        GET    /locks     |                              | 200 = {"dev":{"key":"","locked_by":{}},"old":{"key":"cloud","locked_by":{"cloud":1}},"prod":{"key":"cf","locked_by":{"a":2,"b":1}}}
        DELETE /lock/old  | {"lock":"cloud"}             | 200
        DELETE /lock/prod | {"key":"cf","requestor":"b"} | 200
        "#,
    );
    // Again: what was released stays released.
    let list = server.call("GET /locks", "");
    let (code, said, _) = locker(&server, &["import", "locker-state", &file]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("0 pool(s) made, 2 hold(s) there, 2 released since"), "{said}");
    assert_eq!(server.call("GET /locks", "").body, list.body);
}

#[test]
fn what_is_in_the_way_is_named_and_nothing_is_imported() {
    let place = Place::new();
    std::fs::write(place.config(), STATE).unwrap();
    let file = place.config().display().to_string();
    let server = Server::start();
    server.call("PUT /api/v1/pools/prod", r#"{"capacity":1}"#);
    server.call("PUT /lock/old", r#"{"lock":"cloud"}"#);
    let before = server.call("GET /locks", "");
    for args in [&["import", "locker-state", file.as_str()][..], &["import", "locker-state", "--dry-run", &file]] {
        let (code, _, said) = locker(&server, args);
        assert_eq!(code, Some(5), "{said}");
        assert!(said.contains(r#"pool "prod" is there"#) && said.contains(r#"pool "old" is held by claim"#), "{said}");
        assert_eq!(server.call("GET /locks", "").body, before.body);
    }
    std::fs::write(place.config(), &STATE[..30]).unwrap();
    let (code, _, said) = locker(&server, &["import", "locker-state", &file]);
    assert_eq!(code, Some(1));
    assert!(said.contains("is damaged, nothing is imported"), "{said}");
}
