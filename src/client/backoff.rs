//! Pauses between attempts. They double from 1 s and have full jitter, so that a thousand clients do not return at
//! once.

use std::time::Duration;

use crate::env::random_hex;

/// The first pause is at most this.
const FIRST: Duration = Duration::from_secs(1);
/// The longest pause. It must stay well below the time for which a server regards a waiter as listening (20 s).
pub const LONGEST: Duration = Duration::from_secs(10);

/// The pauses of one series of attempts.
#[derive(Debug, Clone)]
pub struct Backoff {
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Pauses of at most `longest`.
    #[must_use]
    pub fn new(longest: Duration) -> Self {
        let longest = longest.min(LONGEST);
        Self { longest, next: FIRST.min(longest) }
    }

    /// Starts again with the shortest pause.
    pub fn reset(&mut self) {
        self.next = FIRST.min(self.longest);
    }

    /// The next pause. It is at least `retry_after`, which the server asks for, but never above the longest pause.
    pub fn pause(&mut self, retry_after: Option<Duration>) -> Duration {
        let pause = jitter(self.next).max(retry_after.unwrap_or_default().min(self.longest));
        self.next = (self.next * 2).min(self.longest);
        pause
    }
}

/// A random time of at most `span`.
fn jitter(span: Duration) -> Duration {
    // 32 random bits as a fraction of 1. Four bytes in hexadecimal always parse.
    let bits = u32::from_str_radix(&random_hex::<4>(), 16).unwrap_or(u32::MAX);
    span.mul_f64(f64::from(bits) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_up_to_the_longest_and_start_again() {
        let mut backoff = Backoff::new(Duration::from_secs(3));
        let caps = [1, 2, 3, 3, 3].map(Duration::from_secs);
        for cap in caps {
            assert!(backoff.pause(None) <= cap);
        }
        backoff.reset();
        assert!(backoff.pause(None) <= Duration::from_secs(1));
        assert_eq!(backoff.pause(Some(Duration::from_secs(600))), Duration::from_secs(3));
        assert_eq!(Backoff::new(Duration::from_secs(600)).longest, LONGEST);
    }
}
