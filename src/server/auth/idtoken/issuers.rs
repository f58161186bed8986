//! All issuers of an access file, each with its keys at hand. Checking a token never waits: when a key may be new, the
//! keys are fetched by a thread of the issuer, and the client is told to ask again.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};

use super::checked::{self, Checked, Found};
use super::fetch::{self, Fetch};
use super::jwk::KeySet;
use super::jws::Token;
use super::limits::{IDTOKEN_LEEWAY_SECONDS, IDTOKEN_TIMEOUT_MS};
use super::refusal::Refusal;
use super::schedule::{Pace, Schedule};
use super::settings::{IssuerSettings, KeySource};
use super::verify::{Proved, verify};
use crate::env::{Clock, SystemClock};

/// The issuers whose tokens a server accepts. The default accepts none. Their threads end when it is dropped.
#[derive(Default)]
pub struct Issuers {
    all: Vec<Issuer>,
    /// Tokens that were found true.
    checked: Checked,
}

/// The issuers that are trusted now. Cheap to clone; clones are the same. The default trusts nobody.
#[derive(Clone)]
pub struct Trusted(Arc<Trust>);

struct Trust {
    now: ArcSwap<Issuers>,
    /// The environment, which may name proxies.
    vars: BTreeMap<String, String>,
    clock: Arc<dyn Clock>,
    patience: Patience,
}

impl Default for Trusted {
    fn default() -> Self {
        Self::new(BTreeMap::new(), Arc::new(SystemClock::default()), Patience::default())
    }
}

impl Trusted {
    /// Trusts nobody yet.
    #[must_use]
    pub fn new(vars: BTreeMap<String, String>, clock: Arc<dyn Clock>, patience: Patience) -> Self {
        Self(Arc::new(Trust { now: ArcSwap::default(), vars, clock, patience }))
    }

    /// Trusts these from now on, and nobody else. Files are named relative to the directory `base`.
    ///
    /// # Errors
    /// As [`Issuers::open`]. Then nothing changes.
    pub fn trust(&self, settings: &[IssuerSettings], base: &Path) -> Result<(), String> {
        let Trust { now, vars, clock, patience } = &*self.0;
        now.store(Arc::new(Issuers::open(settings, base, &now.load(), vars, clock, *patience)?));
        Ok(())
    }

    /// Those that are trusted now.
    #[must_use]
    pub fn now(&self) -> Arc<Issuers> {
        self.0.now.load_full()
    }
}

/// One issuer. Dropping it stops its thread, after the request that the thread may be making.
struct Issuer {
    settings: IssuerSettings,
    inner: Arc<Inner>,
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.inner.state().stop = true;
        self.inner.bell.notify_all();
    }
}

/// What an issuer shares with its thread.
struct Inner {
    name: String,
    keys: ArcSwapOption<Fetched>,
    state: Mutex<State>,
    /// Rings when something is wanted, and at the end.
    bell: Condvar,
    pace: Pace,
    clock: Arc<dyn Clock>,
}

/// Keys, and when they were asked for, in seconds since 1970 UTC.
pub(super) struct Fetched {
    keys: KeySet,
    at: i64,
    /// They come from a file, which is read only with the access file.
    is_fixed: bool,
}

#[derive(Default)]
struct State {
    schedule: Schedule,
    /// Why there are no newer keys.
    trouble: Option<String>,
    stop: bool,
}

/// How long requests and pauses of a fetch may be.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    pub pace: Pace,
    /// Longest time for each of its two requests.
    pub timeout: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { pace: Pace::default(), timeout: Duration::from_millis(IDTOKEN_TIMEOUT_MS) }
    }
}

