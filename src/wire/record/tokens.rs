//! Stored tokens.

use serde::{Deserialize, Serialize};

use super::{Parsed, claims, parsed};
use crate::core::names::TokenName;
use crate::core::origin::Identity;
use crate::core::time::WallMs;
use crate::core::token::Token;

/// A token. Its name is the key, and the hash of its secret is all that is kept of that.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoredToken {
    /// 64 hexadecimal digits.
    hash: String,
    created: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    by: Option<Parsed<Identity>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    used: Option<u64>,
}

impl From<&Token> for StoredToken {
    fn from(token: &Token) -> Self {
        let Token { name: _, hash, created, by, expires, used } = token;
        Self {
            hash: claims::stored_digest(*hash),
            created: created.0,
            by: parsed(by.as_ref()),
            expires: expires.map(|at| at.0),
            used: used.map(|at| at.0),
        }
    }
}

impl StoredToken {
    /// The token of this name.
    ///
    /// # Errors
    /// The hash is not one.
    pub fn into_token(self, name: TokenName) -> anyhow::Result<Token> {
        Ok(Token {
            name,
            hash: claims::digest(&self.hash)?,
            created: WallMs(self.created),
            by: self.by.map(|p| p.0),
            expires: self.expires.map(WallMs),
            used: self.used.map(WallMs),
        })
    }
}
