//! Where a request comes from, as far as that is known for certain: data for people who ask later. No rule uses it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::limits;
use super::names::Digest;

/// What a client has proven about itself. More kinds of proof become more variants; each has a word of its own.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Identity {
    /// The subject of a verified client certificate, in the form of RFC 4514 (`CN=ci,O=example`).
    Certificate(String),
    /// The user of HTTP Basic.
    User(String),
    /// The name of a token that this server has made.
    Token(String),
    /// A step of a build, by a token that its issuer has signed. No token names a build. In a box: most identities are one
    /// name, and each waiting claim and each parked request keeps one.
    Build(Box<Job>),
}

/// The job that a step belongs to, as its issuer says.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Job {
    /// The name of the issuer in the access file.
    pub issuer: String,
    pub team: String,
    pub pipeline: Option<String>,
    /// A check of a resource has none.
    pub job: Option<String>,
}

impl Identity {
    /// Whether what the one has made also belongs to the other: the same user or certificate, or a build of the same
    /// pipeline.
    #[must_use]
    pub fn is_same_owner(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Build(a), Self::Build(b)) => {
                a.pipeline.is_some() && (&a.issuer, &a.team, &a.pipeline) == (&b.issuer, &b.team, &b.pipeline)
            }
            (a, b) => a == b,
        }
    }
}

impl Identity {
    /// The length of its names.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Certificate(name) | Self::User(name) | Self::Token(name) => name.len(),
            Self::Build(of) => {
                let Job { issuer, team, pipeline, job } = &**of;
                let parts = [Some(issuer), Some(team), pipeline.as_ref(), job.as_ref()];
                parts.into_iter().flatten().map(String::len).sum()
            }
        }
    }
}

/// Whether what the one has made belongs to the other. Those who have proven nothing are the same.
#[must_use]
pub fn is_same_owner(a: Option<&Identity>, b: Option<&Identity>) -> bool {
    match (a, b) {
        (None, None) => true,
        (Some(a), Some(b)) => a.is_same_owner(b),
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// `user:NAME`, `token:NAME`, `certificate:SUBJECT`, `build:ISSUER/TEAM/PIPELINE/JOB`. Slashes and percent signs in the parts of a
/// build are percent-encoded.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Certificate(subject) => write!(f, "certificate:{subject}"),
            Self::User(name) => write!(f, "user:{name}"),
            Self::Token(name) => write!(f, "token:{name}"),
            Self::Build(of) => {
                let Job { issuer, team, pipeline, job } = &**of;
                write!(f, "build:{}/{}", encoded(issuer), encoded(team))?;
                [pipeline, job].into_iter().flatten().try_for_each(|part| write!(f, "/{}", encoded(part)))
            }
        }
    }
}

impl FromStr for Identity {
    type Err = &'static str;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            Some(("certificate", subject)) => Ok(Self::Certificate(subject.to_owned())),
            Some(("user", name)) => Ok(Self::User(name.to_owned())),
            Some(("token", name)) => Ok(Self::Token(name.to_owned())),
            Some(("build", parts)) => {
                let mut parts = parts.split('/').map(decoded);
                let (Some(issuer), Some(team)) = (parts.next(), parts.next()) else { return Err(NO_IDENTITY) };
                Ok(Self::Build(Box::new(Job { issuer, team, pipeline: parts.next(), job: parts.next() })))
            }
            _ => Err(NO_IDENTITY),
        }
    }
}

const NO_IDENTITY: &str = "is not an identity such as user:NAME";

/// The part of a build's identity without what separates parts.
#[must_use]
pub fn encoded(part: &str) -> String {
    part.replace('%', "%25").replace('/', "%2F")
}

/// The part that [`encoded`] was given.
#[must_use]
pub fn decoded(part: &str) -> String {
    part.replace("%2F", "/").replace("%25", "%")
}

/// Where a request comes from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Origin {
    /// Who proved to be behind it; nobody where the server asks for no proof.
    pub proved: Option<Identity>,
    /// The address that it came from: of the client, or of the proxy in front of the server.
    pub address: Option<String>,
    /// The id of the request, as the client and the log have it. Not stored.
    pub request: Option<String>,
    /// The rule of the access file that allowed it, by its name or line; nothing where there is no such file.
    pub rule: Option<Arc<str>>,
    /// Rights count here, and this request has none over the claims of others.
    pub is_confined: bool,
    /// The hash of the token that it showed. Stored with claims only, never shown.
    pub credential: Option<Digest>,
}

