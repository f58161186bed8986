//! What a route is: one row of `table`, and how it reads a request.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;

use schemars::{Schema, SchemaGenerator};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::super::auth::access::{Caller, Right};
use super::super::http::{Request, Response};
use super::Routes;
use super::call::{Asked, Call};
use super::failure::Failure;
use crate::core::command::{Command, Reply};
use crate::wire::contracts::Contract;
use crate::wire::errors::Code;
use crate::wire::problems::{Problems, unknown};
use crate::wire::text::percent_decoded;

/// The methods that routes have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    /// `HEAD` is answered like `GET`, and the door leaves out the body.
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "GET" | "HEAD" => Self::Get,
            "PUT" => Self::Put,
            "POST" => Self::Post,
            "PATCH" => Self::Patch,
            "DELETE" => Self::Delete,
            _ => return None,
        })
    }

    pub fn word(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Put => "PUT",
            Self::Post => "POST",
            Self::Patch => "PATCH",
            Self::Delete => "DELETE",
        }
    }
}

/// Makes the schema of a type, by reference to the generator's definitions.
pub(in super::super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// How a route answers.
#[derive(Clone, Copy)]
pub(super) enum Run {
    /// From the published snapshot, at once.
    Look(fn(&Routes, &Call) -> Result<Response, Failure>),
    /// With one command to the engine, made from the request. The response shows the reply.
    Do(fn(&Call) -> Result<Command, Failure>, fn(&Routes, &Call, Reply) -> Result<Response, Failure>),
    /// With a conversation with the engine, and perhaps with others before it.
    Talk(for<'a> fn(&'a Routes, &'a Call<'a>) -> Talking<'a>),
}

/// What a client needs for a route, where an access file counts (docs/access.md).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Need {
    /// Nothing: it says whether the server works, or lets people sign in.
    Nothing,
    /// An identity, where the server asks for one. No right.
    Identity,
    /// Any right at all: it says nothing about pools.
    AnyRight,
    /// `look` on the pool with the name in this place. If there is none, it shows only what the client may look at.
    LookAt(Place),
    /// It shows only what the client may look at.
    Sight,
    /// What its command needs, which the engine decides (`auth::access::permit`): at least this right on some pool.
    Deed(Right),
    /// `look` on the pool in this part of the path, and what its command needs.
    DeedAt(&'static str, Right),
    /// This right on the whole server.
    Everywhere(Right),
}

/// Where the name of a pool is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Place {
    Path(&'static str),
    Query(&'static str),
}

/// Whether a request may be asked again when nobody knows what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Asked twice, it does what it does once, and has the same answer: it changes nothing, or an id says that it is the
    /// same request, that of its claim or that of the request itself.
    Always,
    /// If its body has the `id` of what it makes.
    WithId,
    /// If its body has the id of the operation, `by.op`.
    WithOp,
    Never,
}

impl Repeat {
    /// Whether a request with this body may be asked again.
    pub fn allows(self, body: &[u8]) -> bool {
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct Ids {
            id: Option<IgnoredAny>,
            by: Option<By>,
        }
        #[derive(Default, Deserialize)]
        #[serde(default)]
        struct By {
            op: Option<IgnoredAny>,
        }
        let ids = || serde_json::from_slice::<Ids>(body).unwrap_or_default();
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::WithId => ids().id.is_some(),
            Self::WithOp => ids().by.is_some_and(|by| by.op.is_some()),
        }
    }
}

/// A response that is being made.
pub(super) type Talking<'a> = Pin<Box<dyn Future<Output = Result<Response, Failure>> + Send + 'a>>;

/// A parameter of a query.
#[derive(Debug)]
pub(in super::super) struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    /// The JSON type of its value.
    pub kind: &'static str,
    pub required: bool,
}

/// One route.
pub(in super::super) struct Route {
    /// Who may use it.
    pub need: Need,
    pub method: Method,
    /// Segments in braces are parameters.
    pub path: &'static str,
    pub summary: &'static str,
    /// The contracts that the route belongs to. It is served if one of them is, and ignores what it does not know.
    /// Empty for our own API.
    pub contracts: &'static [Contract],
    pub query: &'static [Parameter],
    pub body: Option<SchemaOf>,
    /// Whether the body must not be empty.
    pub body_required: bool,
    /// The largest body, bytes. The door's own limit is higher.
    pub max_body: usize,
    /// The schema of a 200. `None` for any JSON.
    pub answer: Option<SchemaOf>,
    /// The media type of a 200. Refusals are always JSON.
    pub media: &'static str,
    /// The codes of its refusals, in addition to those that every route has.
    pub codes: &'static [Code],
    /// Codes that have another status here, because a contract needs it.
    pub statuses: &'static [(u16, Code)],
    /// Whether a server that follows may ask the next leader, too.
    pub(super) repeat: Repeat,
    /// Whether it belongs to the API, which `openapi.json` describes, and not to the web page.
    pub is_api: bool,
    pub(super) run: Run,
}

