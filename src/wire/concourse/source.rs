//! `source` of a resource.

use std::time::Duration;

use crate::core::names::PoolName;
use crate::wire::api::{ChangeKind, Scope};
use crate::wire::members::Members;
use crate::wire::problems::Problems;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// Keys of pool-resource that are about its Git repository. They are accepted and have no effect.
pub(super) const GIT_KEYS: &[&str] = &[
    "uri",
    "branch",
    "private_key",
    "private_key_user",
    "private_key_passphrase",
    "git_config",
    "https_tunnel",
    "forward_agent",
];

/// The name that pool-resource has for `skip_ssl_validation`. With an http(s) address as `uri`, it is about that server.
const GIT_SKIP: &str = "skip_ssl_verification";

/// The changes of a pool that become versions.
pub const EVENTS: &[ChangeKind] = &[
    ChangeKind::Claimed,
    ChangeKind::Released,
    ChangeKind::Lost,
    ChangeKind::Broken,
    ChangeKind::Added,
    ChangeKind::Removed,
    ChangeKind::Updated,
    ChangeKind::Quarantined,
    ChangeKind::Returned,
];

/// The resource type that this source was written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SourceKind {
    /// `pool`: a pool of locks, as in pool-resource.
    Pool,
    /// `lock_name` or `bosh_lock`: one lock that a key holds, as in locker-resource.
    LockName,
}

/// The pool of a source, or how to find it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The value of `pool` or `lock_name`: both name a pool.
    Named(PoolName),
    /// `bosh_lock`: the pool is named after the BOSH director at this address.
    Director(ServerUrl),
}

/// How much `in` and `out` log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum LogLevel {
    /// Why a step failed.
    Error,
    /// In addition, warnings.
    Warn,
    /// In addition, what the step requests, waits for and does.
    #[default]
    Info,
    /// In addition, ids and every failed attempt.
    Debug,
}

/// `source`.
#[derive(Debug, Clone)]
pub struct Source {
    /// The servers of one store. Never empty.
    pub servers: Vec<ServerUrl>,
    /// `username` and `password`. If missing, each server gets only the credentials in its own URL.
    pub credentials: Option<Credentials>,
    /// `username` and `password` are those of a Git repository, whose http(s) address is given as `uri`. They are sent to
    /// nobody.
    pub held_back: bool,
    pub tls: Tls,
    /// The proxy to use instead of the one from the environment. It may contain a password.
    pub proxy: Option<Secret>,
    pub place: Place,
    pub kind: SourceKind,
    /// The longest pause between two attempts. Values above the limit of 10 s are shortened.
    pub retry_delay: Option<Duration>,
    /// Default for claims that name no scope.
    pub scope: Option<Scope>,
    /// Default for claims that name no ttl.
    pub ttl: Option<Duration>,
    /// Default for claims that name no priority.
    pub priority: Option<i32>,
    /// The changes that `check` lists. Default: all.
    pub events: Option<Vec<ChangeKind>>,
    pub log_level: LogLevel,
    /// Git settings that were given and have no effect, including a get's `depth`.
    pub ignored: Vec<&'static str>,
}

impl Source {
    /// Every key that means something here.
    pub const KEYS: &'static [&'static str] = &[
        "locker_uri",
        "pool",
        "lock_name",
        "bosh_lock",
        "username",
        "password",
        "ca_cert",
        "client_cert",
        "client_key",
        "skip_ssl_validation",
        "skip_ssl_verification",
        "proxy",
        "retry_delay",
        "scope",
        "ttl",
        "priority",
        "events",
        "log_level",
    ];

    /// Whether some of the settings that have no effect would have one without the `uri`.
    #[must_use]
    pub fn has_settings_of_uri(&self) -> bool {
        self.held_back || self.ignored.contains(&GIT_SKIP)
    }

    pub(super) fn read(mut fields: Members, problems: &mut Problems) -> Option<Self> {
        fields.expect(Self::KEYS);
        let servers = read_servers(&mut fields, problems);
        let place = read_place(&mut fields, problems);
        // pool-resource also accepts a number.
        let retry_delay = fields.duration_or_seconds("retry_delay", problems);
        let username = fields.text("username", problems);
        let password = fields.text("password", problems);
        let mut tls = read_tls(&mut fields, problems);
        let proxy = fields.text("proxy", problems).filter(|proxy| !proxy.is_empty()).map(Secret::new);
        let scope = read_scope(&mut fields, problems);
        let ttl = fields.duration("ttl", problems);
        let priority = fields.integer("priority", problems);
        let events = read_events(&mut fields, problems);
        let log_level = read_log_level(&mut fields, problems);
        if fields.take("token").is_some() {
            let why = "does not belong in source, where each new token would make a new resource: give it in params";
            problems.add_misplaced(&fields.path("token"), format!("source.token: {why}"));
        }
        let is_web = fields.is_web_address("uri");
        let held_back = (username.is_some() || password.is_some()) && is_web;
        let mut ignored: Vec<&str> = GIT_KEYS.iter().copied().filter(|key| fields.take(key).is_some()).collect();
        if held_back {
            ignored.extend(["username", "password"]);
        }
        // What was right for the Git server must not switch off the check of another one.
        if is_web && tls.skip_verification == Some(GIT_SKIP) {
            tls.skip_verification = None;
            ignored.push(GIT_SKIP);
        }
        fields.finish(problems);
        let given = match (username, password) {
            _ if held_back => None,
            (None, None) => None,
            (username, password) => Some(Credentials {
                username: username.unwrap_or_default(),
                password: Secret::new(password.unwrap_or_default()),
            }),
        };
        let ((kind, place), servers) = place.zip(servers)?;
        Some(Self {
            servers,
            credentials: given,
            held_back,
            tls,
            proxy,
            place,
            kind,
            retry_delay,
            scope,
            ttl,
            priority,
            events,
            log_level,
            ignored,
        })
    }
}

