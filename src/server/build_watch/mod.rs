//! The build watch (`docs/operations.md#the-build-watch`): asks Concourse whether the builds behind claims are still
//! running.
//!
//! - [`settings`]: `--concourse`. [`address`]: which Concourse a URL means.
//! - [`build_status`]: what an answer says about a build. [`schedule`]: when each build is asked about, and what
//!   follows from the answers. [`places`]: builds whose id must be found first. [`session`]: how long a token is used.
//!   These four are pure: values in, values out.
//! - [`concourse`]: one Concourse over HTTP. `watcher`: one thread for each Concourse, which reports to the engine.
//! - [`verify`]: checks at claim time. [`report`]: the state of the watch, for `GET /api/v1/info`.
//!
//! Nothing here frees a lock just because an answer is missing or unclear.

pub mod address;
pub mod build_status;
pub mod concourse;
pub mod limits;
pub mod places;
pub mod report;
pub mod schedule;
pub mod session;
pub mod settings;
pub mod verify;
mod watcher;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use self::address::ClusterUrl;
use self::concourse::Concourse;
use self::report::Report;
use self::schedule::BuildNo;
use self::settings::WatchSettings;
use self::verify::{Checks, Verdict};
use self::watcher::{Bell, Watch};
use super::engine::Engine;
use crate::core::claim::{BuildRef, Claim, Owner, Scope};
use crate::core::command::Command;
use crate::core::names::Reason;
use crate::core::state::Snapshot;
use crate::env::{Clock, SystemClock};
use crate::wire::api::ConcourseView;
use crate::wire::errors::Code;
use crate::wire::escape::escape;

/// All Concourse installations that the server knows.
#[derive(Default)]
pub(super) struct Installations {
    all: Vec<Arc<Concourse>>,
    by_url: BTreeMap<ClusterUrl, usize>,
}

impl Installations {
    fn open(settings: &WatchSettings, vars: &BTreeMap<String, String>, clock: &Arc<dyn Clock>) -> Result<Self, String> {
        let open = |concourse: &settings::ConcourseSettings| {
            let opened = Concourse::open(concourse, settings.pace.period, vars, Arc::clone(clock));
            opened.map(Arc::new).map_err(|why| format!("--concourse {}: {why}", concourse.url))
        };
        let all: Vec<Arc<Concourse>> = settings.concourses.iter().map(open).collect::<Result<_, _>>()?;
        let urls =
            all.iter().enumerate().flat_map(|(n, concourse)| concourse.urls.iter().map(move |url| (url.clone(), n)));
        let by_url = urls.collect();
        Ok(Self { all, by_url })
    }

    /// The index of the Concourse that a claim names by its `ATC_EXTERNAL_URL`.
    fn named(&self, cluster: &str) -> Option<usize> {
        self.by_url.get(&ClusterUrl::parse(cluster).ok()?).copied()
    }

    /// Where to ask about a build. `None` if the build belongs to another Concourse or has no number.
    fn find(&self, build: &BuildRef) -> Option<(usize, BuildNo)> {
        Some((self.named(build.cluster.as_str())?, build.id.as_str().parse().ok()?))
    }
}

/// Why a claim is not admitted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAdmitted {
    pub code: Code,
    pub error: String,
}

/// The routes' handle to the watch. Cheap to clone. The default watches nothing.
#[derive(Clone)]
pub struct BuildWatch {
    installations: Arc<Installations>,
    reports: Vec<Report>,
    checks: Arc<Checks>,
    /// Whether new claims of builds are checked.
    verify: bool,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    bell: Bell,
}

impl Default for BuildWatch {
    fn default() -> Self {
        Self {
            installations: Arc::default(),
            reports: Vec::new(),
            checks: Arc::default(),
            verify: false,
            timeout: WatchSettings::default().timeout,
            clock: Arc::new(SystemClock::default()),
            bell: Bell::default(),
        }
    }
}

impl BuildWatch {
    /// Prepares the watch. Nothing is sent before [`Self::start`].
    ///
    /// # Errors
    /// The settings cannot work. The message says which one, and what to do.
    pub fn open(
        settings: &WatchSettings,
        vars: &BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        settings.check()?;
        let installations = Arc::new(Installations::open(settings, vars, &clock)?);
        let reports = installations.all.iter().map(|_| Report::default()).collect();
        let (verify, timeout) = (settings.verify, settings.timeout);
        Ok(Self { installations, reports, checks: Arc::default(), verify, timeout, clock, bell: Bell::default() })
    }

    /// Starts the watch: one thread for each Concourse. The threads end after [`Self::stop`].
    ///
    /// # Errors
    /// The system cannot start a thread.
    pub fn start(&self, settings: &WatchSettings, engine: &Engine) -> std::io::Result<()> {
        self.leave_the_unknown(engine);
        for (index, report) in self.reports.iter().enumerate() {
            let concourse = &self.installations.all[index];
            let mut urls = concourse.urls.iter().map(ToString::to_string);
            let (name, login) = (urls.next().unwrap_or_default(), concourse.login.describe());
            let aliases: Vec<String> = urls.collect();
            tracing::info!(concourse = name, aliases = aliases.join(", "), login, "watching the builds of a Concourse");
            if concourse.sends_secrets_in_the_clear() {
                tracing::warn!(concourse = name, "the login goes over a connection that is not encrypted: use https");
            }
            let watch = Watch {
                engine: engine.clone(),
                installations: Arc::clone(&self.installations),
                index,
                report: report.clone(),
                clock: Arc::clone(&self.clock),
                bell: self.bell.clone(),
                pace: settings.pace,
                timeout: self.timeout,
            };
            std::thread::Builder::new().name("build watch".into()).spawn(move || watcher::run(watch))?;
        }
        Ok(())
    }

