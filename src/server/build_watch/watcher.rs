//! The thread that watches the builds of one Concourse: it asks about them and tells the engine what follows.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use super::build_status::{BuildStatus, Seen, Trouble};
use super::concourse::Concourse;
use super::places::{Place, Places};
use super::report::{Contact, Report};
use super::schedule::{BuildNo, Decision, Next, Schedule, Watched, pause};
use super::settings::Pace;
use super::{Installations, reason};
use crate::core::claim::{BuildEnd, BuildRef, Claim, Concern};
use crate::core::command::Command;
use crate::core::names::Text;
use crate::core::time::WallMs;
use crate::env::Clock;
use crate::server::build_watch::limits;
use crate::server::engine::Engine;

/// Wakes and stops the threads. A thread notices it after its current request.
#[derive(Clone, Default)]
pub(super) struct Bell(Arc<(Mutex<Rung>, Condvar)>);

#[derive(Default)]
struct Rung {
    stop: bool,
    /// How many times the threads were woken.
    times: u64,
}

impl Bell {
    pub fn stop(&self) {
        self.ring(|rung| rung.stop = true);
    }

    /// Makes the threads read the claims again.
    pub fn wake(&self) {
        self.ring(|rung| rung.times += 1);
    }

    fn ring(&self, how: impl FnOnce(&mut Rung)) {
        how(&mut self.0.0.lock().unwrap_or_else(PoisonError::into_inner));
        self.0.1.notify_all();
    }

    /// Sleeps for `span`, until the stop, or until the threads were woken more than `heard` times; then updates `heard`.
    /// Returns whether the thread must stop.
    fn wait(&self, span: Duration, heard: &mut u64) -> bool {
        let rung = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let sleeps = |rung: &mut Rung| !rung.stop && rung.times == *heard;
        let (rung, _) = self.0.1.wait_timeout_while(rung, span, sleeps).unwrap_or_else(PoisonError::into_inner);
        *heard = rung.times;
        rung.stop
    }
}

/// What a watch needs.
#[derive(Clone)]
pub(super) struct Watch {
    pub engine: Engine,
    pub installations: Arc<Installations>,
    /// The index of the Concourse that it watches.
    pub index: usize,
    pub report: Report,
    pub clock: Arc<dyn Clock>,
    pub bell: Bell,
    pub pace: Pace,
    pub timeout: Duration,
}

/// Watches until the stop, even after a panic: a watch that stopped silently would never free anything again.
pub(super) fn run(watch: Watch) {
    let one_life = || Watcher::new(watch.clone()).run();
    while catch_unwind(AssertUnwindSafe(one_life)).is_err() {
        tracing::error!(
            "the build watch has panicked: this is a bug in locker; it restarts, and frees nothing until then"
        );
        watch.report.fails("the watch has panicked: this is a bug in locker", watch.engine.now().wall);
        // A wake-up shortens this pause at most, because the next life reads the claims first.
        if watch.bell.wait(watch.pace.period, &mut 0) {
            return;
        }
    }
}

struct Watcher {
    watch: Watch,
    concourse: Arc<Concourse>,
    schedule: Schedule,
    places: Places,
    /// The watched builds, with all names that claims use for them.
    names: BTreeMap<BuildNo, Vec<BuildRef>>,
    /// When the claims are read again.
    next_sync: Duration,
    /// When the Concourse is asked about itself. `None` once it has answered.
    next_greeting: Option<Duration>,
    greetings_failed: u32,
    /// When it is asked again whether it runs builds again.
    next_info: Duration,
    /// How many times the thread has been woken.
    heard: u64,
}

impl Watcher {
    fn new(watch: Watch) -> Self {
        let concourse = Arc::clone(&watch.installations.all[watch.index]);
        let schedule = Schedule::new(watch.pace);
        let (names, next_sync) = (BTreeMap::new(), Duration::ZERO);
        // Until it answers, what it said last counts.
        let reruns = concourse.stored_name().is_some_and(|name| watch.engine.snapshot().reruns.contains(&name));
        watch.report.status().build_rerun = reruns;
        Self {
            watch,
            concourse,
            schedule,
            places: Places::default(),
            names,
            next_sync,
            next_greeting: Some(Duration::ZERO),
            greetings_failed: 0,
            next_info: Duration::MAX,
            heard: 0,
        }
    }

