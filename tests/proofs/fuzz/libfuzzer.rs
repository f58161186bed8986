//! The fuzz targets for libFuzzer: one program for all; `LOCKER_FUZZ_TARGET` chooses one. `ci/fuzz` builds and runs it.
#![cfg_attr(fuzzing, no_main)]

#[cfg(fuzzing)]
mod checks;
#[cfg(fuzzing)]
mod tokens;

#[cfg(fuzzing)]
mod target {
    use std::sync::LazyLock;

    use locker::server::door;

    use super::{checks, tokens};

    type Check = fn(&[u8]);

    static CHECK: LazyLock<Check> = LazyLock::new(|| match std::env::var("LOCKER_FUZZ_TARGET").as_deref() {
        Ok("heads") => door::fuzz::heads,
        Ok("chunks") => door::fuzz::chunks,
        Ok("bodies") => checks::bodies,
        Ok("names") => checks::names,
        Ok("payloads") => checks::payloads,
        Ok("records") => checks::records,
        Ok("frames") => checks::frames,
        Ok("tokens") => tokens::tokens,
        other => panic!("LOCKER_FUZZ_TARGET is the name of a directory in tests/proofs/fuzz/seeds, not {other:?}"),
    });

    libfuzzer_sys::fuzz_target!(|input: &[u8]| CHECK(input));
}

/// Without the instrumentation of `ci/fuzz` there is nothing to do. `cargo test --test fuzz` runs without it.
#[cfg(not(fuzzing))]
fn main() {}
