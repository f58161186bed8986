//! The life of tokens: made, used, revoked.

use std::sync::Arc;

use super::command::{Refusal, Reply, check_limit};
use super::history::ChangeKind;
use super::limits;
use super::names::{Digest, TokenName};
use super::state::State;
use super::time::{Now, WallMs};
use super::token::Token;

/// Makes a token. One whose time is over gives its name to the new one.
pub(super) fn create(
    state: &mut State,
    name: TokenName,
    hash: Digest,
    expires: Option<WallMs>,
    now: Now,
) -> Result<Reply, Refusal> {
    if let Some(old) = state.snapshot.token(&name).cloned() {
        if old.is_good(now.wall) {
            return Err(Refusal::TokenExists { name });
        }
        state.remove_token(&old);
    }
    check_limit("tokens", state.snapshot.tokens.len(), limits::TOKENS)?;
    let by = state.origin().and_then(|origin| origin.proved.clone());
    let token = Arc::new(Token { name: name.clone(), hash, created: now.wall, by, expires, used: None });
    state.put_token(Arc::clone(&token));
    state.record_token(ChangeKind::TokenCreated, name, now);
    Ok(Reply::Token(token))
}

/// Ends a token.
pub(super) fn revoke(state: &mut State, name: TokenName, now: Now) -> Result<Reply, Refusal> {
    let Some(old) = state.snapshot.token(&name).cloned() else { return Err(Refusal::NoSuchToken { name }) };
    state.remove_token(&old);
    state.record_token(ChangeKind::TokenRevoked, name, now);
    Ok(Reply::Token(old))
}

/// Notes that a token was used, if that is news.
pub(super) fn used(state: &mut State, hash: Digest, now: Now) -> Reply {
    if let Some(old) = state.snapshot.tokens.get(&hash).filter(|token| token.is_use_news(now.wall)).cloned() {
        state.put_token(Arc::new(Token { used: Some(now.wall), ..Token::clone(&old) }));
    }
    Reply::Nothing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::command::Command;
    use crate::core::restart::restarted;
    use crate::core::settings::Settings;
    use crate::core::state::Loaded;
    use crate::core::step::step;
    use crate::core::test_store::TestStore;
    use crate::core::time::EngineMs;

    fn name(text: &str) -> TokenName {
        TokenName::parse(text).unwrap()
    }

    fn create_at(state: &mut State, of: &str, n: u8, expires: Option<u64>, wall: u64) -> Result<Reply, Refusal> {
        let (name, hash) = (name(of), Digest([n; 32]));
        step(state, Command::CreateToken { name, hash, expires: expires.map(WallMs) }, now(wall))
    }

    fn now(wall: u64) -> Now {
        Now { engine: EngineMs(wall), wall: WallMs(wall) }
    }

    fn begin(loaded: Loaded) -> State {
        restarted(loaded, [], [], Settings::default(), 1, now(0))
    }

    #[test]
    fn a_name_has_one_token_at_a_time() {
        let mut state = begin(Loaded::default());
        assert!(matches!(create_at(&mut state, "ci", 1, Some(100), 5), Ok(Reply::Token(_))));
        assert_eq!(create_at(&mut state, "ci", 2, None, 99), Err(Refusal::TokenExists { name: name("ci") }));
        // Its time is over: the name is free, and the old secret is forgotten.
        assert!(create_at(&mut state, "ci", 2, None, 100).is_ok());
        assert_eq!(state.snapshot.tokens.keys().copied().collect::<Vec<_>>(), [Digest([2; 32])]);
        let revoke = || Command::RevokeToken { name: name("ci") };
        assert!(step(&mut state, revoke(), now(101)).is_ok());
        assert!(state.snapshot.tokens.is_empty());
        assert_eq!(step(&mut state, revoke(), now(102)), Err(Refusal::NoSuchToken { name: name("ci") }));
        let kinds: Vec<ChangeKind> = state.new_entries().iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [ChangeKind::TokenCreated, ChangeKind::TokenCreated, ChangeKind::TokenRevoked]);
        assert!(state.new_entries().iter().all(|entry| entry.token == Some(name("ci")) && entry.pools.is_empty()));
    }

    #[test]
    fn uses_are_noted_seldom_and_survive() {
        let mut state = begin(Loaded::default());
        create_at(&mut state, "ci", 1, None, 0).unwrap();
        let mut store = TestStore::default();
        store.commit(&state.take_changes(now(0)));
        let mut writes = 0;
        for minute in 0..180 {
            let at = now(1 + minute * 60_000);
            step(&mut state, Command::TokenUsed { hash: Digest([1; 32]) }, at).unwrap();
            let changes = state.take_changes(at);
            writes += changes.tokens.len();
            store.commit(&changes);
        }
        assert_eq!(writes, 3, "one an hour");
        step(&mut state, Command::TokenUsed { hash: Digest([9; 32]) }, now(0)).unwrap();
        store.check_has_all_of(&state).unwrap();
        let next = begin(store.load());
        assert_eq!(next.snapshot.tokens, state.snapshot.tokens);
        assert_eq!(next.snapshot.token(&name("ci")).unwrap().used, Some(WallMs(1 + 120 * 60_000)));
    }

    #[test]
    fn there_is_a_limit() {
        let mut state = begin(Loaded::default());
        for n in 0..limits::TOKENS {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&n.to_be_bytes());
            let (name, hash) = (name(&format!("t{n}")), Digest(hash));
            step(&mut state, Command::CreateToken { name, hash, expires: None }, now(1)).unwrap();
        }
        let full = create_at(&mut state, "more", 255, None, 1);
        assert_eq!(full, Err(Refusal::Limit { what: "tokens", max: limits::TOKENS }));
    }
}
