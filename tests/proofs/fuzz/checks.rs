//! What must hold for every input of the JSON readers and of names, and the table of all fuzz targets.

use std::fmt::Debug;

use locker::core::claim::End;
use locker::core::limits;
use locker::core::names::{ClaimId, LockName, PoolName};
use locker::core::time::{Deadline, EngineMs, Span};
use locker::server::link::frame;
use locker::wire::api::{ClaimBody, ConfirmBody, LockBody, NoteBody, PoolBody, RemoveBody};
use locker::wire::concourse::{CheckRequest, InRequest, OutRequest, PayloadError};
use locker::wire::contracts::locker::Party;
use locker::wire::contracts::state_file;
use locker::wire::json::{self, Body};
use locker::wire::latch;
use locker::wire::problems::Problems;
use locker::wire::record::{
    self, StoredChange, StoredClaim, StoredEnded, StoredLatch, StoredLock, StoredOp, StoredPolicy, StoredToken,
};
use locker::wire::text::percent_decoded;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A message for people stays short, and harmless on a terminal.
fn is_harmless(list: &[String]) {
    assert!(list.len() <= 51, "{} problems", list.len());
    for problem in list {
        assert!(problem.len() < 8_192, "{} bytes: {problem}", problem.len());
        assert!(!problem.chars().any(char::is_control), "{problem:?}");
    }
}

fn is_value_or_problems<T>(read: impl FnOnce(&mut Problems) -> Option<T>) {
    let mut problems = Problems::default();
    let value = read(&mut problems);
    let list = problems.into_list();
    assert!(value.is_some() || !list.is_empty(), "neither a value nor a problem");
    is_harmless(&list);
}

fn body<T: Body>(input: &[u8]) {
    is_value_or_problems(|problems| json::read::<T>(input, problems));
}

/// Bodies of requests: a value that keeps the rules, or a short list of problems.
pub fn bodies(input: &[u8]) {
    body::<ClaimBody>(input);
    body::<PoolBody>(input);
    body::<LockBody>(input);
    body::<ConfirmBody>(input);
    body::<RemoveBody>(input);
    body::<NoteBody>(input);
    is_value_or_problems(|problems| latch::create(input, problems));
    // An empty body is also `None` here.
    let mut problems = Problems::default();
    let _ = latch::release(input, &mut problems);
    is_harmless(&problems.into_list());
    is_value_or_problems(|problems| Party::parse(input, problems));
    if let Ok(text) = std::str::from_utf8(input)
        && let Err(error) = state_file::parse(text)
    {
        assert!(!error.to_string().is_empty());
    }
}

/// Names: those that pass keep the rules, also when they are percent-encoded.
pub fn names(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    for text in [text.to_owned(), percent_decoded(text).unwrap_or_default().into_owned()] {
        let (pool, lock) = (text.parse::<PoolName>(), text.parse::<LockName>());
        if let Ok(name) = &pool {
            assert_eq!(name.to_string(), text, "equal means equal bytes");
            assert!((1..=limits::NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control));
            assert!(text.split('/').all(|part| part.parse::<LockName>().is_ok()), "each part is a name");
            assert!(!name.file_name().contains('/'));
        }
        if let Ok(name) = &lock {
            assert_eq!(name.to_string(), text, "equal means equal bytes");
        }
        assert_eq!(lock.is_ok(), pool.is_ok() && !text.contains('/'));
        if text.parse::<ClaimId>().is_ok() {
            assert!((1..=limits::ID_BYTES).contains(&text.len()));
            assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._:-".contains(&b)));
        }
    }
}

fn payload<T>(parsed: Result<T, PayloadError>) {
    if let Err(PayloadError(problems)) = parsed {
        assert!(!problems.is_empty(), "refused without a reason");
    }
}

/// What Concourse gives to `check`, `in` and `out`: a request, or everything that is wrong with it.
pub fn payloads(input: &[u8]) {
    payload(CheckRequest::parse(input));
    payload(InRequest::parse(input));
    payload(OutRequest::parse(input));
}

fn record<T: Serialize + DeserializeOwned + PartialEq + Debug>(text: &str) -> Option<T> {
    match record::decode::<T>(text) {
        Ok(record) => {
            let written = record::encode(&record).expect("a record that was read can be written");
            assert_eq!(record::decode::<T>(&written).expect("what was written can be read"), record);
            Some(record)
        }
        Err(error) => {
            assert!(!error.to_string().chars().any(char::is_control), "{error:?}");
            None
        }
    }
}

/// Stored records: refused, or the same after writing and reading again, and the core takes them without a panic.
pub fn records(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let id = || "id".parse::<ClaimId>().expect("an id");
    if let Some(claim) = record::<StoredClaim>(text)
        && let Ok(claim) = claim.into_claim(id())
    {
        let again = StoredClaim::from(&claim).into_claim(id()).expect("what the core took, it takes again");
        assert_eq!(StoredClaim::from(&again), StoredClaim::from(&claim));
    }
    if let Some(ended) = record::<StoredEnded>(text) {
        // It may be refused, but may not panic.
        let forget = Deadline { at: EngineMs(2), span: Span(1) };
        let _ = ended.into_ended(id(), End::Cancelled, None, forget);
    }
    record::<StoredLock>(text);
    record::<StoredPolicy>(text);
    record::<StoredOp>(text);
    record::<StoredChange>(text);
    record::<StoredLatch>(text);
    record::<StoredToken>(text);
}

/// Frames between servers, as they come over a link: refused, or the same after writing and reading again.
pub fn frames(mut input: &[u8]) {
    while let Ok(Some(length)) = frame::length(input)
        && let Some((bytes, rest)) = input.split_at_checked(length)
    {
        input = rest;
        frame_again::<frame::Up>(&bytes[frame::LENGTH..]);
        frame_again::<frame::Down>(&bytes[frame::LENGTH..]);
    }
}

fn frame_again<F: frame::Frame + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    let Ok((read, payload)) = frame::read::<F>(bytes) else { return };
    let mut written = Vec::new();
    // Numbers may come in longer forms than ours, so the bytes may be others.
    frame::write(&read, payload, &mut written).expect("what was short enough is so again");
    assert_eq!(frame::length(&written), Ok(Some(written.len())));
    assert_eq!(frame::read::<F>(&written[frame::LENGTH..]), Ok((read, payload)));
}
