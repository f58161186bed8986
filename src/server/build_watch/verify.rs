//! `--verify-builds`: a new claim of a build is accepted only if its Concourse says that the build is running and is
//! the build that the client says it is.
//!
//! What a step says about its build is not signed: any client that can reach the server could name any build. All
//! checks together take only a few threads of the server, for a bounded time. If the Concourse cannot be asked, the
//! client is told to retry (`docs/decisions/0010`).

use std::collections::BTreeMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::build_status::{Seen, Trouble, difference};
use super::concourse::Concourse;
use super::schedule::BuildNo;
use crate::core::claim::Owner;
use crate::env::Clock;
use crate::server::build_watch::limits;
use crate::wire::atc::Status;

/// The result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    Fine,
    /// The claim is forged or comes too late. The text says what differs.
    Refused(String),
    /// It cannot be found out now.
    Unavailable(String),
}

/// Whether the build behind `owner` may claim, according to `seen`. Only what the client says is compared.
#[must_use]
pub fn judge(owner: &Owner, seen: &Seen) -> Verdict {
    let build = match seen {
        Seen::Build(build) => build,
        Seen::Missing => return Verdict::Refused("its Concourse knows no such build".to_owned()),
        Seen::Unknown(trouble) => return Verdict::Unavailable(trouble.text.clone()),
    };
    if build.status != Status::Started {
        let status = build.status.word();
        return Verdict::Refused(format!("that build is {status}, and only steps of a started one can claim"));
    }
    match difference(owner, build) {
        None => Verdict::Fine,
        Some(difference) => Verdict::Refused(difference),
    }
}

#[derive(Default)]
struct Slots {
    asking: usize,
    waiting: usize,
}

/// Runs the checks, a few at a time.
pub struct Checks {
    slots: Mutex<Slots>,
    freed: Condvar,
    /// What was seen of builds, and when.
    known: Mutex<BTreeMap<(usize, BuildNo), (Duration, Seen)>>,
    /// Which Concourse could not be asked, and when.
    failed: Mutex<BTreeMap<usize, (Duration, Trouble)>>,
}

/// The right to ask. Dropping it gives it back.
struct Slot<'a>(&'a Checks);

impl Drop for Slot<'_> {
    fn drop(&mut self) {
        lock(&self.0.slots).asking -= 1;
        self.0.freed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for Checks {
    fn default() -> Self {
        let (slots, known, failed) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { slots, freed: Condvar::new(), known, failed }
    }
}

impl Checks {
    /// Checks the build of a claim. Blocks for at most twice `limit`, not counting a login of another thread.
    pub fn check(
        &self,
        (index, concourse): (usize, &Concourse),
        id: BuildNo,
        owner: &Owner,
        limit: Duration,
        clock: &dyn Clock,
    ) -> Verdict {
        let limit = limit.min(Duration::from_millis(limits::VERIFY_MS));
        if let Some(verdict) = self.known((index, id), owner, clock.monotonic()) {
            return verdict;
        }
        let Some(slot) = self.slot(limit) else {
            return Verdict::Unavailable("too many builds are being checked at the same time".to_owned());
        };
        // An earlier check may have found it out in the meantime.
        let seen =
            self.remembered((index, id), clock.monotonic()).unwrap_or_else(|| concourse.build_for_sure(id, limit));
        drop(slot);
        self.remember((index, id), &seen, clock.monotonic());
        judge(owner, &seen)
    }

    /// The verdict, if it is known without asking. Never blocks.
    pub fn known(&self, key: (usize, BuildNo), owner: &Owner, now: Duration) -> Option<Verdict> {
        if let Some(seen) = self.remembered(key, now) {
            return Some(judge(owner, &seen));
        }
        Some(Verdict::Unavailable(self.paused(key.0, now)?.text))
    }

    fn slot(&self, limit: Duration) -> Option<Slot<'_>> {
        let mut slots = lock(&self.slots);
        if slots.asking >= limits::VERIFY_AT_ONCE && slots.waiting >= limits::VERIFY_WAITING {
            return None;
        }
        slots.waiting += 1;
        let full = |slots: &mut Slots| slots.asking >= limits::VERIFY_AT_ONCE;
        let (mut slots, waited) =
            self.freed.wait_timeout_while(slots, limit, full).unwrap_or_else(PoisonError::into_inner);
        slots.waiting -= 1;
        if waited.timed_out() {
            return None;
        }
        slots.asking += 1;
        Some(Slot(self))
    }

    fn remembered(&self, key: (usize, BuildNo), now: Duration) -> Option<Seen> {
        let known = lock(&self.known);
        let (at, seen) = known.get(&key)?;
        is_young(*at, limits::VERIFY_CACHE_MS, now).then(|| seen.clone())
    }

    fn paused(&self, index: usize, now: Duration) -> Option<Trouble> {
        let failed = lock(&self.failed);
        let (at, trouble) = failed.get(&index)?;
        is_young(*at, limits::VERIFY_PAUSE_MS, now).then(|| trouble.clone())
    }

    /// Remembers a build only if it is running: a refused claim does not come again, and trouble may pass.
    fn remember(&self, key: (usize, BuildNo), seen: &Seen, now: Duration) {
        match seen {
            Seen::Build(build) if build.status == Status::Started => {
                let mut known = lock(&self.known);
                if known.len() >= limits::VERIFY_CACHED {
                    known.retain(|_, (at, _)| is_young(*at, limits::VERIFY_CACHE_MS, now));
                }
                if known.len() < limits::VERIFY_CACHED {
                    known.insert(key, (now, seen.clone()));
                }
            }
            Seen::Unknown(trouble) if !trouble.cause.is_about_one_build() => {
                lock(&self.failed).insert(key.0, (now, trouble.clone()));
            }
            Seen::Build(_) | Seen::Missing | Seen::Unknown(_) => {}
        }
    }
}

