//! A standby that no commit waits for becomes the primary. What had not reached it is lost; nothing that was given is given
//! again.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::{FAILOVER, acquire, fence, until_ready};
use crate::support::clock::WallClock;
use crate::support::database::{Database as _, Postgres, REPLICATED};
use crate::support::eventually;
use crate::support::server::{Server, Setup};
use crate::support::wires::Wire;

/// A primary, its standby, and an address for each server that moves with the primary.
struct Pair {
    primary: Postgres,
    standby: Postgres,
    wires: [Wire; 2],
}

impl Pair {
    fn start() -> Self {
        let primary = Postgres::start_with(&[], REPLICATED);
        let standby = primary.standby();
        primary.until_streamed();
        let wires = [(); 2].map(|()| Wire::to(primary.address()));
        Self { primary, standby, wires }
    }

    fn server(&self, wire: usize, vars: &[(&str, &str)]) -> Server {
        let store = format!("postgres://postgres@{}/postgres?sslmode=disable", self.wires[wire].address);
        let setup = Setup { store, ..Setup::memory() };
        Server::start_as(&setup.flags(&["--failover", FAILOVER, "--link", "127.0.0.1:0"]).vars(vars))
    }

    /// How many records the primary has, and how many of them the standby has.
    fn records(&self) -> (u64, u64) {
        let count = |postgres: &Postgres| postgres.sql("SELECT count(*) FROM locker.records").parse().unwrap();
        let of_standby = count(&self.standby);
        (count(&self.primary), of_standby)
    }

    fn signal_sender(&self, pid: Pid, signal: Signal) {
        kill(pid, signal).unwrap_or_else(|error| panic!("{signal} to the sender of {:?}: {error}", self.records()));
    }

    /// From now on, nothing reaches the standby. Returns who sends to it.
    fn lag(&self) -> Pid {
        eventually("a standby that has everything", || {
            let (primary, standby) = self.records();
            primary == standby
        });
        let sender = Pid::from_raw(self.primary.sql("SELECT pid FROM pg_stat_replication").parse().unwrap());
        self.signal_sender(sender, Signal::SIGSTOP);
        sender
    }

    /// The primary dies, and the standby takes its place.
    fn fail_over(&self, sender: Pid) {
        let (primary, standby) = self.records();
        assert!(primary > standby, "the standby has all of {primary} records");
        self.primary.kill();
        // It cannot see that the others are gone.
        kill(sender, Signal::SIGKILL).unwrap();
        self.standby.promote();
        for wire in &self.wires {
            wire.heal();
            wire.lead_to(self.standby.address());
        }
    }
}

/// The largest number that a server has answered: a fence, or its newest revision.
#[derive(Default)]
struct Answered {
    largest: u64,
    claims: usize,
}

impl Answered {
    /// A claim is granted, with a larger fence than any before. Returns its id and its fence.
    fn grant(&mut self, server: &Server) -> (String, u64) {
        self.claims += 1;
        let id = format!("c{}", self.claims);
        let held = eventually("a grant", || {
            let (status, answer) = acquire(server, &id, &id);
            assert!([200, 502, 503].contains(&status), "{status} {answer}");
            (status == 200).then_some(answer)
        });
        let fence = fence(&held);
        assert!(fence > self.largest, "the fence {fence} after {}", self.largest);
        let revision = info(server)["revision"].as_u64().unwrap();
        assert!(revision >= fence, "the revision {revision} with the fence {fence}");
        self.largest = revision;
        (id, fence)
    }
}

fn info(server: &Server) -> Value {
    server.api("GET", "/info", &Value::Null).1
}

fn page(server: &Server) -> String {
    server.connect().ask("GET", "/", "accept: text/html\r\n", "").unwrap().text().to_owned()
}

fn has_everything(server: &Server, leader: &Server) {
    eventually("a server that has every record", || {
        let last = |server: &Server| {
            let scrape = server.call("GET /metrics", "");
            let line = scrape.text().lines().find_map(|line| line.strip_prefix("locker_log_last_record "));
            line.unwrap().to_owned()
        };
        let lag = server.call("GET /metrics", "");
        last(server) == last(leader) && lag.text().contains("\nlocker_log_lag_records 0\n")
    });
}

