//! The thread that finds out what each target must be told. It sends nothing itself, so no target holds up another.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::{Bound, ControlFlow};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::conditions::{self, Round, Step, Told};
use super::progress::{Known, News, Progress};
use super::sender::{self, Job, Shared, Work};
use super::settings::{Concourse, Settings, Target, To, Webhook, read_text};
use super::{limits, message};
use crate::core::history::Change;
use crate::core::names::{ChangeKey, Revision};
use crate::core::state::Snapshot;
use crate::core::time::WallMs;
use crate::server::engine::Engine;
use crate::store::Reader;

/// What the planner needs.
pub(super) struct Planner {
    pub engine: Engine,
    pub reader: Arc<dyn Reader>,
    pub shared: Shared,
    /// The file of targets, and its text as it was read last, good or bad.
    pub file: PathBuf,
    pub text: String,
    pub settings: Settings,
    /// Set by SIGHUP: the file is read again even if it has not changed.
    pub hangup: Arc<AtomicBool>,
    pub state: State,
}

/// What it remembers from round to round.
#[derive(Default)]
pub(super) struct State {
    targets: Vec<Arc<Target>>,
    generation: u64,
    /// The targets that have a sender.
    busy: BTreeSet<String>,
    /// When a resource of Concourse may be checked again.
    not_before: BTreeMap<String, Instant>,
    /// When the limits of a target are looked at again.
    next_look: BTreeMap<String, Instant>,
    /// Up to which revision entries had left the history when a target was last told that something is missing.
    warned: BTreeMap<String, Revision>,
    next_poll: Option<Instant>,
    /// The last read of the history has failed, and that was logged.
    failed: bool,
}

/// Entries of the history that follow a revision.
struct Page {
    entries: Vec<Change>,
    /// Up to where these are all.
    upto: Revision,
    /// Nothing more follows at this moment.
    is_last: bool,
}

/// One moment.
struct Moment {
    snapshot: Arc<Snapshot>,
    wall: WallMs,
    at: Instant,
    pages: BTreeMap<Revision, Arc<Page>>,
}

impl Planner {
    /// Plans until the stop, even after a panic: otherwise nobody would be told anything any more.
    pub fn run(mut self) {
        loop {
            match catch_unwind(AssertUnwindSafe(|| self.plan_on())) {
                Ok(()) => return,
                Err(_) => {
                    tracing::error!("the planner of notifications has panicked: this is a bug in locker; it goes on");
                    self.shared.bell.pause(Duration::from_millis(limits::LOOK_MS));
                }
            }
        }
    }

