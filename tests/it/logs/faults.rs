//! What every log and its leader do while answers are lost and databases die.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use locker::core::time::{EngineMs, Span};
use locker::store::log::candidate::Candidate;
use locker::store::log::head::{Id, Leader, Seq, Write};
use locker::store::log::judge::Lost;
use locker::store::log::leading::{Clock as _, Leading, Stand, SystemClock, stand};
use locker::store::log::plant::Plant;
use locker::store::log::tail::Tail;
use locker::store::log::{Log, Manifest, Trouble};

use super::contract::{append, take};
use super::{Place, noise};
use crate::support::cut::Cut;
use crate::support::{SetsAtEnd, eventually};

/// The parts of the suite.
pub const ALL: &[(&str, fn(&dyn Place))] = &[
    ("each batch is there once", |place| each_batch_is_there_once(place, None)),
    ("take-overs survive lost answers", take_overs_survive_lost_answers),
    ("every other call may be repeated", every_other_call_may_be_repeated),
    ("a leader that is deposed is told", a_leader_that_is_deposed_is_told),
    ("a head that was given up is free at once", a_head_that_was_given_up_is_free_at_once),
    ("a leader without answers no longer leads", a_leader_without_answers_leads_no_more),
    ("nothing is lost when the database dies", nothing_is_lost_when_the_database_dies),
    ("a log that was set back is noticed", a_log_that_was_set_back_is_noticed),
];

type Leads = Leading<Box<dyn Log>, SystemClock>;

/// A span that no test waits for.
const LONG: Span = Span(60_000);

/// Leads, as soon as that is allowed.
fn lead(place: &dyn Place, run: u128, span: Span) -> Leads {
    lead_with(place.open(), &mut candidate(run, span))
}

fn candidate(run: u128, span: Span) -> Candidate {
    Candidate::new(Leader { name: format!("s{run}"), run: Id(run) }, span)
}

fn lead_with(log: Box<dyn Log>, candidate: &mut Candidate) -> Leads {
    let clock = SystemClock::start();
    let mut log = log;
    loop {
        match stand(candidate, log, clock) {
            Stand::Leads(leading) => return leading,
            Stand::Waits { log: back, .. } | Stand::Trouble { log: back, .. } => log = back,
        }
        clock.pause(Duration::from_millis(20));
    }
}

/// All batches, in order.
fn batches(place: &dyn Place) -> Vec<String> {
    let mut log = place.open();
    let (mut tail, mut all) = (Tail::default(), Vec::new());
    loop {
        let next = log.records(tail.seq.next(), 100).unwrap();
        if next.is_empty() {
            return all;
        }
        for record in next {
            tail.follow(&record).unwrap();
            all.push(String::from_utf8(record.bytes).unwrap());
        }
    }
}

/// Cuts the call that `call` makes first, and checks that it was cut.
fn cut<T>(place: &dyn Place, cut: Cut, call: impl FnOnce() -> T) -> T {
    place.cut(cut);
    let done = call();
    assert!(place.has_cut(), "nothing was cut");
    done
}

/// Appends, beats and a large append, each with its request and its answer lost.
pub fn each_batch_is_there_once(place: &dyn Place, plant: Option<Plant>) {
    let mut leads = lead(place, 1, LONG);
    let mut expected = Vec::new();
    for round in [Cut::Request, Cut::Answer, Cut::Answer] {
        for size in [1, 400_000] {
            if let Some(plant) = plant {
                leads = leads.with(plant);
            }
            let batch = format!("{}{}", expected.len(), String::from_utf8(noise(size)).unwrap());
            cut(place, round, || leads.append(batch.clone().into_bytes(), EngineMs(1))).unwrap();
            expected.push(batch);
            cut(place, round, || leads.beat(EngineMs(2))).unwrap();
        }
    }
    leads.append(b"last".to_vec(), EngineMs(3)).unwrap();
    expected.push("last".to_owned());
    assert!(batches(place) == expected, "{:?}", batches(place).iter().map(String::len).collect::<Vec<_>>());
}

fn take_overs_survive_lost_answers(place: &dyn Place) {
    for (round, lost) in [Cut::Request, Cut::Answer, Cut::Request, Cut::Answer].into_iter().enumerate() {
        let run = round as u128 + 1;
        let (mut candidate, mut log) = (candidate(run, Span(0)), place.open());
        // The second look of a candidate is its write.
        let seen = log.head().unwrap();
        let write = Write::take_over(seen.clone(), candidate.me().clone(), Span(0));
        let outcome = cut(place, lost, || log.write(&write));
        assert!(outcome.is_err(), "{outcome:?}");
        let head = log.head().unwrap();
        match lost {
            Cut::Request => assert_eq!(head, seen),
            Cut::Answer => assert_eq!(head.unwrap().leader.run, Id(run)),
        }
        // In both cases it leads in the end, by a beat if the first attempt succeeded.
        let leads = lead_with(log, &mut candidate);
        assert_eq!(leads.place().reign.term, round as u64 + 1);
        assert_eq!(leads.place().reign.run, Id(run));
    }
}