    /// Watches until the stop.
    fn run(mut self) {
        // Claims are read more often than builds are asked about: they come and go faster, and a freed lock should not
        // wait.
        let between = self.watch.pace.period / limits::WATCH_FIRST_PAUSE_PART;
        loop {
            let now = self.now();
            if self.next_greeting.is_some_and(|at| at <= now) {
                self.greet();
            }
            if self.next_info <= now {
                self.ask_about_itself();
            }
            if self.next_sync <= now {
                self.sync(now);
                self.next_sync = now + between;
            }
            let pause = match self.schedule.next(self.now()) {
                Next::Ask(id) => {
                    self.ask(id);
                    Duration::ZERO
                }
                Next::Wait(_) if self.finds_a_build() => Duration::ZERO,
                Next::Wait(wait) => wait.unwrap_or(between).min(between),
            };
            let heard = self.heard;
            if self.watch.bell.wait(pause, &mut self.heard) {
                return;
            }
            if self.heard != heard {
                self.next_sync = Duration::ZERO;
            }
        }
    }

    fn now(&self) -> Duration {
        self.watch.clock.monotonic()
    }

    /// The address by which people know the Concourse.
    fn name(&self) -> String {
        self.concourse.urls.first().map(ToString::to_string).unwrap_or_default()
    }

    /// Reads the claims and collects the builds of this Concourse.
    fn sync(&mut self, now: Duration) {
        let snapshot = self.watch.engine.snapshot();
        let mut builds: BTreeMap<BuildNo, Watched> = BTreeMap::new();
        self.names.clear();
        for (build, concern) in snapshot.builds_to_watch() {
            let Some((index, id)) = self.watch.installations.find(build) else { continue };
            if index != self.watch.index {
                continue;
            }
            let watched = builds.entry(id).or_insert(Watched { concern, suspect: false, marked: false });
            watched.concern = watched.concern.max(concern);
            watched.suspect |= snapshot.suspects.contains_key(build);
            watched.marked |= snapshot.marked_of(build).next().is_some();
            self.names.entry(id).or_default().push(build.clone());
        }
        // Rarely: what is known of them only decides how long their ended claims are remembered.
        for build in snapshot.past_builds.iter() {
            let Some((index, id)) = self.watch.installations.find(build) else { continue };
            if index != self.watch.index {
                continue;
            }
            builds.entry(id).or_insert(Watched { concern: Concern::Shows, suspect: false, marked: false });
            let names = self.names.entry(id).or_default();
            if !names.contains(build) {
                names.push(build.clone());
            }
        }
        self.schedule.keep(&builds, now);
        let sought = snapshot.seeking.iter().filter_map(|id| snapshot.claims.get(id));
        let index = |claim: &Arc<Claim>| self.watch.installations.named(claim.terms.owner.cluster.as_ref()?.as_str());
        self.places.keep(sought.filter(|claim| index(claim) == Some(self.watch.index)), now);
        self.count();
    }

    fn count(&self) {
        let mut status = self.watch.report.status();
        (status.watched, status.suspects) = (self.schedule.watched(), self.schedule.suspects());
    }

