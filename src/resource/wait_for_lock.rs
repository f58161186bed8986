//! `check`, `check_unclaimed` and `update`: wait for a lock to change, by long polls on the pool's history.

use std::collections::BTreeMap;
use std::time::Duration;

use super::add::{NewLock, Placed, put_or_patch, tell_new_pool};
use super::input::Input;
use super::persist::Persist;
use super::progress;
use super::put::{Put, Stop};
use super::release;
use crate::client::acquire::{News, self_wait_limit};
use crate::client::backoff::Backoff;
use crate::client::progress::Progress;
use crate::client::{CallError, Client, who};
use crate::env::Env;
use crate::wire::api::{ChangeKind, ChangeView, HolderView, LockState, LockView, WhenEmpty};
use crate::wire::concourse::{Answer, Watch};
use crate::wire::errors::Code;

/// The end of a drain is not a change of the pool, so a draining lock is checked this often.
const DRAIN_LOOK: Duration = Duration::from_secs(5);

/// Waits until nobody holds the lock. Nobody holds a lock that does not exist, or that was removed meanwhile.
pub(super) fn check(put: &Put<'_>, dir: &str, watch: Watch, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let lock = Input::open(&put.dir, "check", dir)?.lock_name()?;
    put.announce(env, &format!("waiting until lock {:?} is unclaimed in", lock.as_str()));
    let free = |view: &LockView, _: &[ChangeView]| view.state == LockState::Free;
    if look_until(put, lock.as_str(), watch, Missing::IsGood, &free, env)? {
        put.tell(env, format!("{:?} is unclaimed", lock.as_str()));
    } else {
        put.tell(env, format!("pool {:?} has no lock {:?}, so nobody holds it", put.pool(), lock.as_str()));
    }
    release::note(put, &mut Persist::from_now(put, env)?, Some(lock.as_str()), env)
}

/// Waits until someone holds the lock, or has held it since the wait began. Fails if the lock does not exist, unless
/// claims wait for it (`when_empty: wait`).
pub(super) fn check_unclaimed(put: &Put<'_>, dir: &str, watch: Watch, env: &mut Env<'_>) -> Result<Answer, Stop> {
    let lock = Input::open(&put.dir, "check_unclaimed", dir)?.lock_name()?;
    let name = lock.as_str();
    put.announce(env, &format!("waiting until lock {name:?} is claimed in"));
    let claimed = |view: &LockView, news: &[ChangeView]| {
        let ours = |change: &ChangeView| change.locks.iter().any(|l| l.lock == name && l.pool == put.pool());
        view.state == LockState::Held || news.iter().any(|c| c.kind == ChangeKind::Claimed && ours(c))
    };
    look_until(put, name, watch, Missing::IsUpToThePool, &claimed, env)?;
    put.tell(env, format!("{name:?} is claimed"));
    release::note(put, &mut Persist::from_now(put, env)?, Some(name), env)
}

/// What a lock that does not exist means to a wait.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Missing {
    IsGood,
    /// The wait goes on if claims would wait for the lock, and fails otherwise.
    IsUpToThePool,
}

/// Waits until the lock is good. Returns whether it exists.
fn look_until(
    put: &Put<'_>,
    lock: &str,
    watch: Watch,
    missing: Missing,
    good: &dyn Fn(&LockView, &[ChangeView]) -> bool,
    env: &mut Env<'_>,
) -> Result<bool, Stop> {
    let mut wait = Wait::begin(put, lock, watch, env)?;
    loop {
        let (pool, name) = (put.pool().to_owned(), lock.to_owned());
        let look = move |client: &Client| match client.get_lock(&pool, &name) {
            Err(error) if error.code() == Some(Code::NoSuchLock) => {
                let goes_on = missing == Missing::IsGood
                    || client.get_pool(&pool)?.summary.policy.when_empty == Some(WhenEmpty::Wait);
                if goes_on { Ok(None) } else { Err(error) }
            }
            found => found.map(Some),
        };
        let view = wait.call(look, env)?;
        match &view {
            None if missing == Missing::IsGood => return Ok(false),
            Some(view) if good(view, &wait.news) => return Ok(true),
            _ => wait.for_change(view.as_ref(), env)?,
        }
    }
}

