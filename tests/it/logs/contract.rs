//! What every log does while nothing fails.

use std::sync::Barrier;

use locker::core::time::{EngineMs, Span};
use locker::store::log::head::{Head, Id, Leader, Place as At, Record, Reign, Seq, Write};
use locker::store::log::tail::Tail;
use locker::store::log::{Log, Manifest, PIECE_BYTES, Written};

use super::{Place, noise};

/// The parts of the suite.
pub const ALL: &[(&str, fn(&dyn Place))] = &[
    ("an empty log can be taken once", an_empty_log_can_be_taken_once),
    ("an append compares who leads", an_append_compares_who_leads),
    ("a beat compares who leads", a_beat_compares_who_leads),
    ("a take-over compares everything", a_take_over_compares_everything),
    ("of many candidates one wins", of_many_candidates_one_wins),
    ("records come back as they were", records_come_back_as_they_were),
    ("snapshots belong to who leads", snapshots_belong_to_who_leads),
    ("notes are beside the records", notes_are_beside_the_records),
];

pub const SPAN: Span = Span(5_000);

pub fn leader(run: u128) -> Leader {
    Leader { name: format!("server \"{run}\" of ü"), run: Id(run) }
}

/// The head that a write must make.
#[track_caller]
pub fn done(log: &mut dyn Log, write: &Write<'_>) -> Head {
    match log.write(write).unwrap() {
        Written::Done(place) => {
            let head = log.head().unwrap().unwrap();
            assert_eq!(head.place(), place, "{write:?}");
            head
        }
        Written::Refused(head) => panic!("refused at {head:?}: {write:?}"),
    }
}

/// The head that a write is refused at.
#[track_caller]
pub fn refused(log: &mut dyn Log, write: &Write<'_>) -> Option<Head> {
    match log.write(write).unwrap() {
        Written::Refused(head) => head,
        Written::Done(place) => panic!("accepted as {place:?}: {write:?}"),
    }
}

/// Takes the log over from whoever leads.
pub fn take(log: &mut dyn Log, run: u128) -> At {
    let seen = log.head().unwrap();
    done(log, &Write::take_over(seen, leader(run), SPAN)).place()
}

pub fn record(at: At, id: u128, bytes: &[u8]) -> Record {
    Record { seq: at.seq.next(), id: Id(id), before: at.record, term: at.reign.term, bytes: bytes.to_vec() }
}

/// Appends a record, and returns the place after it.
#[track_caller]
pub fn append(log: &mut dyn Log, at: At, id: u128, bytes: &[u8]) -> At {
    done(log, &Write::append(at, &record(at, id, bytes), EngineMs(7))).place()
}

fn an_empty_log_can_be_taken_once(place: &dyn Place) {
    let mut log = place.open();
    assert_eq!(log.head().unwrap(), None);
    assert_eq!(log.records(Seq(1), 10).unwrap(), []);
    assert_eq!(log.manifest().unwrap(), None);
    let nowhere = At { reign: Reign { term: 1, run: Id(1) }, seq: Seq(0), record: Id::NONE };
    assert_eq!(refused(&mut log, &Write::beat(nowhere, SPAN, EngineMs(0))), None);
    let first = done(&mut log, &Write::take_over(None, leader(1), SPAN));
    let expected =
        Head { term: 1, leader: leader(1), seq: Seq(0), record: Id::NONE, beat: 1, span: SPAN, engine: EngineMs(0) };
    assert_eq!(first, expected);
    let mut other = place.open();
    assert_eq!(other.head().unwrap(), Some(expected.clone()));
    assert_eq!(refused(&mut other, &Write::take_over(None, leader(2), SPAN)), Some(expected));
}

fn notes_are_beside_the_records(place: &dyn Place) {
    let (mut log, mut other) = (place.open(), place.open());
    assert_eq!(log.notes("").unwrap(), []);
    let before = take(&mut log, 1).reign;
    for (name, by) in [("server/b", None), ("server/a", None), ("told", Some(before)), ("server/a", None)] {
        assert!(log.put_note(name, name.as_bytes(), by).unwrap(), "{name}");
    }
    let note = |name: &str| (name.to_owned(), name.as_bytes().to_vec());
    assert_eq!(other.notes("server/").unwrap(), [note("server/a"), note("server/b")]);
    // Whoever no longer leads changes nothing that is the leader's.
    let now = take(&mut other, 2);
    assert!(!log.put_note("told", b"late", Some(before)).unwrap());
    assert_eq!(log.notes("told").unwrap(), [note("told")]);
    assert!(other.put_note("told", b"next", Some(now.reign)).unwrap());
    log.drop_note("server/b").unwrap();
    log.drop_note("server/b").unwrap();
    let left = [note("server/a"), ("told".to_owned(), b"next".to_vec())];
    assert_eq!(other.notes("").unwrap(), left);
    // They neither move the head nor go with the records that are trimmed.
    assert_eq!(other.head().unwrap().unwrap().place(), now);
    let now = append(&mut other, now, 11, b"x");
    let manifest = Manifest { snapshot: Id(5), by: now.reign, seq: now.seq, record: now.record, pieces: 0 };
    assert!(other.put_manifest(&manifest).unwrap());
    other.trim(now.reign).unwrap();
    assert_eq!(other.notes("").unwrap(), left);
    let _ = other.room().unwrap();
}

