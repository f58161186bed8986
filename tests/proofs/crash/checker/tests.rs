//! Tests of the judge: handmade histories, legal and illegal, as tables.
//!
//! A line is `call id run invoke-done state [life] [fence] [locks]`; done `?` means that no answer came. `kill T` kills
//! the server at T; a new one is ready at T + 1. Claims whose id begins with `k` share the key `K`, those that begin
//! with `c` must confirm, and for all others a grant is a hold.

use std::collections::BTreeSet;

use crate::checker::{Rule, check};
use crate::history::{Asked, Call, History, LockRef, Op, Seen, Want};

fn history(text: &str) -> History {
    let mut history = History { ready: vec![0], attention: 1_000, ..History::default() };
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if words[0] == "kill" {
            let at = words[1].parse().unwrap();
            history.deaths.push(at);
            history.ready.push(at + 1);
            continue;
        }
        let op = op(&words, history.deaths.len());
        let named = Want::Named { pool: "p".into(), locks: BTreeSet::from(["l".into()]) };
        history.asked.entry(op.id.clone()).or_insert_with(|| Asked {
            key: op.id.starts_with('k').then(|| "K".into()),
            requestor: None,
            confirm: op.id.starts_with('c'),
            queue: true,
            wants: vec![named],
        });
        history.ops.push(op);
    }
    history
}

fn op(words: &[&str], server: usize) -> Op {
    let (invoke, done) = words[3].split_once('-').unwrap();
    let number = |index: usize| words[index].parse::<u64>().unwrap();
    let life = |index: usize| u32::try_from(number(index)).unwrap();
    let locks = |index: usize| -> Vec<LockRef> {
        let refs = words[index].split(',').map(|l| l.split_once('/').unwrap());
        refs.map(|(pool, lock)| (pool.to_owned(), lock.to_owned())).collect()
    };
    let (call, given) = match words[0] {
        "ask" => (Call::Ask, None),
        "end" => (Call::End, None),
        "look" => (Call::Look, None),
        "audit" => (Call::Audit, None),
        "neglect" => (Call::Neglect, None),
        confirm => (Call::Confirm, Some(confirm.strip_prefix("confirm:").unwrap().parse().unwrap())),
    };
    Op {
        client: 0,
        call,
        id: words[1].into(),
        run: (words[2] != "-").then(|| words[2].into()),
        given,
        invoke: invoke.parse().unwrap(),
        done: (done != "?").then(|| done.parse().unwrap()),
        server,
        seen: match words[4] {
            "nothing" => Seen::Nothing,
            "absent" => Seen::Absent,
            "waiting" => Seen::Waiting { life: life(5) },
            "granted" => Seen::Granted { life: life(5), fence: number(6), locks: locks(7) },
            "held" => Seen::Held { life: life(5), fence: number(6), locks: locks(7) },
            "ended" => Seen::Ended { life: life(5), how: words[6].into(), fence: None },
            code => Seen::Refused(code.into()),
        },
    }
}

fn broken(text: &str) -> BTreeSet<Rule> {
    check(&history(text)).into_iter().map(|violation| violation.rule).collect()
}