/// Replaces the metadata and labels of a lock that nobody holds. Adds the lock if it does not exist. Waits while
/// someone holds it.
pub(super) fn update(
    put: &Put<'_>,
    dir: &str,
    labels: BTreeMap<String, String>,
    watch: Watch,
    env: &mut Env<'_>,
) -> Result<Answer, Stop> {
    let lock = NewLock::read(put, "update", dir, labels)?;
    let name = lock.name.as_str().to_owned();
    put.announce(env, &format!("updating lock {name:?} of"));
    let mut wait = Wait::begin(put, &name, watch, env)?;
    loop {
        let (pool, to, body) = (put.pool().to_owned(), name.clone(), lock.body.clone());
        match wait.call(move |client| put_or_patch(client, &pool, &to, &body), env)? {
            Placed::Changed(done) => {
                put.tell(env, format!("updated {name:?}"));
                return Ok(put.answer(done.revision, Some(&name), Vec::new()));
            }
            Placed::Added(done) => {
                tell_new_pool(put, &done, env);
                put.tell(env, format!("added {name:?}: there was no such lock to update"));
                return Ok(put.answer(done.revision, Some(&name), Vec::new()));
            }
            Placed::Held => {}
        }
        let (pool, to) = (put.pool().to_owned(), name.clone());
        let view = wait.call(
            move |client| match client.get_lock(&pool, &to) {
                // Someone has removed it. The next attempt adds it.
                Err(error) if matches!(error.code(), Some(Code::NoSuchLock | Code::NoSuchPool)) => Ok(None),
                other => other.map(Some),
            },
            env,
        )?;
        if let Some(view) = view {
            wait.for_change(Some(&view), env)?;
        }
    }
}

/// A wait for one lock, from the first look at it.
struct Wait<'w> {
    put: &'w Put<'w>,
    lock: &'w str,
    watch: Watch,
    start: Duration,
    /// When this build became the only holder of the lock.
    own_since: Option<Duration>,
    own_limit: Duration,
    backoff: Backoff,
    progress: Progress,
    /// All changes up to this revision are known.
    seen: u64,
    /// The changes of the pool between the last two looks.
    news: Vec<ChangeView>,
    /// Who held the lock at the last look.
    holders: String,
}

impl<'w> Wait<'w> {
    fn begin(put: &'w Put<'w>, lock: &'w str, watch: Watch, env: &mut Env<'_>) -> Result<Self, Stop> {
        let mut wait = Self {
            put,
            lock,
            watch,
            start: put.clock.monotonic(),
            own_since: None,
            own_limit: self_wait_limit(env)?,
            backoff: Backoff::new(put.timing.retry_max),
            progress: Progress::new(progress::pace(put.source.log_level, env)?),
            seen: 0,
            news: Vec::new(),
            holders: String::new(),
        };
        // Read before the first look at the lock, so that no later change is missed.
        let pool = put.pool().to_owned();
        wait.seen = wait.call(
            move |client| match client.newest_revision(&pool) {
                Err(error) if error.code() == Some(Code::NoSuchPool) => Ok(0),
                other => other,
            },
            env,
        )?;
        Ok(wait)
    }

