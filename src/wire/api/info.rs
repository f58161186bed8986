//! What our own HTTP API says of the server.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::is_false;

/// `GET /api/v1/info`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InfoView {
    pub version: String,
    /// Made with the store, the same for all servers on it.
    pub store_id: String,
    /// The server's wall clock.
    pub time: String,
    /// The newest revision given.
    pub revision: u64,
    /// The Concourse installations whose builds are watched.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub concourses: Vec<ConcourseView>,
}

/// How the watch of one Concourse goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConcourseView {
    /// The external URL by which its builds are known (`ATC_EXTERNAL_URL`).
    pub url: String,
    /// Its other external URLs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub aliases: Vec<String>,
    /// Who the server is there, for people; no secret.
    pub login: String,
    pub state: ConcourseState,
    /// Since when it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Why it fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Its version, once it has said so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// What it says its external URL is, when that is neither `url` nor one of `aliases`: no claim will match.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_url: Option<String>,
    /// Builds run again when a worker vanishes, and may then go on without the lock that they have released.
    #[serde(default, skip_serializing_if = "is_false")]
    pub build_rerun: bool,
    /// Builds that are asked about.
    pub watched: usize,
    /// Those of them that are not known to be alive.
    pub suspects: usize,
}

/// Whether a Concourse answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ConcourseState {
    /// It has not been asked yet.
    NotYet,
    Ok,
    /// All its builds are suspect, and their holds stay.
    Failing,
}
