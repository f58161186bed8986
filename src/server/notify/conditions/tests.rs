//! What targets are told, as tables. Times are seconds; the target wants to hear of waits and holds over 10 s.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::core::claim::{
    Ask, BuildRef, End, Fetched, LockSet, Owner, Part, Phase, Presence, Scope, Suspect, Terms, Want,
};
use crate::core::names::{ChangeKey, ClaimId, Digest, Fence, Ticket};
use crate::core::settings::Settings;

fn secs(at: u64) -> WallMs {
    WallMs(at * 1_000)
}

fn rules() -> Rules {
    let limit = Some(Span::secs(10));
    let events = [Event::Lost, Event::Broken].into_iter().collect();
    Rules { pools: vec!["p*".parse().unwrap()], events, waits: limit, holds: limit, suspect: limit }
}

fn owner() -> Arc<Owner> {
    let text = |text: &str| Some(text.parse().unwrap());
    Arc::new(Owner { cluster: text("https://ci"), build_id: text("7\r\nx: ä"), ..Owner::default() })
}

/// A claim that waits since one time, or holds since another.
fn claim(id: &str, pool: &str, asked: u64, held: Option<u64>) -> Arc<Claim> {
    let pool: PoolName = pool.parse().unwrap();
    let locks = vec![(pool.clone(), "1".parse().unwrap())];
    let key = ChangeKey { revision: Revision(1), seq: 0 };
    let phase = match held {
        None => Phase::Waiting { presence: Presence::Parked, give_up: None },
        Some(since) => Phase::Held {
            fence: Fence(1),
            claimed: key,
            locks,
            since: secs(since),
            until: None,
            limit: None,
            fetched: Fetched::Never,
            marked: false,
        },
    };
    let part = Part { pool, want: Want::Any { count: 1, labels: crate::core::claim::Labels::new() } };
    Arc::new(Claim {
        id: id.parse().unwrap(),
        life: 1,
        terms: Terms {
            ask: Ask { parts: vec![part], key: None, requestor: None },
            digest: Digest([0; 32]),
            owner: owner(),
            reason: None,
            confirm: false,
            ttl: None,
            priority: crate::core::claim::Priority::default(),
            supersede: None,
            waits_if_empty: false,
        },
        scope: Scope::Flow,
        build_over: None,
        runs: Vec::new(),
        ticket: Ticket(1),
        asked_at: secs(asked),
        withdrawals: 0,
        passed: 0,
        phase,
        aliases: Vec::new(),
        origin: None,
        parks: Vec::new(),
        made: Box::default(),
    })
}

fn state(claims: &[Arc<Claim>]) -> Snapshot {
    let mut snapshot = Snapshot { revision: Revision(100), ..Snapshot::default() };
    for claim in claims {
        snapshot.claims.insert(claim.id.clone(), Arc::clone(claim));
        snapshot.builds.insert((claim.terms.owner.build().unwrap(), claim.id.clone()));
    }
    snapshot
}

/// An entry: revision, time, what happened, pool, and how long the claim had waited and held.
fn entry(revision: u64, at: u64, kind: ChangeKind, pool: &str, waited: Option<u64>, held: Option<u64>) -> Change {
    Change {
        key: ChangeKey { revision: Revision(revision), seq: 0 },
        at: secs(at),
        kind,
        pools: vec![pool.parse().unwrap()],
        locks: LockSet::new(),
        claim: Some(ClaimId::parse("c").unwrap()),
        end: (kind == ChangeKind::Ended).then_some(End::GaveUp),
        who: Some(owner()),
        origin: None,
        waited: waited.map(Span::secs),
        held: held.map(Span::secs),
        reason: None,
        latch: None,
        token: None,
    }
}

fn told(revision: u64, until: u64) -> Told {
    Told { revision: Revision(revision), until: secs(until) }
}

fn words(round: &Round) -> Vec<&'static str> {
    round.steps.iter().map(|step| step.notification.event.word()).collect()
}

