//! Names and numbers that cannot be wrong: parsed once at the edge, trusted everywhere else.

use std::fmt;
use std::sync::Arc;

use super::limits;

/// Why a text is not a valid name. The message contains the text's length or the offending character, never more.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("{what} is empty")]
    Empty { what: &'static str },
    #[error("{what} is too long ({bytes} bytes > max of {max})")]
    TooLong { what: &'static str, bytes: usize, max: usize },
    #[error("{what} starts with a dot, which is reserved for files that are not locks")]
    LeadingDot { what: &'static str },
    #[error("{what} contains {shown} at byte {offset}, which is not allowed")]
    BadChar { what: &'static str, shown: String, offset: usize },
    #[error("{what} must {must}")]
    Shape { what: &'static str, must: &'static str },
}

pub(super) fn check_length(what: &'static str, text: &str, max: usize) -> Result<(), NameError> {
    match text.len() {
        0 => Err(NameError::Empty { what }),
        bytes if bytes > max => Err(NameError::TooLong { what, bytes, max }),
        _ => Ok(()),
    }
}

pub(super) fn bad_char(what: &'static str, found: char, offset: usize) -> NameError {
    let shown = match found {
        '/' => "'/'".to_owned(),
        c if c.is_ascii_graphic() => format!("'{c}'"),
        c => format!("character U+{:04X}", u32::from(c)),
    };
    NameError::BadChar { what, shown, offset }
}

/// docs/design.md#names: the rule for a pool. Each part between slashes is a name, so that no pool leads out of a
/// directory.
fn check_pool(what: &'static str, text: &str) -> Result<(), NameError> {
    if !text.contains('/') {
        return check_name(what, text);
    }
    check_length(what, text, limits::NAME_BYTES)?;
    for part in text.split('/') {
        if part.is_empty() {
            return Err(NameError::Shape { what, must: "have a name on both sides of each '/'" });
        }
        if part.starts_with('.') {
            return Err(NameError::Shape { what, must: "have no part that starts with a dot" });
        }
    }
    match text.char_indices().find(|&(_, c)| c.is_control()) {
        Some((offset, c)) => Err(bad_char(what, c, offset)),
        None => Ok(()),
    }
}

/// docs/design.md#names: 1-128 bytes of UTF-8, no control characters, no `/`, no leading `.`, not trimmed.
fn check_name(what: &'static str, text: &str) -> Result<(), NameError> {
    check_length(what, text, limits::NAME_BYTES)?;
    if text.starts_with('.') {
        return Err(NameError::LeadingDot { what });
    }
    match text.char_indices().find(|&(_, c)| c == '/' || c.is_control()) {
        Some((offset, c)) => Err(bad_char(what, c, offset)),
        None => Ok(()),
    }
}

/// Claim ids, runs and op ids: 1-64 of `A-Za-z0-9._:-`.
fn check_id(what: &'static str, text: &str) -> Result<(), NameError> {
    check_length(what, text, limits::ID_BYTES)?;
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | ':' | '-');
    match text.char_indices().find(|&(_, c)| !allowed(c)) {
        Some((offset, c)) => Err(bad_char(what, c, offset)),
        None => Ok(()),
    }
}

/// A text that is parsed once. The macro needs these in scope: `Arc`, `fmt`, `NameError`.
macro_rules! text_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses `text`. Texts are equal when their bytes are equal; nothing is trimmed or folded.
            ///
            /// # Errors
            /// What is wrong with the text, and where.
            pub fn parse(text: &str) -> Result<Self, NameError> {
                let check: fn(&'static str, &str) -> Result<(), NameError> = $check;
                check($what, text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text as given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }
    };
}

pub(super) use text_type;

text_type!(
    /// The name of a pool: one or more names with `/` between them. The slash only groups pools for people: a pool
    /// contains no other pool.
    PoolName, "pool name", check_pool
);
text_type!(
    /// The name of a lock within its pool.
    LockName, "lock name", check_name
);
text_type!(
    /// The id of a claim, chosen by the client; it is the idempotency key of the claim.
    ClaimId, "claim id", check_id
);
text_type!(
    /// A random value that each client process makes, and sends with each call about a claim.
    Run, "run", check_id
);
text_type!(
    /// The id of a changing call that is not about a claim; a repeat of the same id gets the same answer.
    OpId, "op id", check_id
);
text_type!(
    /// The name of a token that this server has made.
    TokenName, "token name", check_id
);
text_type!(
    /// Text of at most 256 bytes that a client says about itself: owner fields, keys, requestors. Any UTF-8 is kept as
    /// it is; code that shows it escapes it.
    Text, "text", |what, text| check_length(what, text, limits::OWNER_FIELD_BYTES)
);
text_type!(
    /// Instance vars of a pipeline: JSON text, compared as bytes.
    InstanceVars, "instance vars", |what, text| check_length(what, text, limits::INSTANCE_VARS_BYTES)
);
text_type!(
    /// Why something was done, for people.
    Reason, "reason", |what, text| check_length(what, text, limits::REASON_BYTES)
);
text_type!(
    /// Name or value of a label.
    Label, "label", |what, text| check_length(what, text, limits::LABEL_BYTES)
);

impl PoolName {
    /// The name of the single lock that an undeclared pool gets with its first claim: the last part of its name.
    #[must_use]
    pub fn own_lock(&self) -> LockName {
        match self.0.rsplit_once('/') {
            None => LockName(Arc::clone(&self.0)),
            Some((_, last)) => LockName(Arc::from(last)),
        }
    }

    /// The parts between the slashes.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('/')
    }

    /// The name of one file that stands for this pool. A `/` becomes `%2F`, and the `%` of a `%2F` or `%25` in the name
    /// becomes `%25`, so that no two pools have the same file name. It has at most 254 bytes.
    #[must_use]
    pub fn file_name(&self) -> String {
        self.0.replace("%25", "%2525").replace("%2F", "%252F").replace('/', "%2F")
    }
}

/// A pattern for names of pools: `*` stands for any text, also across slashes, `?` for one character.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamePattern(Arc<str>);

impl NamePattern {
    /// # Errors
    /// Says what is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        check_length("pattern", text, limits::NAME_BYTES)?;
        Ok(Self(text.into()))
    }

    #[must_use]
    pub fn matches(&self, name: &PoolName) -> bool {
        let (mut pattern, mut name) = (self.0.chars(), name.0.chars());
        // Where the last `*` is, and where the name goes on behind what it stands for so far.
        let mut last_star: Option<(std::str::Chars<'_>, std::str::Chars<'_>)> = None;
        loop {
            let here = name.clone();
            match (pattern.next(), name.next()) {
                (Some('*'), _) => {
                    last_star = Some((pattern.clone(), here.clone()));
                    name = here;
                }
                (Some(sign), Some(char)) if sign == '?' || sign == char => {}
                (None, None) => return true,
                _ => {
                    let Some((after_star, mut rest)) = last_star.take() else { return false };
                    if rest.next().is_none() {
                        return false;
                    }
                    last_star = Some((after_star.clone(), rest.clone()));
                    (pattern, name) = (after_star, rest);
                }
            }
        }
    }

    /// Whether it matches every name.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.chars().all(|sign| sign == '*')
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for NamePattern {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl LockName {
    /// The first name in order: where a listing starts.
    #[must_use]
    pub fn smallest() -> Self {
        Self(Arc::from(""))
    }

    /// A text after all names in order.
    #[must_use]
    pub(super) fn largest() -> Self {
        Self(Arc::from("\u{10FFFF}".repeat(limits::NAME_BYTES / 4 + 1)))
    }
}

impl ClaimId {
    /// The first id in order: where a listing starts.
    #[must_use]
    pub fn smallest() -> Self {
        Self(Arc::from("-"))
    }

    /// A text that was an id before.
    pub(super) fn known(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

impl Text {
    /// A text that was one before.
    pub(super) fn known(text: &str) -> Self {
        Self(Arc::from(text))
    }
}

/// The number of a step's changes: one counter for everything, which only grows (invariant I2). `epoch x 2^28 +
/// counter`, below 2^53, so that every JSON reader keeps it exact.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl Revision {
    /// Bits of the counter below the epoch.
    pub const COUNTER_BITS: u32 = 28;

    /// The number of epochs before revisions reach 2^53: enough until the year 2089.
    pub const EPOCHS: u64 = 1 << (53 - Self::COUNTER_BITS);

    /// The revision before the first one of `epoch`.
    #[must_use]
    pub fn start_of(epoch: u64) -> Self {
        Self(epoch << Self::COUNTER_BITS)
    }

    /// The epoch that this revision belongs to.
    #[must_use]
    pub fn epoch(self) -> u64 {
        self.0 >> Self::COUNTER_BITS
    }

    /// The next revision. After 2^28 revisions an epoch ends and the next begins.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The number that comes with a grant: the revision of the grant, so always larger than any fence before. A fence does
/// not prove that the hold still lives; `verify` answers that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fence(pub u64);

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A place in every queue at once: smaller is earlier. There is one counter for all pools, so sets cannot deadlock.
/// Consecutive tickets leave room for claims that are moved between them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(pub u64);

impl Ticket {
    /// The first ticket of a new store: there is room for a million moves to the front before it.
    pub const FIRST: Self = Self(1 << 40);

    /// The first place after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// The number of one parked request. It is unrelated to the claim and does not survive the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ParkId(pub u64);

/// What an operation asks for, as a number: equal requests have equal numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Asked(pub u64);

/// A SHA-256, made at the edge: over *what* a claim asks for and for which build, so that equal requests have equal
/// digests; or over a secret.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest(pub [u8; 32]);

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({:02x}{:02x}..)", self.0[0], self.0[1])
    }
}

/// The place of an entry: its revision, and its number within the revision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChangeKey {
    pub revision: Revision,
    pub seq: u32,
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn patterns_match_names_of_pools() {
        let table = [
            ("*", "a/b", true),
            ("dev-*", "dev-1", true),
            ("dev-*", "dev-", true),
            ("dev-*", "prod-1", false),
            ("*-dev", "a-dev", true),
            ("*-dev", "a-dev-b", false),
            ("a/*", "a/b/c", true),
            ("a?c", "aäc", true),
            ("a?c", "ac", false),
            ("a*b*c", "a-b-b-c", true),
            ("pool", "pool", true),
            ("pool", "pools", false),
        ];
        for (pattern, name, expected) in table {
            let matches = NamePattern::parse(pattern).unwrap().matches(&PoolName::parse(name).unwrap());
            assert_eq!(matches, expected, "{pattern} {name}");
        }
        assert!(NamePattern::parse("").is_err());
        let is_everything = |pattern: &str| NamePattern::parse(pattern).unwrap().is_everything();
        assert_eq!(["*", "**", "?", "a*", "*a"].map(is_everything), [true, true, false, false, false]);
    }

    #[test]
    fn listings_begin_before_all_names_and_end_after_them() {
        let last = LockName::parse(&"\u{10FFFF}".repeat(limits::NAME_BYTES / 4)).unwrap();
        let first = LockName::parse("\u{20}").unwrap();
        assert!(LockName::smallest() < first && last < LockName::largest());
        assert!(ClaimId::smallest() <= ClaimId::parse("-").unwrap());
    }

    #[test]
    fn fences_are_shown_as_numbers() {
        assert_eq!((Fence(4711).to_string(), Revision(4711).to_string()), ("4711".into(), "4711".into()));
    }

    #[test]
    fn names_follow_their_rules() {
        let long = "x".repeat(128);
        for good in ["a", "prod eu", " a ", "ä", "🔒", "a.b", "a%2fb", "-rf", long.as_str()] {
            assert_eq!(PoolName::parse(good).unwrap().as_str(), good);
            assert_eq!(LockName::parse(good).unwrap().as_str(), good);
        }
        let longer = "x".repeat(129);
        let cases = [
            ("", "lock name is empty"),
            (".", "lock name starts with a dot, which is reserved for files that are not locks"),
            ("..", "lock name starts with a dot, which is reserved for files that are not locks"),
            ("a/b", "lock name contains '/' at byte 1, which is not allowed"),
            ("a\0", "lock name contains character U+0000 at byte 1, which is not allowed"),
            ("ä\n", "lock name contains character U+000A at byte 2, which is not allowed"),
            ("\u{1b}[2J", "lock name contains character U+001B at byte 0, which is not allowed"),
            (longer.as_str(), "lock name is too long (129 bytes > max of 128)"),
        ];
        for (bad, message) in cases {
            assert_eq!(LockName::parse(bad).unwrap_err().to_string(), message);
        }
    }

    #[test]
    fn a_pool_may_be_nested() {
        let long = format!("{}a", "a/".repeat(63));
        for good in ["a/b", "a/b/c", "prod eu/a.b", " / ", long.as_str()] {
            assert_eq!(PoolName::parse(good).unwrap().as_str(), good);
        }
        let own = |pool: &str| PoolName::parse(pool).unwrap().own_lock().to_string();
        assert_eq!((own("a"), own("a/b"), own("a/b/c d")), ("a".to_owned(), "b".to_owned(), "c d".to_owned()));
        let longer = "a/".repeat(64) + "a";
        let dot = "pool name must have no part that starts with a dot";
        let empty = "pool name must have a name on both sides of each '/'";
        for (bad, message) in [
            ("/", empty),
            ("/a", empty),
            ("a/", empty),
            ("a//b", empty),
            ("../a", dot),
            ("a/..", dot),
            ("a/./b", dot),
            ("a/.b", dot),
            ("a/\n", "pool name contains character U+000A at byte 2, which is not allowed"),
            (longer.as_str(), "pool name is too long (129 bytes > max of 128)"),
        ] {
            assert_eq!(PoolName::parse(bad).unwrap_err().to_string(), message, "{bad:?}");
        }
    }

    #[test]
    fn no_two_pools_have_the_same_file_name() {
        let parts = ["a", "%", "2", "F", "25", "/"];
        let mut names = BTreeMap::new();
        for n in 0..6_usize.pow(5) {
            let text: String = (0..5).map(|at| parts[n / 6_usize.pow(at) % 6]).collect();
            let Ok(pool) = PoolName::parse(&text) else { continue };
            assert!(!pool.file_name().contains('/'));
            let other = names.insert(pool.file_name(), text.clone());
            assert!(other.as_ref().is_none_or(|other| *other == text), "{text} and {other:?}");
        }
        assert_eq!(PoolName::parse("a%2fb").unwrap().file_name(), "a%2fb", "as before pools could be nested");
        let longest = "/a".repeat(63) + "/%";
        assert_eq!(PoolName::parse(&longest[1..]).unwrap().file_name().len(), 253);
    }

    #[test]
    fn ids_are_plain() {
        assert!(ClaimId::parse("Az09._:-").is_ok());
        assert!(ClaimId::parse(&"x".repeat(64)).is_ok());
        for bad in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(65)] {
            assert!(ClaimId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn the_revision_after_an_epoch_begins_the_next() {
        let last = Revision(Revision::start_of(8).0 - 1);
        assert_eq!(last.epoch(), 7);
        assert_eq!(last.next(), Revision::start_of(8));
    }
}
