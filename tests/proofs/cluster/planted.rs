//! Planted bugs of servers that share a log: for each of them a chain of events in which it does harm. Without the bug the
//! same events do none.

use std::collections::BTreeMap;
use std::thread;

use super::api;
use super::arena::Arena;
use super::checker::{Rule, Violation, check};
use super::history::{Asked, Call, History, Op, Seen, Want};
use super::nodes::{Cluster, Place, SERVERS};
use crate::support::database::{Database as _, Postgres};
use crate::support::eventually;
use crate::support::http::Client as Conn;
use crate::support::wires::{Way, Wire};

/// How long a leader may give no sign. A busy machine must still beat in time.
const FAILOVER: &str = "2s";
/// In each statement that takes over, and in each that appends a short record.
const TAKES_OVER: &str = ".head SET";
const APPENDS: &str = r"E'\\x";

/// Three servers, and what was seen of them.
struct Scene<'p> {
    postgres: &'p Postgres,
    cluster: Cluster,
    arena: Arena,
    schema: String,
    odd: Vec<Violation>,
}

/// Plays, and judges what was seen.
fn play(postgres: &Postgres, plant: Option<&'static str>, play: impl Fn(&mut Scene<'_>)) -> Vec<Violation> {
    let schema = if plant.is_some() { "planted" } else { "sound" }.to_owned();
    let of_members = schema.clone();
    let place = Place {
        members: vec![vec![postgres.address()]; SERVERS],
        url: Box::new(move |members| {
            format!("postgres://postgres@{}/postgres?sslmode=disable&schema={of_members}", members[0])
        }),
    };
    let cluster = Cluster::start(&place, &["--failover", FAILOVER, "--log-level", "warn"], plant);
    let mut scene = Scene { postgres, arena: Arena::new(cluster.doors()), cluster, schema, odd: Vec::new() };
    scene.until_all_serve();
    play(&mut scene);
    scene.judge()
}

impl Scene<'_> {
    fn until_all_serve(&self) {
        eventually("servers that serve", || {
            self.cluster.nodes.iter().all(|node| node.server().call("GET /readyz", "").status == 200)
        });
    }

    /// The leader, and the others.
    fn roles(&self) -> (usize, [usize; 2]) {
        let leader = self.cluster.until_led();
        (leader, [(leader + 1) % SERVERS, (leader + 2) % SERVERS])
    }

    /// The store's wire of a server.
    fn store(&self, number: usize) -> &Wire {
        &self.cluster.nodes[number].store[0]
    }

    fn term(&self) -> u64 {
        self.postgres.sql(&format!("SELECT term FROM {}.head", self.schema)).parse().unwrap()
    }

    /// One request to this server, for the record.
    fn exchange(&self, server: usize, call: Call, id: &str, text: &str) -> Seen {
        let invoke = self.arena.now();
        let answer = Conn::open(self.cluster.nodes[server].server().socket()).and_then(|mut conn| {
            conn.try_send(text)?;
            conn.receive()
        });
        let seen = answer.map_or(Seen::Nothing, |answer| api::seen(&answer));
        let done = (seen != Seen::Nothing).then(|| self.arena.now());
        let id = id.to_owned();
        self.arena.record(Op {
            client: server,
            call,
            id,
            run: None,
            given: None,
            invoke,
            done,
            server,
            seen: seen.clone(),
        });
        seen
    }

    fn ask(&self, server: usize, id: &str) -> Seen {
        self.exchange(server, Call::Ask, id, &api::ask(id, &asked(), "r", 0))
    }

    fn look(&self, server: usize, id: &str) -> Seen {
        self.exchange(server, Call::Look, id, &api::look(id))
    }

    fn end(&self, server: usize, id: &str) -> Seen {
        self.exchange(server, Call::End, id, &api::end(id, None))
    }

    /// Waits until another server than `old` leads.
    fn until_other_leads(&self, old: usize) -> usize {
        eventually("another leader", || self.cluster.leader().filter(|leader| *leader != old))
    }

    fn judge(mut self) -> Vec<Violation> {
        let ops = std::mem::take(&mut *self.arena.log.lock().unwrap());
        let all: BTreeMap<String, Asked> = ops.iter().map(|op| (op.id.clone(), asked())).collect();
        let history = History { asked: all, ops, ready: vec![0], deaths: Vec::new(), attention: u64::MAX };
        let mut violations = check(&history);
        let bugs = self.cluster.bugs().into_iter();
        violations.extend(bugs.map(|text| Violation { rule: Rule::Durable, text }));
        violations.append(&mut self.odd);
        violations
    }
}

/// Everybody wants the one lock.
fn asked() -> Asked {
    let wants = vec![Want::Any { pool: "x".into(), count: 1 }];
    Asked { key: None, requestor: None, confirm: false, queue: true, wants }
}

/// The bug does harm, and nothing else does.
fn is_found(plant: &'static str, events: impl Fn(&mut Scene<'_>)) {
    let postgres = Postgres::start();
    let sound = play(&postgres, None, &events);
    assert!(sound.is_empty(), "without {plant}: {sound:?}");
    let found = play(&postgres, Some(plant), &events);
    println!("{plant}: {found:?}");
    assert!(!found.is_empty(), "{plant} was not found");
}

