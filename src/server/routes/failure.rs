//! The one mapping from errors to codes, statuses and advice.

use std::sync::Arc;

use super::super::build_watch::NotAdmitted;
use super::super::engine::EngineError;
use super::super::http::Response;
use super::super::views;
use super::respond;
use crate::core::command::{Refusal, Reply};
use crate::wire::api::{ClaimView, ErrorView};
use crate::wire::errors::Code;
use crate::wire::problems::{Problems, quoted};

/// An error answer.
#[derive(Debug)]
pub(super) struct Failure {
    pub code: Code,
    /// The status of the code, unless a contract needs a different one.
    pub status: u16,
    pub error: String,
    pub problems: Vec<String>,
    pub claim: Option<Box<ClaimView>>,
    /// The methods of this path, for [`Code::MethodNotAllowed`].
    pub allow: Option<String>,
    /// Why the server itself failed. For the log, never for the client.
    pub cause: Option<Arc<str>>,
}

impl Failure {
    pub fn new(code: Code, error: impl Into<String>) -> Self {
        let (error, problems) = (error.into(), Vec::new());
        Self { code, status: code.status(), error, problems, claim: None, allow: None, cause: None }
    }

    /// A request with these problems.
    pub fn bad(problems: Vec<String>) -> Self {
        let error = match problems.as_slice() {
            [] => "the request is wrong".to_owned(),
            [only] => format!("the request is wrong: {only}"),
            [first, ..] => format!("the request is wrong in {} ways, the first: {first}", problems.len()),
        };
        Self { problems, ..Self::new(Code::BadRequest, error) }
    }

    /// A refusal of a name that does not exist; `name` is one that does.
    pub fn meant(refusal: Refusal, name: &str) -> Self {
        let (error, of_refusal) = (format!("{refusal}: did you mean {}?", quoted(name)), Self::from(refusal));
        Self { error, ..of_refusal }
    }

    /// The engine gave an answer that does not belong to the command. This is a bug.
    pub fn unexpected(reply: &Reply) -> Self {
        let kind = match reply {
            Reply::Claim { .. } => "a claim",
            Reply::Busy(_) => "busy",
            Reply::Ended { .. } => "ended",
            Reply::Marked { .. } => "marked",
            Reply::Done { .. } => "done",
            Reply::Latch(_) => "a latch",
            Reply::Token(_) => "a token",
            Reply::Nothing => "nothing",
        };
        Self::new(
            Code::Internal,
            format!("the engine's answer ({kind}) does not fit the request: this is a bug in locker"),
        )
    }

    /// What only the store remembers cannot be read.
    pub fn unreadable(error: anyhow::Error) -> Self {
        let cause = Some(Arc::from(format!("{error:#}")));
        let error = "the server cannot read this from its store: its log says why; try again";
        Self { cause, ..Self::new(Code::Internal, error) }
    }

    pub fn into_response(self) -> Response {
        let Self { code, status, error, problems, claim, allow, cause: _ } = self;
        let view = ErrorView { error, code, problems, claim: claim.map(|claim| *claim) };
        let mut response = respond(status, &view);
        response.headers.extend(allow.map(|methods| ("allow", methods)));
        response.headers.extend(retry_after(code).map(|seconds| ("retry-after", seconds.to_owned())));
        response
    }
}

/// The number of seconds after which a retry makes sense, if it makes sense at all.
fn retry_after(code: Code) -> Option<&'static str> {
    match code {
        Code::StoreFailed | Code::Unavailable | Code::QueueFull | Code::ConcourseUnavailable => Some("5"),
        Code::NoLeader => Some("1"),
        // Somebody must make room first.
        Code::Limit => Some("60"),
        _ => None,
    }
}

