//! The tokens of a state.

use std::sync::Arc;

use super::State;
use crate::core::token::Token;

impl State {
    /// Keeps a token, new or changed.
    pub(in crate::core) fn put_token(&mut self, token: Arc<Token>) {
        self.dirty.tokens.insert(token.name.clone());
        self.snapshot.tokens.insert(token.hash, token);
    }

    pub(in crate::core) fn remove_token(&mut self, token: &Token) {
        self.dirty.tokens.insert(token.name.clone());
        self.snapshot.tokens.remove(&token.hash);
    }
}
