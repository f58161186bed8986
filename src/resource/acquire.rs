//! `acquire`, `claim` and `lock_op: lock`: wait until the build holds the locks.

use std::time::Duration;

use super::input::Input;
use super::persist::Persist;
use super::progress;
use super::put::{Put, Stop, all_locks, taken_back};
use super::{print, release, say};
use crate::client::acquire::{self, Acquire, Cancelled, Held, News, Stopped, self_wait_limit};
use crate::client::claim_id::{Place, claim_id};
use crate::client::progress::{Progress, already_held, short};
use crate::client::who;
use crate::core::names::LockName;
use crate::env::{Env, random_hex};
use crate::wire::api::ClaimBody;
use crate::wire::concourse::{Answer, Ask, InputFile, LockChoice, LogLevel, Metadata, SourceKind};
use crate::wire::errors::Code;
use crate::wire::text::api_duration;

/// The time limit for cancelling a claim whose version could not be printed.
const CANCEL: Duration = Duration::from_secs(5);

/// Continues without a lock, as an optional claim may. The version says so, and so does one conspicuous log line.
pub(super) fn nothing(put: &Put<'_>, why: &str, env: &mut Env<'_>) -> Result<Answer, Stop> {
    say(env.stderr, format!("NO LOCK IS TAKEN: {why}, and optional: true says to go on without one"));
    let mut persist = Persist::of(put, env)?;
    release::note(put, &mut persist, None, env)
}

pub(super) fn acquire(put: &Put<'_>, mut asked: Ask, env: &mut Env<'_>) -> Result<(), Stop> {
    let lock = match asked.lock.take() {
        None => None,
        Some(LockChoice::Named(lock)) => Some(lock),
        Some(LockChoice::InFile(InputFile { dir, file })) => {
            let named = Input::open(&put.dir, "claim", &dir)?.name_in(&file)?;
            if named.is_none() && asked.optional {
                let answer = nothing(put, &format!("the file {dir}/{file} is empty"), env)?;
                return Ok(print(env, &answer)?);
            }
            let empty = || format!("claim: the file {dir}/{file} is empty: it names no lock (see optional: true)");
            Some(named.ok_or_else(empty)?)
        }
    };
    let mut progress = Progress::new(progress::pace(put.source.log_level, env)?);
    put.tell(env, first_line(put, &asked, lock.as_ref()));
    clamp_note(put, env);
    let (timeout, name) = (asked.timeout, asked.name.clone());
    let self_wait = if asked.self_wait { None } else { Some(self_wait_limit(env)?) };
    let body = body(put, asked, lock);
    let place = name.as_deref().map_or(Place::Host(&env.hostname), Place::Named);
    let id = claim_id(&put.owner, place, &body);
    let run = random_hex::<16>();
    if put.source.log_level >= LogLevel::Debug {
        let build = put.owner.build_id.as_deref().unwrap_or("none");
        say(env.stderr, format!("debug: claim {id}, run {run}, build {build}, container {:?}", env.hostname));
    }
    let acquire = Acquire {
        client: put.client(),
        interruptible: &put.interruptible,
        clock: put.clock.clone(),
        id: &id,
        run: &run,
        body,
        timing: put.timing,
        timeout,
        self_wait,
    };
    let mut is_told = false;
    let held = acquire.run(&mut |news| {
        progress.lines(news, put.moment()).iter().for_each(|line| put.tell(env, line));
        let waits_for_itself = matches!(news, News::Waiting(view) if view.code == Code::SelfWait);
        if waits_for_itself && !is_told {
            is_told = true;
            put.tell(env, self_wait_advice(self_wait));
        }
    });
    let held = held.map_err(|stopped| explain(put, &id, timeout, stopped, env))?;
    tell_siblings(put, &held, name.is_some(), env);
    tell_reruns(put, &held, name.is_some(), env);
    let answer = answer(put, &held)?;
    let printed = put.interruptible.check().map_err(Some).and_then(|()| {
        who::new_pools(&held.claim).iter().for_each(|line| put.tell(env, line));
        put.tell(env, last_line(&held));
        print(env, &answer).map_err(|_| None)
    });
    // From the moment the version is printed, a person or a job relies on the hold. Before that, nobody does.
    printed.map_err(|signal| {
        let gone =
            acquire::cancel(put.client(), &put.interruptible, &*put.clock, &id, Some(&run), cancel_limit(signal));
        let gone = taken_back(&gone, &id);
        match signal {
            Some(signal) => Stop::Signalled(signal, gone),
            None => Stop::Failed(format!("cannot write the version to stdout; {gone}")),
        }
    })
}

