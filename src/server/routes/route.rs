//! What a route is: a row of `table`.

use schemars::{Schema, SchemaGenerator};

use super::super::auth::Access;
use super::super::http::Response;
use super::Routes;
use super::call::Call;
use super::failure::Failure;
use crate::wire::contracts::Contract;
use crate::wire::errors::Code;

/// A method that some route has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Method {
    Get,
    Put,
    Post,
    Patch,
    Delete,
}

impl Method {
    /// `HEAD` is answered like `GET`; the body is left out by the door.
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

type Run = fn(&Routes, &Call) -> Result<Response, Failure>;

/// A parameter of a query.
#[derive(Debug)]
pub(in super::super) struct Parameter {
    pub name: &'static str,
    pub about: &'static str,
    /// JSON type of its value.
    pub kind: &'static str,
    pub required: bool,
}

/// One route.
pub(in super::super) struct Route {
    /// Who may use it.
    pub access: Access,
    pub method: Method,
    /// Segments in braces are parameters.
    pub path: &'static str,
    pub summary: &'static str,
    /// The contracts that it belongs to: it is there when one of them is served, and it ignores what it does not know.
    /// Empty for our own API.
    pub contracts: &'static [Contract],
    pub query: &'static [Parameter],
    pub body: Option<SchemaOf>,
    /// Whether an empty body will not do.
    pub body_required: bool,
    /// Largest body, bytes; the door's own limit lies above.
    pub max_body: usize,
    /// The schema of a 200; `None` for any JSON.
    pub answer: Option<SchemaOf>,
    /// What it may be refused with, beside the codes that every route has.
    pub codes: &'static [Code],
    /// Codes that travel with another status here, because a contract wants it so.
    pub statuses: &'static [(u16, Code)],
    pub(super) run: Run,
}

impl Route {
    /// For each segment of the template: the name of its parameter, if it is one.
    pub fn path_params(&self) -> impl Iterator<Item = Option<&'static str>> {
        self.path.split('/').skip(1).map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
    }

    /// Whether a path, already in decoded segments, is this route's.
    pub fn matches(&self, segments: &[String]) -> bool {
        let mut template = self.path.split('/').skip(1);
        let fits = |segment: &String| template.next().is_some_and(|t| t.starts_with('{') || t == segment);
        segments.iter().all(fits) && template.next().is_none()
    }
}

/// A route for whoever has proven who he is, without parameters, body and refusals; the table fills in the rest.
/// There is no way to a route that says nothing about who may use it.
pub(super) const fn guarded(method: Method, path: &'static str, summary: &'static str, run: Run) -> Route {
    route(Access::Guarded, method, path, summary, run)
}

/// A route that anybody may use. A test names all of them.
pub(super) const fn public(method: Method, path: &'static str, summary: &'static str, run: Run) -> Route {
    route(Access::Public, method, path, summary, run)
}

const fn route(access: Access, method: Method, path: &'static str, summary: &'static str, run: Run) -> Route {
    Route {
        access,
        method,
        path,
        summary,
        contracts: &[],
        query: &[],
        body: None,
        body_required: false,
        max_body: usize::MAX,
        answer: None,
        codes: &[],
        statuses: &[],
        run,
    }
}

pub(super) const fn parameter(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind, required: false }
}

pub(super) const fn required(name: &'static str, kind: &'static str, about: &'static str) -> Parameter {
    Parameter { name, about, kind, required: true }
}
