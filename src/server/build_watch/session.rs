//! A login to a Concourse: how long a token is used, and when the next one is fetched.
//!
//! Concourse has no API keys. A token lasts a day and may be revoked before. So it is renewed before it expires, and
//! also whenever a fresh one could help.

use std::time::Duration;

use super::build_status::Trouble;
use super::schedule::doubled;
use crate::server::build_watch::limits;
use crate::wire::atc::TokenReply;
use crate::wire::secret::Secret;

/// A token that is accepted, as far as is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    pub secret: Secret,
    /// From this moment on (monotonic), a new one is fetched first. `None` if its expiry is not known.
    renew_at: Option<Duration>,
}

impl Token {
    /// The token from a login reply, requested at `now`. The last tenth of its lifetime is left for the next login.
    #[must_use]
    pub fn of_reply(reply: TokenReply, now: Duration) -> Self {
        let lasts = reply.expires_in.filter(|seconds| *seconds > 0).map(Duration::from_secs);
        Self { secret: reply.access_token, renew_at: lasts.map(|lasts| now.saturating_add(lasts.mul_f32(0.9))) }
    }

    /// A token that somebody else keeps fresh.
    #[must_use]
    pub fn given(secret: Secret) -> Self {
        Self { secret, renew_at: None }
    }

    /// Whether it can be used without fetching another.
    #[must_use]
    pub fn is_fresh(&self, now: Duration) -> bool {
        self.renew_at.is_none_or(|renew_at| now < renew_at)
    }
}

/// A login that was refused. The same password is not tried again at once, because directories lock accounts for that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    password: Secret,
    times: u32,
    retry_at: Duration,
    pub trouble: Trouble,
}

impl Refused {
    /// The login with this password was refused at `now`, after `before`. `period` is that of the watch.
    #[must_use]
    pub fn again(before: Option<Self>, password: Secret, trouble: Trouble, now: Duration, period: Duration) -> Self {
        let times = before.filter(|before| before.password == password).map_or(0, |before| before.times);
        let times = times.saturating_add(1);
        let retry_at = now.saturating_add(period * doubled(1, times, limits::WATCH_REFUSED_PERIODS));
        Self { password, times, retry_at, trouble }
    }

    /// Whether this password must not be tried now.
    #[must_use]
    pub fn forbids(&self, password: &Secret, now: Duration) -> bool {
        self.password == *password && now < self.retry_at
    }
}

/// Whether a new token could help after this status: only if the request was sent with a token that was not just
/// fetched.
#[must_use]
pub fn is_worth_a_login(status: u16, sent_token: bool, fetched_just_now: bool) -> bool {
    status == 401 && sent_token && !fetched_just_now
}

#[cfg(test)]
mod tests {
    use super::super::build_status::Cause;
    use super::*;

    #[test]
    fn a_token_is_renewed_before_its_end() {
        let reply = |expires_in| TokenReply { access_token: Secret::new("t"), expires_in };
        let secs = Duration::from_secs;
        let table = [
            (Some(86_400), secs(100 + 77_759), true),
            (Some(86_400), secs(100 + 77_761), false),
            (Some(10), secs(108), true),
            (Some(10), secs(110), false),
            (Some(0), secs(1_000_000), true),
            (None, secs(1_000_000), true),
            (Some(u64::MAX), secs(1_000_000), true),
        ];
        for (expires_in, now, fresh) in table {
            assert_eq!(Token::of_reply(reply(expires_in), secs(100)).is_fresh(now), fresh, "{expires_in:?} at {now:?}");
        }
        assert!(Token::given(Secret::new("t")).is_fresh(secs(1_000_000)));
    }

    #[test]
    fn a_refused_password_is_tried_ever_more_rarely_and_another_one_at_once() {
        let (period, trouble) = (Duration::from_secs(15), Trouble::new(Cause::LoginRefused, "no"));
        let (wrong, other) = (Secret::new("wrong"), Secret::new("other"));
        let (mut refused, mut now, mut pauses) = (None, Duration::ZERO, Vec::new());
        for _ in 0..8 {
            let again = Refused::again(refused, wrong.clone(), trouble.clone(), now, period);
            assert!(
                again.forbids(&wrong, again.retry_at.saturating_sub(Duration::from_millis(1)))
                    && !again.forbids(&other, now)
            );
            pauses.push(again.retry_at.saturating_sub(now).as_secs());
            now = again.retry_at;
            assert!(!again.forbids(&wrong, now));
            refused = Some(again);
        }
        assert_eq!(pauses, [15, 30, 60, 120, 240, 480, 600, 600]);
        let other = Refused::again(refused, other, trouble, now, period);
        assert_eq!(other.retry_at, now + period, "another password starts over");
    }

    #[test]
    fn one_login_for_each_refused_token() {
        let table = [
            (401, true, false, true),
            (401, true, true, false),
            (401, false, false, false),
            (403, true, false, false),
            (404, true, false, false),
            (500, true, false, false),
        ];
        for (status, sent, just_now, expected) in table {
            assert_eq!(is_worth_a_login(status, sent, just_now), expected, "{status} {sent} {just_now}");
        }
    }
}
