//! Clients with one task each: some see how soon grants go on after a fault, some hold leases, one lists claims, and some
//! are builds with real steps.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use locker::wire::api::{ClaimView, Page};
use serde_json::json;

use super::api;
use super::arena::Arena;
use super::history::{Asked, Call, Nanos, Op, Seen, Want};
use super::nodes::SERVERS;
use super::rng::Rng;
use crate::support::Build;
use crate::support::http::{Answer, Client as Conn, request};

/// Pools that only the clients here use.
pub const POOLS: [&str; 6] = ["probe0", "probe1", "probe2", "lease0", "lease1", STEPS];
/// The pool of the steps of builds.
const STEPS: &str = "steps";
/// How long a lookout waits for a grant.
const PROBED: Duration = Duration::from_millis(1_500);
/// The ttl of a lease. No fault lasts longer than half of it, except those that are known to.
pub const TTL: Duration = Duration::from_secs(300);
/// How long a step of a build and a look may take: longer than any two faults.
const PATIENT: Duration = Duration::from_secs(180);

/// What each client asked for.
type AllAsked = Vec<(String, Asked)>;

fn one(pool: &str) -> Asked {
    Asked {
        key: None,
        requestor: None,
        confirm: false,
        queue: true,
        wants: vec![Want::Any { pool: pool.into(), count: 1 }],
    }
}

/// A client that keeps a record.
struct Recorder {
    client: usize,
    arena: Arc<Arena>,
    conn: Option<(usize, Conn)>,
}

impl Recorder {
    fn new(client: usize, arena: &Arc<Arena>) -> Self {
        Self { client, arena: Arc::clone(arena), conn: None }
    }

    /// One request, to the server that the arena names. `None`: its outcome is unknown.
    fn exchange(&mut self, text: &str) -> Option<Answer> {
        let arena = Arc::clone(&self.arena);
        let pass = arena.enter();
        if self.conn.as_ref().is_none_or(|(server, conn)| *server != pass.server || conn.is_closing()) {
            self.conn = pass.connect(0).ok().map(|conn| (pass.server, conn));
        }
        let answer = self.conn.as_mut().and_then(|(_, conn)| {
            conn.try_send(text).ok()?;
            conn.receive().ok()
        });
        if answer.is_none() {
            self.conn = None;
            thread::sleep(Duration::from_millis(5));
        }
        answer
    }

    /// One request about a claim, for the record.
    fn ask(&mut self, call: Call, id: &str, text: &str, see: impl FnOnce(&Answer) -> Seen) -> Seen {
        let invoke = self.arena.now();
        let seen = self.exchange(text).map_or(Seen::Nothing, |answer| see(&answer));
        let done = (seen != Seen::Nothing).then(|| self.arena.now());
        self.arena.answered(call, &seen);
        self.note(call, id, invoke, done, seen.clone());
        seen
    }

    fn note(&self, call: Call, id: &str, invoke: Nanos, done: Option<Nanos>, seen: Seen) {
        let (client, id) = (self.client, id.to_owned());
        self.arena.record(Op { client, call, id, run: None, given: None, invoke, done, server: 0, seen });
    }

    /// Ends a claim for certain.
    fn end(&mut self, id: &str) {
        while self.ask(Call::End, id, &api::end(id, None), api::seen) == Seen::Nothing {}
    }
}

/// A grant that a lookout has seen.
pub struct Granted {
    /// The server that was asked.
    pub server: usize,
    pub asked: Nanos,
    pub answered: Nanos,
}

/// What the lookouts have seen since the last fault.
pub type Grants = Arc<Mutex<Vec<Granted>>>;

