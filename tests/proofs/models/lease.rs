//! A command under `locker run`: a guard, which may be stopped for any time, renews its lease over a network that
//! delays and loses messages, at a server that may be killed and started again. Another client waits for the lock.
//!
//! The rules of the guard are `locker::client::lease`, those of the server are `locker::core`. One tick is one second,
//! and the ttl is the shortest possible. Unless it is stopped, the guard acts at once on what it knows.

use std::hash::{Hash, Hasher};
use std::time::Duration;

use locker::client::lease::{Lease, Margins, SHORTEST, Step};
use locker::core::command::{Refusal, Reply, Wait};
use locker::core::names::{Fence, ParkId};
use locker::core::settings::Settings;
use locker::core::time::Span;
use stateright::{Model, Property};

use super::server::{Asking, Server};
use super::{digest, search};

const TICK: u64 = 1_000;
const TTL: u64 = 15_000;
/// How much of the lease is left when the command has ended (docs/run.md).
const OVER_BEFORE: u64 = 2_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Naive {
    /// No bug: the real rules.
    No,
    /// The guard counts the lease from the answer to a renewal, not from before it was sent.
    FromAnswer,
    /// The guard renews, but does not stop the command.
    NeverKills,
    /// A restarted server knows the grant, but not the renewals.
    RestartShortens,
    /// The resource does not look at fences.
    Unfenced,
}

struct Leased {
    naive: Naive,
    /// How often the guard is stopped, and the server killed.
    stops: u8,
    crashes: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Command {
    Running,
    /// It has got SIGTERM and may take its time.
    Stopping,
    /// It has got SIGKILL and is gone before the next tick.
    Killed,
    Over,
}

/// The renewal under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Renewal {
    None,
    Sent,
    Answered { renewed: bool },
}

#[allow(clippy::struct_excessive_bools, reason = "each is something that has happened or not")]
#[derive(Clone, Debug)]
struct Now {
    server: Server,
    is_down: bool,
    fence: Fence,
    /// Seconds by the guard's clock, which also runs while the server is down.
    seconds: u64,
    lease: Lease,
    command: Command,
    renewal: Renewal,
    /// When it was sent.
    sent: u64,
    is_stopped: bool,
    stops: u8,
    crashes: u8,
    /// The request of the waiting client.
    waiting: Option<ParkId>,
    /// The fence of that client, once it holds the lock.
    second: Option<Fence>,
    /// Seconds since the server got the last renewal, at most the ttl.
    since_renewed: u64,
    ended_early: bool,
    renewed_after_crash: bool,
}

impl Hash for Now {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        self.server.hash(hasher);
        // Moments are relative to now.
        let relative = |at: Duration| at.saturating_sub(self.clock());
        let next = match self.lease.clone().next(self.clock()) {
            Step::Wait(until) => until.map(relative),
            _ => Some(Duration::ZERO),
        };
        // A renewal that was sent longer ago than the ttl has no effect.
        let age = (self.seconds - self.sent).min(TTL / TICK);
        if self.renewal != Renewal::None {
            age.hash(hasher);
        }
        (relative(self.lease.term_at()), relative(self.lease.kill_at()), next).hash(hasher);
        (self.is_down, self.command, self.renewal, self.is_stopped, self.stops, self.crashes).hash(hasher);
        (self.waiting.is_some(), self.second.is_some(), self.since_renewed, self.ended_early).hash(hasher);
        self.renewed_after_crash.hash(hasher);
    }
}