/// Places that differ from this one in one thing each.
fn wrong_places(at: At) -> Vec<At> {
    let reign = |term, run| At { reign: Reign { term, run }, ..at };
    vec![
        reign(at.reign.term + 1, at.reign.run),
        reign(at.reign.term - 1, at.reign.run),
        reign(at.reign.term, Id(99)),
        At { seq: at.seq.next(), ..at },
        At { seq: Seq(at.seq.0 - 1), ..at },
        At { record: Id(99), ..at },
    ]
}

pub fn an_append_compares_who_leads(place: &dyn Place) {
    let (mut old, mut new) = (place.open(), place.open());
    let before = take(&mut old, 1);
    let at = append(&mut old, before, 11, b"one");
    for wrong in wrong_places(at) {
        let head = refused(&mut old, &Write::append(wrong, &record(wrong, 98, b"wrong"), EngineMs(8))).unwrap();
        assert_eq!(head.place(), at, "{wrong:?}");
    }
    // The record itself again: it is in the log already.
    refused(&mut old, &Write::append(before, &record(before, 11, b"one"), EngineMs(7)));
    let taken = take(&mut new, 2);
    assert_eq!((taken.seq, taken.record, taken.reign.term), (at.seq, at.record, 2));
    let head = refused(&mut old, &Write::append(at, &record(at, 12, b"of the old leader"), EngineMs(8))).unwrap();
    assert_eq!(head.place(), taken);
    append(&mut new, taken, 13, b"two");
    let found: Vec<Vec<u8>> = old.records(Seq(0), 10).unwrap().into_iter().map(|record| record.bytes).collect();
    assert_eq!(found, [b"one".to_vec(), b"two".to_vec()]);
}

fn a_beat_compares_who_leads(place: &dyn Place) {
    let (mut old, mut new) = (place.open(), place.open());
    let at = take(&mut old, 1);
    let at = append(&mut old, at, 11, b"one");
    let before = new.head().unwrap().unwrap();
    let beat = done(&mut old, &Write::beat(at, Span(6_000), EngineMs(9)));
    assert_eq!(beat, Head { beat: before.beat + 1, span: Span(6_000), engine: EngineMs(9), ..before });
    for wrong in wrong_places(at) {
        assert_eq!(refused(&mut old, &Write::beat(wrong, SPAN, EngineMs(9))).unwrap(), beat, "{wrong:?}");
    }
    let taken = take(&mut new, 2);
    assert_eq!(refused(&mut old, &Write::beat(at, SPAN, EngineMs(9))).unwrap().place(), taken);
}

pub fn a_take_over_compares_everything(place: &dyn Place) {
    let (mut old, mut new) = (place.open(), place.open());
    let at = take(&mut old, 1);
    let at = append(&mut old, at, 11, b"one");
    // Whatever the leader does in between, the candidate has not seen it stand still.
    let seen = new.head().unwrap();
    done(&mut old, &Write::beat(at, SPAN, EngineMs(7)));
    let now = old.head().unwrap();
    assert_ne!(seen, now);
    assert_eq!(refused(&mut new, &Write::take_over(seen, leader(2), SPAN)), now);
    let at = append(&mut old, at, 12, b"two");
    let head = refused(&mut new, &Write::take_over(now, leader(2), SPAN)).unwrap();
    assert_eq!(head.place(), at);
    for wrong in [
        Head { term: head.term + 1, ..head.clone() },
        Head { leader: leader(3), ..head.clone() },
        Head { leader: Leader { name: "other".to_owned(), ..head.leader.clone() }, ..head.clone() },
        Head { seq: head.seq.next(), ..head.clone() },
        Head { record: Id(99), ..head.clone() },
        Head { beat: head.beat - 1, ..head.clone() },
        Head { span: Span(1), ..head.clone() },
        Head { engine: EngineMs(1), ..head.clone() },
    ] {
        refused(&mut new, &Write::take_over(Some(wrong), leader(2), SPAN));
    }
    let taken = done(&mut new, &Write::take_over(Some(head.clone()), leader(2), Span(3_000)));
    let expected = Head { term: 2, leader: leader(2), beat: head.beat + 1, span: Span(3_000), ..head };
    assert_eq!(taken, expected, "the records and the engine time go on");
}

fn of_many_candidates_one_wins(place: &dyn Place) {
    const CANDIDATES: usize = 4;
    let barrier = Barrier::new(CANDIDATES);
    for round in 0..5 {
        let seen = place.open().head().unwrap();
        let wins = std::thread::scope(|scope| {
            let candidate = |run| {
                let (barrier, seen) = (&barrier, seen.clone());
                scope.spawn(move || {
                    let mut log = place.open();
                    barrier.wait();
                    matches!(log.write(&Write::take_over(seen, leader(run), SPAN)).unwrap(), Written::Done(_))
                })
            };
            let all: Vec<_> = (1..=CANDIDATES as u128).map(candidate).collect();
            all.into_iter().map(|candidate| candidate.join().unwrap()).filter(|won| *won).count()
        });
        assert_eq!(wins, 1);
        assert_eq!(place.open().head().unwrap().unwrap().term, round + 1);
    }
}