/// What the build had already: the step may be a repetition that should have found its own claim.
fn tell_siblings(put: &Put<'_>, held: &Held, is_named: bool, env: &mut Env<'_>) {
    if !held.claim.own.is_empty() {
        let advice = if is_named { "" } else { "; if both steps mean the same claim, give both the same as: NAME" };
        put.tell(env, format!("{}{advice}", already_held(&held.claim.own)));
    }
}

/// What the reader should know of a hold whose build may run again in place.
fn tell_reruns(put: &Put<'_>, held: &Held, is_named: bool, env: &mut Env<'_>) {
    if held.claim.marked {
        put.tell(env, "this build took the lock before and holds it until the build is over: it is running again");
    }
    if held.claim.alike && !is_named {
        put.tell(
            env,
            "warning: another step of this build asks for the same, and this Concourse may run builds again: give each of \
             these steps an as: NAME of its own, so that each finds its own lock again",
        );
    }
}

/// Advice for a claim that waits for its own build.
fn self_wait_advice(limit: Option<Duration>) -> String {
    match limit {
        None => {
            "this step keeps waiting, because another step of this build may release it; if both steps mean the same \
                 claim, give both the same as: NAME; to fail instead of waiting, set self_wait: fail"
                .to_owned()
        }
        Some(limit) => format!("self_wait: fail: this step gives up after {} of this", progress::span(limit)),
    }
}

fn cancel_limit(signal: Option<crate::env::Signal>) -> Duration {
    signal.map_or(CANCEL, |_| Duration::from_millis(1_500))
}

fn body(put: &Put<'_>, asked: Ask, lock: Option<LockName>) -> ClaimBody {
    // An empty pool may fill again. With a name, labels or a larger count, what is missing may be a mistake.
    let wait_if_empty = put.source.kind == SourceKind::Pool
        && lock.is_none()
        && asked.labels.is_empty()
        && asked.count.is_none_or(|count| count == 1);
    let Ask { count, labels, also, key, requestor, scope, ttl, queue, priority, supersede, .. } = asked;
    ClaimBody {
        lock: lock.map(|lock| lock.as_str().to_owned()),
        count,
        labels,
        also,
        key,
        requestor,
        scope,
        priority,
        supersede,
        owner: put.owner.clone(),
        confirm: true,
        queue,
        wait_if_empty,
        ttl: ttl.map(api_duration),
        reason: put.reason.clone(),
        expect_store: put.session.store.clone(),
        ..ClaimBody::of_pool(put.pool().to_owned())
    }
}

/// The first line: our version, the server, and what the step requests.
fn first_line(put: &Put<'_>, asked: &Ask, lock: Option<&LockName>) -> String {
    let what = match (lock, asked.count) {
        (Some(lock), _) => format!("lock {:?}", lock.as_str()),
        (None, Some(count)) if count > 1 => format!("{count} locks"),
        (None, _) => "a lock".to_owned(),
    };
    let labels: Vec<String> = asked.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let labels = if labels.is_empty() { String::new() } else { format!(" with {}", labels.join(", ")) };
    let key = asked.key.as_ref().map(|key| format!(" for key {key:?}")).unwrap_or_default();
    let also: Vec<String> = asked.also.iter().map(|part| format!("{:?}", part.pool)).collect();
    let also = if also.is_empty() { String::new() } else { format!(", together with pool {}", also.join(", ")) };
    let version = env!("CARGO_PKG_VERSION");
    let server = put.client().server();
    format!("locker {version}: asking {server} for {what}{labels} of pool {:?}{also}{key}", put.pool())
}