const LEGAL: &[(&str, &str)] = &[
    ("nothing happened", ""),
    (
        "one after the other",
        "ask a r 0-1 held 1 5 p/l
         ask b r 2-3 waiting 1
         end a r 4-5 ended 1 released
         ask b r 4-9 held 1 7 p/l",
    ),
    (
        "the next one holds before the release is answered",
        "ask a r 0-1 held 1 5 p/l
         end a r 4-20 ended 1 released
         ask b r 6-8 held 1 7 p/l",
    ),
    (
        "a release whose answer was lost may have happened",
        "ask a r 0-1 held 1 5 p/l
         end a r 2-? nothing
         kill 9
         ask b r 12-13 held 1 7 p/l",
    ),
    (
        "a release whose answer was lost may have been lost",
        "ask a r 0-1 held 1 5 p/l
         end a r 2-? nothing
         kill 9
         audit a - 10-11 held 1 5 p/l",
    ),
    (
        "a claim whose answer was lost may hold",
        "ask a r 0-? nothing
         kill 9
         audit a - 10-11 held 1 5 p/l
         ask a s 12-13 held 1 5 p/l",
    ),
    (
        "an equal key shares",
        "ask k1 r 0-1 held 1 5 p/l
         ask k2 r 2-3 held 1 6 p/l
         end k1 - 4-5 ended 1 released
         end k2 - 6-7 ended 1 released
         ask a r 8-9 held 1 8 p/l",
    ),
    (
        "an unconfirmed grant is withdrawn and given to the next",
        "ask c1 r 0-1 granted 1 5 p/l
         ask c2 r 50-90 granted 1 7 p/l
         confirm:7 c2 r 91-92 held 1 7 p/l
         ask c1 r 93-94 waiting 1
         confirm:5 c1 r 95-96 not_granted",
    ),
    (
        "a claim cancelled before it asked",
        "end a r 0-1 absent
         ask a r 2-3 ended 0 cancelled",
    ),
    (
        "a late release of the same id ends its new life",
        "ask a r1 0-1 held 1 5 p/l
         end a r1 2-3 ended 1 released
         ask a r2 4-5 held 2 6 p/l
         end a - 6-7 ended 2 released
         ask b r 8-9 held 1 7 p/l",
    ),
    (
        "the earlier process is refused",
        "ask a r1 0-1 waiting 1
         ask a r2 2-3 waiting 1
         ask a r1 4-5 superseded_run
         end a r1 6-7 superseded_run
         end a r2 8-9 ended 1 cancelled",
    ),
    (
        "two requests at once may come in either order",
        "ask a r 0-9 held 1 5 p/l
         ask b r 1-8 held 1 4 p/l
         end b r 2-7 ended 1 released",
    ),
    (
        "who does not attend loses the turn",
        "ask c1 r 0-1 waiting 1
         neglect c1 r 2-2 nothing
         ask b r 3-4 held 1 5 p/l",
    ),
    (
        "who pauses for too long loses the turn",
        "ask a r 0-1 waiting 1
         ask b r 3-4 held 1 5 p/l
         end b r 1500-1501 ended 1 released
         ask a r 2000-2001 held 1 9 p/l",
    ),
    (
        "a parked request begins a life that somebody else ends",
        "ask a r1 0-1 held 1 5 p/l
         end a r1 2-3 ended 1 released
         ask a r2 4-20 ended 2 cancelled
         end a - 8-9 ended 2 cancelled",
    ),
    (
        "other locks have other queues",
        "ask a r 0-1 waiting 1
         ask k r 3-4 held 1 5 p/other
         ask a r 5-6 held 1 9 p/l",
    ),
];