fn records_come_back_as_they_were(place: &dyn Place) {
    let mut log = place.open();
    let every_byte: Vec<u8> = (0..=255).collect();
    let large = |len: usize| (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect::<Vec<_>>();
    let payloads = [
        Vec::new(),
        b"\n".to_vec(),
        every_byte,
        large(256 * 1024),
        large(1_500_000),
        noise(256 * 1024),
        noise(320 * 1024),
        noise(1_500_000),
        b"last".to_vec(),
    ];
    let mut at = take(&mut log, 1);
    for (n, bytes) in (11..).zip(&payloads) {
        at = append(&mut log, at, n, bytes);
    }
    let mut reader = place.open();
    let mut tail = Tail::default();
    let mut found = Vec::new();
    loop {
        let next = reader.records(tail.seq.next(), 3).unwrap();
        if next.is_empty() {
            break;
        }
        assert!(next.len() <= 3);
        for record in next {
            tail.follow(&record).unwrap();
            assert_eq!(record.term, 1);
            found.push(record.bytes);
        }
    }
    assert!(found == payloads, "{:?}", found.iter().map(Vec::len).collect::<Vec<_>>());
    assert_eq!((tail.seq, tail.record), (at.seq, at.record));
}

fn snapshots_belong_to_who_leads(place: &dyn Place) {
    let (mut old, mut new) = (place.open(), place.open());
    let mut at = take(&mut old, 1);
    let mut places = vec![at];
    for id in 11..=15 {
        at = append(&mut old, at, id, b"x");
        places.push(at);
    }
    let at_seq = |seq: usize, snapshot, by| {
        let At { seq, record, .. } = places[seq];
        Manifest { snapshot: Id(snapshot), by, seq, record, pieces: 2 }
    };
    let first = at_seq(3, 71, at.reign);
    old.put_piece(Id(69), 0, b"of the very first snapshot, which was never finished").unwrap();
    old.trim(Reign { run: Id(99), ..at.reign }).unwrap();
    assert!(new.piece(Id(69), 0).unwrap().is_some());
    old.trim(at.reign).unwrap();
    assert_eq!(new.piece(Id(69), 0).unwrap(), None);
    let pieces = [vec![7; PIECE_BYTES], b"end".to_vec()];
    for (number, bytes) in (0..).zip(&pieces) {
        old.put_piece(first.snapshot, number, bytes).unwrap();
        old.put_piece(first.snapshot, number, bytes).unwrap();
    }
    assert_eq!(new.manifest().unwrap(), None, "nobody sees it before it is complete");
    let stranger = Reign { run: Id(99), ..at.reign };
    assert!(!old.put_manifest(&Manifest { by: stranger, ..first }).unwrap());
    assert!(old.put_manifest(&first).unwrap());
    assert!(old.put_manifest(&first).unwrap(), "it may be repeated");
    assert!(!old.put_manifest(&at_seq(2, 72, at.reign)).unwrap(), "an older one");
    assert_eq!(new.manifest().unwrap(), Some(first));
    let numbers = |log: &mut dyn Log| log.records(Seq(0), 10).unwrap().iter().map(|r| r.seq.0).collect::<Vec<_>>();
    old.trim(stranger).unwrap();
    assert_eq!(numbers(&mut new), [1, 2, 3, 4, 5]);
    old.put_piece(Id(70), 0, b"of a snapshot that was never finished").unwrap();
    old.put_piece(Id(73), 0, b"and another").unwrap();
    old.trim(at.reign).unwrap();
    assert_eq!(numbers(&mut new), [4, 5]);
    for (number, bytes) in (0..).zip(&pieces) {
        assert_eq!(new.piece(first.snapshot, number).unwrap().as_deref(), Some(bytes.as_slice()));
    }
    for gone in [70, 73] {
        assert_eq!(new.piece(Id(gone), 0).unwrap(), None);
    }
    assert_eq!(new.piece(first.snapshot, 2).unwrap(), None);
    // A leader that was deposed while it wrote a snapshot.
    old.put_piece(Id(74), 0, b"late").unwrap();
    let taken = take(&mut new, 2);
    assert!(!old.put_manifest(&at_seq(5, 74, at.reign)).unwrap());
    old.trim(at.reign).unwrap();
    assert_eq!(new.manifest().unwrap(), Some(first));
    assert!(new.put_manifest(&at_seq(5, 75, taken.reign)).unwrap());
    assert!(new.piece(first.snapshot, 0).unwrap().is_some(), "whoever reads it may finish");
    new.trim(taken.reign).unwrap();
    assert_eq!(numbers(&mut old), [0; 0]);
    assert_eq!(old.head().unwrap().unwrap().place(), taken);
}