impl Route {
    /// For each segment of the template: the name of its parameter, if it is one.
    pub fn path_params(&self) -> impl Iterator<Item = Option<&'static str>> {
        self.path.split('/').skip(1).map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether the route serves a path, which is given in decoded segments.
    pub fn matches(&self, segments: &[Cow<'_, str>]) -> bool {
        let mut template = self.path;
        for segment in segments {
            let Some(rest) = template.strip_prefix('/') else { return false };
            let end = rest.bytes().position(|byte| byte == b'/').unwrap_or(rest.len());
            let (expected, next) = rest.split_at(end);
            if expected != segment && !expected.starts_with('{') {
                return false;
            }
            template = next;
        }
        template.is_empty()
    }

    /// Splits up a request for this route. `segments` are those of its path, decoded.
    pub(super) fn call<'r>(
        &self,
        request: &'r Request,
        segments: Vec<Cow<'r, str>>,
        caller: Caller,
        asked: &'r Asked,
    ) -> Result<Call<'r>, Failure> {
        let mut problems = Problems::default();
        let query = self.read_query(&request.query, &mut problems);
        let path = self.path_params().zip(segments).filter_map(|(name, value)| Some((name?, value))).collect();
        let max = self.max_body;
        if request.body.len() > max {
            let error = format!("the body has {} bytes, but at most {max} are allowed here", request.body.len());
            return Err(Failure::new(Code::TooLarge, error));
        }
        if self.contracts.is_empty() && self.body.is_none() && !matches!(&*request.body, b"" | b"{}") {
            problems.add("", "this call takes no body");
        }
        Ok(Call::new(request, caller, path, query, problems, asked))
    }

    /// The parameters of a query. Each may be given at most once and must be known to the route, but contracts ignore
    /// those that they do not know. `+` is a space, as in forms.
    fn read_query(&self, query: &str, problems: &mut Problems) -> BTreeMap<String, String> {
        let mut given = BTreeMap::new();
        if query.is_empty() {
            return given;
        }
        let known: Vec<&str> = self.query.iter().map(|parameter| parameter.name).collect();
        let ignores = !self.contracts.is_empty();
        let decoded = |text: &str| percent_decoded(&text.replace('+', " ")).map(Cow::into_owned);
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let name = decoded(name);
            if ignores && !name.as_ref().is_ok_and(|name| known.contains(&name.as_str())) {
                continue;
            }
            match name.and_then(|name| Ok((name, decoded(value)?))) {
                Err(problem) => problems.add("query", problem),
                Ok((name, _)) if !known.contains(&name.as_str()) => {
                    problems.add("query", unknown("parameter", &name, &known));
                }
                Ok((name, _)) if given.contains_key(&name) => problems.add(&name, "is given twice"),
                Ok((name, value)) => {
                    given.insert(name, value);
                }
            }
        }
        given
    }
}

/// A guarded route without parameters, body or refusals. The table fills in the rest. Every route is made by this or by
/// [`public`], so every route says who may use it.
pub(super) const fn guarded(need: Need, method: Method, path: &'static str, summary: &'static str, run: Run) -> Route {
    Route {
        need,
        method,
        path,
        summary,
        contracts: &[],
        query: &[],
        body: None,
        body_required: false,
        max_body: usize::MAX,
        answer: None,
        media: "application/json",
        codes: &[],
        statuses: &[],
        repeat: if matches!(method, Method::Get) { Repeat::Always } else { Repeat::Never },
        is_api: true,
        run,
    }
}

/// A route without authentication. A test lists all of them.
pub(super) const fn public(method: Method, path: &'static str, summary: &'static str, run: Run) -> Route {
    guarded(Need::Nothing, method, path, summary, run)
}

pub(super) const fn parameter(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind, required: false }
}

pub(super) const fn required(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind, required: true }
}
