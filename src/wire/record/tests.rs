//! The golden texts define the stored format. A change to one of them is a change of the schema version.

use std::sync::Arc;

use super::*;
use crate::core::claim::{
    Ask, BuildEnd, BuildOver, BuildRef, Claim, Ended, Fetched, Part, Phase, Priority, Terms, Want,
};
use crate::core::history::{Change, ChangeKind};
use crate::core::latch::{Ending, Latch, LatchId, NewLatch, Node, Outputs, Released, Target};
use crate::core::names::{Asked, ChangeKey, Digest, Fence, Revision, Ticket};
use crate::core::origin::{Identity, Origin};
use crate::core::pool::{Lock, Order, Overtaking, Pick, Policy, Quarantine};
use crate::core::state::OpRecord;
use crate::core::time::WallMs;
use crate::core::token::Token;

fn name<T: FromStr<Err: fmt::Debug>>(text: &str) -> T {
    text.parse().unwrap()
}

fn deadline(at: u64, span: u64) -> Deadline {
    Deadline { at: EngineMs(at), span: Span(span) }
}

fn owner() -> Arc<Owner> {
    Arc::new(Owner {
        cluster: Some(name("https://ci.example.org")),
        team: Some(name("main")),
        pipeline: Some(name("deploy")),
        instance_vars: Some(name(r#"{"branch":"x"}"#)),
        job: Some(name("prod 🚀")),
        build_id: Some(name("4711")),
        build_name: Some(name("12.1")),
        build_url: Some(name("https://ci.example.org/builds/4711")),
        person: Some(name("Ada")),
        program: Some(name("fly")),
    })
}

fn locks() -> LockSet {
    vec![(name("envs"), name("prod eu")), (name("envs"), name("🔒"))]
}

/// A claim with every field set.
fn claim() -> Claim {
    let labels = [(name("size"), name("big")), (name("zone"), name("ä"))].into();
    let named = [name("prod eu"), name("🔒")].into();
    Claim {
        id: name("c:1"),
        life: 2,
        terms: Terms {
            ask: Ask {
                parts: vec![
                    Part { pool: name("envs"), want: Want::Named(named) },
                    Part { pool: name("vms"), want: Want::Any { count: 3, labels } },
                ],
                key: Some(name("k")),
                requestor: Some(name("r")),
            },
            digest: Digest(std::array::from_fn(|n| u8::try_from(n * 8).unwrap())),
            owner: owner(),
            reason: Some(name("a \"reason\"\n")),
            confirm: true,
            ttl: Some(Span(90_000)),
            priority: Priority::new(-7).unwrap(),
            supersede: Some(name("/deploy")),
            waits_if_empty: true,
        },
        scope: Scope::Lease,
        build_over: Some(BuildOver::Ended { how: BuildEnd::Succeeded, at: WallMs(1_767_225_600_002) }),
        passed: 3,
        runs: vec![name("r1"), name("r2")],
        ticket: Ticket(9),
        asked_at: WallMs(1_767_225_600_000),
        withdrawals: 1,
        phase: Phase::Held {
            fence: Fence((1 << 53) - 1),
            claimed: ChangeKey { revision: Revision(268_435_457), seq: 1 },
            locks: locks(),
            since: WallMs(1_767_225_600_001),
            until: Some(deadline(u64::MAX, 90_000)),
            limit: Some(deadline(u64::MAX, 91_000)),
            fetched: Fetched::ByAnother,
            marked: true,
        },
        aliases: vec![name("c:2"), name("c:3")],
        origin: origin(),
        parks: Vec::new(),
        made: Box::default(),
    }
}

/// A claim with only the required fields.
fn small_claim(phase: Phase) -> Claim {
    let full = claim();
    let any = Want::Any { count: 1, labels: Labels::new() };
    let ask = Ask { parts: vec![Part { pool: name("p"), want: any }], key: None, requestor: None };
    let owner = Arc::new(Owner::default());
    let (priority, supersede) = (Priority::default(), None);
    let terms = Terms {
        ask,
        digest: Digest([0; 32]),
        owner,
        reason: None,
        confirm: false,
        ttl: None,
        priority,
        supersede,
        waits_if_empty: false,
    };
    let (scope, build_over, passed) = (Scope::Flow, None, 0);
    let (runs, aliases) = (Vec::new(), Vec::new());
    Claim { terms, scope, build_over, passed, runs, withdrawals: 0, life: 1, phase, aliases, origin: None, ..full }
}

const FULL_OWNER: &str = concat!(
    r#"{"cluster":"https://ci.example.org","team":"main","pipeline":"deploy","#,
    r#""instance_vars":"{\"branch\":\"x\"}","job":"prod 🚀","build_id":"4711","build_name":"12.1","#,
    r#""build_url":"https://ci.example.org/builds/4711","person":"Ada","program":"fly"}"#
);

const FULL_ORIGIN: &str = r#""origin":{"proved":"user:ci","address":"10.0.0.1","rule":"ops","confined":true}"#;

fn origin() -> Option<Arc<Origin>> {
    let proved = Some(Identity::User("ci".to_owned()));
    Some(Arc::new(Origin {
        proved,
        address: Some("10.0.0.1".to_owned()),
        request: None,
        rule: Some("ops".into()),
        is_confined: true,
        credential: Some(Digest([0xCD; 32])),
    }))
}

#[test]
fn the_format_of_claims() {
    let waiting = |give_up| small_claim(Phase::Waiting { presence: NO_PRESENCE, give_up });
    let granted = Phase::Granted { fence: Fence(5), locks: locks(), confirm_by: deadline(7, 6), give_up: None };
    let small = |phase: &str| {
        let zeros = "0".repeat(64);
        format!(
            concat!(
                r#"{{"life":1,"parts":[{{"pool":"p","want":{{"any":{{"count":1,"labels":{{}}}}}}}}],"scope":"flow","#,
                r#""digest":"{}","owner":{{}},"confirm":false,"runs":[],"ticket":9,"asked_at":1767225600000,"#,
                r#""withdrawals":0,"phase":{}}}"#
            ),
            zeros, phase
        )
    };
    let full = [
        r#"{"life":2,"parts":[{"pool":"envs","want":{"named":["prod eu","🔒"]}},"#,
        r#"{"pool":"vms","want":{"any":{"count":3,"labels":{"size":"big","zone":"ä"}}}}],"#,
        r#""key":"k","requestor":"r","scope":"lease","build_ended":{"how":"succeeded","at":1767225600002},"#,
        r#""digest":"0008101820283038404850586068707880889098a0a8b0b8c0c8d0d8e0e8f0f8","owner":"#,
        FULL_OWNER,
        r#","reason":"a \"reason\"\n","confirm":true,"ttl":90000,"priority":-7,"supersede":"/deploy","waits_if_empty":true,"#,
        r#""runs":["r1","r2"],"ticket":9,"#,
        r#""asked_at":1767225600000,"withdrawals":1,"passed":3,"phase":{"held":{"fence":9007199254740991,"#,
        r#""claimed":{"revision":268435457,"seq":1},"locks":[["envs","prod eu"],["envs","🔒"]],"#,
        r#""since":1767225600001,"until":{"at":18446744073709551615,"span":90000},"#,
        r#""limit":{"at":18446744073709551615,"span":91000},"delivered":true,"marked":true}},"aliases":["c:2","c:3"],"#,
        FULL_ORIGIN,
        r#","credential":""#,
        &"cd".repeat(32),
        r#""}"#,
    ];
    let cases = [
        (claim(), full.concat()),
        (waiting(None), small(r#"{"waiting":{}}"#)),
        (
            Claim { build_over: Some(BuildOver::Unknown), ..waiting(None) },
            small(r#"{"waiting":{}}"#).replace(r#""scope":"flow""#, r#""scope":"flow","build_over":true"#),
        ),
        (waiting(Some(deadline(2, 1))), small(r#"{"waiting":{"give_up":{"at":2,"span":1}}}"#)),
        (
            small_claim(granted),
            small(
                r#"{"granted":{"fence":5,"locks":[["envs","prod eu"],["envs","🔒"]],"confirm_by":{"at":7,"span":6}}}"#,
            ),
        ),
    ];
    for (claim, golden) in cases {
        assert_eq!(encode(&StoredClaim::from(&claim)).unwrap(), golden);
        assert_eq!(decode::<StoredClaim>(&golden).unwrap().into_claim(claim.id.clone()).unwrap(), claim);
    }
}

#[test]
fn the_format_of_ended_claims() {
    let full = Ended {
        id: name("c:1"),
        life: 2,
        digest: Some(Digest([0xAB; 32])),
        runs: vec![name("r1")],
        how: End::ListenerLost,
        by: Some(name("Ada")),
        reason: Some(name("why")),
        at: WallMs(3),
        revision: Some(Revision(4)),
        fence: Some(Fence(5)),
        build: Some(BuildRef { cluster: name("https://ci.example.org"), id: name("4711") }),
        forget: deadline(8, 7),
        maker: Some(Identity::User("ci".to_owned())),
        credential: Some(Digest([7; 32])),
        pools: vec![name("p")],
    };
    let small = Ended {
        digest: None,
        runs: Vec::new(),
        how: End::Cancelled,
        by: None,
        reason: None,
        revision: None,
        fence: None,
        build: None,
        maker: None,
        credential: None,
        pools: Vec::new(),
        ..full.clone()
    };
    let golden = format!(
        r#"{{"life":2,"digest":"{}","runs":["r1"],"by":"Ada","reason":"why","at":3,"revision":4,"fence":5,"maker":"user:ci","credential":"{}","pools":["p"]}}"#,
        "ab".repeat(32),
        "07".repeat(32)
    );
    let small_golden = r#"{"life":2,"runs":[],"at":3}"#;
    for (ended, golden) in [(full, golden.as_str()), (small, small_golden)] {
        assert_eq!(encode(&StoredEnded::from(&ended)).unwrap(), golden);
        let Ended { id, how, build, forget, .. } = ended.clone();
        assert_eq!(decode::<StoredEnded>(golden).unwrap().into_ended(id, how, build, forget).unwrap(), ended);
        assert_eq!(end(ended.how.word()).unwrap(), ended.how);
    }
}

#[test]
fn the_format_of_pools_locks_operations_and_history() {
    let policy = Policy { drain: Some(Span(0)), max_hold: Some(Span(1)), max_queue: Some(2), ..Policy::default() };
    let ordered = Policy { order: Order::Priority, ..policy.clone() };
    let [backfill, filled] = [None, Some(2)].map(|most| Policy {
        overtaking: Overtaking::Backfill(most),
        pick: Pick::Name,
        scope: Some(Scope::Build),
        ..Policy::default()
    });
    let cases = [
        (ordered, r#"{"order":"priority","drain":0,"max_hold":1,"max_queue":2}"#),
        (backfill, r#"{"backfill":{},"pick":"name","scope":"build"}"#),
        (filled, r#"{"backfill":{"most":2},"pick":"name","scope":"build"}"#),
        (policy, r#"{"drain":0,"max_hold":1,"max_queue":2}"#),
        (Policy::default(), "{}"),
    ];
    for (policy, golden) in cases {
        assert_eq!(encode(&StoredPolicy::from(&policy)).unwrap(), golden);
        assert_eq!(Policy::from(decode::<StoredPolicy>(golden).unwrap()), policy);
    }

    let labels = Arc::new(Labels::from([(name("zone"), name("eu"))]));
    let lock = Lock::new(name("🔒"), Arc::from(*b"\0\xFF"), labels);
    let drained = Lock { drain: Some(deadline(2, 1)), leaving: true, ..lock.clone() };
    let quarantine = |until, by, reason| Some(Quarantine { since: WallMs(3), until, by, reason });
    let out =
        Lock { quarantine: quarantine(Some(deadline(2, 1)), Some(name("Ada")), Some(name("why"))), ..lock.clone() };
    let out_small = Lock { quarantine: quarantine(None, None, None), ..lock.clone() };
    let out_golden = r#"{"labels":{"zone":"eu"},"quarantine":{"since":3,"until":{"at":2,"span":1},"by":"Ada","reason":"why"},"leaving":false}"#;
    let out_small_golden = r#"{"labels":{"zone":"eu"},"quarantine":{"since":3},"leaving":false}"#;
    let drained_golden = r#"{"labels":{"zone":"eu"},"drain":{"at":2,"span":1},"leaving":true}"#;
    let cases = [
        (Lock { implicit: true, ..lock.clone() }, r#"{"labels":{"zone":"eu"},"leaving":false,"implicit":true}"#),
        (lock, r#"{"labels":{"zone":"eu"},"leaving":false}"#),
        (drained, drained_golden),
        (out, out_golden),
        (out_small, out_small_golden),
    ];
    for (lock, golden) in cases {
        assert_eq!(encode(&StoredLock::from(&lock)).unwrap(), golden);
        assert_eq!(decode::<StoredLock>(golden).unwrap().into_lock(lock.name.clone(), b"\0\xFF"), lock);
    }

    let op = OpRecord { op: name("o1"), revision: Revision(6), asked: Some(Asked(7)), forget: deadline(2, 1) };
    let golden = r#"{"revision":6,"asked":7,"forget":{"at":2,"span":1}}"#;
    let old_golden = r#"{"revision":6,"forget":{"at":2,"span":1}}"#;
    for (op, golden) in [(op.clone(), golden), (OpRecord { asked: None, ..op }, old_golden)] {
        assert_eq!(encode(&StoredOp::from(&op)).unwrap(), golden);
        assert_eq!(decode::<StoredOp>(golden).unwrap().into_op(op.op.clone()), op);
    }

    let change = Change {
        key: ChangeKey { revision: Revision(5), seq: 0 },
        at: WallMs(1),
        kind: ChangeKind::PoolSet,
        pools: vec![name("envs")],
        locks: locks(),
        claim: Some(name("c:1")),
        end: Some(End::GaveUp),
        who: Some(owner()),
        // The credential stays with the claim.
        origin: origin().map(|origin| Arc::new(Origin { credential: None, ..(*origin).clone() })),
        waited: Some(Span(2)),
        held: Some(Span(3)),
        reason: Some(name("why")),
        latch: None,
        token: None,
    };
    let golden = [
        r#"{"at":1,"kind":"pool_set","pools":["envs"],"locks":[["envs","prod eu"],["envs","🔒"]],"claim":"c:1","#,
        r#""end":"gave_up","who":"#,
        FULL_OWNER,
        ",",
        FULL_ORIGIN,
        r#","reason":"why","waited":2,"held":3,"size":558}"#,
    ];
    let golden = golden.concat();
    assert_eq!(encode(&StoredChange::from(&change)).unwrap(), golden);
    assert_eq!(decode::<StoredChange>(&golden).unwrap().into_change(change.key).unwrap(), change);
    assert_eq!(decode::<StoredOutline>(&golden).unwrap().into_outline(change.key, 0), change.outline());
}

/// An older record does not say its size, so its length stands for it.
#[test]
fn the_size_of_an_entry_is_near_the_length_of_its_record() {
    let text = |text: &str| Some(name::<Text>(text));
    let build = Owner {
        cluster: text("https://ci.example.com"),
        team: text("main"),
        pipeline: text("payments"),
        job: text("deploy-staging"),
        build_id: text("4711123"),
        build_name: text("811"),
        build_url: text("https://ci.example.com/teams/main/pipelines/payments/jobs/deploy-staging/builds/811"),
        ..Owner::default()
    };
    let person = Owner { person: text("ada@laptop"), program: text("locker 0.2.0"), ..Owner::default() };
    let of = |who: Option<&Owner>, kind| Change {
        key: ChangeKey { revision: Revision(1 << 52), seq: 0 },
        at: WallMs(1_795_000_000_000),
        kind,
        pools: vec![name("staging")],
        locks: vec![(name("staging"), name("env-1"))],
        claim: Some(name("0f6d6cf2b5a94d0a9a4c1e3f0a7b8c9d0f6d6cf2b5a94d0a9a4c1e3f0a7b8c9d")),
        end: None,
        who: who.cloned().map(Arc::new),
        origin: origin(),
        waited: Some(Span(123_456)),
        held: None,
        reason: None,
        latch: None,
        token: None,
    };
    let released =
        Change { end: Some(End::Released), held: Some(Span(600_000)), ..of(Some(&build), ChangeKind::Released) };
    let none = Change { claim: None, origin: None, waited: None, locks: vec![], ..of(None, ChangeKind::Noted) };
    for change in [of(Some(&build), ChangeKind::Claimed), of(Some(&person), ChangeKind::Granted), released, none] {
        let json = encode(&StoredChange::from(&change)).unwrap();
        let (size, length) = (change.bytes() as usize, json.len());
        assert!((length..=length + 60).contains(&size), "{size} bytes for {length} of {json}");
        let old = json.replace(&format!(r#","size":{size}"#), "");
        let outline = decode::<StoredOutline>(&old).unwrap().into_outline(change.key, old.len());
        assert_eq!(outline.listed.bytes as usize, old.len());
    }
}

#[test]
fn the_format_of_latches() {
    let id: LatchId = name("e9205d4a-2545-4c58-86ae-d0e7b3ecec23");
    let node = Node::Parameter { name: name("lock-id"), value: name("🔒") };
    let target = Target {
        workflow: name("build-x7k"),
        namespace: name("default"),
        workflow_uid: Some(name("A-1")),
        node: Some(node),
    };
    let outputs = Outputs::new([(name("version"), Arc::from("1.2\n"))].into()).unwrap();
    let released = Released { revision: Revision(5), forget: deadline(2, 1) };
    let full = NewLatch { id, target: target.clone(), ending: Ending::Succeed(outputs) };
    let full = Latch::restored(full, WallMs(1), WallMs(3), Some(released));
    let target = Target { workflow_uid: None, node: None, ..target };
    let small = NewLatch { id, target, ending: Ending::Fail(name("why")) };
    let small = Latch::restored(small, WallMs(1), WallMs(1), None);
    let cases = [
        (
            full,
            concat!(
                r#"{"workflow":"build-x7k","namespace":"default","workflow_uid":"A-1","#,
                r#""node":{"parameter":{"name":"lock-id","value":"🔒"}},"ending":{"succeed":{"version":"1.2\n"}},"#,
                r#""created":1,"last_change":3,"released":{"revision":5,"forget":{"at":2,"span":1}}}"#
            ),
        ),
        (
            small,
            concat!(
                r#"{"workflow":"build-x7k","namespace":"default","ending":{"fail":"why"},"#,
                r#""created":1,"last_change":1}"#
            ),
        ),
    ];
    for (latch, golden) in cases {
        assert_eq!(encode(&StoredLatch::from(&latch)).unwrap(), golden);
        assert_eq!(decode::<StoredLatch>(golden).unwrap().into_latch(id).unwrap(), latch);
    }

    let golden = concat!(
        r#"{"at":1,"kind":"latch_created","pools":[],"locks":[],"latch":"#,
        r#"{"id":"e9205d4a-2545-4c58-86ae-d0e7b3ecec23","workflow":"build-x7k","namespace":"default"},"size":190}"#
    );
    let key = ChangeKey { revision: Revision(5), seq: 0 };
    let change = decode::<StoredChange>(golden).unwrap().into_change(key).unwrap();
    assert_eq!(change.latch.as_ref().map(|latch| latch.id), Some(id));
    assert_eq!(encode(&StoredChange::from(&change)).unwrap(), golden);
    let neither = r#"{"at":1,"kind":"noted","pools":[],"locks":[]}"#;
    assert!(decode::<StoredChange>(neither).unwrap().into_change(key).is_err());
}

#[test]
fn everything_unexpected_is_refused() {
    let good = encode(&StoredClaim::from(&claim())).unwrap();
    let cases = [
        (r#""life":2"#, r#""life":2,"colour":"red""#, "unknown field `colour`"),
        (r#""life":2"#, r#""life":2,"col\u001b[31mour":1"#, r"unknown field `col\u{1b}[31mour`"),
        (r#""life":2"#, r#""life":2,"life":2"#, "duplicate field `life`"),
        (r#""life":2,"#, "", "missing field `life`"),
        (r#""life":2"#, r#""life":-2"#, "invalid value"),
        (r#""life":2"#, r#""life":4294967296"#, "invalid value"),
        (r#""life":2"#, r#""life":2.0"#, "invalid type"),
        (r#""scope":"lease""#, r#""scope":"job""#, "unknown variant `job`"),
        (r#""held""#, r#""gone""#, "unknown variant `gone`"),
        (r#""seq":1"#, r#""seq":1,"x":1"#, "unknown field `x`"),
        (r#""program":"fly""#, r#""program":"""#, "text is empty"),
        (r#""program":"fly""#, r#""programme":"fly""#, "unknown field `programme`"),
        (r#"["envs","prod eu"]"#, r#"["envs","a/b"]"#, "contains '/'"),
        (r#"["envs","prod eu"]"#, r#"["envs","a","b"]"#, "trailing characters"),
        (r#"["prod eu","🔒"]}}"#, r"[]}}", "names no lock"),
        (r#""pool":"vms""#, r#""pool":"envs""#, "not in order"),
        (r#""digest":"00"#, r#""digest":"0"#, "63 characters"),
        (r#""digest":"00"#, r#""digest":"+0"#, "not lower-case hexadecimal"),
        ("f0f8", "F0f8", "not lower-case hexadecimal"),
        (r#""since":1767225600001"#, r#""since":"1767225600001""#, "invalid type"),
        (r#""runs":["r1""#, r#""runs":["r 1""#, "run contains"),
    ];
    for (from, to, expected) in cases {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good, "{from}");
        let refused = decode::<StoredClaim>(&bad).and_then(|stored| stored.into_claim(name("c:1")));
        let message = refused.unwrap_err().to_string();
        assert!(message.contains(expected), "{to}: {message}");
    }
    for cut in 0..good.len() {
        let Some(cut) = good.get(..cut) else { continue };
        assert!(decode::<StoredClaim>(cut).is_err(), "{cut}");
    }
    assert!(decode::<StoredClaim>(&format!("{good} {good}")).is_err());
}

#[test]
fn the_format_of_tokens() {
    let full = Token {
        name: name("ci-1"),
        hash: Digest([0xAB; 32]),
        created: WallMs(3),
        by: Some(Identity::User("ada".to_owned())),
        expires: Some(WallMs(9)),
        used: Some(WallMs(4)),
    };
    let small = Token { by: None, expires: None, used: None, ..full.clone() };
    let hash = "ab".repeat(32);
    for (token, golden) in [
        (full, format!(r#"{{"hash":"{hash}","created":3,"by":"user:ada","expires":9,"used":4}}"#)),
        (small, format!(r#"{{"hash":"{hash}","created":3}}"#)),
    ] {
        assert_eq!(encode(&StoredToken::from(&token)).unwrap(), golden);
        assert_eq!(decode::<StoredToken>(&golden).unwrap().into_token(name("ci-1")).unwrap(), token);
    }
    assert!(decode::<StoredToken>(r#"{"hash":"ab","created":3}"#).unwrap().into_token(name("a")).is_err());
    assert!(decode::<StoredToken>(r#"{"hash":"","created":3,"secret":"x"}"#).is_err());
}
