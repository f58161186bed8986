//! Looking back: the history by filter and by order, figures over a span, and reading that is in nobody's way.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

use std::ops::{Bound, ControlFlow};
use std::sync::{Arc, Condvar, Mutex};

use locker::core::claim::Ended;
use locker::core::history::{Change, Outline};
use locker::core::names::{ChangeKey, ClaimId};
use locker::core::settings::Settings;
use locker::core::state::{Changes, EndedOutline, Loaded};
use locker::core::time::Span;
use locker::server::http::{Identity, Request};
use locker::store::memory::MemoryStore;
use locker::store::{Found, Reader, Store};
use serde_json::{Value, json};

use crate::support::clock::HandClock;
use crate::support::in_process::{House, request};
use crate::support::{Done, Running, Server};

/// Two pools with a day behind them: a hold, a break, a cancelled wait, and names that are meant to do harm.
fn a_day() -> Server {
    let server = Server::start();
    let claim = |id: &str, body: Value| server.api("PUT", &format!("/claims/{id}"), &body).0;
    let build = |n: u32| json!({"cluster": "https://ci", "team": "pay", "pipeline": "db", "job": "migrate", "build_id": n.to_string()});
    assert_eq!(server.api("PUT", "/pools/envs", &json!({"capacity": 2})).0, 200);
    assert_eq!(claim("c1", json!({"pool": "envs", "lock": "1", "owner": build(4711)})), 200);
    assert_eq!(claim("c2", json!({"pool": "envs", "lock": "1", "owner": build(4712)})), 423);
    assert_eq!(server.api("DELETE", "/claims/c1", &Value::Null).0, 200);
    assert_eq!(claim("c2", json!({"pool": "envs", "lock": "1", "owner": build(4712)})), 200);
    let harm = json!({"pool": "other", "reason": "=1+2", "owner": {"person": "=cmd|'/C calc'!A0,\u{1b}[31m\"x\""}});
    assert_eq!(claim("c3", harm), 200);
    server.cli(&["break", "c3", "--reason", "two, \"words\""]).ok();
    server
}

#[test]
fn history_tells_who_held_what_and_for_how_long() {
    let server = a_day();
    let all = server.cli(&["history"]).ok().stdout;
    let lines: Vec<&str> = all.lines().collect();
    assert!(lines[0].starts_with("TIME") && lines[0].contains("WAITED") && lines[0].contains("HELD"), "{all}");
    assert!(lines[1].contains("broken") && lines[1].contains("other: other") && lines[1].contains("ada@"), "{all}");
    assert!(lines.last().unwrap().contains("pool_set"), "{all}");
    assert!(!all.contains('\u{1b}') && all.contains("\\u{1b}[31m"), "{all}");
    let kinds = |args: &[&str]| -> Vec<String> {
        let entries = server.cli(&[&["history", "--json"], args].concat()).ok().json();
        let word = |entry: &Value| entry["kind"].as_str().unwrap().to_owned();
        entries.as_array().unwrap().iter().map(word).collect()
    };
    assert_eq!(kinds(&["--claim", "c2"]), ["claimed", "waiting"]);
    assert_eq!(kinds(&["envs", "--build", "4711"]), ["released", "claimed"]);
    assert_eq!(kinds(&["--lock", "2"]), ["added"]);
    assert_eq!(kinds(&["--who", "PAY/DB"]), ["claimed", "released", "waiting", "claimed"]);
    assert_eq!(kinds(&["--kind", "broken,released"]), ["broken", "released"]);
    assert_eq!(kinds(&["--kind", "claimed", "--limit", "1"]), ["claimed"]);
    assert_eq!(kinds(&["--until", "1h"]), [""; 0]);
    assert_eq!(kinds(&["--since", "1h", "--kind", "waiting"]), ["waiting"]);
    let cut = server.cli(&["history", "--limit", "2"]).ok();
    assert!(cut.stdout.lines().count() == 3 && cut.stderr.contains("older entries"), "{cut:?}");
    assert_eq!(server.cli(&["history", "none"]).failed(4, "none").stdout, "");
    server.cli(&["history", "--kind", "brokn"]).failed(2, "did you mean \"broken\"");
    server.cli(&["history", "--since", "yesterday"]).failed(2, "neither a time");
}