/// Warns about a `retry_delay` that is too long: the server would assume that the client is gone.
fn clamp_note(put: &Put<'_>, env: &mut Env<'_>) {
    if let Some(delay) = put.source.retry_delay.filter(|delay| *delay > put.timing.retry_max) {
        let (given, used) = (progress::span(delay), progress::span(put.timing.retry_max));
        put.tell(
            env,
            format!("retry_delay {given} is shortened to {used}: a client that asks less often loses its turn"),
        );
    }
}

fn last_line(held: &Held) -> String {
    let locks: Vec<String> =
        held.claim.locks.iter().map(|lock| format!("{:?} of pool {:?}", lock.lock, lock.pool)).collect();
    let fence = held.claim.fence.map(|fence| format!(", fence {fence}")).unwrap_or_default();
    format!("holding {} after waiting {}{fence}", locks.join(", "), progress::span(held.waited))
}

fn answer(put: &Put<'_>, held: &Held) -> Result<Answer, Stop> {
    let claim = &held.claim;
    let revision =
        claim.revision.ok_or_else(|| format!("claim {} is held, but the server named no revision", claim.id))?;
    let own = claim.locks.iter().find(|lock| lock.pool == put.pool()).map(|lock| lock.lock.as_str());
    let pair = |name, value: String| Metadata { name, value };
    let mut more = Vec::new();
    if put.source.kind == SourceKind::LockName {
        more.push(pair("lock", put.pool().to_owned()));
        more.push(pair("status", "locked".to_owned()));
    }
    more.extend(all_locks(put.pool(), &claim.locks).map(|locks| pair("locks", locks)));
    more.extend(claim.fence.map(|fence| pair("fence", fence.to_string())));
    more.push(pair("claim", claim.id.clone()));
    more.push(pair("waited", progress::span(held.waited)));
    more.extend(claim.held_until.clone().map(|until| pair("held_until", until)));
    Ok(put.answer(revision, own, more))
}

/// Explains why nothing is held, and what to do about it.
fn explain(put: &Put<'_>, id: &str, timeout: Option<Duration>, stopped: Stopped, env: &mut Env<'_>) -> Stop {
    let Stopped { why, cancelled } = stopped;
    let gone = match &cancelled {
        // A grant of which nobody has heard is withdrawn.
        Cancelled::Unknown(_) if !put.client().has_met() => "no server has answered, so nothing is held".to_owned(),
        cancelled => taken_back(cancelled, id),
    };
    match why {
        acquire::Stop::Signalled(signal) => Stop::Signalled(signal, gone),
        acquire::Stop::TimeOver(view) => {
            let limit = timeout.map(progress::span).unwrap_or_default();
            let place = view.map(|view| format!("; {}", short(&view, put.now()))).unwrap_or_default();
            Stop::Failed(format!("no lock within the timeout of {limit}{place}; {gone}"))
        }
        acquire::Stop::Unanswered(why) => Stop::Failed(format!("{why}; {gone}")),
        acquire::Stop::Hopeless(why) => Stop::Failed(format!("{}; {gone}", why.with_next())),
        acquire::Stop::SelfWait(view) => Stop::Failed(format!(
            "this build already holds what it waits for, so the wait may never end ({}): give both steps the same \
             as: NAME if they mean the same claim, release the first one, or remove self_wait: fail to keep waiting; {gone}",
            short(&view, put.now())
        )),
        acquire::Stop::Locked(view) => {
            let (held, lines) = who::held(&view.holders, view.holder_count, put.now());
            lines.iter().for_each(|line| put.tell(env, line));
            let held = held.unwrap_or_else(|| view.error.clone());
            Stop::Failed(format!("not free, and queue: false says not to wait; {held}"))
        }
        acquire::Stop::Refused(refused) => {
            if let Some(claim) = &refused.claim
                && let Some(how) = &claim.how
            {
                let ending = who::how_it_ended(claim, how);
                return Stop::Failed(format!("the claim has ended ({how}): {ending}; nothing is held"));
            }
            let hint = match refused.code {
                Some(Code::SupersededRun) => "another run of this step has taken over".to_owned(),
                _ => gone,
            };
            Stop::Failed(format!("{} refused the request: {refused}; {hint}", put.client().server()))
        }
    }
}
