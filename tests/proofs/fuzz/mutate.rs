//! Fuzzing without an engine: stored seeds, changed in ways that break parsers, the same in every run.
//!
//! `LOCKER_FUZZ_ROUNDS` makes a run longer, and `LOCKER_FUZZ_SEED` makes it different. Add an input that broke
//! something as a seed, with a name that says what it is.

use std::path::Path;

/// Bytes with a meaning for some parser.
const LOADED: &[&[u8]] = &[
    b"\r\n",
    b"\r",
    b"\n",
    b"\0",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"/",
    b"%2f",
    b"%",
    b"..",
    b"\"",
    b"\\",
    b"\\u0000",
    b"\\ud800",
    b"{",
    b"}",
    b"[",
    b"]",
    b"-1",
    b"0",
    b"18446744073709551616",
    b"1e400",
    b"ffffffffffffffff",
    b"\xff",
    b"\xef\xbb\xbf",
    b"HTTP/1.1",
    b"HTTP/1.0",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: b\r\n",
    b"\xe2\x80\xae",
    b"\r\n\r\n",
    b"null",
    b"true",
    b"\x1b[31m",
];

/// Numbers that look random (xorshift64).
pub struct Dice(u64);

impl Dice {
    pub fn new() -> Self {
        Self(number("LOCKER_FUZZ_SEED", 0x9e37_79b9_7f4a_7c15).max(1))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }

    fn change(&mut self, bytes: &mut Vec<u8>, seeds: &[Vec<u8>]) {
        let at = self.below(bytes.len() + 1);
        let end = at + self.below(bytes.len() - at + 1);
        match self.below(7) {
            0 if at < bytes.len() => bytes[at] ^= 1 << self.below(8),
            1 => bytes.insert(at, u8::try_from(self.below(256)).unwrap()),
            2 => drop(bytes.drain(at..end)),
            3 => drop(bytes.splice(at..at, bytes[at..end].to_vec())),
            4 => bytes.truncate(at),
            5 => {
                let other = &seeds[self.below(seeds.len())];
                let from = self.below(other.len() + 1);
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            _ => drop(bytes.splice(at..at, LOADED[self.below(LOADED.len())].iter().copied())),
        }
        bytes.truncate(40_000);
    }
}

fn number(name: &str, usual: u64) -> u64 {
    std::env::var(name).map_or(usual, |text| text.parse().unwrap_or_else(|_| panic!("{name} must be a number")))
}

/// The seeds of a target, ordered by name.
fn seeds_of(target: &str) -> Vec<Vec<u8>> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proofs/fuzz/seeds").join(target);
    let entries = std::fs::read_dir(&directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()));
    let mut files: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{target} has no seeds");
    files.iter().map(|file| std::fs::read(file).unwrap()).collect()
}

/// Passes every seed of the target, and then changed ones, to `check`. Reports the input when that panics.
pub fn fuzz(target: &str, check: impl Fn(&[u8])) {
    let seeds = seeds_of(target);
    let mut dice = Dice::new();
    let run = |input: &[u8]| {
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| check(input)));
        if let Err(panic) = result {
            eprintln!("the input was b\"{}\"", input.escape_ascii());
            std::panic::resume_unwind(panic);
        }
    };
    seeds.iter().for_each(|seed| run(seed));
    for _ in 0..number("LOCKER_FUZZ_ROUNDS", 20_000) {
        let mut input = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(6) {
            dice.change(&mut input, &seeds);
        }
        run(&input);
    }
}
