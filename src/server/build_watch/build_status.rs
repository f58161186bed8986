//! What the answer of a Concourse says about a build: the table in `docs/operations.md#what-it-concludes`.
//!
//! Only a certain answer frees anything. Every other answer is [`BuildStatus::Unknown`]: not knowing that a build is
//! alive does not mean that it is dead.

use super::places;
use super::schedule::BuildNo;
use crate::core::claim::{BuildEnd, Owner};
use crate::core::names::Text;
use crate::core::time::WallMs;
use crate::wire::atc::{Build, Status};
use crate::wire::escape::escape;
use crate::wire::problems::quoted;
use crate::wire::shorten;

/// An answer before it is interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    pub status: u16,
    pub body: Vec<u8>,
    /// Where a redirect leads. It is never followed.
    pub location: Option<String>,
}

/// Which build a question is about.
#[derive(Debug, Clone, Copy)]
pub enum Question<'o> {
    Id(BuildNo),
    /// The build that this owner names by team, pipeline, job and number.
    Place(&'o Owner),
}

impl Question<'_> {
    /// The path of the answer. `None` if the owner does not name a build in full.
    #[must_use]
    pub fn path(self) -> Option<String> {
        match self {
            Self::Id(id) => Some(format!("/api/v1/builds/{id}")),
            Self::Place(owner) => places::path(owner),
        }
    }

    /// Says in what way the answer is about another build, if it is.
    fn differs(self, build: &Build) -> Option<String> {
        match self {
            Self::Id(id) => {
                (build.id != id).then(|| format!("asked for build {id}, it answered with build {}", build.id))
            }
            Self::Place(owner) => {
                let (said, is) = (owner.build_name.as_ref().map(Text::as_str), build.name.as_deref());
                let number = (said != is).then(|| "its number is another one".to_owned());
                let why = number.or_else(|| difference(owner, build))?;
                Some(format!("it answered with another build than the one that was asked for: {why}"))
            }
        }
    }
}

/// What was seen of a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Build(Box<Build>),
    /// 404: there is no such build. Concourse says this to every client, before it checks any login.
    Missing,
    Unknown(Trouble),
}

/// What that means for the locks that the build holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BuildStatus {
    Alive,
    /// It has ended, at this time if Concourse says when.
    Over(BuildEnd, Option<WallMs>),
    /// Not found. It is gone if it is still not found a while later.
    Missing,
    Unknown(Trouble),
}

/// Why a build could not be seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub cause: Cause,
    /// For people: what happened and what to do. Escaped, without secrets.
    pub text: String,
}

/// The kind of trouble.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// No connection, no answer in time, a broken answer, or a certificate that is not trusted.
    NoAnswer,
    /// 5xx and 429: the server itself says that it cannot answer.
    Failing,
    /// An answer that Concourse does not give: another server answers, perhaps a proxy.
    NotConcourse,
    /// The server's login or token was not accepted, or cannot be read.
    LoginRefused,
    /// 401 without a login: the pipeline is not exposed.
    LoginNeeded,
    /// 403: the login is not allowed to see this build.
    Forbidden,
}

impl Cause {
    /// The stable word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::NoAnswer => "no_answer",
            Self::Failing => "failing",
            Self::NotConcourse => "not_concourse",
            Self::LoginRefused => "login_refused",
            Self::LoginNeeded => "login_needed",
            Self::Forbidden => "forbidden",
        }
    }

    /// Whether other builds of this Concourse may still be seen.
    #[must_use]
    pub fn is_about_one_build(self) -> bool {
        matches!(self, Self::LoginNeeded | Self::Forbidden)
    }
}

impl Trouble {
    pub fn new(cause: Cause, text: impl Into<String>) -> Self {
        Self { cause, text: text.into() }
    }
}

impl Seen {
    /// Interprets the answer to this question. `logged_in` says whether a token was sent.
    #[must_use]
    pub fn read(answer: &Answer, question: Question<'_>, logged_in: bool) -> Self {
        match (answer.status, logged_in) {
            (200, _) => match serde_json::from_slice::<Build>(&answer.body) {
                Ok(build) => match question.differs(&build) {
                    None => Self::Build(Box::new(build)),
                    Some(why) => Self::Unknown(Trouble::new(Cause::NotConcourse, why)),
                },
                Err(error) => Self::Unknown(unreadable(&error)),
            },
            (404, _) => Self::Missing,
            (401, false) => Self::Unknown(Trouble::new(
                Cause::LoginNeeded,
                "401: the pipeline is not exposed, and the server has no login for it; give it one in --concourse",
            )),
            (401, true) => Self::Unknown(Trouble::new(
                Cause::LoginRefused,
                "401 for a token that is fresh: look at user and token of --concourse, and at the clocks",
            )),
            (403, _) => Self::Unknown(Trouble::new(
                Cause::Forbidden,
                "403: the server's user is not allowed to see it; give that user the role viewer in the build's team",
            )),
            _ => Self::Unknown(answer.trouble()),
        }
    }

    /// What this means for the locks that the build holds.
    #[must_use]
    pub fn status(&self) -> BuildStatus {
        match self {
            Self::Missing => BuildStatus::Missing,
            Self::Unknown(trouble) => BuildStatus::Unknown(trouble.clone()),
            Self::Build(build) => match (build.status, build.end_time.map(|end| WallMs(end.saturating_mul(1_000)))) {
                (Status::Pending | Status::Started, _) => BuildStatus::Alive,
                (Status::Succeeded, ended) => BuildStatus::Over(BuildEnd::Succeeded, ended),
                (Status::Failed, ended) => BuildStatus::Over(BuildEnd::Failed, ended),
                (Status::Errored, ended) => BuildStatus::Over(BuildEnd::Errored, ended),
                (Status::Aborted, ended) => BuildStatus::Over(BuildEnd::Aborted, ended),
            },
        }
    }
}

