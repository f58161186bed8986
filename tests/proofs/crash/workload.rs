//! One client of many: random claims, confirms, releases, cancels, repeats and late duplicates, decided by its seed.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use super::api;
use super::arena::Arena;
use super::history::{Asked, Call, Nanos, Op, Seen, Want};
use super::rng::Rng;
use crate::support::http::Client as Conn;

/// Pools that the nemesis declares, with their capacities. The first claim makes each of the others.
pub const POOLS: &[(&str, u32)] = &[("trio", 3), ("pair", 2)];
/// All pools of the workload.
pub const ALL_POOLS: &[&str] = &["trio", "pair", "solo", "shared"];

/// One thread's view of the snapshot.
pub struct Client {
    index: usize,
    rng: Rng,
    arena: Arc<Arena>,
    /// Two connections, so that a duplicate can race with its original.
    conns: [Option<(usize, Conn)>; 2],
    ids: u64,
    runs: u64,
    /// Abandoned claims, to be cleaned up at some time.
    leftovers: Vec<Session>,
}

/// A claim of this client, and which of its processes acts for it.
#[derive(Clone)]
struct Session {
    id: String,
    asked: Asked,
    run: String,
    /// A run that was accepted before the present one.
    earlier: Option<String>,
    /// A request of the earlier run may still arrive. The end of the claim must name its run to win over it.
    abandoned: bool,
}

/// One request.
struct Plan {
    call: Call,
    run: Option<String>,
    given: Option<u64>,
    text: String,
}

impl Client {
    pub fn new(index: usize, rng: Rng, arena: Arc<Arena>) -> Self {
        Self { index, rng, arena, conns: [None, None], ids: 0, runs: 0, leftovers: Vec::new() }
    }

    /// Works until the arena stops, then ends all its claims.
    pub fn work(mut self, asked: &mut Vec<(String, Asked)>) {
        while !self.arena.stopped() {
            let session = self.new_session();
            asked.push((session.id.clone(), session.asked.clone()));
            self.play(session);
            if self.rng.percent(25) {
                self.late_release();
            }
            if self.rng.percent(70)
                && let Some(session) = self.leftovers.pop()
            {
                self.finish(session);
            }
        }
        while let Some(session) = self.leftovers.pop() {
            self.finish(session);
        }
    }

    fn new_session(&mut self) -> Session {
        self.ids += 1;
        let any = |pool: &str, count| Want::Any { pool: pool.into(), count };
        let named = |locks: &[&str]| {
            let locks: BTreeSet<String> = locks.iter().map(|&l| l.to_owned()).collect();
            Want::Named { pool: "pair".into(), locks }
        };
        let mut key = None;
        let wants = match self.rng.below(10) {
            0..3 => vec![any("solo", 1)],
            3 | 4 => vec![any("trio", 1)],
            5 => vec![any("trio", 2)],
            6 => vec![named(&[if self.rng.percent(50) { "1" } else { "2" }])],
            7 => vec![named(&["1", "2"])],
            8 => vec![any("solo", 1), any("trio", 1)],
            _ => {
                key = Some((*self.rng.pick(&["A", "B"])).to_owned());
                vec![any("shared", 1)]
            }
        };
        let requestor = key.is_some().then(|| format!("w{}", self.rng.below(4)));
        let asked = Asked { key, requestor, confirm: self.rng.percent(60), queue: self.rng.percent(85), wants };
        let run = self.new_run();
        Session { id: format!("c{}-{}", self.index, self.ids), asked, run, earlier: None, abandoned: false }
    }

    fn new_run(&mut self) -> String {
        self.runs += 1;
        format!("r{}-{}", self.index, self.runs)
    }

    /// The client process starts again.
    fn restart(&mut self, session: &mut Session, was_let_in: bool) {
        let run = self.new_run();
        let old = std::mem::replace(&mut session.run, run);
        session.earlier = was_let_in.then_some(old);
    }