impl PartialEq for Now {
    fn eq(&self, other: &Self) -> bool {
        digest(self) == digest(other)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    /// The server gets the renewal.
    Deliver,
    /// The guard gets the answer.
    Answer,
    /// The request or the answer gets lost.
    Lose,
    /// The command obeys SIGTERM.
    Obey,
    StopGuard,
    ContinueGuard,
    Crash,
    Start,
    Tick,
}

const SECOND: Asking = Asking { confirm: true, lease: None };

impl Now {
    fn clock(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// The guard does everything that is due now.
    fn act(&mut self, naive: Naive) {
        if self.is_stopped || self.command == Command::Over {
            return;
        }
        loop {
            match self.lease.next(self.clock()) {
                Step::Wait(_) => return,
                Step::Renew => (self.renewal, self.sent) = (Renewal::Sent, self.seconds),
                Step::Term(_) | Step::Kill if naive == Naive::NeverKills => {}
                Step::Term(_) => self.command = Command::Stopping,
                Step::Kill => self.command = Command::Killed,
            }
        }
    }

    /// The waiting client does everything that is due now.
    fn second_acts(&mut self) {
        if self.is_down || self.second.is_some() {
            return;
        }
        match self.waiting {
            Some(park) if !self.server.told.contains(&park) => return,
            Some(park) => self.second_asked(None, |server| server.ask(1, SECOND, Wait::Over(park))),
            None => {}
        }
        if self.waiting.is_none() && self.second.is_none() {
            let park = self.server.fresh_park();
            self.second_asked(Some(park), |server| server.ask(1, SECOND, Wait::Park(park)));
        }
    }

    fn second_asked(&mut self, park: Option<ParkId>, ask: impl FnOnce(&mut Server) -> Result<Reply, Refusal>) {
        match ask(&mut self.server) {
            Ok(Reply::Claim { parked: true, .. }) => self.waiting = park,
            Ok(Reply::Claim { claim, .. }) => {
                self.waiting = None;
                if let Some(fence) = claim.fence() {
                    self.second = self.server.confirm(1, fence).is_ok().then_some(fence);
                }
            }
            other => panic!("{other:?}"),
        }
    }

    /// Records an end of the lease that came too early.
    fn watch_end(&mut self, change: impl FnOnce(&mut Server)) {
        let held = self.server.held(0).is_some();
        change(&mut self.server);
        if held && self.server.held(0).is_none() {
            self.ended_early |= self.since_renewed * TICK < TTL;
        }
    }

    fn tick(&mut self) {
        self.seconds += 1;
        self.since_renewed = (self.since_renewed + 1).min(TTL / TICK);
        if !self.is_down {
            self.watch_end(|server| server.tick(TICK));
        }
    }

    fn is_alive(&self) -> bool {
        self.command != Command::Over
    }
}

impl Model for Leased {
    type State = Now;
    type Action = Action;

    fn init_states(&self) -> Vec<Now> {
        let settings = Settings {
            // The worst case: the lock does not drain after its holder is lost.
            drain: Span(0),
            stuck_look: Span(0),
            changes: 4,
            ..Settings::default()
        };
        let mut server = Server::new(settings);
        let first = Asking { confirm: true, lease: Some(TTL) };
        let Ok(Reply::Claim { claim, .. }) = server.ask(0, first, Wait::No) else { panic!("not granted") };
        let fence = claim.fence().expect("a grant");
        server.renew(0, fence).expect("the first renewal confirms");
        let lease = Lease::new(Margins::of(Duration::from_millis(TTL), SHORTEST).unwrap(), Duration::ZERO);
        let mut now = Now {
            server,
            is_down: false,
            fence,
            seconds: 0,
            lease,
            command: Command::Running,
            renewal: Renewal::None,
            sent: 0,
            is_stopped: false,
            stops: self.stops,
            crashes: self.crashes,
            waiting: None,
            second: None,
            since_renewed: 0,
            ended_early: false,
            renewed_after_crash: false,
        };
        now.second_acts();
        vec![now]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Action>) {
        if now.second.is_some() && !now.is_alive() {
            // The run is over.
            return;
        }
        match now.renewal {
            Renewal::None => {}
            Renewal::Sent if now.is_down => actions.push(Action::Lose),
            Renewal::Sent => actions.extend([Action::Deliver, Action::Lose]),
            Renewal::Answered { .. } => actions.extend([Action::Answer, Action::Lose]),
        }
        if now.command == Command::Stopping {
            actions.push(Action::Obey);
        }
        if now.is_stopped {
            actions.push(Action::ContinueGuard);
        } else if now.stops > 0 && now.is_alive() {
            actions.push(Action::StopGuard);
        }
        if now.is_down {
            actions.push(Action::Start);
        } else if now.crashes > 0 {
            actions.push(Action::Crash);
        }
        actions.push(Action::Tick);
    }