    /// Makes the call, and retries after each temporary failure until the timeout.
    fn call<T: Send + 'static>(
        &mut self,
        work: impl Fn(&Client) -> Result<T, CallError> + Send + Clone + 'static,
        env: &mut Env<'_>,
    ) -> Result<T, Stop> {
        let signalled = |signal| Stop::Signalled(signal, "the wait has ended; nothing is held".to_owned());
        loop {
            let (client, attempt, sent) = (self.put.client().clone(), work.clone(), self.put.clock.monotonic());
            match self.put.interruptible.run(move || attempt(&client)).map_err(signalled)? {
                Err(CallError::NoAnswer(why)) => {
                    let news = News::NoAnswer { why: &why, met: self.put.client().has_met(), has_place: false, sent };
                    let lines = self.progress.lines(&news, self.put.moment());
                    lines.iter().for_each(|line| self.put.tell(env, line));
                    let pause = self.backoff.pause(why.retry_after);
                    let left = self.left(&why.to_string())?;
                    self.put.interruptible.sleep(left.map_or(pause, |left| left.min(pause))).map_err(signalled)?;
                }
                answer => {
                    self.backoff.reset();
                    return Ok(answer?);
                }
            }
        }
    }

    /// The time left until `timeout`, if there is one.
    fn left(&self, why: &str) -> Result<Option<Duration>, Stop> {
        let Some(timeout) = self.watch.timeout else { return Ok(None) };
        let spent = self.put.clock.monotonic().saturating_sub(self.start);
        let left = timeout.saturating_sub(spent);
        if left.is_zero() {
            let limit = progress::span(timeout);
            return Err(Stop::Failed(format!("still waiting after the timeout of {limit}: {why}")));
        }
        Ok(Some(left))
    }

    /// Reports who holds the lock, and waits for the next change of the pool.
    ///
    /// `None`: the lock does not exist.
    fn for_change(&mut self, view: Option<&LockView>, env: &mut Env<'_>) -> Result<(), Stop> {
        let now = self.put.clock.monotonic();
        let (state, holders) = (view.map(|view| view.state), view.map_or(&[][..], |view| &view.holders));
        let free = match state {
            None => format!("the pool has no lock {:?}, waiting for it to be added", self.lock),
            Some(LockState::Draining) => {
                format!("{:?} is out of use for a while, because its holder was lost", self.lock)
            }
            Some(LockState::Quarantined) => format!("{:?} is quarantined", self.lock),
            Some(_) => format!("{:?} is unclaimed", self.lock),
        };
        let lines = self.progress.watched(holders, &free, None, self.put.moment());
        lines.iter().for_each(|line| self.put.tell(env, line));
        self.holders = match who::holders(holders, self.put.now()) {
            nobody if nobody.is_empty() => free,
            holders => format!("held: {holders}"),
        };
        let own = self.check_own(holders, now, env)?;
        let left = self.left(&self.holders)?;
        let drain = (state == Some(LockState::Draining)).then_some(DRAIN_LOOK);
        let spans = [left, own, drain].into_iter().flatten();
        let span = spans.fold(self.put.timing.wait, Duration::min).max(Duration::from_millis(1));
        let (pool, seen) = (self.put.pool().to_owned(), self.seen);
        let page = self.call(move |client| client.wait_for_change(&pool, seen, span), env)?;
        self.seen = page.items.last().map_or(self.seen, |change| change.revision);
        self.news = page.items;
        Ok(())
    }

    /// Fails if this build has been the only holder for too long. Returns the time left until then.
    fn check_own(
        &mut self,
        holders: &[HolderView],
        now: Duration,
        env: &mut Env<'_>,
    ) -> Result<Option<Duration>, Stop> {
        let build = |owner: &crate::wire::api::Owner| owner.cluster.clone().zip(owner.build_id.clone());
        let ours = build(&self.put.owner);
        let own = !holders.is_empty() && ours.is_some() && holders.iter().all(|h| build(&h.owner) == ours);
        if !own {
            self.own_since = None;
            return Ok(None);
        }
        let since = *self.own_since.get_or_insert_with(|| {
            let what = "this build itself holds the lock, so another step of it must release it";
            self.put.tell(env, format!("waiting: {what}"));
            now
        });
        if self.watch.self_wait {
            return Ok(None);
        }
        let left = self.own_limit.saturating_sub(now.saturating_sub(since));
        if left.is_zero() {
            let limit = progress::span(self.own_limit);
            return Err(Stop::Failed(format!(
                "this build itself has held the lock for {limit}, so this step may wait forever: release the lock first, \
                 or remove self_wait: fail to keep waiting; {}",
                self.holders
            )));
        }
        Ok(Some(left))
    }
}
