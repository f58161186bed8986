//! Tokens of this server in our own HTTP API.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// `POST /api/v1/tokens`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenBody {
    /// What rules of the access file call it, as `token:NAME`: 1 to 64 of `A-Za-z0-9._:-`.
    pub name: String,
    /// For how long it is good, such as `90d`, at most ten years; without it, until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<String>,
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TokenView {
    pub name: String,
    pub created: String,
    /// Who asked for it, such as `user:ada`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// From then on it proves nothing. Absent if it is good until it is revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// About when it was used last, to the hour. Absent if it was never used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<String>,
    /// Whether its time is over.
    pub expired: bool,
    /// Whether any rule of the access file is for it.
    pub has_rights: bool,
}

/// A new token. Only this answer has its secret.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NewTokenView {
    #[serde(flatten)]
    pub view: TokenView,
    /// The token itself, to be sent as `Authorization: Bearer TOKEN`: `locker_` and 40 hexadecimal digits. The server does
    /// not keep it.
    pub token: String,
}

impl std::fmt::Debug for NewTokenView {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NewTokenView").field("view", &self.view).finish_non_exhaustive()
    }
}