impl From<EngineError> for Failure {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::StoreFailed { cause } => Self { cause: Some(cause), ..Self::new(Code::StoreFailed, text) },
            EngineError::Unreadable { cause } => Self { cause: Some(cause), ..Self::new(Code::Internal, text) },
            EngineError::Overloaded => Self::new(Code::Unavailable, text),
            EngineError::Refused(refusal) => refusal.into(),
            EngineError::Forbidden(error) => Self::new(Code::Forbidden, error),
        }
    }
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let (code, advice) = code_and_advice(&refusal);
        let error = if advice.is_empty() { refusal.to_string() } else { format!("{refusal}; {advice}") };
        let claim = match &refusal {
            Refusal::Ended { ended } => Some(Box::new(views::ended(ended))),
            _ => None,
        };
        Self { claim, ..Self::new(code, error) }
    }
}

impl From<NotAdmitted> for Failure {
    fn from(NotAdmitted { code, error }: NotAdmitted) -> Self {
        Self::new(code, error)
    }
}

impl From<Problems> for Failure {
    fn from(problems: Problems) -> Self {
        Self::bad(problems.into_list())
    }
}

/// The code of a refusal, and the next step where the text of the refusal does not give one.
fn code_and_advice(refusal: &Refusal) -> (Code, &'static str) {
    match refusal {
        Refusal::NoSuchPool { .. } => (Code::NoSuchPool, "check the name, or declare it first (locker pool set)"),
        Refusal::MayNotMake { .. } => {
            (Code::NoSuchPool, "check the name, or declare it first (locker pool set NAME); see --claims-make")
        }
        Refusal::NoSuchLock { .. } => (Code::NoSuchLock, "check the name, or add it first (locker lock add)"),
        Refusal::NoSuchClaim { .. } => (Code::NoSuchClaim, "check the id; ended claims are forgotten after a while"),
        Refusal::TooMany { .. } => (Code::TooMany, "add locks (locker lock add), or ask for what the pool has"),
        Refusal::DifferentRequest { .. } | Refusal::DifferentOperation { .. } => (Code::DifferentRequest, ""),
        Refusal::SupersededRun { .. } => (Code::SupersededRun, ""),
        Refusal::TooManyRuns { .. } => (Code::TooManyRuns, ""),
        Refusal::NoBuild { .. } => (Code::Unprocessable, "name `cluster` and `build_id`, or ask for another scope"),
        Refusal::NotGranted { .. } => (Code::NotGranted, "it waits: its client asks again with PUT"),
        Refusal::NotWaiting { .. } => {
            (Code::NotWaiting, "only waiting claims are moved or cancelled; look at it first")
        }
        Refusal::WrongFence { .. } => (Code::WrongFence, ""),
        Refusal::Ended { .. } => (Code::Ended, "it holds nothing; ask again with a new id"),
        Refusal::LockExists { .. } => (Code::LockExists, "change it instead, or choose another name"),
        Refusal::LockHeld { .. } => (Code::LockHeld, "release that claim first, or name it if it is yours"),
        Refusal::NotHolder { .. } => (Code::NotHolder, "look up who holds it (locker status)"),
        Refusal::PoolInUse { .. } => (Code::PoolInUse, "let them end first"),
        Refusal::MixedOrders { .. } => {
            (Code::MixedOrders, "ask for them one after the other, or set one order for all")
        }
        Refusal::OrderOfOne { .. } => (Code::MixedOrders, "ask for them one after the other, or set another order"),
        Refusal::OrderInUse { .. } => (Code::PoolInUse, "let them end first"),
        Refusal::QueueFull { .. } => (Code::QueueFull, "ask again later, or raise max_queue"),
        Refusal::NoSuchLatch { .. } => (Code::NoSuchLatch, "check the id; it may have been deleted"),
        Refusal::LatchExists { .. } => (Code::LatchExists, "leave the id out, or make a new one"),
        Refusal::LatchReleased { .. } => (Code::LatchReleased, "its first ending stands; look at it with GET"),
        Refusal::TokenExists { .. } => (Code::TokenExists, ""),
        Refusal::NoSuchToken { .. } => (Code::NoSuchToken, "check the name (locker token list)"),
        Refusal::Limit { .. } => (Code::Limit, "remove what is no longer needed"),
    }
}