/// Claims and releases at one server, again and again, and says when it got what it asked for.
pub fn probe(number: usize, door: SocketAddr, arena: &Arc<Arena>, granted: &Grants) -> AllAsked {
    let (pool, mut asked, mut conn) = (POOLS[number], Vec::new(), None::<Conn>);
    let recorder = Recorder::new(usize::MAX - 1 - number, arena);
    let mut exchange = |call: Call, id: &str, text: &str| {
        let pass = arena.enter();
        let invoke = arena.now();
        if conn.as_ref().is_none_or(Conn::is_closing) {
            conn = Conn::within(door, PROBED).ok();
        }
        let answer = conn.as_mut().and_then(|conn| {
            conn.try_send(text).ok()?;
            conn.receive().ok()
        });
        drop(pass);
        let seen = answer.as_ref().map_or(Seen::Nothing, api::seen);
        if answer.is_none() {
            conn = None;
        }
        if seen == Seen::Nothing {
            thread::sleep(Duration::from_millis(20));
        }
        let done = arena.now();
        recorder.note(call, id, invoke, (seen != Seen::Nothing).then_some(done), seen.clone());
        (seen, invoke, done)
    };
    while !arena.stopped() {
        let (id, wants) = (format!("{pool}-{}", asked.len()), one(pool));
        asked.push((id.clone(), wants.clone()));
        let text = api::ask(&id, &wants, "r", 0);
        // Whether it was granted or not, it must be ended for certain.
        let mut attempts = 0;
        while attempts < 3 || !arena.stopped() {
            attempts += 1;
            let (seen, invoke, done) = exchange(Call::Ask, &id, &text);
            if seen.is_held() {
                granted.lock().unwrap().push(Granted { server: number, asked: invoke, answered: done });
                break;
            }
        }
        while exchange(Call::End, &id, &api::end(&id, None)).0 == Seen::Nothing {}
        thread::sleep(Duration::from_millis(15));
    }
    asked
}

/// Takes a lease, renews and verifies it many times, and releases it. It must never be lost before its time.
pub fn lease(number: usize, mut rng: Rng, arena: &Arc<Arena>) -> AllAsked {
    let pool = POOLS[3 + number];
    let (mut recorder, mut all) = (Recorder::new(usize::MAX - 10 - number, arena), Vec::new());
    while !arena.stopped() {
        let (id, wants) = (format!("{pool}-{}", all.len()), one(pool));
        all.push((id.clone(), wants));
        let body = json!({ "pool": pool, "scope": "lease", "ttl": format!("{}s", TTL.as_secs()) }).to_string();
        let text = request("PUT", &format!("/api/v1/claims/{id}"), "", &body);
        let held = loop {
            let seen = recorder.ask(Call::Ask, &id, &text, api::seen);
            if seen.is_held() || arena.stopped() {
                break seen;
            }
        };
        if let Seen::Held { fence, ref locks, .. } = held {
            let renew =
                request("POST", &format!("/api/v1/claims/{id}/renew"), "", &json!({ "fence": fence }).to_string());
            let verify = format!("/api/v1/verify?pool={pool}&lock={}&fence={fence}", locks[0].1);
            let verify = request("GET", &verify, "", "");
            for _ in 0..rng.below(60) {
                if rng.percent(40) {
                    recorder.ask(Call::Look, &id, &renew, api::seen);
                } else if rng.percent(50) {
                    recorder.ask(Call::Look, &id, &verify, |answer| verified(answer, &held));
                } else {
                    recorder.ask(Call::Look, &id, &api::look(&id), api::seen);
                }
                if arena.stopped() {
                    break;
                }
                thread::sleep(Duration::from_millis(rng.below(150)));
            }
        }
        recorder.end(&id);
    }
    all
}

/// What the answer to `verify` says: whatever it was, if it is held; an end otherwise.
fn verified(answer: &Answer, held: &Seen) -> Seen {
    match (answer.status, answer.code().as_str()) {
        (200, _) => held.clone(),
        (_, "not_held") => Seen::Refused("not_held".to_owned()),
        _ => api::seen(answer),
    }
}