impl Issuers {
    /// Opens these issuers, reads their files, which are named relative to the directory `base`, and starts a thread for each that publishes its keys. Where `before` has
    /// fetched the keys of the same issuer, those are used until there are newer ones.
    ///
    /// # Errors
    /// A file cannot be used, or the system cannot start a thread. The text names the issuer.
    pub fn open(
        settings: &[IssuerSettings],
        base: &Path,
        before: &Self,
        vars: &BTreeMap<String, String>,
        clock: &Arc<dyn Clock>,
        patience: Patience,
    ) -> Result<Self, String> {
        let open = |wanted: &IssuerSettings| {
            let fetched = before.all.iter().find(|old| old.settings.issuer == wanted.issuer);
            let fetched = fetched.and_then(|old| old.inner.keys.load_full()).filter(|keys| !keys.is_fixed);
            let opened = Issuer::open(wanted, base, fetched, vars, clock, patience);
            opened.map_err(|why| format!("issuer {}: {why}", wanted.name))
        };
        let all = settings.iter().map(open).collect::<Result<_, _>>()?;
        Ok(Self { all, checked: Checked::default() })
    }

    /// Whether no tokens are accepted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// What a token proves now. Never blocks.
    ///
    /// # Errors
    /// Why it proves nothing; some refusals pass ([`Refusal::retry_after`]).
    pub fn check(&self, token: &str) -> Result<Arc<Proved>, Refusal> {
        let hash = checked::hash(token);
        if let Some(found) = self.checked.find(&hash)
            && let Some(issuer) = self.all.get(found.issuer)
            && issuer.inner.keys.load().as_ref().is_some_and(|keys| Arc::ptr_eq(keys, &found.keys))
            && found.is_good(issuer.inner.seconds())
        {
            return Ok(found.proved);
        }
        let token = Token::parse(token)?;
        let named = token.issuer().unwrap_or_default();
        let Some(index) = self.all.iter().position(|issuer| issuer.settings.issuer == named) else {
            return Err(Refusal::OtherIssuer(named.to_owned()));
        };
        let (proved, keys) = self.all[index].check(&token)?;
        let proved = Arc::new(proved);
        self.checked.keep(hash, Found::new(index, keys, &token, Arc::clone(&proved)));
        Ok(proved)
    }

    /// How each of them is, in the order of the settings.
    #[must_use]
    pub fn report(&self) -> Vec<IssuerReport> {
        self.all.iter().map(Issuer::report).collect()
    }
}

impl Issuer {
    fn open(
        settings: &IssuerSettings,
        base: &Path,
        fetched: Option<Arc<Fetched>>,
        vars: &BTreeMap<String, String>,
        clock: &Arc<dyn Clock>,
        patience: Patience,
    ) -> Result<Self, String> {
        let inner = Arc::new(Inner {
            name: settings.name.clone(),
            keys: ArcSwapOption::empty(),
            state: Mutex::default(),
            bell: Condvar::new(),
            pace: patience.pace,
            clock: Arc::clone(clock),
        });
        match &settings.keys {
            KeySource::File(file) => {
                let keys = fetch::of_file(&base.join(file))?;
                inner.keys.store(Some(Arc::new(Fetched { keys, at: inner.seconds(), is_fixed: true })));
            }
            KeySource::Discovery { .. } => {
                let fetch = Fetch::open(settings, base, vars)?.with_timeout(patience.timeout);
                inner.keys.store(fetched);
                let keeper = Arc::clone(&inner);
                let thread = std::thread::Builder::new().name("issuer".to_owned());
                thread.spawn(move || keeper.keep(&fetch)).map_err(|why| format!("cannot start a thread: {why}"))?;
            }
        }
        if settings.fetches_in_the_clear() {
            tracing::warn!(
                issuer = settings.name,
                "the keys of this issuer come over http: whoever is on the way can put other keys in their place; use \
                 https, or `jwks` with a file"
            );
        }
        Ok(Self { settings: settings.clone(), inner })
    }

    fn report(&self) -> IssuerReport {
        let state = self.inner.state();
        let fetched = self.inner.keys.load_full();
        IssuerReport {
            name: self.settings.name.clone(),
            issuer: self.settings.issuer.clone(),
            keys: fetched.as_ref().map_or(0, |fetched| fetched.keys.count()),
            fetched: fetched.map(|fetched| fetched.at),
            failures: state.schedule.failures(),
            trouble: state.trouble.clone(),
        }
    }

