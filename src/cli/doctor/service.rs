//! What the server says about itself, and whether it accepts the credentials.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::report::Report;
use super::{Stop, Subject, Tools};
use crate::client::CallError;
use crate::client::proxy::proxy_for;
use crate::client::trouble;
use crate::env::Env;
use crate::wire::api::{InfoView, LeaderView, ServerView};
use crate::wire::errors::{Code, exit};
use crate::wire::problems::quoted;
use crate::wire::text::{api_duration, parse_duration};

/// Clocks that differ by less count as equal. A larger difference confuses people who compare log lines.
const CLOCKS: Duration = Duration::from_secs(5);
/// A server that is behind by more does not follow: its database may have failed over meanwhile.
const BEHIND: Duration = Duration::from_secs(30);

/// Warns about a password that is sent unencrypted.
pub(super) fn exposure(subject: &Subject<'_>, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    if !subject.target.has_credentials() || subject.address.is_tls || subject.address.is_loopback() {
        return Ok(());
    }
    let next = "use https://, or keep both sides on one private network";
    report.warn(env, "source", "the password is sent unencrypted over http://", next)
}

/// Reports a proxy, if there is one. The proxy then resolves the name and connects, which cannot be checked from here.
pub(super) fn proxy(subject: &Subject<'_>, report: &mut Report, env: &mut Env<'_>) -> Result<bool, Stop> {
    let named = subject.target.proxy.as_ref();
    let from = if named.is_some() { "the source" } else { "the environment" };
    // A proxy that cannot be used was refused when the client was created.
    let Ok(Some(proxy)) = proxy_for(subject.server, named, &env.vars) else { return Ok(false) };
    report.ok(env, "proxy", format!("requests go through {}:{}, as {from} says", proxy.host(), proxy.port()))?;
    Ok(true)
}

/// Checks the server's answer, the credentials, the version and the clock. Returns the id of its store.
pub(super) fn examine(
    subject: &Subject<'_>,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<String, Stop> {
    let client = subject.client.clone();
    let (answer, took) = tools.time(move || client.info())?;
    let info = match answer {
        Ok(info) => info,
        Err(error) => return Err(no_info(subject, &error, report, env)?),
    };
    report.ok(env, "server", format!("answered in {} ms", took.as_millis()))?;
    credentials(subject, info.identity.as_deref(), tools, report, env)?;
    versions(&info, report, env)?;
    clocks(&info, took, tools, report, env)?;
    report.ok(env, "store", format!("{}, revision {}", info.store_id, info.revision))?;
    if let Some(LeaderView { name, term }) = &info.leader {
        report.ok(env, "leader", format!("{}, term {term}", quoted(name)))?;
    }
    servers(&info, report, env)?;
    database(&info, report, env)?;
    super::builds::examine(&info.concourses, report, env)?;
    Ok(info.store_id)
}

/// The servers that share the store, and how far each is behind.
fn servers(info: &InfoView, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    for ServerView { name, version, leads, lag_records, lag } in &info.servers {
        let name = quoted(name);
        if *leads {
            report.ok(env, "server", format!("{name} leads, version {version}"))?;
            continue;
        }
        let lag = lag.as_deref().and_then(|lag| parse_duration(lag).ok());
        let shown = lag.map_or_else(
            || "has not read the log yet".to_owned(),
            |lag| {
                format!(
                    "is at most {} and {lag_records} records behind",
                    api_duration(Duration::from_secs(lag.as_secs() + 1))
                )
            },
        );
        let text = format!("{name} {shown}, version {version}");
        if lag.is_some_and(|lag| lag < BEHIND) {
            report.ok(env, "server", text)?;
        } else {
            report.warn(env, "server", text, "it cannot take over before it has the rest: its log says why")?;
        }
    }
    Ok(())
}

/// What the database of servers that share a store says of itself.
fn database(info: &InfoView, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let Some(log) = &info.log else { return Ok(()) };
    if log.database_full {
        let next = "nothing is granted until somebody makes room (docs/cluster.md#when-something-is-wrong)";
        report.warn(env, "database", "it is full", next)?;
    }
    if log.async_standbys > 0 {
        let next = "what has not reached one is lost if that becomes the primary: set synchronous_standby_names";
        report.warn(env, "database", "none of its standbys is synchronous", next)?;
    }
    Ok(())
}

