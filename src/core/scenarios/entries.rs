//! What the entries of the history say, member by member.

use super::harness;
use crate::core::history::Change;

/// `KIND POOLS LOCKS CLAIM END "REASON"`, without what is missing.
fn shown(entry: &Change) -> String {
    let pools = entry.pools.iter().map(ToString::to_string).collect::<Vec<_>>().join("+");
    let locks: Vec<String> = entry.locks.iter().map(|(pool, lock)| format!("{pool}/{lock}")).collect();
    let claim = entry.claim.as_ref().map(ToString::to_string);
    let end = entry.end.map(|end| format!("end={}", end.word()));
    let reason = entry.reason.as_ref().map(|reason| format!("{:?}", reason.as_str()));
    let kind = format!("{:?} {pools}", entry.kind);
    [Some(kind), Some(locks.join("+")).filter(|locks| !locks.is_empty()), claim, end, reason]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>()
        .join(" ")
}

fn expect(text: &str, expected: &[&str]) {
    let entries: Vec<String> = harness::entries_of(text.trim()).iter().map(shown).collect();
    assert_eq!(entries, expected);
}

#[test]
fn claims_and_locks() {
    expect(
        "a ask fresh
         a break
         - pool env capacity=1
         b ask env
         c ask env park=1
         d ask env park=2
         d move first reason=urgent
         - quarantine env/1 for=1m reason=damaged
         +1m - tick
         - remove env/1 claim=b
         - pool env capacity=1
         e ask env over=1
         - pool env capacity=0
         e end",
        &[
            "Added fresh fresh/fresh a",
            "Claimed fresh fresh/fresh a",
            r#"Broken fresh fresh/fresh a end=broken "why""#,
            "PoolSet env",
            "Added env env/1",
            "Claimed env env/1 b",
            "Waiting env c",
            "Waiting env d",
            r#"Moved env d "urgent""#,
            r#"Quarantined env env/1 "damaged""#,
            r#"Returned env env/1 "the time of its quarantine is over""#,
            "Released env env/1 b end=released",
            "Removed env env/1",
            "Ended env d end=removed",
            "Ended env c end=removed",
            "Added env env/1",
            "Claimed env env/1 e",
            r#"Released env env/1 e end=released "done""#,
            "Removed env env/1",
        ],
    );
}

#[test]
fn stuck_claims() {
    expect(
        "- pool x capacity=1
         - pool y capacity=1
         p ask x build=1
         q ask y build=2
         r ask y build=1 park=1
         s ask x build=2 park=2
         t ask x build=1 park=3
         +5s - tick",
        &[
            "PoolSet x",
            "Added x x/1",
            "PoolSet y",
            "Added y y/1",
            "Claimed x x/1 p",
            "Claimed y y/1 q",
            "Waiting y r",
            "Waiting x s",
            "Waiting x t",
            r#"Deadlock y r "builds wait for each other: 1, 2""#,
            r#"Deadlock x s "builds wait for each other: 2, 1""#,
            r#"SelfWait x t "its own build has what it needs: claim p""#,
        ],
    );
}

#[test]
fn marked_holds() {
    expect(
        "- pool env capacity=1
         a ask env build=7
         a release build=7",
        &[
            "PoolSet env",
            "Added env env/1",
            "Claimed env env/1 a",
            r#"Noted env env/1 a "a step of its build has released it: it ends when the build is over""#,
        ],
    );
}
