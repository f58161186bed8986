//! The core against the simplest implementation of the rules ([`reference`]), over random operations; and the proof
//! that this finds bugs: the same property must fail for a core with a planted bug.
//!
//! A failing case is reduced, printed, and kept under `proptest-regressions`. `PROPTEST_CASES=100000 cargo test --lib
//! core::model_tests` runs more cases.

mod generate;
mod reference;
mod under_test;

use std::marker::PhantomData;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use proptest::test_runner::{Config, TestError, TestRunner};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};

use super::settings::Plant;
use generate::{Case, Rulebook};
use reference::Op;
use under_test::Core;

/// Steps of one case.
const STEPS: std::ops::RangeInclusive<usize> = 40..=60;

/// The planted bug of the core under test.
trait Planted {
    const PLANT: Plant;
}

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

planted!(None, EarlierRun, ReleaseUnchecked, FenceInMemory, LostNotice);

struct CoreFollowsTheRules<P>(PhantomData<P>);

impl<P: Planted> StateMachineTest for CoreFollowsTheRules<P> {
    type SystemUnderTest = Core;
    type Reference = Rulebook;

    fn init_test(case: &Case) -> Core {
        let mut core = Core::new(&case.model.rules, P::PLANT);
        for op in &case.setup {
            core.apply(op);
        }
        core
    }

    fn apply(mut core: Core, case: &Case, op: Op) -> Core {
        let answer = core.apply(&op);
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
    if let Err(error) = run::<None>(config) {
        panic!("{error}");
    }
}

/// The property must find each planted bug; otherwise it proves nothing.
fn is_found<P: Planted>() {
    let config = Config { cases: 2_000, max_shrink_iters: 8, failure_persistence: Option::None, ..Config::default() };
    assert!(matches!(run::<P>(config), Err(TestError::Fail(..))), "the planted bug {:?} was not found", P::PLANT);
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