    fn next_state(&self, last: &Now, action: Action) -> Option<Now> {
        let mut now = last.clone();
        match action {
            Action::Deliver => {
                let renewed = now.server.renew(0, now.fence).is_ok();
                if renewed {
                    now.since_renewed = 0;
                    now.renewed_after_crash |= now.crashes < self.crashes;
                }
                now.renewal = Renewal::Answered { renewed };
            }
            // A stopped guard notices nothing.
            Action::Answer | Action::Lose if now.is_stopped => return None,
            Action::Answer => {
                let Renewal::Answered { renewed } = now.renewal else { return None };
                now.renewal = Renewal::None;
                if !renewed {
                    now.lease.ended(now.clock());
                } else if self.naive == Naive::FromAnswer {
                    now.lease = Lease::new(Margins::of(Duration::from_millis(TTL), SHORTEST).unwrap(), now.clock());
                } else {
                    now.lease.renewed();
                }
            }
            Action::Lose => {
                now.renewal = Renewal::None;
                now.lease.failed(now.clock(), Duration::from_secs(1));
            }
            Action::Obey => now.command = Command::Over,
            Action::StopGuard => {
                now.is_stopped = true;
                now.stops -= 1;
            }
            Action::ContinueGuard => now.is_stopped = false,
            Action::Crash => {
                now.is_down = true;
                now.crashes -= 1;
                now.waiting = None;
            }
            Action::Start => {
                now.is_down = false;
                let forget = self.naive == Naive::RestartShortens;
                now.watch_end(|server| {
                    server.restart();
                    if forget {
                        server.tick(TTL);
                    }
                });
            }
            Action::Tick => {
                if now.command == Command::Killed {
                    now.command = Command::Over;
                }
                now.tick();
            }
        }
        now.act(self.naive);
        now.second_acts();
        Some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::always(IN_TIME, |model: &Leased, now: &Now| {
                let was_stopped = now.stops < model.stops;
                let left = now.server.held(0).and_then(|_| now.server.left_of(0));
                was_stopped || !now.is_alive() || left.is_some_and(|left| left >= OVER_BEFORE)
            }),
            Property::always(NOT_EARLY, |_, now: &Now| !now.ended_early),
            // Both write whenever possible.
            Property::always(FENCED, |model: &Leased, now: &Now| {
                let takes_old = |second| model.naive == Naive::Unfenced || second <= now.fence;
                !now.is_alive() || !now.second.is_some_and(takes_old)
            }),
            Property::sometimes("the other client gets the lock", |_, now: &Now| now.second.is_some()),
            Property::sometimes("the command is killed", |_, now: &Now| now.command == Command::Killed),
        ];
        if self.crashes > 0 {
            let runs_on = |_: &Leased, now: &Now| now.renewed_after_crash && now.command == Command::Running;
            properties.push(Property::sometimes("the command runs on over a restart of the server", runs_on));
        }
        if self.stops > 0 {
            // What is not promised does happen: that is why there are fences.
            let both =
                |_: &Leased, now: &Now| now.second.is_some() && now.command == Command::Running && now.is_stopped;
            properties.push(Property::sometimes("who is stopped cannot stop its command", both));
        }
        properties
    }
}

const IN_TIME: &str = "unless its guard was stopped, the command is over 2 s before anybody else can have the lock";
const NOT_EARLY: &str = "no lease ends within its ttl after a renewal";
const FENCED: &str = "a resource that looks at fences takes no write of an older holder after one of a newer";

#[test]
fn a_lease_is_never_outlived_nor_cut_short() {
    let model = Leased { naive: Naive::No, stops: 1, crashes: 1 };
    assert!(search("lease", model).is_empty());
}

#[test]
fn naive_variants_of_the_lease_fail() {
    let cases: [(Naive, u8, u8, &[&str]); 4] = [
        (Naive::FromAnswer, 0, 0, &[IN_TIME]),
        (Naive::NeverKills, 0, 0, &[IN_TIME]),
        (Naive::RestartShortens, 0, 1, &[IN_TIME, NOT_EARLY]),
        (Naive::Unfenced, 1, 0, &[FENCED]),
    ];
    for (naive, stops, crashes, broken) in cases {
        let wrong = search(&format!("lease, naive: {naive:?}"), Leased { naive, stops, crashes });
        assert!(broken.iter().all(|property| wrong.contains(property)), "{naive:?}: {wrong:?}");
    }
}