fn is_young(at: Duration, most_ms: u64, now: Duration) -> bool {
    now.saturating_sub(at) < Duration::from_millis(most_ms)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::names::{InstanceVars, Text};
    use crate::server::build_watch::build_status::Cause;
    use crate::wire::atc::Build;

    fn text(text: &str) -> Option<Text> {
        Some(Text::parse(text).unwrap())
    }

    fn owner(team: &str, pipeline: &str, vars: Option<&str>, job: &str) -> Owner {
        let instance_vars = vars.map(|vars| InstanceVars::parse(vars).unwrap());
        Owner { team: text(team), pipeline: text(pipeline), instance_vars, job: text(job), ..Owner::default() }
    }

    fn build(status: Status) -> Build {
        let vars = serde_json::json!({"branch": "main", "n": 1});
        let name = |name: &str| Some(name.to_owned());
        Build {
            id: 7,
            name: name("3"),
            status,
            team_name: name("main"),
            pipeline_name: name("app"),
            pipeline_instance_vars: Some(vars),
            job_name: name("deploy"),
            end_time: None,
        }
    }

    #[test]
    fn who_may_claim() {
        let seen = |status| Seen::Build(Box::new(build(status)));
        let vars = r#"{"n": 1, "branch": "main"}"#;
        let right = owner("main", "app", Some(vars), "deploy");
        let table = [
            (right.clone(), seen(Status::Started), "fine"),
            (Owner::default(), seen(Status::Started), "fine"),
            (right.clone(), seen(Status::Pending), "pending"),
            (right.clone(), seen(Status::Succeeded), "succeeded"),
            (right.clone(), seen(Status::Failed), "failed"),
            (right.clone(), seen(Status::Errored), "errored"),
            (right.clone(), seen(Status::Aborted), "aborted"),
            (right.clone(), Seen::Missing, "no such build"),
            (owner("other", "app", Some(vars), "deploy"), seen(Status::Started), "team is \"main\", not \"other\""),
            (owner("main", "ap", Some(vars), "deploy"), seen(Status::Started), "pipeline is \"app\", not \"ap\""),
            (owner("main", "app", Some(vars), "Deploy"), seen(Status::Started), "job is \"deploy\""),
            (owner("main", "app", Some(r#"{"branch":"x"}"#), "deploy"), seen(Status::Started), "instance vars"),
            (owner("main", "app", Some("rubbish"), "deploy"), seen(Status::Started), "instance vars"),
        ];
        for (owner, seen, expected) in table {
            match judge(&owner, &seen) {
                Verdict::Fine => assert_eq!(expected, "fine", "{seen:?}"),
                Verdict::Refused(text) => assert!(text.contains(expected), "{text} is not {expected}"),
                Verdict::Unavailable(text) => panic!("{text}"),
            }
        }
        let away = Seen::Unknown(Trouble::new(Cause::Forbidden, "403"));
        assert_eq!(judge(&right, &away), Verdict::Unavailable("403".to_owned()));
        let one_off = Seen::Build(Box::new(Build { job_name: None, ..build(Status::Started) }));
        assert!(matches!(judge(&right, &one_off), Verdict::Refused(text) if text.contains("job is none")));
    }

    #[test]
    fn what_is_remembered_and_for_how_long() {
        let checks = Checks::default();
        let secs = Duration::from_secs;
        let started = Seen::Build(Box::new(build(Status::Started)));
        let away = Seen::Unknown(Trouble::new(Cause::NoAnswer, "away"));
        checks.remember((0, 7), &started, secs(1));
        checks.remember((0, 8), &Seen::Missing, secs(1));
        checks.remember((1, 9), &away, secs(1));
        assert_eq!(checks.remembered((0, 7), secs(10)), Some(started));
        assert_eq!(checks.remembered((0, 7), secs(12)), None, "it has expired");
        assert_eq!(checks.remembered((1, 7), secs(2)), None, "another Concourse");
        assert_eq!((checks.remembered((0, 8), secs(1)), checks.remembered((1, 9), secs(1))), (None, None));
        assert!(checks.paused(1, secs(1)).is_some() && checks.paused(1, secs(3)).is_none());
        assert!(checks.paused(0, secs(1)).is_none());
    }

    #[test]
    fn a_few_ask_at_the_same_time_and_nobody_waits_for_ever() {
        let checks = Checks::default();
        let now = Duration::ZERO;
        let slots: Vec<_> = (0..limits::VERIFY_AT_ONCE).map(|_| checks.slot(now).unwrap()).collect();
        assert!(checks.slot(now).is_none());
        drop(slots);
        assert!(checks.slot(now).is_some());
        assert_eq!(lock(&checks.slots).waiting, 0);
    }
}