    fn play(&mut self, mut session: Session) {
        let mut patience = 3 + self.rng.below(12);
        while patience > 0 {
            patience -= 1;
            match self.ask(&session) {
                Seen::Held { fence, .. } => return self.hold(session, fence),
                Seen::Granted { fence, .. } => match self.rng.below(100) {
                    // Dies between the grant and its confirm.
                    0..2 => return self.neglect(session),
                    2..10 => {
                        self.confirm(&session, fence + 1);
                    }
                    _ => {
                        if let Seen::Held { fence, .. } = self.confirm(&session, fence) {
                            return self.hold(session, fence);
                        }
                    }
                },
                Seen::Waiting { .. } => match self.rng.below(100) {
                    0..1 => return self.abandon(session),
                    1..8 => self.restart(&mut session, true),
                    8..13 => self.earlier_process(&session),
                    13..18 => {
                        self.look(&session.id);
                    }
                    _ => {}
                },
                Seen::Nothing if self.rng.percent(40) => self.restart(&mut session, false),
                Seen::Ended { .. } if self.rng.percent(30) => self.restart(&mut session, true),
                Seen::Nothing => {}
                Seen::Absent if !session.asked.queue => return,
                _ => break,
            }
            if self.arena.stopped() {
                break;
            }
        }
        self.finish(session);
    }

    fn hold(&mut self, mut session: Session, fence: u64) {
        std::thread::sleep(Duration::from_micros(self.rng.below(3_000)));
        match self.rng.below(100) {
            0..15 => {
                self.ask(&session);
            }
            15..30 => {
                self.restart(&mut session, true);
                if self.ask(&session).is_view() {
                    self.earlier_process(&session);
                }
            }
            30..40 => {
                self.look(&session.id);
            }
            40..50 => {
                self.confirm(&session, fence);
            }
            50..60 => {
                self.confirm(&session, fence + 1);
            }
            60..61 => return self.neglect(session),
            _ => {}
        }
        self.finish(session);
    }

    /// Releases or cancels, and repeats it until the end is certain.
    fn finish(&mut self, mut session: Session) {
        let mut is_superseded = false;
        loop {
            let names_run = session.abandoned || self.rng.percent(70);
            let run = (names_run && !is_superseded).then(|| session.run.clone());
            let plan = Plan { call: Call::End, text: api::end(&session.id, run.as_deref()), run, given: None };
            match self.perhaps_twice(&session.id, plan) {
                Seen::Nothing => {}
                // A request of an earlier run has arrived late.
                Seen::Refused(code) if code == "superseded_run" && !is_superseded => is_superseded = true,
                Seen::Refused(_) => return,
                _ => break,
            }
        }
        let grave = (session.id.clone(), session.run.clone());
        self.arena.graveyard.lock().unwrap_or_else(PoisonError::into_inner).push(grave);
        if self.rng.percent(10) && !self.arena.stopped() {
            self.restart(&mut session, true);
            self.play(session);
        }
    }

    /// Repeats a release, long after the first one.
    fn late_release(&mut self) {
        let (id, run) = {
            let graves = self.arena.graveyard.lock().unwrap_or_else(PoisonError::into_inner);
            if graves.is_empty() {
                return;
            }
            // Mostly of the last few, whose locks another client holds now.
            let among = if self.rng.percent(80) { 8 } else { 1_000 };
            let back = self.rng.below(among);
            let index = graves.len().saturating_sub(1 + usize::try_from(back).unwrap_or(0));
            graves[index].clone()
        };
        let run = self.rng.percent(50).then_some(run);
        let plan = Plan { call: Call::End, text: api::end(&id, run.as_deref()), run, given: None };
        self.exchange(&id, &plan);
    }

    fn ask(&mut self, session: &Session) -> Seen {
        let wait = *self.rng.pick(&[0, 0, 20, 60, 250]);
        let text = api::ask(&session.id, &session.asked, &session.run, wait);
        self.perhaps_twice(&session.id, Plan { call: Call::Ask, run: Some(session.run.clone()), given: None, text })
    }

    fn confirm(&mut self, session: &Session, fence: u64) -> Seen {
        let text = api::confirm(&session.id, &session.run, fence);
        let plan = Plan { call: Call::Confirm, run: Some(session.run.clone()), given: Some(fence), text };
        self.perhaps_twice(&session.id, plan)
    }

    fn look(&mut self, id: &str) -> Seen {
        self.exchange(id, &Plan { call: Call::Look, run: None, given: None, text: api::look(id) })
    }

    /// The previous process is still running, and acts.
    fn earlier_process(&mut self, session: &Session) {
        let Some(run) = session.earlier.clone() else { return };
        let (call, text) = if self.rng.percent(50) {
            (Call::End, api::end(&session.id, Some(&run)))
        } else {
            (Call::Ask, api::ask(&session.id, &session.asked, &run, 0))
        };
        self.exchange(&session.id, &Plan { call, run: Some(run), given: None, text });
    }

