mod proof;

#[path = "proof/checker/tests.rs"]
mod checker_tests;