const ILLEGAL: &[(&str, Rule, &str)] = &[
    (
        "two holders",
        Rule::Exclusion,
        "ask a r 0-1 held 1 5 p/l
         ask b r 2-3 held 1 6 p/l",
    ),
    (
        "two holders whose fences say otherwise",
        Rule::Exclusion,
        "ask a r 0-10 held 1 5 p/l
         ask b r 2-3 held 1 4 p/l
         look b - 11-12 held 1 4 p/l",
    ),
    (
        "two holders of several locks",
        Rule::Exclusion,
        "ask a r 0-1 held 1 5 p/k,p/l
         ask b r 2-3 held 1 6 p/l,q/m",
    ),
    (
        "another key does not share",
        Rule::Exclusion,
        "ask k1 r 0-1 held 1 5 p/l
         ask a r 2-3 held 1 6 p/l",
    ),
    (
        "the third of them shares, the second does not",
        Rule::Exclusion,
        "ask k1 r 0-1 held 1 5 p/l
         ask k2 r 2-3 held 1 6 p/l
         end k2 r 4-5 ended 1 released
         ask a r 6-7 held 1 8 p/l",
    ),
    (
        "a confirmed grant was given away before",
        Rule::Exclusion,
        "ask c1 r 0-1 granted 1 5 p/l
         ask c2 r 2-3 granted 1 6 p/l
         confirm:5 c1 r 4-5 held 1 5 p/l",
    ),
    (
        "an earlier release, over before the grant, does not excuse",
        Rule::Exclusion,
        "end a r 0-1 absent
         ask a s 2-3 held 1 5 p/l
         ask b r 4-5 held 1 6 p/l",
    ),
    (
        "one fence twice",
        Rule::Fences,
        "ask a r 0-1 held 1 5 p/l
         end a r 2-3 ended 1 released
         ask b r 4-5 held 1 5 p/l",
    ),
    (
        "a later grant with a smaller fence",
        Rule::Fences,
        "ask a r 0-1 held 1 5 p/l
         end a r 2-3 ended 1 released
         kill 4
         ask b r 6-7 held 1 3 p/l",
    ),
    (
        "a later grant with a smaller fence, asked for long before",
        Rule::Fences,
        "ask b r 0-1 waiting 1
         ask a r 0-1 held 1 5 p/l
         end a r 2-3 ended 1 released
         ask b r 4-5 waiting 1
         ask b r 6-7 held 1 3 p/l",
    ),
    (
        "an answered claim is gone",
        Rule::Durable,
        "ask a r 0-1 held 1 5 p/l
         kill 4
         audit a - 6-7 absent",
    ),
    (
        "an answered place in the queue is gone",
        Rule::Durable,
        "ask a r 0-1 waiting 1
         kill 4
         audit a - 6-7 absent",
    ),
    (
        "an answered release is undone",
        Rule::Durable,
        "ask a r 0-1 held 1 5 p/l
         end a r 2-3 ended 1 released
         kill 4
         audit a - 6-7 held 1 5 p/l",
    ),
    (
        "a hold waits again after a crash",
        Rule::Durable,
        "ask c r 0-1 granted 1 5 p/l
         confirm:5 c r 2-3 held 1 5 p/l
         kill 4
         audit c - 6-7 granted 1 5 p/l",
    ),
    (
        "a hold loses one of its locks in a crash",
        Rule::Durable,
        "ask a r 0-1 held 1 5 p/k,p/l
         kill 4
         audit a - 6-7 held 1 5 p/l",
    ),
    (
        "overtaken",
        Rule::Order,
        "ask a r 0-1 waiting 1
         ask b r 3-4 held 1 5 p/l
         end b r 5-6 ended 1 released
         ask a r 7-8 held 1 6 p/l",
    ),
    (
        "overtaken by one, and never served",
        Rule::Order,
        "ask a r 0-1 waiting 1
         ask b r 3-4 held 1 5 p/l
         ask a r 7-8 waiting 1
         end a r 9-10 ended 1 cancelled",
    ),
    (
        "overtaken across a restart",
        Rule::Order,
        "ask a r 0-1 waiting 1
         kill 50
         ask b r 53-54 held 1 5 p/l
         ask a r 60-61 waiting 1",
    ),
    (
        "a release that is repeated does something else",
        Rule::Release,
        "ask a r 0-1 held 1 5 p/l
         end a r 2-3 ended 1 released
         end a r 4-5 ended 1 lost",
    ),
    (
        "a release freed another claim",
        Rule::Release,
        "ask a r 0-1 held 1 5 p/l
         ask b r 0-1 ended 1 released
         end a r 2-3 ended 1 released
         look b - 6-7 held 1 6 p/l",
    ),
    (
        "a hold ended by itself",
        Rule::Identity,
        "ask a r 0-1 held 1 5 p/l
         look a - 2-3 ended 1 released",
    ),
    (
        "another fence for the same hold",
        Rule::Identity,
        "ask a r 0-1 held 1 5 p/l
         ask a r 2-3 held 1 6 p/l",
    ),
    (
        "a hold that waits",
        Rule::Identity,
        "ask a r 0-1 held 1 5 p/l
         ask a r 2-3 waiting 1",
    ),
    (
        "a new life without an end",
        Rule::Identity,
        "ask a r 0-1 held 1 5 p/l
         ask a s 2-3 held 2 6 p/l",
    ),
    (
        "held without a confirm",
        Rule::Identity,
        "ask c r 0-1 granted 1 5 p/l
         look c - 2-3 held 1 5 p/l",
    ),
    (
        "an earlier process acts",
        Rule::Runs,
        "ask a r1 0-1 waiting 1
         ask a r2 2-3 waiting 1
         end a r1 6-7 ended 1 cancelled",
    ),
    (
        "refused as earlier without another",
        Rule::Runs,
        "ask a r1 0-1 waiting 1
         ask a r1 2-3 superseded_run",
    ),
    (
        "a wrong fence is confirmed",
        Rule::Answers,
        "ask c r1 0-1 granted 1 5 p/l
         confirm:4 c r1 2-3 held 1 5 p/l",
    ),
    ("an answer that does not belong there", Rule::Answers, "ask a r1 0-1 internal"),
];

#[test]
fn legal_histories_pass() {
    for (name, text) in LEGAL {
        let found = check(&history(text));
        assert!(found.is_empty(), "{name}: {found:?}");
    }
}

#[test]
fn illegal_histories_are_found() {
    for (name, rule, text) in ILLEGAL {
        let found = broken(text);
        assert!(found.contains(rule), "{name}: found only {found:?}");
    }
}

#[test]
fn a_long_history_is_judged_quickly() {
    let mut text = String::new();
    for turn in 0_u64..20_000 {
        use std::fmt::Write as _;
        let t = turn * 10;
        writeln!(text, "ask a{turn} r {t}-{} held 1 {} p/l", t + 1, turn + 1).unwrap();
        writeln!(text, "end a{turn} r {}-{} ended 1 released", t + 2, t + 3).unwrap();
    }
    let history = history(&text);
    let started = std::time::Instant::now();
    assert!(check(&history).is_empty());
    // Quadratic work would take minutes here.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