#[test]
fn entries_tell_what_happened_and_what_was_over_before_anybody_looked() {
    use ChangeKind::{Broken, Claimed, Ended, Granted, Lost, Quarantined, Released};
    // Told up to 20 s. What happened, after which wait and hold, and what follows.
    let table: [(ChangeKind, &str, Option<u64>, Option<u64>, &[&str]); 14] = [
        (Lost, "p", None, Some(1), &["lost"]),
        (Broken, "prod", None, Some(1), &["broken"]),
        (Broken, "other", None, Some(1), &[]),
        (Quarantined, "p", None, None, &[]),
        (Claimed, "p", Some(5), None, &[]),
        // At 30 s: a wait of 15 s passed its limit at 25 s, one of 25 s at 15 s, which was told.
        (Claimed, "p", Some(15), None, &["long_wait"]),
        (Claimed, "p", Some(25), None, &[]),
        (Granted, "p", Some(15), None, &[]),
        (Ended, "p", Some(15), None, &["long_wait"]),
        (Claimed, "other", Some(15), None, &[]),
        (Released, "p", None, Some(9), &[]),
        (Released, "p", None, Some(12), &["long_hold"]),
        (Lost, "p", None, Some(12), &["long_hold", "lost"]),
        (Lost, "p", None, Some(20), &["lost"]),
    ];
    for (kind, pool, waited, held, expected) in table {
        let mut round = Round::default();
        of_entries(&mut round, &rules(), &[entry(7, 30, kind, pool, waited, held)], told(6, 20), secs(31));
        assert_eq!(words(&round), expected, "{kind:?} {pool} {waited:?} {held:?}");
        assert!(round.steps.last().is_none_or(|last| last.then == told(7, 20)), "{round:?}");
    }
}

#[test]
fn the_state_tells_of_each_limit_when_it_is_passed() {
    // Told up to a time, and now; then the claims told of: w waits since 5 s, h holds since 12 s, o is of another pool.
    let table: [(u64, u64, &[&str]); 7] = [
        (0, 14, &[]),
        (0, 15, &["w"]),
        (0, 22, &["w", "h"]),
        (14, 15, &["w"]),
        (15, 21, &[]),
        (15, 22, &["h"]),
        (22, 99, &[]),
    ];
    let state = state(&[claim("w", "p", 5, None), claim("h", "p", 1, Some(12)), claim("o", "other", 1, None)]);
    for (until, now, expected) in table {
        let mut round = Round::default();
        let end = of_moment(&mut round, &rules(), &state, told(50, until), secs(now));
        let claims: Vec<&str> = round.steps.iter().map(|step| step.notification.claim.as_deref().unwrap()).collect();
        assert_eq!(claims, expected, "{until} {now}");
        assert_eq!(end, told(100, now));
        assert!(round.steps.last().is_none_or(|last| last.then == end));
    }
}

#[test]
fn a_suspect_build_is_told_once_with_its_claims() {
    let mut state = state(&[claim("a", "p", 1, Some(200)), claim("b", "q", 1, Some(200))]);
    let build = BuildRef { cluster: "https://ci".parse().unwrap(), id: "7\r\nx: ä".parse().unwrap() };
    let suspect = Suspect { since: secs(100), why: "no answer".parse().unwrap() };
    state.suspects.insert(build, Arc::new(suspect));
    for (until, now, expected) in [(105, 109, 0), (105, 110, 1), (110, 120, 0)] {
        let mut round = Round::default();
        of_moment(&mut round, &Rules { holds: None, waits: None, ..rules() }, &state, told(50, until), secs(now));
        assert_eq!(round.steps.len(), expected, "{until} {now}");
        assert!(round.steps.iter().all(|step| step.notification.pools == ["p"]), "{round:?}");
        let is_safe = |step: &Step| step.notification.id.bytes().all(|byte| byte.is_ascii_graphic());
        assert!(round.steps.iter().all(is_safe), "{round:?}");
    }
}