impl Origin {
    /// With names cut to the length that is stored ([`limits::OWNER_FIELD_BYTES`]).
    #[must_use]
    pub fn new(proved: Option<&Identity>, address: &str, request: &str) -> Self {
        let proved = proved.map(|identity| match identity {
            Identity::Certificate(subject) => Identity::Certificate(short(subject)),
            Identity::User(name) => Identity::User(short(name)),
            Identity::Token(name) => Identity::Token(short(name)),
            Identity::Build(of) => Identity::Build(Box::new(Job {
                issuer: short(&of.issuer),
                team: short(&of.team),
                pipeline: of.pipeline.as_deref().map(short),
                job: of.job.as_deref().map(short),
            })),
        });
        Self { proved, address: Some(short(address)), request: Some(short(request)), ..Self::default() }
    }

    /// Whether a claim that this request makes may reach one of that origin: end it in its favour, or share its hold.
    /// Everything may, unless rights say otherwise.
    #[must_use]
    pub fn may_reach(mine: Option<&Arc<Self>>, theirs: Option<&Arc<Self>>) -> bool {
        let proved = |origin: Option<&Arc<Self>>| origin.and_then(|origin| origin.proved.clone());
        !mine.is_some_and(|mine| mine.is_confined) || is_same_owner(proved(mine).as_ref(), proved(theirs).as_ref())
    }
}

fn short(text: &str) -> String {
    let end = (0..=text.len().min(limits::OWNER_FIELD_BYTES)).rev().find(|end| text.is_char_boundary(*end));
    text[..end.unwrap_or_default()].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build(team: &str, pipeline: Option<&str>, job: Option<&str>) -> Identity {
        let text = |text: &str| text.to_owned();
        Identity::Build(Box::new(Job {
            issuer: text("ci"),
            team: text(team),
            pipeline: pipeline.map(text),
            job: job.map(text),
        }))
    }

    #[test]
    fn builds_of_one_pipeline_have_the_same_owner() {
        let (p, user) = (build("a", Some("p"), Some("j")), Identity::User("a".to_owned()));
        let other = Identity::Build(Box::new(Job {
            issuer: "x".into(),
            team: "a".into(),
            pipeline: Some("p".into()),
            job: None,
        }));
        for (a, b, same) in [
            (Some(&p), Some(&build("a", Some("p"), Some("k"))), true),
            (Some(&p), Some(&build("a", Some("q"), Some("j"))), false),
            (Some(&p), Some(&build("b", Some("p"), Some("j"))), false),
            (Some(&p), Some(&other), false),
            (Some(&build("a", None, None)), Some(&build("a", None, None)), false),
            (Some(&user), Some(&user), true),
            (Some(&user), Some(&Identity::Certificate("a".to_owned())), false),
            (Some(&user), Some(&Identity::Token("a".to_owned())), false),
            (Some(&Identity::Token("a".to_owned())), Some(&Identity::Token("a".to_owned())), true),
            (None, None, true),
            (None, Some(&user), false),
        ] {
            assert_eq!((is_same_owner(a, b), is_same_owner(b, a)), (same, same), "{a:?} {b:?}");
        }
    }

    #[test]
    fn identities_are_read_as_they_are_shown() {
        let identities = [
            Identity::User("a:b".to_owned()),
            Identity::Token("ci-1".to_owned()),
            Identity::Certificate("CN=ci".to_owned()),
            build("a/b%2F", Some("%"), Some("j")),
            build("a", Some("p"), None),
            build("a", None, None),
        ];
        for identity in identities {
            assert_eq!(identity.to_string().parse(), Ok(identity));
        }
        assert_eq!(build("a/b", Some("p"), Some("j")).to_string(), "build:ci/a%2Fb/p/j");
        assert!("build:ci".parse::<Identity>().is_err());
        assert!("somebody".parse::<Identity>().is_err());
        let long = Identity::User("ä".repeat(200));
        let Some(Identity::User(kept)) = Origin::new(Some(&long), "", "").proved else { panic!() };
        assert_eq!(kept, "ä".repeat(128));
    }
}
