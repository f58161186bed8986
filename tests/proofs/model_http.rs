//! The naive model of the rules (`src/core/model_tests/reference.rs`) against our HTTP API on SQLite: the same random
//! operations as requests over a socket, through the door, the routes, the engine and a real file, with restarts.
//!
//! The test controls the clock, so a run covers hours in a moment. Therefore it also plays the part of the door that
//! parks: it passes waiting requests, and their end, directly to the routes. What HTTP does not show (runs, numbers of
//! parked requests, the order in which free locks are picked) is left out of the comparison here; the core's own model
//! test sees it.

// Test code: a panic is a failed test.
#![allow(clippy::unwrap_used)]

#[path = "../../src/core/model_tests/bugs.rs"]
mod bugs;
#[path = "../../src/core/model_tests/generate.rs"]
#[allow(dead_code)]
mod generate;
#[path = "../../src/core/model_tests/latches.rs"]
mod latches;
#[path = "../../src/core/model_tests/reference.rs"]
#[allow(dead_code)]
mod reference;
#[path = "../support/mod.rs"]
mod support;

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use locker::core::claim::{BuildEnd, BuildRef, Concern};
use locker::core::command::{Command, Refusal, Reply};
use locker::core::names::ParkId;
use locker::core::settings::{Plant, Settings};
use locker::core::time::Span;
use locker::server::door::DoorSettings;
use locker::server::engine::EngineError;
use locker::server::http::{Attempt, Handler, Request, Response};
use proptest::test_runner::{Config, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use serde_json::{Value, json};

use bugs::Bug;
use generate::{Case, Rulebook};
use latches::{Ending, LatchOp};
use reference::{Answer, Labels, Op, RANDOM, Rules, Shape, Wait, Want, Which, seen};
use support::clock::HandClock;
use support::http::Client;
use support::in_process::{Door, House};

/// A separate pool, so that there is always something to write.
const ASIDE: &str = "aside";
const SECOND: u64 = 1_000;

/// A server with a clock that the test controls.
struct Server {
    directory: tempfile::TempDir,
    settings: Settings,
    clock: HandClock,
    life: Option<Life>,
    /// All fences that each claim has shown.
    fences: BTreeMap<String, Vec<u64>>,
    newest: u64,
}

/// The fields are dropped from top to bottom.
struct Life {
    client: RefCell<Client>,
    _door: Door,
    house: House,
}

fn start(store: &Path, settings: &Settings, clock: &HandClock) -> Life {
    let store = locker::store::open(&format!("sqlite:{}", store.display())).unwrap();
    let house = House::open(store, settings.clone(), Arc::new(clock.clone()));
    let door = house.door(DoorSettings::default());
    let client = RefCell::new(Client::new(door.address));
    Life { client, _door: door, house }
}

impl Server {
    fn new(rules: &Rules, plant: Plant) -> Self {
        let settings = Settings {
            listen: Span(rules.listen),
            grace: Span(rules.grace),
            place: Span(rules.place),
            confirm: Span(rules.confirm),
            withdrawals: u8::try_from(rules.withdrawals).unwrap(),
            memory: Span(rules.memory),
            build_memory: Span(rules.build_memory),
            drain: Span(rules.drain),
            lease: Span(rules.lease),
            unanswered: Span(rules.unanswered),
            latch_kept: Span(rules.latch_kept),
            ops: rules.ops,
            declared_only: rules.declared_only,
            stuck_look: Span(0),
            plant,
            ..Settings::default()
        };
        let directory = tempfile::tempdir().unwrap();
        let clock = HandClock::default();
        let life = Some(start(&file(&directory), &settings, &clock));
        let mut server = Self { directory, settings, clock, life, fences: BTreeMap::new(), newest: 0 };
        assert_eq!(server.plain("PUT", &format!("/pools/{ASIDE}"), Some(&json!({}))), Answer::Done);
        server
    }

    fn life(&self) -> &Life {
        self.life.as_ref().unwrap()
    }

    fn apply(&mut self, op: &Op) -> Answer {
        match op {
            Op::Once { op, change } => self.carry_out(change, Some(op)),
            op => self.carry_out(op, None),
        }
    }

    /// With the id of an operation, if it has one.
    #[allow(clippy::too_many_lines, reason = "one short arm for each operation")]
    fn carry_out(&mut self, op: &Op, id: Option<&str>) -> Answer {
        let by = without_nulls(json!({ "op": id, "reason": "why" }));
        match op {
            Op::Ask(request) => self.ask(request),
            Op::Confirm { claim, run, fence } => {
                let fence = self.fence(claim, *fence);
                self.plain("POST", &format!("/claims/{claim}/confirm"), Some(&json!({ "run": run, "fence": fence })))
            }
            Op::Renew { claim, run, fence } => {
                let fence = fence.map(|fence| self.fence(claim, fence));
                let body = without_nulls(json!({ "run": run, "fence": fence }));
                self.plain("POST", &format!("/claims/{claim}/renew"), Some(&body))
            }
            Op::Break { claim, drain } => {
                let body = json!({ "drain": drain, "by": { "reason": "why" } });
                self.plain("POST", &format!("/claims/{claim}/break"), Some(&body))
            }
            Op::Cancel(claim) => self.plain("DELETE", &format!("/claims/{claim}?if_waiting=true"), None),
            Op::Move { claim, to } => self.move_claim(claim, to, &by),
            Op::Quarantine { pool, lock, span } => {
                let body = without_nulls(json!({ "for": text(*span), "by": by }));
                self.plain("POST", &format!("/pools/{pool}/locks/{lock}/quarantine"), Some(&body))
            }
            Op::Return { pool, lock } => {
                self.plain("POST", &format!("/pools/{pool}/locks/{lock}/return"), Some(&json!({ "by": by })))
            }
            Op::Deliver { claim, present, another } => self.deliver(claim, *present, *another),
            Op::Over { build, how } => self.over(build, how),
            Op::Release { claim, build, may_mark } => self.release(claim, build.as_deref(), *may_mark),
            Op::Suspect { build, why } => {
                let why = why.then(|| "unreachable".parse().unwrap());
                self.tell(Command::Suspect { build: build_of(build), why })
            }
            Op::Latch(op) => self.latch(op),
            Op::Alive(build) => self.tell(Command::Alive { build: build_of(build) }),
            Op::End { claim, run } => {
                let run = run.as_ref().map(|run| format!("?run={run}")).unwrap_or_default();
                self.plain("DELETE", &format!("/claims/{claim}{run}"), None)
            }
            Op::Left(park) => {
                self.life().house.routes.left(ParkId(*park));
                self.tick();
                Answer::Nothing
            }
            Op::SetPool {
                pool,
                capacity,
                drain,
                max_hold,
                max_queue,
                order,
                backfill,
                by_name,
                scope,
                when_empty,
                keep,
            } => {
                let order = match order {
                    reference::Order::Fifo => "fifo",
                    reference::Order::Priority => "priority",
                    reference::Order::Lifo => "lifo",
                };
                let overtaking = backfill.map(|most| most.map_or("backfill".into(), |most| format!("backfill:{most}")));
                let pick = match by_name {
                    _ if pool == RANDOM => "random",
                    true => "name",
                    false => "least_recent",
                };
                let policy = json!({ "order": order, "overtaking": overtaking, "pick": pick, "drain": text(*drain), "max_hold": text(*max_hold), "max_queue": max_queue, "scope": scope, "when_empty": when_empty.map(|waits| if waits { "wait" } else { "fail" }), "cut_short": keep.then_some("keep") });
                let body = json!({ "capacity": capacity, "policy": without_nulls(policy), "by": by });
                self.plain("PUT", &format!("/pools/{pool}"), Some(&without_nulls(body)))
            }
            Op::ChangePool { pool, capacity, drain, scope } => {
                let mut body = change_of(*capacity, *drain, *scope);
                body["by"] = by;
                self.plain("PATCH", &format!("/pools/{pool}"), Some(&body))
            }
            Op::RemovePool(pool) => self.plain("DELETE", &format!("/pools/{pool}"), Some(&json!({ "by": by }))),
            Op::Add { pool, lock, labels, claim } => {
                let mut body = json!({ "labels": labels, "by": by });
                if let Some(claim) = claim {
                    let reference::Request { claim, shape, run, ttl, .. } = claim;
                    let first = json!({ "id": claim, "run": run, "scope": shape.scope, "ttl": text(*ttl) });
                    body["claim"] = without_nulls(first);
                    body["by"]["owner"] = owner(shape, None);
                }
                self.plain("PUT", &format!("/pools/{pool}/locks/{lock}"), Some(&body))
            }
            Op::Update { pool, lock, labels } => {
                let body = json!({ "labels": labels, "by": by });
                self.plain("PATCH", &format!("/pools/{pool}/locks/{lock}"), Some(&body))
            }
            Op::Remove { pool, lock, claim } => {
                let body = without_nulls(json!({ "claim": claim, "by": by }));
                self.plain("DELETE", &format!("/pools/{pool}/locks/{lock}"), Some(&body))
            }
            Op::MoveLock { pool, lock, to, claim } => {
                let body = without_nulls(json!({ "to": to, "claim": claim, "by": by }));
                self.plain("POST", &format!("/pools/{pool}/locks/{lock}/move"), Some(&body))
            }
            Op::Reconcile => self.tell(Command::Reconcile),
            Op::Pass(span) => {
                // All durations are whole seconds, so everything happens when it is due.
                for _ in 0..span / SECOND {
                    self.leap(SECOND);
                }
                Answer::Nothing
            }
            Op::Leap(span) => {
                self.leap(*span);
                Answer::Nothing
            }
            Op::Restart => {
                self.restart();
                Answer::Nothing
            }
            Op::Once { .. } => unreachable!("an operation in an operation"),
        }
    }

    /// A command that no request can give: no Concourse is watched here.
    fn tell(&self, command: Command) -> Answer {
        self.life().house.engine.call_blocking(command).unwrap();
        Answer::Nothing
    }

    fn latch(&mut self, op: &LatchOp) -> Answer {
        let mut client = self.life().client.borrow_mut();
        let answer = match op {
            LatchOp::Create(latch) => {
                let mut body = json!({ "id": latch.id, "workflow": latch.workflow, "workflow_uid": latch.uid });
                body["node"] = node(latch.node.as_deref());
                add_ending(&mut body, Some(&latch.ending));
                client.call("POST /lock", &without_nulls(body).to_string())
            }
            LatchOp::Release { id, ending, node: name, uid } => {
                let mut body = json!({ "node": node(name.as_deref()), "workflow_uid": uid });
                add_ending(&mut body, ending.as_ref());
                client.call(&format!("PATCH /lock?id={id}"), &without_nulls(body).to_string())
            }
            LatchOp::Delete(id) => client.call(&format!("DELETE /lock?id={id}"), ""),
        };
        drop(client);
        match (answer.status, op) {
            (200, LatchOp::Delete(_)) => Answer::Done,
            (200, _) => Answer::Latch(latch_line(&answer.json())),
            _ => Answer::Refused(known(&answer.json()["code"])),
        }
    }

    fn move_claim(&mut self, claim: &str, to: &reference::To, by: &Value) -> Answer {
        let body = match to {
            reference::To::First => json!({ "to": "first", "by": by }),
            reference::To::Last => json!({ "to": "last", "by": by }),
            reference::To::Before(other) => json!({ "before": other, "by": by }),
        };
        self.plain("POST", &format!("/claims/{claim}/move"), Some(&body))
    }

    fn deliver(&mut self, claim: &str, present: bool, another: Option<bool>) -> Answer {
        let (_, claim_now) = self.call("GET", &format!("/claims/{claim}"), None);
        let revision = claim_now["revision"].as_u64().filter(|_| present).unwrap_or(1);
        let own = claim_now["owner"]["build_id"].as_str().unwrap_or("other");
        let id = another.map(|another| if another { "other" } else { own });
        let build = id.map(|id| json!({"cluster": "https://ci", "build_id": id}));
        let body = json!({ "revision": revision, "build": build });
        self.plain("POST", &format!("/claims/{claim}/deliver"), Some(&body))
    }

    fn over(&self, build: &str, how: &str) -> Answer {
        let all = [BuildEnd::Succeeded, BuildEnd::Failed, BuildEnd::Errored, BuildEnd::Aborted, BuildEnd::Gone];
        let how = all.into_iter().find(|end| end.word() == how).unwrap();
        self.tell(Command::BuildOver { build: build_of(build), how, at: None })
    }

    fn release(&mut self, claim: &str, build: Option<&str>, may_mark: bool) -> Answer {
        let command = Command::Release { id: claim.parse().unwrap(), build: build.map(build_of), by: None, may_mark };
        match self.life().house.engine.call_blocking(command) {
            Ok(Reply::Marked { claim, .. }) => {
                let texts = claim.locks().iter().map(|(pool, lock)| seen(pool.as_str(), lock.as_str()));
                Answer::Marked(texts.collect())
            }
            Err(EngineError::Refused(Refusal::NoSuchClaim { .. })) => Answer::Refused("no_such_claim"),
            Ok(Reply::Ended { ended, .. }) => Answer::Ended { how: ended.how.word(), again: false },
            Err(EngineError::Refused(Refusal::Ended { ended })) => Answer::RefusedEnded(ended.how.word()),
            other => panic!("a release got {other:?}"),
        }
    }

    fn fence(&self, claim: &str, which: Which) -> u64 {
        // The id may be another one of a marked hold.
        let (_, now) = self.call("GET", &format!("/claims/{claim}"), None);
        let id = now["id"].as_str().unwrap_or(claim);
        let known = self.fences.get(id).map(Vec::as_slice).unwrap_or_default();
        match (which, known) {
            (Which::Present, [.., last]) | (Which::Former, [.., last, _]) => *last,
            _ => 1,
        }
    }

    fn leap(&self, span: u64) {
        self.clock.pass(Span(span));
        self.tick();
    }

    fn tick(&self) {
        self.life().house.engine.call_blocking(Command::Tick).unwrap();
    }

    fn restart(&mut self) {
        // Each change stores the engine time. A change now makes it continue from now, as if the server had no
        // downtime.
        assert_eq!(self.plain("POST", &format!("/pools/{ASIDE}/changes"), Some(&json!({}))), Answer::Done);
        drop(self.life.take());
        self.life = Some(start(&file(&self.directory), &self.settings, &self.clock));
        self.tick();
    }

    fn ask(&mut self, ask: &reference::Request) -> Answer {
        let reference::Request { claim, shape, run, wait, priority, confirm, try_lock, give_up, ttl, .. } = ask;
        let reference::Request { if_empty, supersede, job, .. } = ask;
        let mut body = shape_of(shape);
        body["owner"] = owner(shape, job.as_deref());
        let more = json!({
            "run": run,
            "confirm": confirm,
            "priority": priority,
            "queue": !try_lock,
            "wait_if_empty": if_empty,
            "supersede": supersede,
            "give_up_after": text(*give_up),
            "ttl": text(*ttl),
            "wait": (*wait != Wait::No).then_some("60s"),
        });
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (path, body) = (format!("/claims/{claim}"), without_nulls(body));
        let (park, can_park, attempt) = match wait {
            Wait::No => return self.plain("PUT", &path, Some(&body)),
            Wait::Park(park) => (*park, true, Attempt::First),
            Wait::Over(park) => (*park, false, Attempt::Last),
        };
        let request = Request { park: ParkId(park), can_park, attempt, ..request("PUT", &path, &body) };
        let Response { status, body, park, .. } = self.life().house.answer(&request);
        answer_of(status, &serde_json::from_slice(&body).unwrap(), park.is_some())
    }

    /// A request over the socket, and its answer.
    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> (u16, Value) {
        let mut client = self.life().client.borrow_mut();
        let body = body.map(ToString::to_string).unwrap_or_default();
        let answer = client.call(&format!("{method} /api/v1{path}"), &body);
        (answer.status, answer.json())
    }

    fn plain(&mut self, method: &str, path: &str, body: Option<&Value>) -> Answer {
        let (status, json) = self.call(method, path, body);
        answer_of(status, &json, false)
    }

    fn get(&self, path: &str) -> Value {
        let (status, json) = self.call("GET", path, None);
        assert_eq!(status, 200, "{path}: {json}");
        json
    }

    /// What HTTP shows of [`reference::Model::view`].
    fn view(&self) -> Vec<String> {
        let snapshot = self.life().house.engine.snapshot();
        let why = |concern| if concern == Concern::Decides { "decides" } else { "shows" };
        let watched = snapshot.builds_to_watch().map(|(build, concern)| (build.id.as_str(), why(concern)));
        let mut lines = vec![format!("watched {:?}", watched.collect::<Vec<_>>())];
        for claim in self.get("/claims?limit=1000")["items"].as_array().unwrap() {
            let (id, life) = (str_of(&claim["id"]), &claim["life"]);
            let phase = match str_of(&claim["state"]) {
                "waiting" => {
                    let queue = &self.get(&format!("/claims/{id}"))["queue"];
                    let presence = if queue["listening"] == json!(true) { "listening" } else { "away" };
                    format!("waiting {presence} {}", queue["stuck"].as_str().unwrap_or_default())
                }
                state if claim["marked"] == json!(true) => {
                    let aliases: Vec<&str> = claim["aliases"].as_array().into_iter().flatten().map(str_of).collect();
                    format!("{state} {:?} marked, also {aliases:?}", locks_of(claim))
                }
                state => format!("{state} {:?}", locks_of(claim)),
            };
            let suspect = if claim["suspect"].is_object() { " suspect" } else { "" };
            lines.push(format!("claim {id} life {life} {phase}{suspect}"));
        }
        for ended in self.get("/claims?state=ended&limit=1000")["items"].as_array().unwrap() {
            let (id, life, how) = (str_of(&ended["id"]), &ended["life"], str_of(&ended["how"]));
            lines.push(format!("claim {id} life {life} ended {how}"));
        }
        for pool in self.get("/pools")["items"].as_array().unwrap() {
            let name = str_of(&pool["pool"]);
            if name == ASIDE {
                continue;
            }
            let pool = self.get(&format!("/pools/{name}"));
            let ids = |of: &Value, member: &str| -> Vec<String> {
                of.as_array().unwrap().iter().map(|item| str_of(&item[member]).to_owned()).collect()
            };
            lines.push(format!("pool {name} queue {:?}", ids(&pool["queue"], "claim")));
            for lock in pool["items"].as_array().unwrap() {
                let labels: Labels = serde_json::from_value(lock["labels"].clone()).unwrap();
                let (draining, leaving) = (lock["state"] == "draining", lock["leaving"] == json!(true));
                let out = if lock["quarantine"].is_object() { " out" } else { "" };
                let out = if lock["implicit"] == true { format!("{out} implicit") } else { out.to_owned() };
                let ((_, lock), by) = (seen(name, str_of(&lock["lock"])), ids(&lock["holders"], "claim"));
                lines.push(format!(
                    "lock {name}/{lock} {labels:?} by {by:?} draining {draining} leaving {leaving}{out}"
                ));
            }
        }
        let latches = self.life().client.borrow_mut().call("GET /lock?status=all", "").json();
        lines.extend(latches.as_array().unwrap().iter().map(latch_line));
        lines.sort();
        lines
    }

    /// Each new grant has a larger fence than all earlier ones.
    fn check_fences(&mut self) -> Result<(), String> {
        let mut new = BTreeSet::new();
        for claim in self.get("/claims?limit=1000")["items"].as_array().unwrap() {
            let (id, Some(fence)) = (str_of(&claim["id"]), claim["fence"].as_u64()) else { continue };
            let known = self.fences.entry(id.to_owned()).or_default();
            if known.last() != Some(&fence) {
                known.push(fence);
                if fence <= self.newest || !new.insert(fence) {
                    return Err(format!("{id} has fence {fence} after {}", self.newest));
                }
            }
        }
        self.newest = new.last().copied().unwrap_or(self.newest);
        Ok(())
    }
}

fn build_of(id: &str) -> BuildRef {
    BuildRef { cluster: "https://ci".parse().unwrap(), id: id.parse().unwrap() }
}

fn file(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("locker.db")
}

/// A request as the door passes it on.
fn request(method: &str, path: &str, body: &Value) -> Request {
    Request {
        method: method.into(),
        path: format!("/api/v1{path}"),
        query: String::new(),
        headers: Vec::new(),
        body: body.to_string().into(),
        peer: "test".into(),
        park: ParkId(0),
        shown: None,
        token: None,
        admitted: false,
        can_park: false,
        attempt: Attempt::First,
        id: "test".into(),
        identity: None,
    }
}

fn shape_of(shape: &Shape) -> Value {
    let part = |(pool, want): &(String, Want)| match want {
        Want::Any(count, labels) => json!({ "pool": pool, "count": count, "labels": labels }),
        Want::Named(names) => json!({ "pool": pool, "locks": names }),
    };
    let mut body = part(&shape.parts[0]);
    body["also"] = shape.parts[1..].iter().map(part).collect();
    body["key"] = json!(shape.key);
    body["requestor"] = json!(shape.who);
    body["scope"] = json!(shape.scope);
    body
}

fn owner(shape: &Shape, job: Option<&str>) -> Value {
    let cluster = shape.build.as_ref().map(|_| "https://ci");
    without_nulls(json!({ "cluster": cluster, "build_id": shape.build, "job": job }))
}

fn node(name: Option<&str>) -> Value {
    name.map_or(Value::Null, |name| json!({ "name": name }))
}

fn add_ending(body: &mut Value, ending: Option<&Ending>) {
    match ending {
        None => {}
        Some(Ending::Succeed(output)) => {
            body["outputs"] = output.as_ref().map_or(json!({}), |value| json!({ "out": value }));
        }
        Some(Ending::Fail(why)) => body["failure"] = json!(why),
    }
}

/// The same line as [`latches::Latch::line`].
fn latch_line(latch: &Value) -> String {
    let (id, workflow) = (str_of(&latch["id"]), str_of(&latch["workflow"]));
    let (node, uid) = (latch["node"]["name"].as_str(), latch["workflow_uid"].as_str());
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let ending = match text(&latch["on_release"]["fail"]) {
        Some(why) => Ending::Fail(why),
        None => Ending::Succeed(text(&latch["outputs"]["out"])),
    };
    let released = latch["status"] == "released";
    format!("latch {id} of {workflow} node {node:?} uid {uid:?} released {released} {ending:?}")
}

fn text(span: Option<u64>) -> Option<String> {
    span.map(|span| format!("{}s", span / SECOND))
}

/// The body of a change of a pool that names these rules.
#[allow(clippy::option_option)]
fn change_of(capacity: Option<u32>, drain: Option<Option<u64>>, scope: Option<Option<&str>>) -> Value {
    let defaults = [("drain", drain == Some(None)), ("scope", scope == Some(None))];
    let defaults: Vec<&str> = defaults.iter().filter(|(_, named)| *named).map(|(rule, _)| *rule).collect();
    let policy = without_nulls(json!({ "drain": text(drain.flatten()), "scope": scope.flatten() }));
    without_nulls(json!({ "capacity": capacity, "policy": policy, "defaults": defaults }))
}

fn without_nulls(mut body: Value) -> Value {
    if let Some(members) = body.as_object_mut() {
        members.retain(|_, value| !value.is_null());
    }
    body
}

fn str_of(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn locks_of(claim: &Value) -> Vec<(String, String)> {
    let locks = claim["locks"].as_array().unwrap();
    locks.iter().map(|lock| seen(str_of(&lock["pool"]), str_of(&lock["lock"]))).collect()
}

fn answer_of(status: u16, json: &Value, parked: bool) -> Answer {
    if status == 200 {
        return match json["state"].as_str() {
            Some("granted") => Answer::Granted(locks_of(json)),
            Some("waiting") => Answer::Waiting { parked: false },
            Some("held") => Answer::Held(locks_of(json)),
            Some("ended") => Answer::Ended { how: known(&json["how"]), again: false },
            _ => Answer::Done,
        };
    }
    match str_of(&json["code"]) {
        "waiting" | "self_wait" | "deadlock" => Answer::Waiting { parked },
        "locked" => Answer::Busy,
        "ended" => Answer::RefusedEnded(known(&json["claim"]["how"])),
        _ => Answer::Refused(known(&json["code"])),
    }
}

/// The text as the model needs it. It is never freed, because there are only a few.
fn known(word: &Value) -> &'static str {
    const WORDS: &[&str] = &[
        "released",
        "cancelled",
        "gave_up",
        "listener_lost",
        "unconfirmed",
        "superseded",
        "removed",
        "lost",
        "lease_lost",
        "build_over",
        "undelivered",
        "broken",
        "not_waiting",
        "unprocessable",
        "no_such_pool",
        "no_such_lock",
        "no_such_claim",
        "no_such_latch",
        "latch_exists",
        "latch_released",
        "too_many",
        "mixed_orders",
        "different_request",
        "superseded_run",
        "not_granted",
        "wrong_fence",
        "lock_exists",
        "lock_held",
        "not_holder",
        "pool_in_use",
        "queue_full",
        "limit",
    ];
    let word = str_of(word);
    WORDS.iter().find(|known| **known == word).unwrap_or_else(|| panic!("the model does not know {word}"))
}

/// What HTTP shows of a line of the model's view.
fn shown(line: &str) -> String {
    // The state of a lock is one word: `draining` appears only when the lock is in service and has no holder.
    if line.starts_with("lock ") && (line.ends_with(" out") || !line.contains(" by [] ")) {
        return line.replace(" draining true ", " draining false ");
    }
    if let Some((pool, _)) = line.split_once(" free [").filter(|_| line.starts_with("pool ")) {
        return pool.to_owned();
    }
    let Some((claim, rest)) = line.split_once(" runs [").filter(|_| line.starts_with("claim ")) else {
        return line.to_owned();
    };
    let (_, phase) = rest.split_once("] ").unwrap();
    let (phase, suspect) = phase.strip_suffix(" suspect").map_or((phase, ""), |phase| (phase, " suspect"));
    match phase.strip_prefix("waiting ").and_then(|waiting| waiting.rsplit_once(' ')) {
        Some(("away", stuck)) => format!("{claim} waiting away {stuck}{suspect}"),
        Some((_, stuck)) => format!("{claim} waiting listening {stuck}{suspect}"),
        None => format!("{claim} {phase}{suspect}"),
    }
}

/// The bugs that a server under test may have.
const PLANTS: [Plant; 4] = [Plant::None, Plant::EarlierRun, Plant::ReleaseUnchecked, Plant::FenceInMemory];

/// A server with one of [`PLANTS`], or after them with one of [`Bug::ALL`].
struct ApiFollowsTheRules<const PLANT: usize>;

impl<const PLANT: usize> ApiFollowsTheRules<PLANT> {
    const CORE: Plant = if PLANT < PLANTS.len() { PLANTS[PLANT] } else { Plant::None };
    const BUG: Option<Bug> = if PLANT < PLANTS.len() { None } else { Some(Bug::ALL[PLANT - PLANTS.len()]) };

    fn apply_to(server: &mut Server, op: &Op) -> Answer {
        server.apply(&Self::BUG.map_or_else(|| op.clone(), |bug| bug.op(op)))
    }
}

impl<const PLANT: usize> StateMachineTest for ApiFollowsTheRules<PLANT> {
    type SystemUnderTest = Server;
    type Reference = Rulebook;

    fn init_test(case: &Case) -> Server {
        let rules = Self::BUG.map_or_else(|| case.model.rules.clone(), |bug| bug.rules(&case.model.rules));
        let mut server = Server::new(&rules, Self::CORE);
        for op in &case.setup {
            Self::apply_to(&mut server, op);
        }
        server
    }

    fn apply(mut server: Server, case: &Case, op: Op) -> Server {
        let answer = Self::apply_to(&mut server, &op);
        let expected = match &case.model.answer {
            // An answer does not say whether the claim had already ended.
            Answer::Ended { how, .. } => Answer::Ended { how, again: false },
            other => other.clone(),
        };
        assert_eq!(answer, expected, "the server's answer (left) to {op:?}");
        let mut expected: Vec<String> = case.model.view().iter().map(|line| shown(line)).collect();
        expected.sort();
        assert_eq!(server.view(), expected, "what the server shows (left) after {op:?}");
        server.check_fences().unwrap_or_else(|broken| panic!("after {op:?}: {broken}"));
        server
    }
}

fn run<const PLANT: usize>(cases: u32, shrink: u32) -> Result<(), String> {
    let config = Config { cases, failure_persistence: None, max_shrink_iters: shrink, ..Config::default() };
    let mut runner = TestRunner::new(config.clone());
    let result = runner.run(&Rulebook::sequential_strategy(30..=50), |(case, ops, seen)| {
        ApiFollowsTheRules::<PLANT>::test_sequential(config.clone(), case, ops, seen);
        Ok(())
    });
    result.map_err(|error| error.to_string())
}

#[test]
fn the_api_does_what_the_rules_say() {
    let cases = std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(32);
    run::<0>(cases, 400).unwrap_or_else(|error| panic!("{error}"));
}

/// The test must find planted bugs, or it proves nothing.
fn is_found<const PLANT: usize>() {
    let (core, bug) = (ApiFollowsTheRules::<PLANT>::CORE, ApiFollowsTheRules::<PLANT>::BUG);
    // The first case that finds it ends the search; most need a few dozen.
    assert!(run::<PLANT>(2_000, 8).is_err(), "{core:?} {bug:?} was not found");
}

#[test]
fn planted_bugs_are_found() {
    is_found::<1>();
    is_found::<2>();
    is_found::<3>();
}

#[test]
fn bugs_in_labels_names_picks_and_operations_are_found() {
    is_found::<{ PLANTS.len() + Bug::SecondLabel as usize }>();
    is_found::<{ PLANTS.len() + Bug::Supersede as usize }>();
    is_found::<{ PLANTS.len() + Bug::RandomPick as usize }>();
    is_found::<{ PLANTS.len() + Bug::Again as usize }>();
}

/// (The limit of operations matters after many of them only: the model of the core finds that bug.)
#[test]
fn bugs_in_first_claims_suspects_and_latches_are_found() {
    is_found::<{ PLANTS.len() + Bug::FirstClaim as usize }>();
    is_found::<{ PLANTS.len() + Bug::Suspect as usize }>();
    is_found::<{ PLANTS.len() + Bug::Ending as usize }>();
}
