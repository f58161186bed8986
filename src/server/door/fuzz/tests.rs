//! Runs the door's parsers on their seeds and on random mutations of them. `ci/fuzz` searches further.

use super::{chunks, heads};

#[path = "../../../../tests/proofs/fuzz/mutate.rs"]
mod mutate;

#[test]
fn whatever_passes_as_a_head_is_one_request() {
    mutate::fuzz("heads", heads);
}

#[test]
fn chunks_decode_alike_however_they_come_and_never_beyond_the_limit() {
    mutate::fuzz("chunks", chunks);
}