#[test]
fn an_append_that_does_not_compare_who_leads() {
    is_found("append-without-term", |scene| {
        let (leader, others) = scene.roles();
        scene.store(leader).hold_text(APPENDS);
        for other in others {
            scene.store(other).hold_text(APPENDS);
        }
        thread::scope(|threads| {
            threads.spawn(|| scene.ask(leader, "a"));
            eventually("an append that is under way", || scene.store(leader).held() > 0);
            eventually("a take-over", || scene.term() > 1);
            // It arrives now, before the first append of the next leader.
            scene.store(leader).heal();
            until_done(scene, leader);
            for other in others {
                scene.store(other).heal();
            }
            scene.until_all_serve();
        });
    });
}

#[test]
fn a_take_over_that_compares_the_term_alone() {
    is_found("take-over-by-term-alone", |scene| {
        let (leader, [next, third]) = scene.roles();
        assert!(scene.ask(leader, "a").is_held());
        scene.cluster.stop(third);
        scene.store(next).hold_text(TAKES_OVER);
        scene.cluster.stop(leader);
        eventually("a take-over that is under way", || scene.store(next).held() > 0);
        // Its leader was only slow, and gives a sign before the take-over arrives.
        scene.cluster.go_on(leader);
        assert!(scene.look(leader, "a").is_held());
        let term = scene.term();
        scene.store(next).heal();
        until_done(scene, next);
        if scene.term() != term {
            let text = format!("somebody took over in term {term} from a leader that had given a sign");
            scene.odd.push(Violation { rule: Rule::Durable, text });
        }
        scene.cluster.go_on(third);
        scene.until_all_serve();
    });
}

#[test]
fn a_batch_that_is_repeated_as_a_new_record() {
    is_found("replay-with-a-new-id", |scene| {
        let (leader, _) = scene.roles();
        assert!(scene.ask(leader, "first").is_held());
        scene.end(leader, "first");
        hold(scene, leader);
        thread::scope(|threads| {
            threads.spawn(|| scene.ask(leader, "a"));
            // Nobody else can be asked who leads: their answer would come from it.
            let next = eventually("another leader", || says_it_leads(scene, leader));
            assert!(scene.ask(next, "b").is_held());
            scene.store(leader).heal();
        });
        scene.until_all_serve();
    });
}

#[test]
fn an_answer_before_its_append() {
    is_found("answer-before-commit", |scene| {
        let (leader, _) = scene.roles();
        hold(scene, leader);
        thread::scope(|threads| {
            let asks = threads.spawn(|| scene.ask(leader, "a"));
            eventually("an answer, or another leader", || asks.is_finished() || says_it_leads(scene, leader).is_some());
            // What was held never arrives.
            scene.store(leader).cut();
            scene.cluster.nodes[leader].server().signal(nix::sys::signal::Signal::SIGKILL);
        });
        scene.cluster.kill(leader);
        scene.cluster.heal();
        let next = scene.cluster.until_led();
        eventually("an answer about the claim", || scene.look(next, "a") != Seen::Nothing);
    });
}

#[test]
fn an_answer_that_rests_on_no_beat() {
    is_found("read-without-a-beat", |scene| {
        let (leader, _) = scene.roles();
        assert!(scene.ask(leader, "a").is_held());
        scene.cluster.stop(leader);
        hold(scene, leader);
        let next = scene.until_other_leads(leader);
        eventually("an end", || matches!(scene.end(next, "a"), Seen::Ended { .. }));
        assert!(scene.ask(next, "b").is_held());
        scene.cluster.go_on(leader);
        thread::scope(|threads| {
            let looks = threads.spawn(|| scene.look(leader, "a"));
            eventually("an answer, or a leader that gives up", || {
                looks.is_finished() || scene.cluster.nodes[leader].server().has_said("no longer leads")
            });
            scene.store(leader).heal();
        });
        scene.until_all_serve();
    });
}

#[test]
fn a_follower_that_answers_by_itself() {
    is_found("follower-answers", |scene| {
        let (leader, [follower, _]) = scene.roles();
        assert!(scene.ask(leader, "a").is_held());
        assert!(scene.look(follower, "a").is_held());
        assert!(matches!(scene.end(leader, "a"), Seen::Ended { .. }));
        scene.look(follower, "a");
    });
}

/// Nothing comes and goes between this server and its database.
fn hold(scene: &Scene<'_>, server: usize) {
    scene.store(server).hold(Way::There);
    scene.store(server).hold(Way::Back);
}

/// Another server than `old` whose log says that it leads.
fn says_it_leads(scene: &Scene<'_>, old: usize) -> Option<usize> {
    (0..SERVERS)
        .filter(|number| *number != old)
        .find(|number| scene.cluster.nodes[*number].server().has_said("this server leads"))
}

/// Waits until the database has done all that was held on its way from this server.
fn until_done(scene: &Scene<'_>, server: usize) {
    let active = "SELECT count(*) FROM pg_stat_activity
                  WHERE backend_type = 'client backend' AND state = 'active' AND pid <> pg_backend_pid()";
    eventually("requests that have arrived", || scene.store(server).is_through() && scene.postgres.sql(active) == "0");
}
