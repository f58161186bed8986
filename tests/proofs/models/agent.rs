//! An agent resumes workflows, and dies at any moment: the real plan (`locker::agent::plan`), a workflow whose nodes are
//! suspended one after the other, people who resume by hand, lost answers, and somebody else who writes the workflow.

use locker::agent::plan::{self, Bound, Change, Look, NodeSeen, Nodes, Phase, Step, Workflow};
use locker::core::latch::{Ending, LatchId, NewLatch, Node, Target};
use stateright::{Model, Property};

use super::search;

/// How the agent decides, and what it knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    /// The nodes name their latches. Ours belongs to the second node.
    Named,
    /// No node names a latch. The agent stores which node the latch is for before it changes anything.
    WrittenDown,
    /// The same, but only in the agent's memory, because the server of the latches cannot store it.
    InMemory,
    /// Like the replaced agent: resume everything that is suspended, then delete the latch.
    Naive,
    /// Resume the right node, and delete the latch whether the node was suspended or not.
    Hasty,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum At {
    NotYet,
    Active,
    Done,
}

/// The workflow's two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Seen {
    nodes: [At; 2],
    version: u8,
}

/// What the agent does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Agent {
    Idle,
    /// It has read the workflow, and knows which node the latch is for.
    Read(Seen, Option<usize>),
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Now {
    workflow: Seen,
    /// How often the agent has ended each node.
    resumed: [u8; 2],
    is_released: bool,
    is_deleted: bool,
    /// The node that the server of the latches has stored.
    bound: Option<usize>,
    agent: Agent,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Release,
    /// The controller suspends the next node.
    Suspend,
    /// A person resumes the node by hand.
    ByHand(usize),
    /// Another client writes the workflow, without a relevant change.
    Write,
    Read,
    /// The agent acts on what it has read. The flag says whether it gets the answer.
    Act(bool),
    Die,
}

struct Resuming(Rules);

/// The largest number of writes without a relevant change: enough to conflict with a patch.
const WRITES: u8 = 6;

fn latch_id(n: u8) -> LatchId {
    LatchId::from_random([n; 16])
}

impl Resuming {
    fn latch(bound: Option<usize>) -> NewLatch {
        let node = bound.map(|n| Node::Id(n.to_string().parse().unwrap()));
        let (workflow, namespace) = ("w".parse().unwrap(), "n".parse().unwrap());
        NewLatch {
            id: latch_id(1),
            target: Target { workflow, namespace, workflow_uid: None, node },
            ending: Ending::default(),
        }
    }

    fn look(&self, seen: Seen) -> Look {
        let names = matches!(self.0, Rules::Named | Rules::Hasty);
        let phase = |at| match at {
            At::NotYet => Phase::NotYet,
            At::Active => Phase::Active,
            At::Done => Phase::Fulfilled("Succeeded".to_owned()),
        };
        let node = |n: usize| NodeSeen {
            id: n.to_string(),
            name: n.to_string(),
            is_suspend: true,
            phase: phase(seen.nodes[n]),
            inputs: if names {
                vec![(plan::LOCK_ID.to_owned(), latch_id(u8::try_from(n).unwrap()).to_string())]
            } else {
                Vec::new()
            },
            supplied: Vec::new(),
        };
        Look::Found(Workflow {
            uid: "u".to_owned(),
            finished: None,
            is_suspended: false,
            names_latches: names,
            nodes: Nodes::Known(vec![node(0), node(1)]),
        })
    }

    /// What the agent does now: the nodes to end, and whether it deletes the latch regardless of the outcome.
    fn act(&self, now: &mut Now, seen: Seen, known: Option<usize>, is_heard: bool) {
        now.agent = Agent::Idle;
        let active = |n: &usize| seen.nodes[*n] == At::Active;
        match self.0 {
            Rules::Naive => {
                if now.end(seen, &(0..2).filter(active).collect::<Vec<_>>()) && is_heard {
                    now.is_deleted = true;
                }
                return;
            }
            Rules::Hasty => {
                if now.end(seen, &[1].into_iter().filter(active).collect::<Vec<_>>()) && is_heard {
                    now.is_deleted = true;
                }
                return;
            }
            _ => {}
        }
        match plan::plan(&Self::latch(known), &self.look(seen)) {
            Step::Bind { node: Bound::Node(id), .. } => {
                let node: usize = id.parse().unwrap();
                if self.0 == Rules::WrittenDown {
                    now.bound = Some(node);
                }
                if is_heard {
                    now.agent = Agent::Read(seen, Some(node));
                }
            }
            Step::Change(Change::End(ends)) => {
                let nodes: Vec<usize> = ends.iter().map(|end| end.id.parse().unwrap()).collect();
                if now.end(seen, &nodes) && is_heard {
                    now.agent = Agent::Read(now.workflow, known);
                }
            }
            Step::Done(_) => now.is_deleted = true,
            Step::Keep(_) => {}
            other => panic!("not in this model: {other:?}"),
        }
    }

