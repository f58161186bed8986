//! The core against the simplest implementation of the rules ([`reference`]), over random operations; and the proof
//! that this finds bugs: the same property must fail for a core with a planted bug.
//!
//! A failing case is reduced, printed, and kept under `proptest-regressions`. `PROPTEST_CASES=100000 cargo test --lib
//! core::model_tests` runs more cases.

mod bugs;
mod generate;
mod latches;
mod reference;
mod under_test;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::test_runner::{Config, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::settings::Plant;
use bugs::Bug;
use generate::{Case, Rulebook};
use reference::Op;
use under_test::Core;

/// Steps of one case.
const STEPS: std::ops::RangeInclusive<usize> = 40..=60;

/// What is wrong with the core under test.
trait Planted {
    const PLANT: Plant = Plant::None;
    const BUG: Option<Bug> = Option::None;

    /// The operation, as this core takes it.
    fn op(op: &Op) -> Op {
        Self::BUG.map_or_else(|| op.clone(), |bug| bug.op(op))
    }
}

struct Nothing;
impl Planted for Nothing {}

macro_rules! planted {
    ($($name:ident),*) => {
        $(
            struct $name;
            impl Planted for $name {
                const PLANT: Plant = Plant::$name;
            }
        )*
    };
}

planted!(EarlierRun, ReleaseUnchecked, FenceInMemory, LostNotice);

/// The core with this one of [`Bug::ALL`].
struct With<const BUG: usize>;
impl<const BUG: usize> Planted for With<BUG> {
    const BUG: Option<Bug> = Some(Bug::ALL[BUG]);
}

struct CoreFollowsTheRules<P>(PhantomData<P>);

impl<P: Planted> StateMachineTest for CoreFollowsTheRules<P> {
    type SystemUnderTest = Core;
    type Reference = Rulebook;

    fn init_test(case: &Case) -> Core {
        let rules = P::BUG.map_or_else(|| case.model.rules.clone(), |bug| bug.rules(&case.model.rules));
        let mut core = Core::new(&rules, P::PLANT);
        for op in &case.setup {
            core.apply(&P::op(op));
        }
        core
    }

    fn apply(mut core: Core, case: &Case, op: Op) -> Core {
        let answer = core.apply(&P::op(&op));
        assert_eq!(answer, case.model.answer, "the core's answer (left) to {op:?}");
        let (seen, expected) = (core.view(), case.model.view());
        let differs: Vec<_> = seen.iter().filter(|line| !expected.contains(line)).collect();
        assert!(seen == expected, "after {op:?} the core sees\n{differs:#?}\nof\n{seen:#?}\nexpected\n{expected:#?}");
        core.check().unwrap_or_else(|broken| panic!("after {op:?}: {broken}"));
        let told = core.told();
        let missed: Vec<u64> = case.model.must_be_told().into_iter().filter(|park| !told.contains(park)).collect();
        assert!(missed.is_empty(), "after {op:?} no notice went to the parked requests {missed:?}");
        core
    }
}

/// Runs the property on `cases` random cases.
fn run<P: Planted>(config: Config) -> Result<(), TestError<(Case, Vec<Op>, Option<Arc<AtomicUsize>>)>> {
    let mut runner = TestRunner::new(config.clone());
    runner.run(&Rulebook::sequential_strategy(STEPS), |(case, ops, seen)| {
        CoreFollowsTheRules::<P>::test_sequential(config.clone(), case, ops, seen);
        Ok(())
    })
}

#[test]
fn the_core_does_what_the_rules_say() {
    let config = Config { source_file: Some(file!()), ..Config::default() };
    if let Err(error) = run::<Nothing>(config) {
        panic!("{error}");
    }
}

/// The property must find each planted bug; otherwise it proves nothing.
fn is_found<P: Planted>() {
    let config = Config { cases: 2_000, max_shrink_iters: 8, failure_persistence: Option::None, ..Config::default() };
    assert!(
        matches!(run::<P>(config), Err(TestError::Fail(..))),
        "the planted bug {:?} {:?} was not found",
        P::PLANT,
        P::BUG
    );
}

#[test]
fn finds_that_an_earlier_run_is_accepted() {
    is_found::<EarlierRun>();
}

#[test]
fn finds_that_a_release_ends_another_claims_hold() {
    is_found::<ReleaseUnchecked>();
}

#[test]
fn finds_that_a_restart_forgets_fences() {
    is_found::<FenceInMemory>();
}

#[test]
fn finds_that_notices_are_lost() {
    is_found::<LostNotice>();
}

#[test]
fn finds_that_second_labels_are_ignored() {
    is_found::<With<{ Bug::SecondLabel as usize }>>();
}

#[test]
fn finds_that_nothing_is_superseded() {
    is_found::<With<{ Bug::Supersede as usize }>>();
}

#[test]
fn finds_that_a_random_pick_takes_too_much() {
    is_found::<With<{ Bug::RandomPick as usize }>>();
}

#[test]
fn finds_that_an_operation_is_done_again() {
    is_found::<With<{ Bug::Again as usize }>>();
}

#[test]
fn finds_that_the_claim_of_a_new_lock_is_lost() {
    is_found::<With<{ Bug::FirstClaim as usize }>>();
}

#[test]
fn finds_that_a_build_stays_suspect() {
    is_found::<With<{ Bug::Suspect as usize }>>();
}

#[test]
fn finds_that_a_release_does_not_set_the_ending_of_a_latch() {
    is_found::<With<{ Bug::Ending as usize }>>();
}

#[test]
fn finds_that_limits_are_not_kept() {
    is_found::<With<{ Bug::Limits as usize }>>();
}