    /// Keeps the holds of builds that are no longer watched, and marks them as suspect with the reason.
    fn leave_the_unknown(&self, engine: &Engine) {
        let snapshot = engine.snapshot();
        let decides = |claim: &Arc<Claim>| claim.scope == Scope::Build || claim.is_marked();
        let decided = |build: &&BuildRef| snapshot.claims_of(build).any(decides);
        let unknown = snapshot.builds_to_watch().map(|(build, _)| build);
        let unknown = unknown.filter(|build| self.installations.find(build).is_none()).filter(decided);
        for build in unknown {
            tracing::warn!(
                cluster = escape(build.cluster.as_str()),
                build = escape(build.id.as_str()),
                "a hold that ends with its build belongs to a Concourse that is not watched (any more): name it with --concourse"
            );
            let why = reason("the server does not know its Concourse: name it with --concourse");
            engine.post(Command::Suspect { build: build.clone(), why });
        }
    }

    /// Stops the threads. Each ends after its current request.
    pub fn stop(&self) {
        self.bell.stop();
    }

    /// Whether this build belongs to a Concourse that is watched and runs builds again in place, as it last said itself.
    #[must_use]
    pub fn runs_again(&self, build: &BuildRef, snapshot: &Snapshot) -> bool {
        let concourse = self.installations.find(build).map(|(index, _)| &self.installations.all[index]);
        let name = concourse.and_then(|concourse| concourse.stored_name());
        name.is_some_and(|name| snapshot.reruns.contains(&name))
    }

    /// Lets the threads read the claims again at once, because a hold was marked.
    pub fn wake(&self) {
        self.bell.wake();
    }

    /// The state of the watch, one entry for each Concourse.
    #[must_use]
    pub fn report(&self) -> Vec<ConcourseView> {
        let all = self.reports.iter().zip(&self.installations.all);
        all.map(|(report, concourse)| report.view(concourse)).collect()
    }

    /// Checks whether a new claim of this owner may be taken. If a build decides how long the hold lasts, the server
    /// must be able to watch that build. With `--verify-builds`, the build must also be running and match what the
    /// client says.
    ///
    /// # Errors
    /// The claim is not admitted. The code is [`Code::ConcourseUnavailable`] if a retry may succeed.
    pub async fn admit(&self, owner: &Owner, scope: Scope) -> Result<(), NotAdmitted> {
        let Some(build) = owner.build() else { return Ok(()) };
        if scope != Scope::Build && !self.verify {
            return Ok(());
        }
        let cluster = escape(build.cluster.as_str());
        let Some(index) = self.installations.named(build.cluster.as_str()) else {
            let why = if scope == Scope::Build { "scope build needs its watch" } else { "this server verifies builds" };
            let error = format!(
                "this server does not know the Concourse {cluster:?}, and {why}: start it with --concourse {cluster} or add \
                 that URL as an alias, or ask with scope flow"
            );
            return Err(NotAdmitted { code: Code::UnknownConcourse, error });
        };
        let Ok(id) = build.id.as_str().parse::<BuildNo>() else {
            let error = format!("build_id must be a number, not {:?}", escape(build.id.as_str()));
            return Err(NotAdmitted { code: Code::Unprocessable, error });
        };
        if !self.verify {
            return Ok(());
        }
        match self.verdict(index, id, owner).await {
            Verdict::Fine => Ok(()),
            Verdict::Refused(why) => {
                let error =
                    format!("build {id} of {cluster} may not claim: {why}; claims come from steps of running builds");
                Err(NotAdmitted { code: Code::BuildRefused, error })
            }
            Verdict::Unavailable(why) => {
                let error =
                    format!("build {id} of {cluster} cannot be verified now, so its claim is not accepted yet: {why}");
                Err(NotAdmitted { code: Code::ConcourseUnavailable, error })
            }
        }
    }
}

impl BuildWatch {
    /// Checks one build: from the cache, or else in a thread that may block, so that a Concourse that does not answer
    /// delays no other request.
    async fn verdict(&self, index: usize, id: BuildNo, owner: &Owner) -> Verdict {
        if let Some(verdict) = self.checks.known((index, id), owner, self.clock.monotonic()) {
            return verdict;
        }
        let (watch, owner) = (self.clone(), owner.clone());
        let asking = tokio::task::spawn_blocking(move || {
            let concourse = &watch.installations.all[index];
            watch.checks.check((index, concourse), id, &owner, watch.timeout, &*watch.clock)
        });
        asking
            .await
            .unwrap_or_else(|_| Verdict::Unavailable("the check ended early: this is a bug in locker".to_owned()))
    }
}

/// A text for the core, cut to the length that it accepts.
fn reason(text: &str) -> Option<Reason> {
    let mut end = text.len().min(crate::core::limits::REASON_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    Reason::parse(&text[..end]).ok()
}