fn every_other_call_may_be_repeated(place: &dyn Place) {
    let mut log = place.open();
    let at = take(&mut log, 1);
    let at = append(&mut log, at, 11, b"one");
    let at = append(&mut log, at, 12, b"two");
    let manifest = Manifest { snapshot: Id(71), by: at.reign, seq: Seq(2), record: at.record, pieces: 1 };
    let calls: [(&str, &dyn Fn(&mut dyn Log) -> Result<(), Trouble>); 7] = [
        ("head", &|log| log.head().map(drop)),
        ("records", &|log| log.records(Seq(1), 2).map(drop)),
        ("put_piece", &|log| log.put_piece(Id(71), 0, b"piece")),
        ("put_manifest", &|log| log.put_manifest(&manifest).map(|put| assert!(put))),
        ("manifest", &|log| log.manifest().map(|found| assert_eq!(found, Some(manifest)))),
        ("piece", &|log| log.piece(Id(71), 0).map(|found| assert_eq!(found.as_deref(), Some(b"piece".as_slice())))),
        ("trim", &|log| log.trim(at.reign)),
    ];
    for (name, call) in calls {
        for lost in [Cut::Request, Cut::Answer] {
            assert!(cut(place, lost, || call(&mut log)).is_err(), "{name}, {lost:?}");
            call(&mut log).unwrap_or_else(|trouble| panic!("{name}, {lost:?}: {trouble}"));
        }
    }
    assert_eq!(log.records(Seq(0), 9).unwrap(), []);
}

fn a_leader_that_is_deposed_is_told(place: &dyn Place) {
    let mut old = lead(place, 1, Span(100));
    old.append(b"one".to_vec(), EngineMs(0)).unwrap();
    // The old leader stands still for its span.
    let mut new = lead(place, 2, LONG);
    let deposed = Lost::Deposed { by: "s2".to_owned(), term: 2 };
    assert_eq!(old.append(b"late".to_vec(), EngineMs(0)), Err(deposed.clone()));
    assert_eq!(old.beat(EngineMs(0)), Err(deposed), "it never leads again");
    new.append(b"two".to_vec(), EngineMs(0)).unwrap();
    assert_eq!(batches(place), ["one", "two"]);
}

fn a_head_that_was_given_up_is_free_at_once(place: &dyn Place) {
    let old = lead(place, 1, LONG);
    let mut waits = candidate(2, LONG);
    let log = match stand(&mut waits, place.open(), SystemClock::start()) {
        Stand::Waits { log, .. } => log,
        other => panic!("{other:?}", other = matches!(other, Stand::Leads(_))),
    };
    assert_eq!(waits.leader().map(|leader| leader.name.as_str()), Some("s1"));
    old.give_up(EngineMs(5)).unwrap();
    match stand(&mut waits, log, SystemClock::start()) {
        Stand::Leads(mut new) => new.append(b"new".to_vec(), EngineMs(6)).unwrap(),
        _ => panic!("it was given up, so nobody waits"),
    }
}

fn a_leader_without_answers_leads_no_more(place: &dyn Place) {
    let mut leads = lead(place, 1, Span(200));
    leads.append(b"one".to_vec(), EngineMs(0)).unwrap();
    place.silence(true);
    let lost = leads.append(b"two".to_vec(), EngineMs(0)).unwrap_err();
    assert!(matches!(lost, Lost::Unknown(_)), "{lost}");
    place.silence(false);
    assert_eq!(leads.append(b"three".to_vec(), EngineMs(0)), Err(lost));
}

/// A leader works on while the database is killed and started again, twice.
fn nothing_is_lost_when_the_database_dies(place: &dyn Place) {
    let mut leads = lead(place, 1, LONG);
    let stop = AtomicBool::new(false);
    let expected = std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let mut all = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let batch = format!("batch {}", all.len());
                leads.append(batch.clone().into_bytes(), EngineMs(0)).unwrap();
                all.push(batch);
            }
            // One more, when the database is up for good.
            leads.append(b"last".to_vec(), EngineMs(0)).unwrap();
            all.push("last".to_owned());
            all
        });
        let stopping = SetsAtEnd(&stop);
        for _ in 0..2 {
            place.crash();
        }
        drop(stopping);
        worker.join().unwrap()
    });
    assert_eq!(batches(place), expected);
}

fn a_log_that_was_set_back_is_noticed(place: &dyn Place) {
    let mut first = lead(place, 1, Span(50));
    first.append(b"one".to_vec(), EngineMs(0)).unwrap();
    place.save();
    let mut second = lead(place, 2, LONG);
    let mut other = place.open();
    let mut reader = Tail::default();
    let mut read = |log: &mut dyn Log| {
        let records = log.records(reader.seq.next(), 9).unwrap();
        records.iter().try_for_each(|record| reader.follow(record)).map(|()| records.len())
    };
    assert_eq!(read(&mut other), Ok(1));
    place.set_back();
    // The first call finds out that its connection has ended.
    eventually("a log that is back", || other.head().is_ok());
    // The third leader has the term of the second one, and goes on from the same record.
    let at = take(&mut other, 3);
    assert_eq!((at.reign.term, at.seq, at.record), (2, second.place().seq, second.place().record));
    assert_eq!(second.append(b"of a leader that nobody knows".to_vec(), EngineMs(0)), Err(Lost::SetBack));
    let at = append(&mut other, at, 32, b"two");
    assert_eq!(read(&mut other), Ok(1), "the reader has seen nothing that is gone");
    place.save();
    eventually("a log that is back", || other.head().is_ok());
    append(&mut other, at, 33, b"three");
    assert_eq!(read(&mut other), Ok(1));
    place.set_back();
    let mut log = place.open();
    let mut at = take(&mut log, 4);
    for id in 43..=44 {
        at = append(&mut log, at, id, b"another way");
    }
    assert!(read(&mut log).is_err(), "the reader has seen a record that is gone");
}
