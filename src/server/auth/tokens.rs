//! Tokens that this server makes (docs/access.md#tokens): 160 random bits each, of which it keeps the SHA-256. That is
//! enough: nobody can try all of them, so a slow hash would only cost time.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::core::command::Command;
use crate::core::names::Digest;
use crate::core::origin::Identity;
use crate::core::token::Token;
use crate::env::random_hex;
use crate::server::engine::{Engine, EngineError};
use crate::server::http::TOKEN_PREFIX;
use crate::wire::secret::Secret;

/// The random part of a token, bytes.
const RANDOM_BYTES: usize = 20;

/// A new token.
#[must_use]
pub fn make() -> Secret {
    Secret::new(format!("{TOKEN_PREFIX}{}", random_hex::<RANDOM_BYTES>()))
}

/// The hash of a token, which is all that is kept of it.
#[must_use]
pub fn hash(token: &str) -> Digest {
    Digest(Sha256::digest(token).into())
}

/// Knows clients by their tokens. Cheap to clone.
#[derive(Clone)]
pub struct Tokens(Engine);

impl Tokens {
    /// Knows the tokens of this engine.
    #[must_use]
    pub fn new(engine: Engine) -> Self {
        Self(engine)
    }

    /// Who shows this token, and its hash. `None` if there is no such token, if its time is over, or if it was revoked. That
    /// it was used is noted now and then, and no request waits for that.
    #[must_use]
    pub fn identify(&self, token: &str) -> Option<(Identity, Digest)> {
        let hash = hash(token);
        let (found, now) = (find(&self.0, hash)?, self.0.now().wall);
        if found.is_use_news(now) {
            self.0.post(Command::TokenUsed { hash });
        }
        Some((Identity::Token(found.name.to_string()), hash))
    }

    /// Makes certain that a token that was not known was not made by another server, which leads by now.
    ///
    /// # Errors
    /// This server no longer leads, or too many commands wait.
    pub async fn confirm(&self) -> Result<(), EngineError> {
        self.0.confirm_for_strangers().await
    }
}

/// The token with this hash, if it still proves something.
#[must_use]
pub fn find(engine: &Engine, hash: Digest) -> Option<Arc<Token>> {
    let now = engine.now().wall;
    engine.snapshot().tokens.get(&hash).filter(|token| token.is_good(now)).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_can_be_recognised_and_not_guessed() {
        let (one, other) = (make(), make());
        assert_ne!(one, other);
        let digits = one.expose().strip_prefix(TOKEN_PREFIX).unwrap();
        assert_eq!(digits.len(), 40);
        assert!(digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{digits}");
        assert_ne!(hash(one.expose()), hash(other.expose()));
    }
}