    /// The node that the latch is for, if that can be known.
    fn meant(&self) -> Option<usize> {
        matches!(self.0, Rules::Named | Rules::Hasty).then_some(1)
    }
}

impl Now {
    /// A patch of these nodes. It is refused when the workflow has changed since it was read.
    fn end(&mut self, seen: Seen, nodes: &[usize]) -> bool {
        if nodes.is_empty() {
            return true;
        }
        if seen.version != self.workflow.version {
            return false;
        }
        for &n in nodes {
            self.workflow.nodes[n] = At::Done;
            self.resumed[n] += 1;
        }
        self.workflow.version += 1;
        true
    }
}

impl Model for Resuming {
    type State = Now;
    type Action = Action;

    fn init_states(&self) -> Vec<Now> {
        vec![Now {
            workflow: Seen { nodes: [At::NotYet; 2], version: 0 },
            resumed: [0; 2],
            is_released: false,
            is_deleted: false,
            bound: None,
            agent: Agent::Idle,
        }]
    }

    fn actions(&self, now: &Now, actions: &mut Vec<Action>) {
        actions.extend((!now.is_released).then_some(Action::Release));
        let nodes = now.workflow.nodes;
        let next_may_begin = nodes[0] == At::NotYet || (nodes[0] == At::Done && nodes[1] == At::NotYet);
        actions.extend(next_may_begin.then_some(Action::Suspend));
        // A person resumes the first approval. In the other variants that would hide what the agent does.
        actions.extend((self.meant().is_some() && nodes[0] == At::Active).then_some(Action::ByHand(0)));
        actions.extend((now.workflow.version < WRITES).then_some(Action::Write));
        match now.agent {
            Agent::Idle => actions.extend((now.is_released && !now.is_deleted).then_some(Action::Read)),
            Agent::Read(..) => actions.extend([Action::Act(true), Action::Act(false), Action::Die]),
        }
    }

    fn next_state(&self, last: &Now, action: Action) -> Option<Now> {
        let mut now = last.clone();
        match action {
            Action::Release => now.is_released = true,
            Action::Suspend => {
                let n = usize::from(now.workflow.nodes[0] == At::Done);
                now.workflow.nodes[n] = At::Active;
                now.workflow.version += 1;
            }
            Action::ByHand(n) => {
                now.workflow.nodes[n] = At::Done;
                now.workflow.version += 1;
            }
            Action::Write => now.workflow.version += 1,
            Action::Read => now.agent = Agent::Read(now.workflow, now.bound),
            Action::Act(is_heard) => {
                let Agent::Read(seen, known) = now.agent else { return None };
                self.act(&mut now, seen, known, is_heard);
            }
            Action::Die => now.agent = Agent::Idle,
        }
        Some(now)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always(ONE, |_, now: &Now| now.resumed.iter().sum::<u8>() <= 1),
            Property::always(RIGHT, |model: &Self, now: &Now| {
                model.meant().is_none_or(|meant| now.resumed.iter().enumerate().all(|(n, r)| *r == 0 || n == meant))
            }),
            Property::always(WOKEN, |model: &Self, now: &Now| {
                !now.is_deleted || now.workflow.nodes[model.meant().unwrap_or(0)] == At::Done
            }),
            Property::sometimes("the latch is released before the node is suspended, and wakes it", |_, now: &Now| {
                now.is_deleted && now.resumed.iter().sum::<u8>() == 1
            }),
        ]
    }
}

const ONE: &str = "one latch ends one node, once";
const RIGHT: &str = "no node of another latch is ended";
const WOKEN: &str = "a latch is deleted only when its node has ended";

#[test]
fn a_node_that_names_its_latch_is_resumed_once() {
    assert!(search("agent, named", Resuming(Rules::Named)).is_empty());
}

#[test]
fn a_node_that_was_written_down_is_resumed_once() {
    assert!(search("agent, written down", Resuming(Rules::WrittenDown)).is_empty());
}

#[test]
fn naive_what_is_only_in_memory_is_lost_with_it() {
    let wrong = search("agent, in memory", Resuming(Rules::InMemory));
    assert_eq!(wrong, [ONE]);
}

#[test]
fn naive_the_replaced_agent_resumes_others_and_loses_wake_ups() {
    let wrong = search("agent, naive", Resuming(Rules::Naive));
    assert!(wrong.contains(&ONE) && wrong.contains(&WOKEN), "{wrong:?}");
}

#[test]
fn naive_deleting_without_looking_loses_wake_ups() {
    let wrong = search("agent, hasty", Resuming(Rules::Hasty));
    assert_eq!(wrong, [WOKEN]);
}
