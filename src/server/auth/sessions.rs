//! Sessions of people who have signed in on the web page.
//!
//! Signing in is an exchange: a request that proves an identity in any other way gets a cookie, and that cookie proves
//! the same identity until the session ends. So sessions do not care what kinds of identities there are.
//!
//! The cookie is random, and only its hash is kept. A page that changes something must also show the *page token*, which
//! it was made with: pages of other sites can neither read nor guess it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::super::http::{Identity, Request};
use crate::env::{hex, random_hex};
use crate::server::limits::{SESSION_MS, SESSIONS};

/// The name of the cookie.
pub const COOKIE: &str = "locker_session";
/// How long a session lasts.
pub const LIFE: Duration = Duration::from_millis(SESSION_MS);
/// The header in which a page shows its token.
pub const PAGE_TOKEN: &str = "x-locker-page";

/// The sessions of this run of the server. Cheap to clone; clones share the sessions.
#[derive(Clone, Default)]
pub struct Sessions(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// Whether the server itself speaks TLS.
    tls: bool,
    /// Whether there is a password with which people can sign in, apart from those of an access file.
    has_password: bool,
    /// By the hash of their cookie.
    all: Mutex<HashMap<[u8; 32], Session>>,
}

struct Session {
    identity: Identity,
    began: Instant,
    used: Instant,
}

/// A session: the hash of its cookie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionId([u8; 32]);

/// What a session says to its own client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    pub identity: Identity,
    /// How long the session still lasts.
    pub left: Duration,
}

impl Sessions {
    /// No sessions yet.
    #[must_use]
    pub fn new(tls: bool, has_password: bool) -> Self {
        Self(Arc::new(Inner { tls, has_password, all: Mutex::default() }))
    }

    /// Whether people can sign in with a password that is not of an access file.
    #[must_use]
    pub fn has_password(&self) -> bool {
        self.0.has_password
    }

    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 32], Session>> {
        self.0.all.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The session that lets this request in, unless it shows credentials of another kind.
    #[must_use]
    pub fn of(&self, request: &Request, now: Instant) -> Option<SessionId> {
        let token = token(request).filter(|_| request.header("authorization").is_none())?;
        Some(SessionId(key(token))).filter(|session| self.lasts(session, now))
    }

    /// Whether this session is not over.
    #[must_use]
    pub fn lasts(&self, SessionId(key): &SessionId, now: Instant) -> bool {
        self.all().get(key).is_some_and(|session| session.left(now).is_some())
    }

    /// Whether this request comes from somebody whose session is over or is not known here, as after a start of the server
    /// or a change of leaders.
    #[must_use]
    pub fn has_ended(&self, request: &Request, now: Instant) -> bool {
        token(request).is_some_and(|token| !self.lasts(&SessionId(key(token)), now))
    }

    /// How many people are signed in.
    #[must_use]
    pub fn count(&self, now: Instant) -> usize {
        self.all().values().filter(|session| session.left(now).is_some()).count()
    }

    /// Begins a session for who has proven this identity with this request. Returns the `Set-Cookie` header.
    #[must_use]
    pub fn begin(&self, identity: Identity, request: &Request, now: Instant) -> String {
        let token = random_hex::<32>();
        let mut all = self.all();
        all.retain(|_, session| session.left(now).is_some());
        if all.len() >= SESSIONS
            && let Some(idle) = all.iter().min_by_key(|(_, session)| session.used).map(|(key, _)| *key)
        {
            all.remove(&idle);
        }
        all.insert(key(&token), Session { identity, began: now, used: now });
        self.cookie(request, &token, LIFE.as_secs())
    }

    /// Ends the session of this request. Returns the `Set-Cookie` header that makes the browser forget it.
    #[must_use]
    pub fn end(&self, request: &Request) -> String {
        if let Some(token) = token(request) {
            self.all().remove(&key(token));
        }
        self.cookie(request, "", 0)
    }

    /// The session of this request.
    #[must_use]
    pub fn find(&self, request: &Request, now: Instant) -> Option<Signed> {
        let key = key(token(request)?);
        let mut all = self.all();
        let session = all.get_mut(&key)?;
        let Some(left) = session.left(now) else {
            all.remove(&key);
            return None;
        };
        session.used = now;
        Some(Signed { identity: session.identity.clone(), left })
    }

    /// A browser that speaks TLS, to us or to a proxy in front of us, must never send the cookie without it.
    fn cookie(&self, request: &Request, token: &str, seconds: u64) -> String {
        let by_proxy = request.header("origin").is_some_and(|origin| origin.starts_with("https://"));
        let secure = if self.0.tls || by_proxy { "; Secure" } else { "" };
        format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict{secure}")
    }
}

impl Session {
    /// How long it still lasts. `None` once it is over.
    fn left(&self, now: Instant) -> Option<Duration> {
        LIFE.checked_sub(now.saturating_duration_since(self.began)).filter(|left| !left.is_zero())
    }
}

