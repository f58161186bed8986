//! Tokens that this server has made: each proves one name, `token:NAME`, to which the access file gives rights. The core
//! has only the hash of a token, and decides nothing by one: who may come in is decided before a command is made.

use super::limits;
use super::names::{Digest, TokenName};
use super::origin::Identity;
use super::time::WallMs;

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub name: TokenName,
    /// The hash of its secret. A secret of 160 random bits needs no slow hash.
    pub hash: Digest,
    pub created: WallMs,
    /// Who asked for it.
    pub by: Option<Identity>,
    /// From then on it proves nothing.
    pub expires: Option<WallMs>,
    /// About when it was used last ([`limits::TOKEN_USE_MS`]).
    pub used: Option<WallMs>,
}

impl Token {
    /// Whether it proves anything at this time, by the wall clock: people say until which day a token is good.
    #[must_use]
    pub fn is_good(&self, now: WallMs) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }

    /// Whether its use at this time is worth a note.
    #[must_use]
    pub fn is_use_news(&self, now: WallMs) -> bool {
        self.used.is_none_or(|used| now.0.saturating_sub(used.0) >= limits::TOKEN_USE_MS)
    }
}
