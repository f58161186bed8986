//! What a Concourse (its ATC) returns about itself, about builds, and for a login. Lenient on purpose: releases differ
//! in which other members they send, so only the members needed here are required.

use serde::Deserialize;
use serde_json::Value;

use super::secret::Secret;

/// `GET /api/v1/info`, which needs no login.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Info {
    pub version: String,
    /// What its builds see as `ATC_EXTERNAL_URL`.
    #[serde(default)]
    pub external_url: Option<String>,
    #[serde(default)]
    pub feature_flags: FeatureFlags,
}

/// The feature flags of a Concourse that matter for locks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FeatureFlags {
    /// When a worker vanishes, the steps of its builds run again; Concourse answers the acquiring ones from a cache.
    #[serde(default)]
    pub build_rerun: bool,
}

/// `GET /api/v1/builds/{id}` and `GET /api/v1/teams/{team}/pipelines/{pipeline}/jobs/{job}/builds/{name}`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Build {
    pub id: u64,
    /// Its number in its job.
    #[serde(default)]
    pub name: Option<String>,
    pub status: Status,
    #[serde(default)]
    pub team_name: Option<String>,
    #[serde(default)]
    pub pipeline_name: Option<String>,
    #[serde(default)]
    pub pipeline_instance_vars: Option<Value>,
    #[serde(default)]
    pub job_name: Option<String>,
    /// When it ended, seconds since 1970 UTC.
    #[serde(default)]
    pub end_time: Option<u64>,
}

/// All states that a build can be in. An unknown state makes the answer invalid, because guessing would be unsafe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    Pending,
    Started,
    Succeeded,
    Failed,
    Errored,
    Aborted,
}

impl Status {
    /// The word as it appears in answers.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Started => "started",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Errored => "errored",
            Self::Aborted => "aborted",
        }
    }
}

/// `POST /sky/issuer/token`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct TokenReply {
    #[serde(deserialize_with = "secret")]
    pub access_token: Secret,
    /// Seconds.
    #[serde(default)]
    pub expires_in: Option<u64>,
}

fn secret<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Secret, D::Error> {
    String::deserialize(deserializer).map(Secret::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn builds_as_concourse_writes_them() {
        let text = r#"{"id":7,"team_name":"main","name":"3","status":"started","api_url":"/api/v1/builds/7","comment":"",
            "job_name":"deploy","pipeline_id":2,"pipeline_name":"app","pipeline_instance_vars":{"branch":"main"},
            "start_time":1767225600}"#;
        let build: Build = serde_json::from_str(text).unwrap();
        assert_eq!((build.id, build.status, build.job_name.as_deref()), (7, Status::Started, Some("deploy")));
        let one_off: Build =
            serde_json::from_str(r#"{"id":8,"team_name":"main","name":"1","status":"aborted","end_time":1767225601}"#)
                .unwrap();
        assert_eq!((one_off.status, one_off.pipeline_name), (Status::Aborted, None));
        assert_eq!((build.end_time, one_off.end_time), (None, Some(1_767_225_601)));
        for wrong in [r#"{"id":8,"status":"paused"}"#, r#"{"status":"started"}"#, "[]", "<html>"] {
            assert!(serde_json::from_str::<Build>(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_token_is_not_shown() {
        let reply: TokenReply =
            serde_json::from_str(r#"{"access_token":"abc+/","token_type":"bearer","expires_in":60}"#).unwrap();
        assert!(!format!("{reply:?}").contains("abc"));
        assert_eq!((reply.access_token.expose(), reply.expires_in), ("abc+/", Some(60)));
    }
}
