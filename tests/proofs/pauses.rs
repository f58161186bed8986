//! Processes that stop, and clocks that jump (failure stories 24 and 26): SIGSTOP to `locker run`, to the server, and
//! to both, for less than, about, and three times the ttl; and the wall clock moved by a day in both directions.
//!
//! The tests check that a resource that refuses writes with a smaller fence than it has seen never loses an update (it
//! never sees a double grant); that the same resource without this check does lose updates, so the tests can fail; that
//! no lease ends early; and that none ends later than its ttl, plus the time that the server was stopped, plus a margin
//! for the machine.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use locker::client::Client;
use locker::client::connect::Access;
use locker::wire::errors::Code;
use locker::wire::server_url::ServerUrl;
use locker::wire::tls::Tls;
use nix::sys::signal::Signal::{SIGCONT, SIGSTOP};
use support::clock::WallClock;
use support::{Running, Server, eventually};
use tempfile::TempDir;

const TTL: Duration = Duration::from_secs(6);
/// The margin for a busy machine.
const SLACK: Duration = Duration::from_secs(10);

/// Writes with its fence until it must end: to a resource that keeps the highest fence and refuses smaller ones, and to
/// one that accepts every write.
const WRITER: &str = "
    echo $LOCKER_FENCE > holds-$1
    until [ -e end-$1 ]; do
        flock gate sh -c 'high=$(cat high); if [ $0 -ge $high ]; then echo $0 > high; echo $0 >> fenced; fi
            echo $0 >> plain' $LOCKER_FENCE
        sleep 0.1
    done";

/// A server, a client of the API, and a place for the resources.
struct Yard {
    server: Server,
    api: Client,
    dir: TempDir,
}