fn key(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// What the request has as cookie, if anything.
fn token(request: &Request) -> Option<&str> {
    let cookies = request.headers.iter().filter(|(name, _)| name == "cookie");
    let pairs = cookies.flat_map(|(_, value)| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.filter(|(name, value)| *name == COOKIE && !value.is_empty()).map(|(_, value)| value).next()
}

/// The token that a page for this request must show. `None` without a cookie.
#[must_use]
pub fn page_token(request: &Request) -> Option<String> {
    Some(hex(&Sha256::digest(format!("page token {}", token(request)?))))
}

/// Whether the request comes from a page that was made for its session.
#[must_use]
pub fn shows_page_token(request: &Request) -> bool {
    let shown = request.header(PAGE_TOKEN).unwrap_or_default();
    page_token(request).is_some_and(|expected| expected.as_bytes().ct_eq(shown.as_bytes()).into())
}

#[cfg(test)]
mod tests {
    use super::super::tests::request;
    use super::*;

    fn with(headers: &[(&str, &str)]) -> Request {
        let mut request = request("POST", "/api/v1/session", None, None);
        request.headers = headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        request
    }

    fn user(name: &str) -> Identity {
        Identity::User(name.to_owned())
    }

    fn cookie_of(header: &str) -> String {
        header.split(';').next().unwrap().to_owned()
    }

    #[test]
    fn a_session_is_found_by_its_cookie_until_it_ends() {
        let (sessions, now) = (Sessions::new(false, true), Instant::now());
        let header = sessions.begin(user("ada"), &with(&[]), now);
        assert!(header.ends_with("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict"), "{header}");
        let cookie = cookie_of(&header);
        let both = with(&[("cookie", &format!("other=1; {cookie}; {COOKIE}x=2"))]);
        assert_eq!(sessions.find(&both, now).unwrap().identity, user("ada"));
        assert_eq!(sessions.find(&both, now + LIFE / 3).unwrap().left, LIFE * 2 / 3, "use does not prolong it");
        assert_eq!(sessions.find(&both, now + LIFE), None);
        assert_eq!(sessions.find(&both, now), None, "what is over stays over");
        for wrong in ["locker_session=", "locker_session=00", &cookie.to_uppercase(), &cookie[..cookie.len() - 1]] {
            assert_eq!(sessions.find(&with(&[("cookie", wrong)]), now), None, "{wrong}");
        }

        let ours = with(&[("cookie", &cookie_of(&sessions.begin(user("ada"), &with(&[]), now)))]);
        let others = with(&[("cookie", &cookie_of(&sessions.begin(user("bob"), &with(&[]), now)))]);
        assert!(sessions.end(&ours).contains("locker_session=; Path=/; Max-Age=0;"));
        assert_eq!(sessions.find(&ours, now), None);
        assert!(sessions.find(&others, now).is_some());
    }

    #[test]
    fn a_browser_that_speaks_tls_keeps_the_cookie_to_tls() {
        let now = Instant::now();
        for (tls, origin, secure) in [
            (true, "http://locker.example", true),
            (false, "https://locker.example", true),
            (false, "http://locker.example", false),
        ] {
            let header = Sessions::new(tls, true).begin(user("ada"), &with(&[("origin", origin)]), now);
            assert_eq!(header.ends_with("; Secure"), secure, "{tls} {origin}");
        }
    }

    #[test]
    fn the_list_is_bounded_and_who_is_idle_goes_first() {
        let (sessions, start) = (Sessions::new(false, true), Instant::now());
        let at = |n: usize| start + Duration::from_millis(n as u64);
        let cookies: Vec<Request> = (0..SESSIONS)
            .map(|n| with(&[("cookie", &cookie_of(&sessions.begin(user("ada"), &with(&[]), at(n))))]))
            .collect();
        assert!(sessions.find(&cookies[0], at(SESSIONS)).is_some());
        let _ = sessions.begin(user("bob"), &with(&[]), at(SESSIONS + 1));
        assert_eq!(sessions.all().len(), SESSIONS);
        let there: Vec<bool> = cookies.iter().take(3).map(|it| sessions.find(it, at(SESSIONS + 1)).is_some()).collect();
        assert_eq!(there, [true, false, true]);
    }

    #[test]
    fn a_page_shows_the_token_of_its_own_session() {
        let mine = page_token(&with(&[("cookie", "locker_session=aa")])).unwrap();
        let table = [
            (vec![("cookie", "locker_session=aa"), (PAGE_TOKEN, mine.as_str())], true),
            (vec![("cookie", "locker_session=ab"), (PAGE_TOKEN, mine.as_str())], false),
            (vec![("cookie", "locker_session=aa"), (PAGE_TOKEN, "")], false),
            (vec![("cookie", "locker_session=aa")], false),
            (vec![(PAGE_TOKEN, mine.as_str())], false),
        ];
        for (headers, shown) in table {
            assert_eq!(shows_page_token(&with(&headers)), shown, "{headers:?}");
        }
        assert_eq!(page_token(&with(&[])), None);
    }
}