/// That a standby may lose something is on the page, and in the log of each leader.
fn warns(server: &Server, leader: &Server) {
    leader.until_log("no standby of the database is synchronous");
    eventually("a warning on the page", || page(server).contains("No standby of the database is synchronous"));
    assert_eq!(info(server)["log"]["async_standbys"], json!(1), "{}", info(server));
    let doctor = server.cli(&["doctor"]);
    assert!(doctor.stdout.contains("none of its standbys is synchronous"), "{doctor:?}");
}

/// The clocks of servers that take over. They must not help: fences begin above the minutes that they show.
fn behind(dir: &tempfile::TempDir) -> WallClock {
    let clock = WallClock::in_file(&dir.path().join("clock"));
    clock.jump("-1d");
    clock
}

#[test]
fn what_a_standby_lacks_is_lost_when_it_becomes_the_primary_and_no_fence_is_given_again() {
    let (pair, dir) = (Pair::start(), tempfile::tempdir().unwrap());
    let clock = behind(&dir);
    let mut first = pair.server(0, &[]);
    first.until_log("this server leads");
    let second = pair.server(1, &clock.vars());
    until_ready(&second);
    warns(&second, &first);
    let mut answered = Answered::default();
    let kept = answered.grant(&second);
    assert_eq!(acquire(&second, "waits", &kept.0).0, 423);
    let sender = pair.lag();
    // The reign of the next leader is lost, with its beginning.
    first.stop();
    second.until_log("this server leads");
    let third = pair.server(0, &clock.vars());
    until_ready(&third);
    warns(&third, &second);
    let given: Vec<_> = (0..6).map(|n| answered.grant([&second, &third][n % 2])).collect();
    assert_eq!(second.api("DELETE", &format!("/claims/{}", kept.0), &Value::Null).0, 200);
    assert_eq!(acquire(&third, "waits", &kept.0).0, 200);
    has_everything(&third, &second);
    pair.fail_over(sender);
    second.until_log("this server no longer leads");
    answered.grant(&third);
    answered.grant(&second);
    let noticed = [&second, &third].map(|server| server.has_said("the log was set back: what was acknowledged"));
    assert!(noticed.contains(&true), "nobody has noticed it");
    // What had reached the standby is there, as it was there; the rest is gone, though it was acknowledged.
    let (status, held) = third.api("GET", &format!("/claims/{}", kept.0), &Value::Null);
    assert_eq!((status, held["state"].as_str(), fence(&held)), (200, Some("held"), kept.1), "{held}");
    assert_eq!(third.api("GET", "/claims/waits", &Value::Null).1["state"], "waiting");
    for (id, _) in given {
        assert_eq!(third.api("GET", &format!("/claims/{id}"), &Value::Null).0, 404, "{id}");
    }
    eventually("no warning without a standby", || !page(&third).contains("No standby of the database is synchronous"));
}

#[test]
fn a_server_that_has_not_seen_what_was_lost_gives_no_fence_of_it_again() {
    let (pair, dir) = (Pair::start(), tempfile::tempdir().unwrap());
    let clock = behind(&dir);
    let first = pair.server(0, &[]);
    first.until_log("this server leads");
    let second = pair.server(1, &clock.vars());
    until_ready(&second);
    let mut answered = Answered::default();
    answered.grant(&second);
    has_everything(&second, &first);
    let sender = pair.lag();
    pair.wires[1].cut();
    for _ in 0..6 {
        answered.grant(&first);
    }
    // It lives, but cannot say what it has seen before another one leads.
    first.signal(Signal::SIGSTOP);
    pair.fail_over(sender);
    second.until_log("this server leads");
    answered.grant(&second);
    first.signal(Signal::SIGCONT);
    first.until_log("this server no longer leads");
    until_ready(&first);
    answered.grant(&first);
}
