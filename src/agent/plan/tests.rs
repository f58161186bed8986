use super::*;
use crate::core::latch::{LatchId, Outputs, Target};
use std::collections::BTreeMap;
use std::sync::Arc;

fn latch(node: Option<Node>) -> NewLatch {
    let target = Target {
        workflow: "w".parse().unwrap(),
        namespace: "n".parse().unwrap(),
        workflow_uid: Some("u".parse().unwrap()),
        node,
    };
    NewLatch { id: LatchId::from_random([1; 16]), target, ending: Ending::default() }
}

fn node(id: &str, phase: Phase) -> NodeSeen {
    NodeSeen {
        id: id.to_owned(),
        name: format!("w.{id}"),
        is_suspend: true,
        phase,
        inputs: Vec::new(),
        supplied: Vec::new(),
    }
}

fn of(latch: &NewLatch, id: &str, phase: Phase) -> NodeSeen {
    NodeSeen { inputs: vec![(LOCK_ID.to_owned(), latch.id.to_string())], ..node(id, phase) }
}

fn workflow(nodes: Vec<NodeSeen>) -> Workflow {
    Workflow {
        uid: "u".to_owned(),
        finished: None,
        is_suspended: false,
        names_latches: false,
        nodes: Nodes::Known(nodes),
    }
}

fn done() -> Phase {
    Phase::Fulfilled("Succeeded".to_owned())
}

fn ends(ids: &[&str]) -> Step {
    let end = |id: &&str| NodeEnd { id: (*id).to_owned(), how: How::Succeed(Vec::new()) };
    Step::Change(Change::End(ids.iter().map(end).collect()))
}

fn bind(node: Bound) -> Step {
    Step::Bind { node, uid: "u".to_owned() }
}

#[test]
fn decisions_about_nodes() {
    let unnamed = latch(None);
    let other = NewLatch { id: LatchId::from_random([2; 16]), ..latch(None) };
    let by_id = latch(Some(Node::Id("a".parse().unwrap())));
    let by_name = latch(Some(Node::Name("w.a".parse().unwrap())));
    let fulfilled = || Step::Done(Done::Fulfilled("Succeeded".to_owned()));
    let early = || Step::Keep(Keep::TooEarly);
    let (at, active) = (|phase| node("a", phase), || Phase::Active);
    let no_suspend = NodeSeen { is_suspend: false, ..node("a", Phase::Active) };
    let table: Vec<(&NewLatch, Vec<NodeSeen>, Step)> = vec![
        (&by_id, vec![at(active()), node("b", active())], ends(&["a"])),
        (&by_id, vec![at(Phase::NotYet), node("b", active())], early()),
        (&by_id, vec![at(done()), node("b", active())], fulfilled()),
        (&by_id, vec![node("b", active())], early()),
        (&by_id, vec![no_suspend.clone()], Step::Keep(Keep::NoSuspendNode)),
        (&by_name, vec![at(active()), node("b", active())], ends(&["a"])),
        (&unnamed, vec![at(active())], bind(Bound::Node("a".to_owned()))),
        (&unnamed, vec![at(active()), node("b", active())], Step::Keep(Keep::Ambiguous(2))),
        (&unnamed, vec![at(done()), node("b", active())], bind(Bound::Node("b".to_owned()))),
        (&unnamed, vec![at(done())], early()),
        (&unnamed, vec![no_suspend], early()),
        (&unnamed, vec![], early()),
        (&unnamed, vec![of(&other, "a", active())], early()),
        (&unnamed, vec![of(&other, "a", active()), node("b", active())], bind(Bound::Node("b".to_owned()))),
        // The nodes that name the latch pass; no other node does.
        (&unnamed, vec![at(active()), of(&unnamed, "b", active())], ends(&["b"])),
        (&unnamed, vec![at(active()), of(&unnamed, "b", Phase::NotYet)], early()),
        (&unnamed, vec![at(active()), of(&unnamed, "b", done())], fulfilled()),
        (&unnamed, vec![of(&unnamed, "a", active()), of(&unnamed, "b", active())], ends(&["a", "b"])),
        (&unnamed, vec![of(&unnamed, "a", done()), of(&unnamed, "b", active())], ends(&["b"])),
        (&unnamed, vec![of(&unnamed, "a", done()), of(&unnamed, "b", Phase::NotYet)], early()),
    ];
    for (n, (latch, nodes, step)) in table.into_iter().enumerate() {
        assert_eq!(plan(latch, &Look::Found(workflow(nodes))), step, "row {n}");
    }
}