    /// The first contact, and the first one after a failure: checks which server answers, and whether the login works.
    fn greet(&mut self) {
        let (name, timeout) = (self.name(), self.watch.timeout);
        let info = self.concourse.info(timeout).and_then(|info| self.concourse.log_in_first(timeout).map(|()| info));
        let info = match info {
            Ok(info) => info,
            Err(trouble) => {
                self.greetings_failed = self.greetings_failed.saturating_add(1);
                if self.greetings_failed == 1 {
                    tracing::warn!(
                        concourse = name,
                        why = trouble.text,
                        "no good contact with Concourse: its builds cannot be watched"
                    );
                }
                self.watch.report.fails(&trouble.text, self.watch.engine.now().wall);
                self.next_greeting = Some(self.now() + pause(self.greetings_failed, self.watch.pace.period));
                return;
            }
        };
        (self.next_greeting, self.greetings_failed) = (None, 0);
        tracing::info!(
            concourse = name,
            version = info.version,
            login = self.concourse.login.describe(),
            "Concourse answers: its builds are watched"
        );
        let stranger = self.concourse.stranger(&info);
        if let Some(other) = &stranger {
            tracing::warn!(
                concourse = name,
                external_url = other,
                "the builds of this Concourse know it by another URL, so no claim will match: add that URL as alias= in --concourse"
            );
        }
        self.learn_reruns(info.feature_flags.build_rerun);
        let mut status = self.watch.report.status();
        status.contact = Contact::Well;
        (status.version, status.stranger) = (Some(info.version), stranger);
    }

    /// Asks whether it runs builds again, which a restart of its web nodes may change. Without an answer, the last one
    /// counts.
    fn ask_about_itself(&mut self) {
        match self.concourse.info(self.watch.timeout) {
            Ok(info) if self.concourse.stranger(&info).is_none() => self.learn_reruns(info.feature_flags.build_rerun),
            Ok(_) | Err(_) => self.next_info = self.now() + self.watch.pace.period * limits::WATCH_INFO_PERIODS,
        }
    }

    /// The Concourse says whether it runs builds again in place.
    fn learn_reruns(&mut self, on: bool) {
        self.next_info = self.now() + self.watch.pace.period * limits::WATCH_INFO_PERIODS;
        self.watch.report.status().build_rerun = on;
        let Some(concourse) = self.concourse.stored_name() else { return };
        if self.watch.engine.snapshot().reruns.contains(&concourse) == on {
            return;
        }
        // Whoever reads the line may rely on it after a restart.
        if self.watch.engine.call_blocking(Command::Reruns { concourse, on }).is_err() {
            return;
        }
        let name = self.name();
        if on {
            tracing::info!(
                concourse = name,
                "this Concourse runs builds again when a worker vanishes (enable-rerun-when-worker-disappears): a lock that \
                 a step gives back stays with its build until the build is over"
            );
        } else {
            tracing::info!(concourse = name, "this Concourse no longer runs builds again when a worker vanishes");
        }
    }

    /// Asks about one build and acts on the answer.
    fn ask(&mut self, id: BuildNo) {
        let mut status = self.concourse.build(id, self.watch.timeout).status();
        if status == BuildStatus::Missing
            && self.schedule.would_be_gone(id, self.now())
            && let Err(trouble) = self.concourse.is_itself(self.watch.timeout)
        {
            status = BuildStatus::Unknown(trouble);
        }
        if status == BuildStatus::Alive && self.schedule.is_marked(id) {
            self.tell(id, |build| Command::Alive { build });
        }
        let decisions = self.schedule.saw(id, &status, self.now());
        if !decisions.is_empty() {
            decisions.into_iter().for_each(|decision| self.apply(decision));
            // When this returns, all commands sent before are published, so the next `sync` sees them. If the engine is
            // down, there is nothing to wait for.
            let _ = self.watch.engine.call_blocking(Command::Tick);
        }
        self.count();
    }