#[test]
fn both_ways_to_learn_of_a_wait_make_the_same_id() {
    let (mut live, mut past) = (Round::default(), Round::default());
    of_moment(&mut live, &rules(), &state(&[claim("c", "p", 5, None)]), told(0, 0), secs(16));
    of_entries(&mut past, &rules(), &[entry(7, 30, ChangeKind::Claimed, "p", Some(25), None)], told(0, 0), secs(31));
    assert_eq!(live.steps[0].notification.id, past.steps[0].notification.id);
    assert_eq!(live.steps[0].at, past.steps[0].at);
}

#[test]
fn a_revision_is_told_once_all_its_entries_are() {
    let second = |change: Change| Change { key: ChangeKey { seq: 1, ..change.key }, ..change };
    let lost = |revision| entry(revision, 30, ChangeKind::Lost, "p", None, None);
    let quiet = entry(9, 30, ChangeKind::Waiting, "p", None, None);
    let mut round = Round::default();
    of_entries(&mut round, &rules(), &[lost(7), second(lost(7)), lost(8), quiet], told(6, 20), secs(31));
    let then: Vec<u64> = round.steps.iter().map(|step| step.then.revision.0).collect();
    assert_eq!(then, [6, 7, 9]);
}

#[test]
fn what_is_older_than_a_day_is_counted_not_told() {
    let day = TOLD_WITHIN_MS / 1_000;
    let entries = [entry(7, 30, ChangeKind::Lost, "p", None, None), entry(8, 50, ChangeKind::Lost, "p", None, None)];
    let mut round = Round::default();
    of_entries(&mut round, &rules(), &entries, told(6, 20), secs(day + 40));
    assert_eq!((round.steps.len(), round.too_old), (1, 1));
    // A wait that goes on is news, however old.
    let mut round = Round::default();
    of_moment(&mut round, &rules(), &state(&[claim("w", "p", 5, None)]), told(0, 0), secs(3 * day));
    assert_eq!(round.steps.len(), 1);
}

#[test]
fn many_at_one_moment_stay_together() {
    let claims: Vec<_> = (0..OVERDUE_PER_ROUND + 500).map(|n| claim(&format!("c{n}"), "p", 5, None)).collect();
    let late = claim("late", "p", 6, None);
    let state = state(&[claims, vec![late]].concat());
    let mut round = Round::default();
    let end = of_moment(&mut round, &rules(), &state, told(0, 0), secs(99));
    assert_eq!((round.steps.len(), end.until), (OVERDUE_PER_ROUND + 500, secs(15)));
    let mut next = Round::default();
    of_moment(&mut next, &rules(), &state, end, secs(99));
    assert_eq!(next.steps.len(), 1);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// However often somebody looks, and whenever the claim ends: a wait over its limit is told exactly once.
    #[test]
    fn a_long_wait_is_told_once(asked in 0_u64..50, lasted in 0_u64..40, looks in proptest::collection::btree_set(0_u64..120, 1..20)) {
        let ended = asked + lasted;
        let (mut place, mut ids) = (told(0, 0), Vec::new());
        let mut at_looks: Vec<u64> = looks.into_iter().collect();
        at_looks.push(200);
        for now in at_looks {
            let over = [entry(7, ended, ChangeKind::Claimed, "p", Some(lasted), None)];
            let waits = claim("c", "p", asked, None);
            let entries = if now >= ended && place.revision.0 < 7 { &over[..] } else { &[] };
            let live = if now >= asked && now < ended { state(&[waits]) } else { state(&[]) };
            let snapshot = Snapshot { revision: Revision(if now >= ended { 7 } else { 1 }), ..live };
            let mut round = Round::default();
            of_entries(&mut round, &rules(), entries, place, secs(now));
            place = of_moment(&mut round, &rules(), &snapshot, place, secs(now));
            ids.extend(round.steps.into_iter().map(|step| step.notification.id));
        }
        prop_assert_eq!(ids.len(), usize::from(lasted >= 10));
    }
}

#[test]
fn the_default_settings_keep_what_is_told() {
    assert!(Settings::default().history_age.0 >= TOLD_WITHIN_MS, "entries must not leave before they are too old");
}