/// Builds with real steps, one after the other: `out`, `in` and `out` again, at one server. None of them fails.
pub fn build(number: usize, doors: &[SocketAddr], arena: &Arc<Arena>) -> AllAsked {
    let (recorder, mut all) = (Recorder::new(usize::MAX - 50 - number, arena), Vec::new());
    let url = format!("http://{}", doors[number]);
    while !arena.stopped() {
        let pass = arena.enter();
        let id = u32::try_from(1 + all.len() * SERVERS + number).unwrap();
        let limit = format!("{}s", PATIENT.as_secs());
        // Usually they give up after 60 s.
        let build = Build::to(&url, id, &json!({ "pool": STEPS }))
            .var("LOCKER_GET_LIMIT", &limit)
            .var("LOCKER_RELEASE_LIMIT", &limit);
        let began = arena.now();
        let acquired = build.put(&json!({ "acquire": true })).finish_within(PATIENT).ok();
        let claim = acquired.metadata("claim").expect("a claim");
        all.push((claim.clone(), Asked { confirm: true, ..one(STEPS) }));
        // What its programs have sent, as often as was needed.
        for call in [Call::Ask, Call::Confirm] {
            recorder.note(call, &claim, began, None, Seen::Nothing);
        }
        let look = || {
            let invoke = arena.now();
            let seen = api::seen(&get(doors, &format!("/api/v1/claims/{claim}")));
            recorder.note(Call::Look, &claim, invoke, Some(arena.now()), seen.clone());
            seen
        };
        assert!(look().is_held(), "build {id} has acquired {claim}");
        build.start_get(&acquired.version(), "lock").finish_within(PATIENT).ok();
        recorder.note(Call::End, &claim, arena.now(), None, Seen::Nothing);
        build.put(&json!({ "release": "lock" })).finish_within(PATIENT).ok();
        assert!(matches!(look(), Seen::Ended { .. }), "build {id} has released {claim}");
        drop(pass);
        thread::sleep(Duration::from_millis(300));
    }
    all
}

/// Lists all claims, again and again, at any server: what a list says of a claim is so, too.
pub fn list(arena: &Arc<Arena>) {
    let mut recorder = Recorder::new(usize::MAX - 20, arena);
    while !arena.stopped() {
        let invoke = arena.now();
        let answer = recorder.exchange(&request("GET", "/api/v1/claims?limit=1000", "", ""));
        let done = arena.now();
        match answer.filter(|answer| answer.status == 200) {
            Some(answer) => {
                let page: Page<ClaimView> = answer.parse();
                for view in page.items {
                    recorder.note(Call::Look, &view.id, invoke, Some(done), api::of_view(&view));
                }
            }
            None => arena.move_on(),
        }
        thread::sleep(Duration::from_millis(200));
    }
}

/// Declares the pools of a run.
pub fn declare(arena: &Arc<Arena>, pools: &[(&str, u32)]) {
    let mut recorder = Recorder::new(usize::MAX - 30, arena);
    for (pool, capacity) in pools {
        let body = json!({ "capacity": capacity }).to_string();
        let text = request("PUT", &format!("/api/v1/pools/{pool}"), "", &body);
        while recorder.exchange(&text).is_none_or(|answer| answer.status != 200) {
            arena.move_on();
        }
    }
}

/// Ends claims.
pub fn end_all<'i>(arena: &Arc<Arena>, ids: impl Iterator<Item = &'i str>) {
    let mut recorder = Recorder::new(usize::MAX - 40, arena);
    ids.for_each(|id| recorder.end(id));
}

/// An answer of a server that serves, while everything is well.
pub fn get(doors: &[SocketAddr], path: &str) -> Answer {
    let mut turn = 0;
    crate::support::within(PATIENT, path, || {
        turn += 1;
        let mut conn = Conn::within(doors[turn % doors.len()], Duration::from_secs(10)).ok()?;
        conn.try_send(request("GET", path, "", "")).ok()?;
        conn.receive().ok().filter(|answer| answer.status != 503 && answer.status != 502)
    })
}