    /// What the token proves, and the keys that say so.
    fn check(&self, token: &Token<'_>) -> Result<(Proved, Arc<Fetched>), Refusal> {
        let now = self.inner.seconds();
        let Some(fetched) = self.inner.keys.load_full() else {
            let (why, retry_after) = self.inner.trouble();
            return Err(Refusal::NoKeys { issuer: self.settings.name.clone(), why, retry_after });
        };
        match verify(token, &self.settings, &fetched.keys, now) {
            Err(Refusal::UnknownKey(_)) if may_be_newer(token, &fetched, now) => {
                let retry_after = self.inner.want();
                Err(Refusal::KeyNotYetKnown { issuer: self.settings.name.clone(), retry_after })
            }
            result => Ok((result?, fetched)),
        }
    }
}

/// How an issuer is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerReport {
    /// Its name in the access file.
    pub name: String,
    /// Its URL.
    pub issuer: String,
    /// How many keys of it are known.
    pub keys: usize,
    /// When they were fetched or read, in seconds since 1970 UTC. `None` if there are none yet.
    pub fetched: Option<i64>,
    /// How many fetches in a row have failed.
    pub failures: u32,
    /// Why the last one failed.
    pub trouble: Option<String>,
}

/// Whether the key of a token may have been published after the keys were fetched: if the token was made later, give or
/// take the leeway. A token that nobody could use now is not worth a question.
fn may_be_newer(token: &Token<'_>, fetched: &Fetched, now: i64) -> bool {
    let made = token.time("iat").filter(|made| *made - now <= IDTOKEN_LEEWAY_SECONDS);
    !fetched.is_fixed && made.is_some_and(|made| made >= fetched.at - IDTOKEN_LEEWAY_SECONDS)
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The wall clock, in seconds.
    fn seconds(&self) -> i64 {
        i64::try_from(self.clock.wall_ms() / 1_000).unwrap_or(i64::MAX)
    }

    /// Asks for newer keys. Returns when to look for them again.
    fn want(&self) -> Duration {
        let mut state = self.state();
        if state.schedule.want() {
            self.bell.notify_all();
        }
        soon(state.schedule.next(self.clock.monotonic(), &self.pace))
    }

    /// Why there are no keys, and when to look for them again.
    fn trouble(&self) -> (String, Duration) {
        let state = self.state();
        let why = state.trouble.clone().unwrap_or_else(|| "they are being fetched".to_owned());
        (why, soon(state.schedule.next(self.clock.monotonic(), &self.pace)))
    }

    /// Fetches keys until the end.
    fn keep(&self, fetch: &Fetch) {
        while self.wait() {
            let at = self.seconds();
            let found = catch_unwind(AssertUnwindSafe(|| fetch.fetch()));
            self.learn(at, found.unwrap_or_else(|_| Err("fetching them has panicked: this is a bug in locker".into())));
        }
    }

    /// Waits until a fetch is due, and begins it. `false` at the end.
    fn wait(&self) -> bool {
        let mut state = self.state();
        loop {
            let now = self.clock.monotonic();
            let span = state.schedule.next(now, &self.pace);
            if state.stop {
                return false;
            }
            if span.is_zero() {
                state.schedule.begin(now);
                return true;
            }
            state = self.bell.wait_timeout(state, span).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Takes the keys over, or notes why there are none. Older keys stay until there are newer ones.
    fn learn(&self, at: i64, found: Result<KeySet, String>) {
        let mut state = self.state();
        state.schedule.end(found.is_ok());
        match found {
            Ok(keys) => {
                let is_news = state.trouble.take().is_some() || self.keys.load().is_none();
                if is_news {
                    tracing::info!(issuer = self.name, keys = keys.count(), "the keys of an issuer are here");
                }
                self.keys.store(Some(Arc::new(Fetched { keys, at, is_fixed: false })));
            }
            Err(why) => {
                if state.trouble.as_ref() != Some(&why) {
                    let kept = if self.keys.load().is_some() { "the older ones are used" } else { "there are none" };
                    tracing::warn!(issuer = self.name, why, kept, "the keys of an issuer cannot be fetched");
                }
                state.trouble = Some(why);
            }
        }
    }
}

/// A pause to tell a client: at least a second, in which a fetch that is due will usually be done.
fn soon(span: Duration) -> Duration {
    Duration::from_secs(span.as_secs() + 1)
}