fn read_servers(fields: &mut Members, problems: &mut Problems) -> Option<Vec<ServerUrl>> {
    let Some(text) = fields.text("locker_uri", problems) else {
        if !fields.is_misspelt(&["locker_uri"]) {
            problems.add_about("source", "missing locker_uri");
        }
        return None;
    };
    ServerUrl::parse_list(&text).map_err(|why| fields.wrong("locker_uri", why, problems)).ok()
}

/// Exactly one of `pool`, `lock_name` and `bosh_lock`.
fn read_place(fields: &mut Members, problems: &mut Problems) -> Option<(SourceKind, Place)> {
    let given: Vec<&str> = ["pool", "lock_name", "bosh_lock"].into_iter().filter(|key| fields.has(key)).collect();
    match given.as_slice() {
        [] => {
            if !fields.is_misspelt(&["pool", "lock_name", "bosh_lock"]) {
                problems.add_about("source", "missing pool");
            }
            None
        }
        ["pool"] => Some((SourceKind::Pool, Place::Named(fields.parsed("pool", problems)?))),
        ["lock_name"] => Some((SourceKind::LockName, Place::Named(fields.parsed("lock_name", problems)?))),
        [_] => {
            let text = fields.text("bosh_lock", problems)?;
            let director = ServerUrl::parse(&text).map_err(|why| fields.wrong("bosh_lock", why, problems)).ok();
            Some((SourceKind::LockName, Place::Director(director?)))
        }
        several => {
            let names: Vec<String> = several.iter().map(|key| fields.path(key)).collect();
            problems.add_about(&names[1], format!("give only one of {}", names.join(" and ")));
            several.iter().for_each(|key| drop(fields.take(key)));
            None
        }
    }
}

/// Certificates are parsed when they are used. Only their form is checked here.
fn read_tls(fields: &mut Members, problems: &mut Problems) -> Tls {
    let mut pem = |key: &'static str, what: &str| {
        let text = fields.text(key, problems).filter(|text| !text.trim().is_empty())?;
        if !text.contains("-----BEGIN ") {
            fields.wrong(key, format!("must be the text of {what} in PEM form (-----BEGIN ...)"), problems);
        }
        Some(text)
    };
    let ca_cert = pem("ca_cert", "a certificate");
    let cert = pem("client_cert", "a certificate");
    let key = pem("client_key", "a private key").map(Secret::new);
    if cert.is_some() != key.is_some() {
        let text = "source.client_cert and source.client_key must be given together";
        problems.add_about(if cert.is_some() { "source.client_cert" } else { "source.client_key" }, text);
    }
    let skip = ["skip_ssl_validation", GIT_SKIP];
    let skip = skip.map(|key| fields.flag(key, problems).unwrap_or(false).then_some(key));
    Tls { ca_cert, client: cert.zip(key), skip_verification: skip.into_iter().flatten().next() }
}

fn read_events(fields: &mut Members, problems: &mut Problems) -> Option<Vec<ChangeKind>> {
    let known = "claimed, released, lost, broken, added, removed, updated, quarantined or returned";
    let events: Vec<ChangeKind> = fields.list("events", known, problems)?;
    if events.is_empty() || events.iter().any(|event| !EVENTS.contains(event)) {
        fields.wrong("events", format!("must be a list of {known}"), problems);
    }
    Some(events)
}

fn read_log_level(fields: &mut Members, problems: &mut Problems) -> LogLevel {
    match fields.text("log_level", problems).as_deref() {
        None | Some("" | "info") => LogLevel::Info,
        Some("debug" | "trace") => LogLevel::Debug,
        Some("warn" | "warning") => LogLevel::Warn,
        Some("error") => LogLevel::Error,
        Some(_) => {
            fields.wrong("log_level", "must be error, warn, info or debug", problems);
            LogLevel::Info
        }
    }
}

/// What ends a hold besides a release.
pub(super) fn read_scope(fields: &mut Members, problems: &mut Problems) -> Option<Scope> {
    let text = fields.text("scope", problems)?;
    match text.as_str() {
        "flow" => Some(Scope::Flow),
        "build" => Some(Scope::Build),
        "person" => Some(Scope::Person),
        "lease" => {
            let why =
                "cannot be lease, because a resource does not renew: use build for a hold that ends with its build";
            fields.wrong("scope", why, problems);
            None
        }
        _ => {
            fields.wrong("scope", "must be flow, build or person", problems);
            None
        }
    }
}