impl Yard {
    fn with(server: Server) -> Self {
        server.cli(&["pool", "set", "p", "--capacity", "1", "--drain", "0s"]).ok();
        let url = ServerUrl::parse(&server.url).unwrap();
        let api = Client::open(Access::to(url, None, Tls::default()), &BTreeMap::new()).unwrap();
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("high"), "0\n").unwrap();
        Self { server, api, dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A writer under `locker run`.
    fn writer(&self, name: &str, vars: &[(&str, &str)]) -> Running {
        let mut command = self.server.cli_command();
        command.env("LOCKER_RUN_SHORTEST_TTL", "3s").envs(vars.iter().copied()).current_dir(self.dir.path());
        command.args(["run", "p", "--ttl", "6s", "--shell", "--", WRITER, name]);
        Running::start(&mut command, b"")
    }

    /// The fence of a writer.
    fn fence(&self, name: &str) -> u64 {
        let path = self.path(&format!("holds-{name}"));
        eventually("a writer", || std::fs::read_to_string(&path).ok()?.strip_suffix('\n')?.parse().ok())
    }

    fn end(&self, name: &str) {
        std::fs::write(self.path(&format!("end-{name}")), "").unwrap();
    }

    fn is_held(&self, fence: u64) -> bool {
        match self.api.verify("p", "1", fence) {
            Ok(_) => true,
            Err(error) if error.code() == Some(Code::NotHeld) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// The fences of the writes that a resource accepted, in order.
    fn writes(&self, resource: &str) -> Vec<u64> {
        let text = std::fs::read_to_string(self.path(resource)).unwrap();
        text.lines().map(|line| line.parse().unwrap()).collect()
    }

    fn loses_updates(&self, resource: &str) -> bool {
        !self.writes(resource).is_sorted()
    }

    /// Waits until the lease has just been renewed. Returns a moment before the renewal, according to the answer.
    fn until_renewed(&self, fence: u64) -> Instant {
        eventually("a renewal", || {
            let asked = Instant::now();
            let claims = self.api.list_claims(&locker::client::calls::ClaimFilter::default()).ok()?;
            let claim = claims.iter().find(|claim| claim.fence == Some(fence)).expect("the hold");
            let left = humantime::parse_duration(claim.held_for.as_deref()?).unwrap();
            let age = TTL.saturating_sub(left);
            if age < Duration::from_millis(300) { asked.checked_sub(age) } else { None }
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Who {
    Client,
    Server,
    Both,
}

/// Two writers want one lock. The holder, the server, or both stop for a while.
fn pause(who: Who, span: Duration) {
    let yard = Yard::with(Server::start_durable());
    let first = yard.writer("first", &[]);
    let fence = yard.fence("first");
    let second = yard.writer("second", &[]);
    second.until_stderr("waiting: place 1");
    let renewed = yard.until_renewed(fence);
    if who != Who::Server {
        first.signal(SIGSTOP);
    }
    if who != Who::Client {
        yard.server.signal(SIGSTOP);
    }
    let stopped = Instant::now();
    // A stopped process cannot be observed, so only time can end the pause. The pause is the fault, not a
    // synchronisation.
    let mut lost = None;
    while stopped.elapsed() < span {
        if who == Who::Client && lost.is_none() && !yard.is_held(fence) {
            lost = Some(Instant::now());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    if who != Who::Client {
        yard.server.signal(SIGCONT);
    }
    if who != Who::Server {
        first.signal(SIGCONT);
    }
    if span < TTL / 3 {
        // It continues as if nothing had happened.
        yard.until_renewed(fence);
        yard.end("first");
        first.finish().ok();
    } else if lost.is_some() || span > TTL * 2 || !yard.is_held(fence) {
        let done = first.finish();
        assert_eq!(done.code, 8, "{who:?} {span:?}: {done:?}");
        assert!(done.stderr.contains("lease lost: "), "{done:?}");
        if span > TTL * 2 && who == Who::Client {
            assert!(done.stderr.contains("the locks were lost before they were given back"), "{done:?}");
            assert!(done.stderr.contains("lost its lease"), "the message says how: {done:?}");
        }
        // A server that has just continued may not have checked its clock yet.
        eventually("the end of the lease", || (!yard.is_held(fence)).then_some(()));
    } else {
        // At the edge both outcomes are correct, as long as both sides know.
        yard.end("first");
        first.finish();
    }
    let next = yard.fence("second");
    let granted = Instant::now();
    assert!(next > fence, "{who:?} {span:?}");
    if let Some(lost) = lost {
        assert!(lost - renewed >= TTL, "{who:?} {span:?}: {:?} is early", lost - renewed);
    }
    let bound = TTL + span + SLACK;
    assert!(granted - renewed < bound, "{who:?} {span:?}: {:?} is late", granted - renewed);
    let before = yard.writes("plain").len();
    eventually("a write of the next one", || (yard.writes("plain").len() > before + 2).then_some(()));
    assert!(yard.is_held(next));
    yard.end("second");
    second.finish().ok();
    assert!(!yard.loses_updates("fenced"), "{who:?} {span:?}: {:?}", yard.writes("fenced"));
    let must_bite = who == Who::Client && span > TTL * 2;
    assert!(!must_bite || yard.loses_updates("plain"), "the resource without fences must lose an update");
}

fn for_all_spans(who: Who) {
    let spans = [Duration::from_secs(1), TTL, TTL * 3];
    std::thread::scope(|scope| {
        spans.map(|span| scope.spawn(move || pause(who, span))).into_iter().for_each(|one| one.join().unwrap());
    });
}

#[test]
fn story_24_a_stopped_client() {
    for_all_spans(Who::Client);
}

#[test]
fn story_24_a_stopped_server() {
    for_all_spans(Who::Server);
}

#[test]
fn story_24_a_stopped_client_and_a_stopped_server() {
    for_all_spans(Who::Both);
}

#[test]
fn a_server_that_restarts_within_a_lease_remembers_it() {
    let mut yard = Yard::with(Server::start_durable());
    let first = yard.writer("first", &[]);
    let fence = yard.fence("first");
    for _ in 0..3 {
        yard.until_renewed(fence);
        yard.server.kill();
        yard.server.again();
        yard.until_renewed(fence);
    }
    yard.end("first");
    let done = first.finish().ok();
    assert!(!done.stderr.contains("lease lost"), "{done:?}");
    assert!(yard.writes("fenced").iter().all(|write| *write == fence), "one hold all the time");
}

#[test]
fn story_26_the_wall_clock_jumps_by_a_day_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let clock = WallClock::in_file(&dir.path().join("clock"));
    assert!(clock.moves(), "libfaketime: apt-get install faketime");
    let vars = clock.vars();
    let mut yard = Yard::with(Server::start_with("sqlite", &[], &vars));
    let wall = |yard: &Yard| chrono::DateTime::parse_from_rfc3339(&yard.api.info().unwrap().time).unwrap();
    let first = yard.writer("first", &vars);
    let fence = yard.fence("first");
    let began = Instant::now();
    let held = yard.server.cli(&["claim", "q", "--ttl", "12s", "--json"]).ok().json();
    let until_at_least = Instant::now();
    let other = held["fence"].as_u64().unwrap();
    let holds = |yard: &Yard| yard.api.verify("q", "q", other).is_ok();
    for (by, days) in [("+1d", 1), ("-1d", -2), ("+0", 1)] {
        let before = wall(&yard);
        yard.until_renewed(fence);
        clock.jump(by);
        let jumped = (wall(&yard) - before).num_minutes();
        assert!((jumped - days * 24 * 60).abs() < 30, "the clock has jumped: {jumped} minutes");
        // Renewed under both clocks: no lease has ended.
        yard.until_renewed(fence);
        if began.elapsed() < Duration::from_secs(12) {
            assert!(holds(&yard) || began.elapsed() >= Duration::from_secs(12), "early: {:?}", began.elapsed());
        }
    }
    // A restart under another clock changes nothing, either.
    clock.jump("-1d");
    yard.server.kill();
    yard.server.again();
    yard.until_renewed(fence);
    let restarted = Instant::now();
    eventually("the end of the ttl", || (!holds(&yard)).then_some(()));
    assert!(began.elapsed() >= Duration::from_secs(12), "early: {:?}", until_at_least.elapsed());
    // The restart may have restarted the whole ttl.
    assert!(restarted.elapsed() < Duration::from_secs(12) + SLACK, "late: {:?}", restarted.elapsed());
    assert!(yard.is_held(fence));
    yard.end("first");
    let done = first.finish().ok();
    assert!(!done.stderr.contains("lease"), "{done:?}");
    assert!(yard.writes("fenced").iter().all(|write| *write == fence), "one hold all the time");
}