#[test]
fn a_spreadsheet_of_the_history_runs_nothing() {
    let server = a_day();
    let csv = server.cli(&["history", "other", "--csv"]).ok().stdout;
    let lines: Vec<&str> = csv.split("\r\n").collect();
    assert_eq!((lines.len(), lines[0].split(',').count()), (5, 20));
    assert!(lines[1].contains(",broken,broken,other,other: other,c3,"), "{csv}");
    assert!(lines[1].ends_with(",\"two, \"\"words\"\"\""), "{csv}");
    assert!(lines[2].contains(",claimed,,other,other: other,c3,"), "{csv}");
    assert!(lines[2].contains(r#","'=cmd|'/C calc'!A0,\u{1b}[31m""x""","#), "{csv}");
    assert!(!csv.contains(",=") && !csv.contains('\u{1b}'), "{csv}");
}

#[test]
fn figures_say_who_waited_and_how_much_was_in_use() {
    let server = a_day();
    let stats = server.cli(&["stats", "--json"]).ok().json();
    assert_eq!((stats["complete"].as_bool(), stats["pools"].as_array().unwrap().len()), (Some(true), 2));
    let envs = server.cli(&["stats", "envs", "--json"]).ok().json();
    let figures = &envs["pools"][0]["figures"];
    assert_eq!((&figures["waits"]["count"], &figures["holds"]["count"]), (&json!(2), &json!(1)));
    assert_eq!(envs["teams"][0]["team"], "pay");
    let table = server.cli(&["stats"]).ok().stdout;
    assert!(table.contains("POOL") && table.contains("TEAM") && table.contains("(no team)"), "{table}");
    let top = server.cli(&["top", "-n", "1"]).ok().stdout;
    for title in ["The longest waits now\nnone", "The longest holds now\nFOR", "The longest waits from ", "c2"] {
        assert!(top.contains(title), "{title}: {top}");
    }
    server.cli(&["stats", "none"]).failed(4, "none");
    server.cli(&["top", "--since", "1h", "--until", "2h"]).failed(2, "must be before");
}

/// One answer has the figures of so many pools at most. It says how many it leaves out.
#[test]
fn stats_say_how_many_pools_they_leave_out() {
    let server = Server::start();
    let mut connection = server.connect();
    for n in 0..1_002 {
        let asked = format!(r#"{{"pool":"p{n}"}}"#);
        assert_eq!(connection.call(&format!("PUT /api/v1/claims/c{n}"), &asked).status, 200);
    }
    let (_, stats) = server.api("GET", "/stats", &Value::Null);
    assert_eq!((&stats["pools_left_out"], stats["pools"].as_array().unwrap().len()), (&json!(2), 1_000));
    assert!(stats["teams_left_out"].is_null(), "{}", stats["teams"]);
    let told = server.cli(&["stats"]).ok();
    assert!(told.stderr.contains("these are the 1000 pools that were used most; 2 more are left out"), "{told:?}");
    let page = server.call("GET /figures", "").text().to_owned();
    assert!(page.contains("952 more are not shown here.") && page.contains("up to 1000"), "{page}");
}

fn as_ops(server: &Server, args: &[&str]) -> Done {
    let mut command = server.cli_command();
    command.env("LOCKER_USERNAME", "ops").env("LOCKER_PASSWORD", "secret-1");
    Running::start(command.args(args), b"").finish()
}

/// A hold behind a password, broken by force, and a lock out of service.
fn audited(flags: &[&str]) -> Server {
    let vars = [("AUTH_USER", "ops"), ("AUTH_PASS", "secret-1")];
    let server = Server::start_with("memory:", flags, &vars);
    let id = as_ops(&server, &["claim", "envs", "--reason", "a\u{1b}[31m look", "--id", "c1"]).ok().stdout;
    as_ops(&server, &["break", id.trim(), "--reason", "urgent"]).ok();
    as_ops(&server, &["lock", "quarantine", "envs", "envs", "--reason", "disk full"]).ok();
    server
}

#[test]
fn entries_say_who_proved_to_be_behind_them() {
    let server = audited(&[]);
    let entries = as_ops(&server, &["history", "--json", "--who", "USER:OPS"]).ok().json();
    let entries = entries.as_array().unwrap();
    assert!(entries.len() >= 3);
    for entry in entries {
        assert_eq!((&entry["proved"], &entry["address"]), (&json!("user:ops"), &json!("127.0.0.1")), "{entry}");
        assert!(entry["owner"]["person"].as_str().unwrap().starts_with("ada@"), "{entry}");
    }
    let table = as_ops(&server, &["history"]).ok().stdout;
    assert!(table.contains("PROVED") && table.contains("user:ops from 127.0.0.1"), "{table}");
}

/// A grant that follows somebody else's release is due to its own claim's request, also after a restart; and what the
/// server does by itself is due to nobody.
#[test]
fn a_grant_is_due_to_its_own_claim() {
    let (store, clock) = (MemoryStore::new().unwrap(), HandClock::default());
    let house = || House::open(Box::new(store.clone()), Settings::default(), Arc::new(clock.clone()));
    let by = |house: &House, user: &str, method: &str, target: &str, body: &str| {
        let identity = Some(Identity::User(user.to_owned()));
        let peer = format!("[::ffff:10.0.0.{}]:4711", user.len());
        house.answer(&Request { identity, peer, ..request(method, target, body) }).status
    };
    let body = r#"{"pool":"p","confirm":true}"#;
    let first = house();
    assert_eq!(by(&first, "ada", "PUT", "/api/v1/claims/a", r#"{"pool":"p"}"#), 200);
    assert_eq!(by(&first, "grace", "PUT", "/api/v1/claims/b", body), 423);
    drop(first);
    let house = house();
    assert_eq!(by(&house, "operator", "POST", "/api/v1/claims/a/break", r#"{"by":{"reason":"urgent"}}"#), 200);
    clock.pass(Span::mins(1));
    assert_eq!(by(&house, "operator", "PUT", "/api/v1/pools/p", r#"{"capacity":1}"#), 200);
    let page = house.answer(&request("GET", "/api/v1/pools/p/changes", "")).body;
    let page: Value = serde_json::from_slice(&page).unwrap();
    let said = |entry: &Value| {
        let word = |name: &str| entry[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {}", word("kind"), word("proved"), word("address"))
    };
    let said: Vec<String> = page["items"].as_array().unwrap().iter().map(said).collect();
    let expected = [
        "added user:ada 10.0.0.3",
        "claimed user:ada 10.0.0.3",
        "waiting user:grace 10.0.0.5",
        "broken user:operator 10.0.0.8",
        "granted user:grace 10.0.0.5",
        "withdrawn - -",
        "added user:operator 10.0.0.8",
    ];
    assert_eq!(said[..expected.len()], expected, "{page:#}");
}

#[test]
fn the_log_has_a_line_for_each_grant_and_end() {
    let mut server = audited(&["--log", "json"]);
    server.stop();
    let log = server.log();
    let lines: Vec<Value> = log.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let find = |word: &str| {
        let is = |line: &&Value| line["target"] == "locker::audit" && line["message"] == word;
        lines.iter().find(is).unwrap_or_else(|| panic!("{word}: {log}"))
    };
    for word in ["claimed", "broken", "quarantined"] {
        let line = find(word);
        assert_eq!(
            (&line["pool"], &line["lock"], &line["identity"]),
            (&json!("envs"), &json!("envs: envs"), &json!("user:ops"))
        );
        assert!(line["who"].as_str().unwrap().starts_with("ada@"), "{line}");
        let request = line["request"].as_str().unwrap();
        let asked = lines.iter().find(|line| line["target"] == "locker::request" && line["id"] == request);
        assert_eq!(asked.unwrap()["identity"], "user:ops", "{line}");
    }
    assert_eq!((&find("claimed")["claim"], &find("broken")["reason"]), (&json!("c1"), &json!("urgent")));
    assert!(!log.contains('\u{1b}') && !log.contains("secret-1"), "{log}");
    let mut text = audited(&[]);
    text.stop();
    let log = text.log();
    let line = log.lines().find(|line| line.contains("locker::audit") && line.contains("broken")).unwrap();
    for part in ["pool=\"envs\"", "claim=\"c1\"", "identity=\"user:ops\"", "request=\"", "reason=\"urgent\""] {
        assert!(line.contains(part), "{part}: {line}");
    }
}

/// A gate that holds up reads of the store.
#[derive(Default)]
struct Gate {
    /// Whether it is shut, and how many reads wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    fn set(&self, shut: bool) {
        self.state.lock().unwrap().0 = shut;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        self.changed.notify_all();
        let mut state = self.changed.wait_while(state, |(shut, _)| *shut).unwrap();
        state.1 -= 1;
    }

    fn until_waiting(&self, reads: usize) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |(_, waiting)| *waiting < reads).unwrap());
    }
}

/// A store whose reads pass a gate.
struct GatedStore(MemoryStore, Arc<Gate>);

struct GatedReader(Arc<dyn Reader>, Arc<Gate>);

impl Store for GatedStore {
    fn load(&mut self) -> anyhow::Result<Loaded> {
        self.0.load()
    }
    fn ended(&mut self, each: &mut dyn FnMut(EndedOutline)) -> anyhow::Result<()> {
        self.0.ended(each)
    }
    fn history(&mut self, each: &mut dyn FnMut(Outline)) -> anyhow::Result<()> {
        self.0.history(each)
    }
    fn reader(&self) -> Arc<dyn Reader> {
        Arc::new(GatedReader(self.0.reader(), Arc::clone(&self.1)))
    }
    fn own_reader(&self) -> Arc<dyn Reader> {
        self.0.reader()
    }
    fn commit(&mut self, changes: &Changes) -> anyhow::Result<()> {
        self.0.commit(changes)
    }
    fn store_id(&self) -> &'static str {
        "store-1"
    }
}

impl Reader for GatedReader {
    fn entries(&self, keys: &[ChangeKey]) -> anyhow::Result<Vec<Change>> {
        self.1.pass();
        self.0.entries(keys)
    }
    fn ended_claims(&self, ids: &[ClaimId]) -> anyhow::Result<Vec<Ended>> {
        self.1.pass();
        self.0.ended_claims(ids)
    }
    fn find(&self, id: &ClaimId) -> anyhow::Result<Found> {
        self.1.pass();
        self.0.find(id)
    }
    fn walk_ended(
        &self,
        after: Option<&ClaimId>,
        each: &mut dyn FnMut(Ended) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.1.pass();
        self.0.walk_ended(after, each)
    }
    fn walk(
        &self,
        range: (Bound<ChangeKey>, Bound<ChangeKey>),
        newest_first: bool,
        each: &mut dyn FnMut(Change) -> ControlFlow<()>,
    ) -> anyhow::Result<()> {
        self.1.pass();
        self.0.walk(range, newest_first, each)
    }
}

/// A day of a busy pool stays in the history: who held its locks, and why that ended, longer than how it came to that. Another
/// pool loses nothing. Whoever was away for too long is told so.
#[test]
fn a_busy_pool_loses_its_details_first() {
    let dir = tempfile::tempdir().unwrap();
    let store = format!("sqlite:{}", dir.path().join("locker.db").display());
    let flags = ["--history-size", "64KiB"];
    let mut server = Server::start_with(&store, &flags, &[]);
    let note = server.api("POST", "/pools/quiet/changes", &json!({})).0;
    assert_eq!(note, 404);
    assert_eq!(server.api("PUT", "/pools/quiet", &json!({"capacity": 1})).0, 200);
    assert_eq!(server.api("POST", "/pools/quiet/changes", &json!({})).0, 200);
    let confirmed = json!({"pool": "busy", "confirm": true});
    for n in 0..200 {
        let claim = format!("/claims/c{n}");
        let (status, granted) = server.api("PUT", &claim, &confirmed);
        assert_eq!(status, 200, "{granted}");
        assert_eq!(server.api("POST", &format!("{claim}/confirm"), &json!({"fence": granted["fence"]})).0, 200);
        assert_eq!(server.api("DELETE", &claim, &Value::Null).0, 200);
    }
    let entries = |server: &Server, query: &str| {
        let (status, page) = server.api("GET", &format!("{query}&limit=1000"), &Value::Null);
        assert_eq!(status, 200, "{page}");
        page
    };
    let first = |server: &Server, kind: &str| {
        let page = entries(server, &format!("/pools/busy/changes?kind={kind}"));
        page["items"][0]["revision"].as_u64().unwrap_or(u64::MAX)
    };
    for life in 0..2 {
        let quiet = entries(&server, "/pools/quiet/changes?after=0");
        let kinds: Vec<_> = quiet["items"].as_array().unwrap().iter().map(|entry| &entry["kind"]).collect();
        assert_eq!(kinds, ["pool_set", "added", "noted"]);
        // A server that has just started does not know in which pools entries were pruned.
        assert_eq!(quiet["missing_before"].is_null(), life == 0, "{quiet}");
        let busy = entries(&server, "/pools/busy/changes?after=1");
        let (oldest, newest) = (&busy["items"][0]["revision"], busy["missing_before"].as_u64().unwrap());
        assert!(oldest.as_u64().unwrap() < newest, "thinned, not cut off");
        assert!(entries(&server, &format!("/pools/busy/changes?after={newest}"))["missing_before"].is_null());
        assert!(entries(&server, "/pools/busy/changes?order=newest_first")["missing_before"].is_null());
        assert!(first(&server, "claimed") < first(&server, "granted"), "life {life}");
        assert!(busy["items"].as_array().unwrap().len() > 100);
        let metrics = server.call("GET /metrics", "").text().to_owned();
        let size = metrics.lines().find_map(|line| line.strip_prefix("locker_history_size_bytes ")).unwrap();
        assert!((60_000.0..=65_536.0).contains(&size.parse::<f64>().unwrap()), "{size}");
        drop(server);
        server = Server::start_with(&store, &flags, &[]);
    }
}

/// While every read of the history is held up, claims are granted and given back, and everything that is not history is
/// shown. A question about a whole day takes its entries in parts, so that other readers have their turn in between.
#[test]
fn a_slow_read_of_the_history_delays_nobody_else() {
    let gate = Arc::new(Gate::default());
    let store = GatedStore(MemoryStore::new().unwrap(), Arc::clone(&gate));
    let house = House::open(Box::new(store), Settings::default(), Arc::new(HandClock::default()));
    assert_eq!(house.answer(&request("PUT", "/api/v1/pools/p", r#"{"capacity":1}"#)).status, 200);
    gate.set(true);
    std::thread::scope(|scope| {
        let ask = |target: &'static str| {
            let house = &house;
            scope.spawn(move || house.answer(&request("GET", target, "")).status)
        };
        let slow = ["/api/v1/changes?who=ada", "/api/v1/stats?since=7d", "/api/v1/pools/p/changes?order=newest_first"];
        let slow = slow.map(ask);
        // As many as read at one time.
        gate.until_waiting(2);
        for n in 0..100 {
            let claim = format!("/api/v1/claims/c{n}");
            assert_eq!(house.answer(&request("PUT", &claim, r#"{"pool":"p"}"#)).status, 200);
            assert_eq!(house.answer(&request("GET", "/api/v1/pools/p", "")).status, 200);
            assert_eq!(house.answer(&request("DELETE", &claim, "")).status, 200);
        }
        gate.set(false);
        assert_eq!(slow.map(|asked| asked.join().unwrap()), [200, 200, 200]);
    });
}