    /// Begins with the targets of the settings.
    pub fn begin(&mut self) {
        let targets = std::mem::take(&mut self.settings.targets);
        self.state.targets = targets.into_iter().map(Arc::new).collect();
        self.state.generation = self.shared.bell.next_generation();
        let names = || self.state.targets.iter().map(|target| target.name.as_str());
        self.shared.figures.begin(names());
        let mut progress = self.progress();
        progress.keep(names(), self.engine.snapshot().revision);
        // A crash must not make a new target new once more.
        progress.save_now();
        drop(progress);
        self.state.next_look.clear();
        for target in self.state.targets.iter().filter(|target| target.sends_secrets_in_the_clear()) {
            let (target, place) = (&target.name, target.place());
            tracing::warn!(
                target,
                place,
                "its token or secret URL goes over a connection that is not encrypted: use https"
            );
        }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.shared.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn plan_on(&mut self) {
        let mut pause = Duration::ZERO;
        loop {
            let woken = self.shared.bell.wait(pause);
            if woken.stop {
                return;
            }
            for name in woken.idle {
                let pause = Duration::from_millis(limits::CHECK_PAUSE_MS);
                self.state.not_before.insert(name.clone(), Instant::now() + pause);
                self.state.busy.remove(&name);
            }
            if woken.news {
                self.shared.bell.pause(Duration::from_millis(limits::GATHER_MS));
            }
            self.reload();
            let is_done = self.plan();
            pause = if is_done { self.pause() } else { Duration::ZERO };
            self.progress().save(Instant::now());
        }
    }

    /// How long there is nothing to do unless something happens.
    fn pause(&self) -> Duration {
        let now = Instant::now();
        let held_back = self.state.not_before.iter().filter(|(_, at)| **at > now);
        let times = held_back.chain(&self.state.next_look);
        let times = times.filter(|(name, _)| !self.state.busy.contains(*name)).map(|(_, at)| *at);
        let next = times.chain(self.state.next_poll).min();
        let pause = next.map_or(Duration::MAX, |next| next.saturating_duration_since(now));
        pause.clamp(Duration::from_millis(limits::LOOK_LEAST_MS), Duration::from_millis(limits::LOOK_MS))
    }

    /// Reads the file of targets again, if it has changed or somebody asks for that.
    fn reload(&mut self) {
        let now = Instant::now();
        if self.state.next_poll.is_some_and(|at| at > now) {
            return;
        }
        self.state.next_poll = Some(now + Duration::from_millis(limits::NOTIFY_FILE_POLL_MS));
        let anyway = self.hangup.swap(false, Ordering::SeqCst);
        let text = read_text(&self.file);
        let now_is = match &text {
            Ok(text) => text.clone(),
            Err(bad) => bad.to_string(),
        };
        if now_is == self.text && !anyway {
            return;
        }
        self.text = now_is;
        match text.and_then(|text| Settings::parse(&self.file, &text)) {
            Ok(settings) => {
                self.settings = settings;
                self.begin();
                let count = self.state.targets.len();
                tracing::info!(file = %self.file.display(), count, "the targets of notifications were read again");
            }
            Err(bad) => {
                let reason = bad.to_string();
                tracing::warn!(reason, "the new file of targets is not used, the old targets stay");
            }
        }
    }

    /// One round for all targets. Returns whether nothing more is to be done at this moment.
    fn plan(&mut self) -> bool {
        let (snapshot, wall) = (self.engine.snapshot(), self.engine.now().wall);
        let mut moment = Moment { snapshot, wall, at: Instant::now(), pages: BTreeMap::new() };
        let mut is_done = true;
        for target in self.state.targets.clone() {
            if self.state.busy.contains(&target.name) {
                continue;
            }
            match self.plan_for(&target, &mut moment) {
                Ok(done) => {
                    is_done &= done;
                    self.state.failed = false;
                }
                Err(error) => {
                    // Tried again at the next look.
                    if !std::mem::replace(&mut self.state.failed, true) {
                        let reason = format!("{error:#}");
                        tracing::warn!(reason, "the history cannot be read, so nobody is notified for now");
                    }
                    return true;
                }
            }
        }
        is_done
    }

    fn plan_for(&mut self, target: &Arc<Target>, moment: &mut Moment) -> anyhow::Result<bool> {
        let Some(mut known) = self.progress().get(&target.name) else { return Ok(true) };
        // A clock that was set back must not keep limits from being seen.
        known.told.until = known.told.until.min(moment.wall);
        let page = self.page(known.told.revision, moment)?;
        known.gone |= self.lacks(target, known.told.revision);
        match &target.to {
            To::Webhook(Webhook { rules, .. }) => {
                let mut round = Round::default();
                conditions::of_entries(&mut round, rules, &page.entries, known.told, moment.wall);
                let mut end = Told { revision: page.upto, ..known.told };
                if page.is_last && self.looks(target, moment.at) {
                    end = conditions::of_moment(&mut round, rules, &moment.snapshot, known.told, moment.wall);
                }
                self.tell(target, known, round, end, moment.wall);
                Ok(page.is_last)
            }
            To::Concourse(Concourse { pools, .. }) => {
                let first = page.entries.iter().find(|entry| conditions::is_version_of(pools, entry));
                let since = first.map(|entry| entry.at).or(known.gone.then_some(moment.wall));
                match since {
                    // The check shows everything that has happened before it.
                    Some(since) if self.may_check(target, moment.at) => {
                        let all = Told { revision: moment.snapshot.revision, ..known.told };
                        self.start(Job {
                            target: Arc::clone(target),
                            work: Work::Check(since, all),
                            known,
                            generation: self.state.generation,
                        });
                        Ok(true)
                    }
                    Some(_) => {
                        // What has left the history is still to be told.
                        self.progress().set(&target.name, known, News::Moved);
                        Ok(true)
                    }
                    None => {
                        let told = Told { revision: page.upto, ..known.told };
                        self.progress().set(&target.name, Known { told, ..known }, News::Moved);
                        Ok(page.is_last)
                    }
                }
            }
        }
    }

    /// Whether entries may have left the history that come after this revision, and of which the target was not told yet
    /// that they are missing. The history of a removed pool does not count: it leaves with the pool.
    fn lacks(&mut self, target: &Target, told: Revision) -> bool {
        // As of after the read of the entries.
        let gone = self.engine.snapshot().history.pruned;
        let warned = self.state.warned.get(&target.name).copied().unwrap_or_default();
        let lacks = told.max(warned) < gone;
        if lacks {
            self.state.warned.insert(target.name.clone(), gone);
        }
        lacks
    }

    fn may_check(&self, target: &Target, now: Instant) -> bool {
        self.state.not_before.get(&target.name).is_none_or(|at| *at <= now)
    }

    /// Whether the limits of a target are looked at now.
    fn looks(&mut self, target: &Target, now: Instant) -> bool {
        let Some(period) = target.look() else { return false };
        if self.state.next_look.get(&target.name).is_some_and(|at| *at > now) {
            return false;
        }
        self.state.next_look.insert(target.name.clone(), now + Duration::from_millis(period.0));
        true
    }

    /// Starts to tell a target what follows, if anything does.
    fn tell(&mut self, target: &Arc<Target>, mut known: Known, mut round: Round, end: Told, now: WallMs) {
        if let Some(last) = round.steps.last_mut() {
            last.then = end;
        }
        known.left_out += round.too_old;
        self.shared.figures.left_out(&target.name, round.too_old);
        if known.left_out > 0 || known.gone {
            let notification = message::missed(known.left_out, known.gone, known.told.until, now);
            let then = if round.steps.is_empty() { end } else { known.told };
            round.steps.insert(0, Step { notification, at: now, then });
        }
        if round.steps.is_empty() {
            return self.progress().set(&target.name, Known { told: end, ..known }, News::Moved);
        }
        if let Some(url) = &self.settings.server_url {
            for Step { notification, .. } in &mut round.steps {
                notification.link = message::link(url, notification);
            }
        }
        let (target, generation) = (Arc::clone(target), self.state.generation);
        self.start(Job { target, work: Work::Steps(round.steps), known, generation });
    }

    fn start(&mut self, job: Job) {
        let name = job.target.name.clone();
        let shared = self.shared.clone();
        let started = std::thread::Builder::new().name("notify".into()).spawn(move || sender::run(&shared, job));
        match started {
            Ok(_) => drop(self.state.busy.insert(name)),
            // What the target has been told is unchanged, so the next round begins here again.
            Err(error) => tracing::warn!(target = name, reason = %error, "no thread can be started to notify"),
        }
    }

    /// The entries that follow a revision. Read once for all targets that are there.
    fn page(&self, after: Revision, moment: &mut Moment) -> anyhow::Result<Arc<Page>> {
        if let Some(page) = moment.pages.get(&after) {
            return Ok(Arc::clone(page));
        }
        let page = Arc::new(self.read(after, moment.snapshot.revision)?);
        moment.pages.insert(after, Arc::clone(&page));
        Ok(page)
    }

    fn read(&self, after: Revision, newest: Revision) -> anyhow::Result<Page> {
        let (mut entries, mut is_last) = (Vec::new(), true);
        if after < newest {
            let last_of = |revision| ChangeKey { revision, seq: u32::MAX };
            let range = (Bound::Excluded(last_of(after)), Bound::Included(last_of(newest)));
            self.reader.walk(range, false, &mut |change: Change| {
                // The entries of one revision stay together.
                let is_next = entries.last().is_some_and(|last: &Change| last.key.revision < change.key.revision);
                if entries.len() >= limits::ENTRIES_PER_ROUND && is_next {
                    is_last = false;
                    return ControlFlow::Break(());
                }
                entries.push(change);
                ControlFlow::Continue(())
            })?;
        }
        let upto = match entries.last() {
            Some(last) if !is_last => last.key.revision,
            _ => newest.max(after),
        };
        Ok(Page { entries, upto, is_last })
    }
}
