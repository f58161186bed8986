//! The index against the simplest one: a list.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;

#[derive(Debug, Clone)]
enum Op {
    Insert(EndedOutline, bool),
    Remove(ClaimId),
    Shorten(BuildRef, Span),
}

const IDS: &[&str] =
    &["a", "ab", "ac", "0123456789", "job-1", "job-2", "ABBA", "12345678901234567890123456789012345678901234"];
const SPANS: &[u64] = &[10, 100, 1_000];

fn id() -> impl Strategy<Value = ClaimId> {
    select(IDS).prop_map(|id| ClaimId::parse(id).unwrap())
}

fn build() -> impl Strategy<Value = BuildRef> {
    (select(&["https://a", "https://b"][..]), select(&["1", "2", "01"][..]))
        .prop_map(|(cluster, id)| BuildRef { cluster: cluster.parse().unwrap(), id: id.parse().unwrap() })
}

fn op() -> impl Strategy<Value = Op> {
    let outline = (id(), any::<bool>(), 0_u64..50, select(SPANS), proptest::option::weighted(0.7, build()));
    let insert = (outline, any::<bool>()).prop_map(|((id, released, since, span, build), listed)| {
        let forget = Deadline { at: EngineMs(since + span), span: Span(span) };
        Op::Insert(EndedOutline { id, released, forget, build }, listed)
    });
    prop_oneof![
        6 => insert,
        2 => id().prop_map(Op::Remove),
        1 => (build(), select(SPANS)).prop_map(|(build, span)| Op::Shorten(build, Span(span))),
    ]
}

/// The claims by id; the build is there if it is listed.
#[derive(Default)]
struct Naive(BTreeMap<ClaimId, EndedOutline>);

impl Naive {
    fn apply(&mut self, op: Op) -> Vec<(ClaimId, Deadline)> {
        match op {
            Op::Insert(claim, listed) => {
                let build = claim.build.clone().filter(|_| listed);
                self.0.insert(claim.id.clone(), EndedOutline { build, ..claim });
                Vec::new()
            }
            Op::Remove(id) => {
                self.0.remove(&id);
                Vec::new()
            }
            Op::Shorten(build, span) => {
                let of_build = self.0.values_mut().filter(|claim| claim.build.as_ref() == Some(&build));
                let shorten = |claim: &mut EndedOutline| {
                    claim.build = None;
                    claim.forget = Deadline { at: claim.since().plus(span), span };
                    (claim.id.clone(), claim.forget)
                };
                of_build.map(shorten).collect()
            }
        }
    }

    fn known(&self) -> BTreeMap<ClaimId, (bool, Deadline, Option<BuildRef>)> {
        self.0.iter().map(|(id, c)| (id.clone(), (c.released, c.forget, c.build.clone()))).collect()
    }
}

/// All listed builds up to this time, page by page.
fn builds(index: &EndedIndex, until: EngineMs) -> Vec<BuildRef> {
    let (mut all, mut after) = (Vec::new(), None);
    while let Some((place, build)) = index.builds(after, until).next() {
        all.push(build);
        after = Some(place);
    }
    let at_once: Vec<BuildRef> = index.builds(None, until).map(|(_, build)| build).collect();
    assert_eq!(all, at_once, "a place is where the next page begins");
    all.sort();
    all
}

fn check(index: &EndedIndex, naive: &Naive) {
    assert_eq!(index.known(), naive.known());
    assert_eq!(index.len(), naive.0.len());
    for id in IDS.iter().map(|id| ClaimId::parse(id).unwrap()) {
        assert_eq!(index.contains(&id), naive.0.contains_key(&id));
    }
    assert_eq!(index.next(), naive.0.values().map(|claim| claim.forget.at).min());
    for now in [0, 30, 120, 5_000].map(EngineMs) {
        let due = index.due(now).map(|id| naive.0[&id].forget.at);
        assert_eq!(due, naive.0.values().map(|claim| claim.forget.at).min().filter(|at| *at <= now));
        let ended = naive.0.values().filter(|claim| claim.since() <= now);
        let mut expected: Vec<BuildRef> = ended.filter_map(|claim| claim.build.clone()).collect();
        expected.sort();
        assert_eq!(builds(index, now), expected);
    }
    let order = |claim: &EndedOutline| (!claim.released, claim.since(), claim.id.clone());
    let first = naive.0.values().map(order).min();
    assert_eq!(index.first_to_go(), first.map(|(.., id)| id));
}

proptest! {
    #[test]
    fn it_is_as_the_simplest_index(seed: u64, ops in vec(op(), 1..60)) {
        let (mut index, mut naive) = (EndedIndex::new(seed), Naive::default());
        for op in ops {
            let mut changed = match op.clone() {
                Op::Insert(claim, listed) => {
                    index.insert(&claim, listed);
                    Vec::new()
                }
                Op::Remove(id) => {
                    prop_assert_eq!(index.remove(&id), naive.0.contains_key(&id));
                    Vec::new()
                }
                Op::Shorten(build, span) => index.shorten(&build, span),
            };
            changed.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(changed, naive.apply(op));
            check(&index, &naive);
        }
        prop_assert!(index.slots.len() <= IDS.len(), "slots are used again");
    }
}

/// Equal hashes are not enough: every id is compared.
#[test]
fn many_ids_are_found_each() {
    let mut index = EndedIndex::new(7);
    let outline = |n: u32| EndedOutline {
        id: ClaimId::parse(&format!("{n:040x}")).unwrap(),
        released: true,
        forget: Deadline { at: EngineMs(u64::from(n)), span: Span(0) },
        build: None,
    };
    (0..20_000).for_each(|n| index.insert(&outline(n), false));
    (0..20_000).step_by(2).for_each(|n| assert!(index.remove(&outline(n).id)));
    assert!((0..20_000).all(|n| index.contains(&outline(n).id) == (n % 2 == 1)));
    assert_eq!(index.free.iter().collect::<BTreeSet<_>>().len(), 10_000);
}
