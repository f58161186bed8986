//! JSON bodies and names under mutated input: every answer is a value that keeps the rules, or a list of problems.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::format_collect, reason = "tests may panic and talk")]

use locker::core::limits;
use locker::core::names::{ClaimId, LockName, PoolName};
use locker::wire::api::{ClaimBody, ConfirmBody, LockBody, NoteBody, PoolBody, RemoveBody};
use locker::wire::json::{self, Body};
use locker::wire::problems::Problems;
use locker::wire::text::percent_decoded;

mod common {
    pub mod mutate;
}

use common::mutate::fuzz;

const BODIES: &[&[u8]] = &[
    b"",
    b"{}",
    br#"{"pool":"p","wait":"25s","confirm":true,"run":"r1","owner":{"team":"main","build_id":"7"}}"#,
    br#"{"pool":"p","lock":"l","also":[{"pool":"q","count":2,"labels":{"size":"large"}}],"key":"k"}"#,
    br#"{"capacity":3,"policy":{"order":"fifo","drain":"30s","max_hold":"2h"},"by":{"person":"ann"},"op":"o1"}"#,
    br#"{"metadata":"text \u00e4 \ud83d\udd12","labels":{"a":"b"}}"#,
    br#"{"metadata_base64":"AAECAw=="}"#,
    br#"{"fence":126267206673378,"run":"r1"}"#,
    br#"{"claim":"c","by":{"program":"x"}}"#,
    br#"{"pool":"p","pool":"q"}"#,
    br#"{"pool":[[[[[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]]]]]}"#,
    b"{\"pool\":\"\xff\"}",
    br#"{"pool":"\ud800"}"#,
];

fn check<T: Body>(input: &[u8]) {
    let mut problems = Problems::default();
    let value = json::read::<T>(input, &mut problems);
    let list = problems.into_list();
    assert!(value.is_some() || !list.is_empty(), "neither a value nor a problem");
    // What a person is told stays short and harmless on a terminal.
    assert!(list.len() <= 51, "{} problems", list.len());
    for problem in &list {
        assert!(problem.len() < 8_192, "{} bytes: {problem}", problem.len());
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
    }
}

#[test]
fn every_body_is_a_value_or_a_short_list_of_problems() {
    fuzz(BODIES, |dice, input| match dice.below(6) {
        0 | 1 => check::<ClaimBody>(input),
        2 => check::<PoolBody>(input),
        3 => check::<LockBody>(input),
        4 => check::<ConfirmBody>(input),
        _ => {
            check::<RemoveBody>(input);
            check::<NoteBody>(input);
        }
    });
}

const NAMES: &[&[u8]] = &[
    b"staging",
    b"env 1",
    b"a.b-c_d",
    "schl\u{fc}ssel \u{1f512}".as_bytes(),
    b"..",
    b"a/b",
    b"a%2fb%00",
    b"-x",
    b" lead",
    &[b'x'; 128],
    &[b'x'; 129],
    "\u{202e}gnp".as_bytes(),
];

#[test]
fn names_that_pass_keep_the_rules() {
    fuzz(NAMES, |_, input| {
        let Ok(text) = std::str::from_utf8(input) else { return };
        for text in [text.to_owned(), percent_decoded(text).unwrap_or_default()] {
            let (pool, lock) = (text.parse::<PoolName>(), text.parse::<LockName>());
            assert_eq!(pool.is_ok(), lock.is_ok());
            if let Ok(name) = pool {
                assert_eq!(name.to_string(), text, "equal means equal bytes");
                assert!((1..=limits::NAME_BYTES).contains(&text.len()) && !text.starts_with('.'));
                assert!(!text.contains('/') && !text.chars().any(char::is_control));
            }
            if text.parse::<ClaimId>().is_ok() {
                assert!((1..=limits::ID_BYTES).contains(&text.len()));
                assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
            }
        }
    });
}