#[test]
fn decisions_about_the_whole_workflow() {
    let (unnamed, whole) = (latch(None), latch(Some(Node::Name(WHOLE.parse().unwrap()))));
    let active = || workflow(vec![node("a", Phase::Active)]);
    let suspended = || Workflow { is_suspended: true, ..workflow(Vec::new()) };
    let over = |nodes| Workflow { finished: Some("Failed".to_owned()), ..workflow(nodes) };
    let elsewhere = |nodes: Nodes| Workflow { nodes, ..workflow(Vec::new()) };
    let by_id = latch(Some(Node::Id("a".parse().unwrap())));
    let finished = || Step::Done(Done::Finished("Failed".to_owned()));
    let table = vec![
        (&unnamed, Look::Missing, Step::Gone(Gone::Missing)),
        (&unnamed, Look::Found(Workflow { uid: "v".to_owned(), ..active() }), Step::Gone(Gone::OtherUid)),
        (&unnamed, Look::Found(over(vec![node("a", Phase::Active)])), finished()),
        (&by_id, Look::Found(over(vec![node("a", done())])), Step::Done(Done::Fulfilled("Succeeded".to_owned()))),
        (&whole, Look::Found(over(Vec::new())), finished()),
        (&unnamed, Look::Found(Workflow { names_latches: true, ..active() }), Step::Keep(Keep::TooEarly)),
        (&unnamed, Look::Found(suspended()), bind(Bound::Whole)),
        (&unnamed, Look::Found(Workflow { names_latches: true, ..suspended() }), Step::Keep(Keep::TooEarly)),
        (&whole, Look::Found(suspended()), Step::Change(Change::Resume)),
        (&whole, Look::Found(active()), Step::Done(Done::NotSuspended)),
        (
            &whole,
            Look::Found(Workflow { is_suspended: true, ..elsewhere(Nodes::Offloaded) }),
            Step::Change(Change::Resume),
        ),
        (&unnamed, Look::Found(elsewhere(Nodes::Offloaded)), Step::Keep(Keep::Offloaded)),
        (
            &by_id,
            Look::Found(elsewhere(Nodes::Unreadable("x".to_owned()))),
            Step::Keep(Keep::Unreadable("x".to_owned())),
        ),
    ];
    for (n, (latch, look, step)) in table.into_iter().enumerate() {
        assert_eq!(plan(latch, &look), step, "row {n}");
    }
}

#[test]
fn outputs_come_from_the_latch_or_the_default_or_the_node_is_kept() {
    let supplied =
        |name: &str, default: Option<&str>| Supplied { name: name.to_owned(), default: default.map(str::to_owned) };
    let with = |values: &[(&str, &str)]| {
        let values: BTreeMap<_, _> =
            values.iter().map(|(name, value)| (name.parse().unwrap(), Arc::from(*value))).collect();
        NewLatch {
            ending: Ending::Succeed(Outputs::new(values).unwrap()),
            ..latch(Some(Node::Id("a".parse().unwrap())))
        }
    };
    let waiting =
        NodeSeen { supplied: vec![supplied("x", None), supplied("y", Some("d"))], ..node("a", Phase::Active) };
    let look = Look::Found(workflow(vec![waiting]));
    let succeed = |x: &str, y: &str| {
        let values = vec![("x".to_owned(), x.to_owned()), ("y".to_owned(), y.to_owned())];
        Step::Change(Change::End(vec![NodeEnd { id: "a".to_owned(), how: How::Succeed(values) }]))
    };
    assert_eq!(plan(&with(&[("x", "1")]), &look), succeed("1", "d"));
    assert_eq!(plan(&with(&[("x", "1"), ("y", "2"), ("z", "3")]), &look), succeed("1", "2"));
    assert_eq!(plan(&with(&[("y", "2")]), &look), Step::Keep(Keep::NoValue(vec!["x".to_owned()])));
    let too_many = with(&[("x", "1"), ("z", "3")]);
    let Step::Change(change) = plan(&too_many, &look) else { panic!("{:?}", plan(&too_many, &look)) };
    assert_eq!(unused_outputs(&too_many, &change), ["z"]);
    let fails = NewLatch { ending: Ending::Fail("no".parse().unwrap()), ..with(&[]) };
    let end = NodeEnd { id: "a".to_owned(), how: How::Fail("no".to_owned()) };
    assert_eq!(plan(&fails, &look), Step::Change(Change::End(vec![end])));
}