    /// Leaves the claim as it is.
    fn neglect(&mut self, session: Session) {
        let now = self.arena.now();
        self.arena.record(self.op(&session.id, &Plan::neglect(), now, Some(now), 0, Seen::Nothing));
        self.leftovers.push(session);
    }

    /// Closes the connection while its request is parked.
    fn abandon(&mut self, mut session: Session) {
        session.abandoned = true;
        let pass = self.arena.enter();
        let text = api::ask(&session.id, &session.asked, &session.run, 400);
        let plan = Plan { call: Call::Ask, run: Some(session.run.clone()), given: None, text };
        let invoke = self.arena.now();
        if let Ok(mut conn) = pass.connect(0) {
            // Whether it was sent or not, its outcome is unknown.
            let _ = conn.try_send(&plan.text);
            self.arena.record(self.op(&session.id, &plan, invoke, None, pass.server, Seen::Nothing));
        }
        drop(pass);
        self.neglect(session);
    }

    /// Sends it, sometimes twice at the same time.
    fn perhaps_twice(&mut self, id: &str, plan: Plan) -> Seen {
        if !self.rng.percent(12) {
            return self.exchange(id, &plan);
        }
        let arena = Arc::clone(&self.arena);
        let pass = arena.enter();
        let invoke = self.arena.now();
        let sent: Vec<bool> = (0..2).map(|which| self.send(which, &pass, &plan)).collect();
        let mut last = Seen::Nothing;
        for which in (0..2).filter(|which| sent[*which]) {
            let seen = self.receive(which, &pass, id, &plan, invoke);
            // Of a try-lock, one may fail and the other one, which came later, may succeed.
            if seen != Seen::Absent || last == Seen::Nothing {
                last = seen;
            }
        }
        last
    }

    fn exchange(&mut self, id: &str, plan: &Plan) -> Seen {
        let arena = Arc::clone(&self.arena);
        loop {
            let pass = arena.enter();
            let invoke = self.arena.now();
            if self.send(0, &pass, plan) {
                return self.receive(0, &pass, id, plan, invoke);
            }
            let server = pass.server;
            drop(pass);
            self.arena.wait_for_another(server);
        }
    }

    /// False when there was no connection, so nothing can have been sent.
    fn send(&mut self, which: usize, pass: &super::arena::Pass<'_>, plan: &Plan) -> bool {
        let conn = &mut self.conns[which];
        if conn.as_ref().is_none_or(|(server, conn)| *server != pass.server || conn.is_closing()) {
            *conn = pass.connect(which).ok().map(|conn| (pass.server, conn));
        }
        let Some((_, conn)) = conn else { return false };
        // A failed write may have been sent in part. The missing answer makes its outcome unknown.
        let _ = conn.try_send(&plan.text);
        true
    }

    fn receive(&mut self, which: usize, pass: &super::arena::Pass<'_>, id: &str, plan: &Plan, invoke: Nanos) -> Seen {
        let Some((_, conn)) = &mut self.conns[which] else { return Seen::Nothing };
        let result = conn.receive();
        let now = self.arena.now();
        let (done, seen) = match result {
            Ok(answer) => match api::seen(&answer) {
                Seen::Nothing => (None, Seen::Nothing),
                seen => (Some(now), seen),
            },
            Err(error) if self.arena.is_hang(&error) => {
                self.conns[which] = None;
                (Some(now), Seen::Refused("no answer".into()))
            }
            Err(_) => {
                self.conns[which] = None;
                self.arena.broken.lock().unwrap_or_else(PoisonError::into_inner).push((pass.server, now));
                (None, Seen::Nothing)
            }
        };
        self.arena.answered(plan.call, &seen);
        self.arena.record(self.op(id, plan, invoke, done, pass.server, seen.clone()));
        seen
    }

    fn op(&self, id: &str, plan: &Plan, invoke: Nanos, done: Option<Nanos>, server: usize, seen: Seen) -> Op {
        let (call, run, given) = (plan.call, plan.run.clone(), plan.given);
        Op { client: self.index, call, id: id.to_owned(), run, given, invoke, done, server, seen }
    }
}

impl Plan {
    fn neglect() -> Self {
        Self { call: Call::Neglect, run: None, given: None, text: String::new() }
    }
}