    /// Asks for the id of one build that is known by its place only, if one is due. Whether it has asked.
    ///
    /// Without an answer nothing follows: the pipeline or the job may have another name by now.
    fn finds_a_build(&mut self) -> bool {
        let now = self.now();
        if self.next_greeting.is_some() || self.schedule.failing().is_some() {
            return false;
        }
        let Some((path, place)) = self.places.next(now) else { return false };
        let seen = self.concourse.build_at(&place.owner, self.watch.timeout);
        let (now, pace) = (self.now(), self.watch.pace.period);
        self.places.asked(&path, now, pace * limits::WATCH_SHOWN_PERIODS);
        let why = match &seen {
            Seen::Build(build) => {
                self.found(&place, build.id, &seen.status());
                return true;
            }
            Seen::Missing => "404: it knows no such build; was its pipeline or job renamed or removed?",
            Seen::Unknown(trouble) => {
                if !trouble.cause.is_about_one_build() {
                    self.places.rest(now, pace * limits::WATCH_AWAY_PERIODS);
                }
                &trouble.text
            }
        };
        if !place.is_said {
            let holds = place.holds.iter().map(|(id, _)| id.as_str()).take(limits::WATCH_NAMED).collect::<Vec<_>>();
            tracing::warn!(
                concourse = self.name(),
                build = path,
                why,
                claims = holds.join(", "),
                "a build that holds name by its number cannot be found: they stay, and how it ends is not shown"
            );
        }
        true
    }

    /// A build that was known by its place only has this id.
    fn found(&mut self, place: &Place, id: BuildNo, status: &BuildStatus) {
        let Ok(build_id) = Text::parse(&id.to_string()) else { return };
        tracing::info!(concourse = self.name(), build = id, holds = place.holds.len(), "found a build by its number");
        for (claim, cluster) in &place.holds {
            self.watch.engine.post(Command::BuildFound { id: claim.clone(), build_id: build_id.clone() });
            if let BuildStatus::Over(how, at) = *status {
                let build = BuildRef { cluster: cluster.clone(), id: build_id.clone() };
                self.watch.engine.post(Command::BuildOver { build, how, at });
            }
        }
        // The next `sync` sees it; see `ask`.
        let _ = self.watch.engine.call_blocking(Command::Tick);
        self.next_sync = Duration::ZERO;
    }

    fn apply(&mut self, decision: Decision) {
        let name = self.name();
        match decision {
            Decision::Over(id, how, at) => self.over(id, how, at),
            Decision::Suspect(ids, trouble) => self.suspect(&ids, &trouble),
            Decision::Clear(id) => {
                tracing::info!(concourse = name, build = id, "the build was seen again: it is no longer suspect");
                self.tell(id, |build| Command::Suspect { build, why: None });
            }
            Decision::Down(trouble) => {
                tracing::warn!(
                    concourse = name,
                    why = trouble.text,
                    builds = self.schedule.watched(),
                    "Concourse does not answer: all holds stay, and are suspect until it does"
                );
                self.watch.report.fails(&trouble.text, self.watch.engine.now().wall);
            }
            Decision::Up => {
                tracing::info!(concourse = name, "Concourse answers again");
                self.watch.report.status().contact = Contact::Well;
                // It may be a different version now, or need a different login.
                self.next_greeting = Some(self.now());
            }
        }
    }

    fn over(&self, id: BuildNo, how: BuildEnd, at: Option<WallMs>) {
        tracing::info!(
            concourse = self.name(),
            build = id,
            how = how.word(),
            "the build is over: what waits or depends on it ends"
        );
        self.tell(id, |build| Command::BuildOver { build, how, at });
    }

    fn suspect(&self, ids: &[BuildNo], trouble: &Trouble) {
        let named: Vec<String> = ids.iter().take(limits::WATCH_NAMED).map(ToString::to_string).collect();
        tracing::warn!(
            concourse = self.name(),
            builds = named.join(", "),
            more = ids.len() - named.len(),
            cause = trouble.cause.word(),
            why = trouble.text,
            "not known whether these builds are alive: their holds stay, and are suspect"
        );
        for id in ids {
            self.tell(*id, |build| Command::Suspect { build, why: reason(&trouble.text) });
        }
    }

    /// Sends the engine a command about a build, once for each of its names.
    fn tell(&self, id: BuildNo, command: impl Fn(BuildRef) -> Command) {
        for build in self.names.get(&id).into_iter().flatten() {
            self.watch.engine.post(command(build.clone()));
        }
    }
}