impl Answer {
    /// The trouble behind an unexpected answer.
    #[must_use]
    pub fn trouble(&self) -> Trouble {
        let status = self.status;
        match (status, &self.location) {
            (300..400, Some(place)) => {
                let place = escape(place.split(['?', '#']).next().unwrap_or_default());
                Trouble::new(
                    Cause::NotConcourse,
                    format!("{status}: it redirects to {place}; name the address behind that in --concourse"),
                )
            }
            (429 | 500.., _) => Trouble::new(Cause::Failing, format!("{status}: Concourse cannot answer now")),
            _ => Trouble::new(
                Cause::NotConcourse,
                format!("{status}, which Concourse does not say here; does the URL lead to Concourse, or to a proxy?"),
            ),
        }
    }
}

/// A 200 that cannot be read.
pub(super) fn unreadable(error: &serde_json::Error) -> Trouble {
    // The error names a place and what was expected there. The only value in it can be a status word.
    let error = escape(&error.to_string());
    Trouble::new(Cause::NotConcourse, format!("an answer that is not Concourse's ({error})"))
}

/// The first detail in which the client and its Concourse differ.
pub(super) fn difference(owner: &Owner, build: &Build) -> Option<String> {
    let fields = [
        ("team", owner.team.as_ref(), build.team_name.as_deref()),
        ("pipeline", owner.pipeline.as_ref(), build.pipeline_name.as_deref()),
        ("job", owner.job.as_ref(), build.job_name.as_deref()),
    ];
    for (what, said, is) in fields {
        let same = |said: &&str| is.is_some_and(|is| *said == is || *said == shorten::field(is));
        if let Some(said) = said.map(Text::as_str).filter(|said| !same(said)) {
            let is = is.map_or_else(|| "none".to_owned(), quoted);
            return Some(format!("its {what} is {is}, not {} as the claim says", quoted(said)));
        }
    }
    let said = owner.instance_vars.as_ref().map(ToString::to_string);
    let is = build.pipeline_instance_vars.as_ref();
    let differs = said.is_some_and(|said| !shorten::means_instance_vars(&said, is));
    differs.then(|| "the instance vars of its pipeline differ from those in the claim".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(status: u16, body: &str, logged_in: bool) -> Seen {
        Seen::read(
            &Answer { status, body: body.into(), location: Some("http://else/?token=x".into()) },
            Question::Id(7),
            logged_in,
        )
    }

    #[test]
    fn the_status_table() {
        let words = [
            ("pending", BuildStatus::Alive),
            ("started", BuildStatus::Alive),
            ("succeeded", BuildStatus::Over(BuildEnd::Succeeded, Some(WallMs(9_000)))),
            ("failed", BuildStatus::Over(BuildEnd::Failed, Some(WallMs(9_000)))),
            ("errored", BuildStatus::Over(BuildEnd::Errored, Some(WallMs(9_000)))),
            ("aborted", BuildStatus::Over(BuildEnd::Aborted, Some(WallMs(9_000)))),
        ];
        for (word, expected) in words {
            for logged_in in [true, false] {
                let body =
                    format!(r#"{{"id":7,"team_name":"main","name":"1","status":"{word}","api_url":"/","end_time":9}}"#);
                assert_eq!(seen(200, &body, logged_in).status(), expected, "{word}");
            }
        }
        assert_eq!(seen(404, "", true).status(), BuildStatus::Missing);
        assert_eq!(seen(404, "<html>", false).status(), BuildStatus::Missing);
    }

    #[test]
    fn everything_else_is_unknown() {
        let good = r#"{"id":7,"status":"aborted"}"#;
        let table = [
            (401, good, true, Cause::LoginRefused),
            (401, good, false, Cause::LoginNeeded),
            (403, good, true, Cause::Forbidden),
            (500, good, true, Cause::Failing),
            (502, "", true, Cause::Failing),
            (503, good, true, Cause::Failing),
            (429, good, true, Cause::Failing),
            (204, "", true, Cause::NotConcourse),
            (302, good, true, Cause::NotConcourse),
            (400, "", true, Cause::NotConcourse),
            (410, "", true, Cause::NotConcourse),
            (200, "", true, Cause::NotConcourse),
            (200, "<html>", true, Cause::NotConcourse),
            (200, "[]", true, Cause::NotConcourse),
            (200, r#"{"id":7}"#, true, Cause::NotConcourse),
            (200, r#"{"id":7,"status":"paused"}"#, true, Cause::NotConcourse),
            (200, r#"{"id":7,"status":"Aborted"}"#, true, Cause::NotConcourse),
            (200, r#"{"id":8,"status":"aborted"}"#, true, Cause::NotConcourse),
            (200, r#"{"id":7,"status":"abor"#, true, Cause::NotConcourse),
        ];
        for (status, body, logged_in, cause) in table {
            match seen(status, body, logged_in).status() {
                BuildStatus::Unknown(trouble) => {
                    assert_eq!(trouble.cause, cause, "{status} {body}");
                    assert!(!trouble.text.contains("token=x"), "{}", trouble.text);
                }
                other => panic!("{status} {body}: {other:?}"),
            }
        }
    }
}
