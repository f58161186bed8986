//! One request, taken apart: names from the path, parameters, body. What is wrong is gathered, not thrown.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;

use super::super::http::{Request, Turn};
use super::failure::Failure;
use super::route::Route;
use crate::core::limits;
use crate::wire::errors::Code;
use crate::wire::json::{self, Body};
use crate::wire::problems::{Problems, quoted, unknown};
use crate::wire::text::percent_decoded;

/// A request that has found its route.
pub(super) struct Call<'r> {
    pub request: &'r Request,
    path: BTreeMap<&'static str, String>,
    query: BTreeMap<String, String>,
    /// What is wrong with the query, before anybody looked at the values.
    problems: Problems,
}

impl<'r> Call<'r> {
    pub fn new(route: &'static Route, request: &'r Request, segments: Vec<String>) -> Result<Self, Failure> {
        let mut problems = Problems::default();
        let query = query(route, &request.query, &mut problems);
        let path = route.path_params().zip(segments).filter_map(|(name, value)| Some((name?, value))).collect();
        let max = route.max_body;
        if request.body.len() > max {
            let error = format!("the body has {} bytes, at most {max} are allowed here", request.body.len());
            return Err(Failure::new(Code::TooLarge, error));
        }
        if route.contracts.is_empty() && route.body.is_none() && !matches!(request.body.trim_ascii(), b"" | b"{}") {
            problems.add("", "this call takes no body");
        }
        Ok(Self { request, path, query, problems })
    }

    /// What is known to be wrong so far; the handler goes on adding to it.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// For a route that takes nothing: nothing was given.
    pub fn asks_nothing(&self) -> Result<(), Failure> {
        Ok(self.problems().done(Some(()))?)
    }

    /// A name from the path.
    pub fn path<T: FromStr<Err: Display>>(&self, name: &str, problems: &mut Problems) -> Option<T> {
        problems.parse(name, self.path_text(name))
    }

    /// A name from the path as text, percent-decoded.
    pub fn path_text(&self, name: &str) -> &str {
        self.path.get(name).map(String::as_str).unwrap_or_default()
    }

    /// A parameter as text.
    pub fn query_text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// A parameter; `None` when it is not given (or wrong, which is noted).
    pub fn query<T: FromStr<Err: Display>>(&self, name: &str, problems: &mut Problems) -> Option<T> {
        problems.parse_some(name, self.query_text(name))
    }

    /// A parameter that must be given.
    pub fn required<T: FromStr<Err: Display>>(&self, name: &str, problems: &mut Problems) -> Option<T> {
        if self.query_text(name).is_none() {
            problems.add(name, "is missing");
        }
        self.query(name, problems)
    }

    /// `true` or `false`; false when not given.
    pub fn flag(&self, name: &str, problems: &mut Problems) -> bool {
        match self.query_text(name) {
            None | Some("false") => false,
            Some("true") => true,
            Some(other) => {
                problems.add(name, format!("must be true or false, not {}", quoted(other)));
                false
            }
        }
    }

    /// How many entries a page may have.
    pub fn limit(&self, problems: &mut Problems) -> usize {
        match self.query::<usize>("limit", problems) {
            Some(limit) if !(1..=limits::PAGE).contains(&limit) => {
                problems.add("limit", format!("must be 1 to {}", limits::PAGE));
                limits::PAGE
            }
            limit => limit.unwrap_or(limits::PAGE),
        }
    }

    /// The body.
    pub fn body<T: Body>(&self, problems: &mut Problems) -> Option<T> {
        json::read(&self.request.body, problems)
    }

    /// Whether this request may be kept waiting after this answer.
    pub fn may_park(&self) -> bool {
        self.request.can_park && self.request.turn != Turn::Last
    }
}

/// The parameters of a query, each at most once and known to the route; contracts ignore those that they do not know.
/// `+` is a space, as forms write it.
fn query(route: &'static Route, query: &str, problems: &mut Problems) -> BTreeMap<String, String> {
    let known: Vec<&str> = route.query.iter().map(|parameter| parameter.name).collect();
    let ignores = !route.contracts.is_empty();
    let decoded = |text: &str| percent_decoded(&text.replace('+', " "));
    let mut given = BTreeMap::new();
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
