//! Every parser of untrusted bytes under hostile input, starting from the seeds in `tests/proofs/fuzz/seeds`.
//!
//! `cargo test` uses the seeds and random changes of them, the same in every run. `ci/fuzz` uses libFuzzer, which is
//! guided by the code that an input reaches. Request heads and chunks are tested with the door:
//! `server::door::fuzz_tests`.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::format_collect, reason = "tests may panic and print")]

mod checks;
mod mutate;
mod tokens;

use mutate::fuzz;

#[test]
fn bodies_are_values_or_short_lists_of_problems() {
    fuzz("bodies", checks::bodies);
}

#[test]
fn names_that_pass_keep_the_rules() {
    fuzz("names", checks::names);
}

#[test]
fn payloads_of_concourse_are_requests_or_lists_of_problems() {
    fuzz("payloads", checks::payloads);
}

#[test]
fn tokens_prove_something_or_are_refused_with_a_reason() {
    fuzz("tokens", tokens::tokens);
}

#[test]
fn records_are_refused_or_read_again_as_they_were_written() {
    fuzz("records", checks::records);
}

#[test]
fn frames_are_refused_or_read_again_as_they_were_written() {
    fuzz("frames", checks::frames);
}
