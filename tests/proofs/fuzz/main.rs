//! Every parser of foreign bytes under hostile input, beginning with the seeds in `tests/proofs/fuzz/seeds`.
//!
//! In `cargo test` seeds and random changes of them, the same in every run; `ci/fuzz` lets libFuzzer look, which is
//! led by the code that an input reaches. Request heads and chunks are the door's own: `server::door::fuzz_tests`.
#![allow(clippy::unwrap_used, clippy::print_stderr, clippy::format_collect, reason = "tests may panic and talk")]

mod checks;
mod mutate;

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
fn records_are_refused_or_read_again_as_they_were_written() {
    fuzz("records", checks::records);
}
