//! What our own HTTP API says about the server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// `GET /api/v1/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InfoView {
    pub version: String,
    /// Created with the store; the same for all servers that use it.
    pub store_id: String,
    /// The server's wall clock.
    pub time: String,
    /// The newest revision assigned.
    pub revision: u64,
    /// Who this request has proved to come from, such as `user:ci`; left out if it has proved nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Who leads, if several servers share the store; left out by a server with a store of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<LeaderView>,
    /// The servers that share the store, as the one that leads knows them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub servers: Vec<ServerView>,
    /// The log that they share; left out by a server with a store of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogView>,
    /// The Concourse installations whose builds are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concourses: Vec<ConcourseView>,
    /// The issuers whose id tokens count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub issuers: Vec<IssuerView>,
}

/// The server that leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LeaderView {
    /// Its name, as it was started with `--advertise`.
    pub name: String,
    /// Grows with each change of leaders.
    pub term: u64,
}

/// One of several servers that share a store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerView {
    /// Its name, as it was started with `--advertise`; with a number behind it if there are several of that name.
    pub name: String,
    pub version: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub leads: bool,
    /// Records in the log that it did not have when it said so last, a few seconds ago at most while it runs.
    pub lag_records: u64,
    /// For how long something may be in the log that it does not have. Grows while nothing is heard of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lag: Option<String>,
}

/// The log that several servers share, and the database that it is in.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct LogView {
    /// The number of the last record.
    pub last_record: u64,
    /// How many records its snapshot does not contain, and their bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub records: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Bytes of the database with everything in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_bytes: Option<u64>,
    /// The bytes of it that are in use, and those at which it accepts no more: an etcd says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_used: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database_quota: Option<u64>,
    /// It accepts no more.
    #[serde(default, skip_serializing_if = "is_false")]
    pub database_full: bool,
    /// Standbys of a PostgreSQL none of which is synchronous: what has not reached one is lost if that becomes the primary.
    #[serde(default, skip_serializing_if = "is_none")]
    pub async_standbys: u64,
}

fn is_none(count: &u64) -> bool {
    *count == 0
}

/// The state of an issuer of id tokens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct IssuerView {
    /// Its name in the access file.
    pub name: String,
    /// Its URL, as in its tokens.
    pub issuer: String,
    /// How many of its keys are known. Without any, its tokens are answered with 503.
    pub keys: usize,
    /// When these keys were fetched, or read from their file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched: Option<String>,
    /// How many fetches in a row have failed. Meanwhile the keys from before count.
    pub failures: u32,
    /// Why the last one failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// The state of the watch on one Concourse.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConcourseView {
    /// The external URL that identifies its builds (`ATC_EXTERNAL_URL`).
    pub url: String,
    /// Its other external URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// The identity that the server uses there, for display. Not a secret.
    pub login: String,
    pub state: ConcourseState,
    /// When it began to fail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its version, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// The external URL that it reports, if that is neither `url` nor one of `aliases`. No claim will match it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    /// It runs builds again when a worker vanishes. A lock that a step gives back stays with its build until that is over.
    #[serde(default, skip_serializing_if = "is_false")]
    pub build_rerun: bool,
    /// Builds that the server asks about.
    pub watched: usize,
    /// Watched builds that are not known to be alive.
    pub suspects: usize,
}

/// Whether a Concourse answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcourseState {
    /// The server has not asked it yet.
    NotYet,
    Ok,
    /// All its builds are suspect. Their holds stay.
    Failing,
}

/// Who is signed in on the web page.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SessionView {
    /// The identity of the session, such as `user:ada`. Absent if nobody is signed in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// When the session ends by itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}
