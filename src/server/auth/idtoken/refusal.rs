//! Why a token is refused, and what to do. No text repeats a token; what its claims say is quoted only where that helps.

use std::time::Duration;

use super::limits::{IDTOKEN_BYTES, IDTOKEN_LEEWAY_SECONDS};
use crate::wire::problems::quoted;

/// Why a token proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It has more bytes than any token.
    #[error("the token is longer than {IDTOKEN_BYTES} bytes: send the id token alone")]
    TooLong,
    /// It is no signed token. Says what is wrong with it.
    #[error("the token is not a signed id token ({0}): send it exactly as its issuer made it")]
    Malformed(&'static str),
    /// `alg: none`.
    #[error("the token is not signed: only signed tokens prove anything")]
    Unsigned,
    /// Its algorithm is not one that the settings allow for its issuer.
    #[error(
        "the token is signed with {}, and of issuer {issuer} only {allowed} is accepted: make the issuer use that, or add \
         the algorithm to `algorithms` of the issuer", quoted(.algorithm)
    )]
    Algorithm { issuer: String, algorithm: String, allowed: String },
    /// No issuer of this name is configured.
    #[error(
        "the token is from the issuer {}, which is not among the issuers of this server: check `issuer` in the access \
         file, which must be exactly the same text", quoted(.0)
    )]
    OtherIssuer(String),
    /// It does not say which key signed it, and there are several.
    #[error("the token does not name its key (`kid`), and issuer {issuer} has {keys} keys that fit: this cannot work")]
    NoKeyNamed { issuer: String, keys: usize },
    /// Its key is not among those of the issuer, which were fetched after it was made.
    #[error(
        "the token is signed with a key that issuer {0} does not publish: get a new token; if that is refused too, \
         another server uses the name of this issuer"
    )]
    UnknownKey(String),
    /// Its key may be a new one. The keys are being fetched.
    #[error("the token is signed with a key of issuer {issuer} that is not known yet: the keys are fetched, ask again")]
    KeyNotYetKnown { issuer: String, retry_after: Duration },
    /// The keys of the issuer could not be fetched since the start.
    #[error("the keys of issuer {issuer} are not known yet ({why}): ask again once the issuer can be reached")]
    NoKeys { issuer: String, why: String, retry_after: Duration },
    /// The key did not make this signature.
    #[error("the signature of the token is wrong: somebody has changed it, or it was cut; get a new token")]
    Signature,
    /// It is meant for somebody else.
    #[error(
        "the token is meant for {found}, and this server accepts {accepted}: set the audience where the token is made, \
         or `audience` of issuer {issuer}"
    )]
    Audience { issuer: String, found: String, accepted: String },
    /// It was good until this many seconds ago, by the clock of this server.
    #[error(
        "the token expired {} ago: get a new one, as each step of a pipeline does; if it is new, the clock of this \
         server is ahead of its issuer's", age(*.0)
    )]
    Expired(i64),
    /// It is good only in this many seconds.
    #[error(
        "the token is good only in {} (`nbf`): use it later; if it should be good now, the clocks of its issuer and of \
         this server differ", age(*.0)
    )]
    NotYetValid(i64),
    /// It says that it will be made in this many seconds.
    #[error(
        "the token was made {} in the future: the clocks of its issuer and of this server differ by more than \
         {IDTOKEN_LEEWAY_SECONDS} s, set them right", age(*.0)
    )]
    FromTheFuture(i64),
    /// A claim that every token must have is missing, or is not what it must be.
    #[error("the token has no usable claim {}: is it an id token of issuer {issuer}?", quoted(.claim))]
    Claim { issuer: String, claim: String },
    /// A claim does not have the value that the settings require.
    #[error("the token says {} for the claim {}, which `require` of issuer {issuer} does not allow", .found, quoted(.claim))]
    Required { issuer: String, claim: String, found: String },
}

impl Refusal {
    /// A stable word for logs and figures.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match self {
            Self::TooLong => "too_long",
            Self::Malformed(_) => "malformed",
            Self::Unsigned => "unsigned",
            Self::Algorithm { .. } => "algorithm",
            Self::OtherIssuer(_) => "other_issuer",
            Self::NoKeyNamed { .. } => "no_key_named",
            Self::UnknownKey(_) => "unknown_key",
            Self::KeyNotYetKnown { .. } => "key_not_yet_known",
            Self::NoKeys { .. } => "no_keys",
            Self::Signature => "signature",
            Self::Audience { .. } => "audience",
            Self::Expired(_) => "expired",
            Self::NotYetValid(_) => "not_yet_valid",
            Self::FromTheFuture(_) => "from_the_future",
            Self::Claim { .. } => "claim",
            Self::Required { .. } => "required",
        }
    }

    /// Whether the token was true, and only time has passed since: it has expired, its key has left, or the keys of its
    /// issuer are not here yet after a start. Where the settings have changed, they count.
    #[must_use]
    pub fn is_of_time(&self) -> bool {
        matches!(self, Self::Expired(_) | Self::UnknownKey(_) | Self::KeyNotYetKnown { .. } | Self::NoKeys { .. })
    }

    /// How long to wait before the same token may be accepted. `None` if waiting does not help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::KeyNotYetKnown { retry_after, .. } | Self::NoKeys { retry_after, .. } => Some(*retry_after),
            _ => None,
        }
    }
}

/// A number of seconds for people, without more detail than helps.
fn age(seconds: i64) -> String {
    let seconds = seconds.unsigned_abs();
    let rounded = match seconds {
        0..600 => seconds,
        600..86_400 => seconds / 60 * 60,
        _ => seconds / 3_600 * 3_600,
    };
    humantime::format_duration(Duration::from_secs(rounded)).to_string()
}