fn no_info(subject: &Subject<'_>, error: &CallError, report: &mut Report, env: &mut Env<'_>) -> Result<Stop, Stop> {
    let code = error.exit();
    match (error, error.code()) {
        (CallError::Refused(refused), Some(Code::Unauthorized)) if !subject.target.has_credentials() => {
            let text = "the server asks for credentials, but none are sent";
            report.fail(env, "auth", code, text, refused.next.unwrap_or(trouble::NO_CREDENTIALS))
        }
        (CallError::Refused(refused), Some(Code::Unauthorized | Code::Forbidden)) => {
            let text = format!("the server refuses the credentials: {} ({})", refused.message, refused.word);
            report.fail(env, "auth", code, text, trouble::CREDENTIALS)
        }
        (CallError::Refused(_), _) => {
            let next = "compare the versions of both sides, and the path in locker_uri";
            report.fail(env, "server", code, format!("it answers, but not as expected: {error}"), next)
        }
        (CallError::NoAnswer(why) | CallError::Hopeless(why), Some(Code::NoLeader)) => {
            let next = "none of the servers leads: the log of each says why (docs/cluster.md#when-something-is-wrong)";
            report.fail(env, "server", code, why.to_string(), next)
        }
        (CallError::NoAnswer(why) | CallError::Hopeless(why), Some(_)) => {
            let next = "the server is starting or stopping: look at its log, then run this again";
            report.fail(env, "server", code, why.to_string(), next)
        }
        (CallError::NoAnswer(why) | CallError::Hopeless(why), None) => {
            let next = why.next.as_deref().unwrap_or(trouble::FOREIGN);
            report.fail(env, "server", exit::UNAVAILABLE, &why.why, next)
        }
    }
}

/// Checks whether the server needs the credentials. `identity` is whom it knows by them; a server that does not say is asked
/// the same without them.
fn credentials(
    subject: &Subject<'_>,
    identity: Option<&str>,
    tools: &Tools,
    report: &mut Report,
    env: &mut Env<'_>,
) -> Result<(), Stop> {
    if let Some(identity) = identity {
        return report.ok(env, "auth", format!("the credentials are accepted: {identity}"));
    }
    if !subject.target.has_credentials() {
        return report.ok(env, "auth", "the server asks for no credentials");
    }
    let Ok(client) = subject.target.client(std::slice::from_ref(subject.server), false, env) else { return Ok(()) };
    let (answer, _) = tools.time(move || client.info())?;
    match answer {
        Err(error) if error.code() == Some(Code::Unauthorized) => {
            report.ok(env, "auth", "the credentials are accepted")
        }
        Ok(_) => {
            let next = "start the server with AUTH_USER and AUTH_PASS if they should matter";
            report.warn(
                env,
                "auth",
                "the server does not check credentials: anybody who can connect can do anything",
                next,
            )
        }
        Err(error) => report.warn(env, "auth", format!("not sure: {error}"), "run this again"),
    }
}

fn versions(info: &InfoView, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let ours = env!("CARGO_PKG_VERSION");
    if info.version == ours {
        return report.ok(env, "version", format!("{ours} on both sides"));
    }
    let next =
        "they work together unless the release notes say otherwise; to be sure, run the same version on both sides";
    report.warn(env, "version", format!("the server is {}, this is {ours}", info.version), next)
}

fn clocks(info: &InfoView, took: Duration, tools: &Tools, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let Ok(theirs) = DateTime::parse_from_rfc3339(&info.time) else {
        let next = "compare the versions of both sides";
        return report.warn(env, "clock", format!("the server's time is not readable: {}", info.time), next);
    };
    // The server wrote its answer at some moment during the call: on average, in the middle of it.
    let ours = i64::try_from(tools.clock.wall_ms()).unwrap_or(i64::MAX);
    let middle = i64::try_from(took.as_millis() / 2).unwrap_or(0);
    let ahead = theirs.with_timezone(&Utc).timestamp_millis().saturating_sub(ours.saturating_sub(middle));
    let text = format!(
        "the server's is {:.1} s {}",
        ahead.unsigned_abs() as f64 / 1000.0,
        if ahead < 0 { "behind" } else { "ahead" }
    );
    if u128::from(ahead.unsigned_abs()) <= CLOCKS.as_millis() + took.as_millis() {
        return report.ok(env, "clock", text);
    }
    let next = "times in logs will not agree: set both clocks by NTP. No deadline of a lock depends on them";
    report.warn(env, "clock", text, next)
}
