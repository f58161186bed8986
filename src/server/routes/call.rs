//! One request, split into names from the path, parameters and body. Problems are collected, not returned at once.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::str::FromStr;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::auth::access::Caller;
use super::super::http::{Attempt, Request};
use super::failure::Failure;
use crate::core::limits;
use crate::wire::json::{self, Body};
use crate::wire::problems::{Problems, quoted};

/// A request whose route was found.
#[derive(Clone)]
pub(super) struct Call<'r> {
    pub request: &'r Request,
    /// Who sends it, and what it may do.
    pub caller: Caller,
    /// The names in the path: one or two.
    path: Vec<(&'static str, Cow<'r, str>)>,
    query: BTreeMap<String, String>,
    /// What is wrong with the query itself, before the values are parsed.
    problems: Problems,
    asked: &'r Asked,
}

/// Whether the engine was asked for a request.
#[derive(Debug, Default)]
pub(super) struct Asked(AtomicBool);

impl Asked {
    /// The engine is about to be asked.
    pub fn note(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

impl<'r> Call<'r> {
    /// A request with its path and query as its route has parsed them, and the problems so far.
    pub fn new(
        request: &'r Request,
        caller: Caller,
        path: Vec<(&'static str, Cow<'r, str>)>,
        query: BTreeMap<String, String>,
        problems: Problems,
        asked: &'r Asked,
    ) -> Self {
        Self { request, caller, path, query, problems, asked }
    }

    /// Where to note that the engine is asked.
    pub fn asked(&self) -> &Asked {
        self.asked
    }

    /// The problems so far. The handler adds to them.
    pub fn problems(&self) -> Problems {
        self.problems.clone()
    }

    /// For a route that takes nothing: checks that nothing was given.
    pub fn asks_nothing(&self) -> Result<(), Failure> {
        Ok(self.problems().done(Some(()))?)
    }

    /// A name from the path, parsed.
    pub fn path<T: FromStr<Err: Display>>(&self, name: &str, problems: &mut Problems) -> Option<T> {
        problems.parse(name, self.path_text(name))
    }

    /// A name from the path as text, percent-decoded.
    pub fn path_text(&self, name: &str) -> &str {
        self.path.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value).unwrap_or_default()
    }

    /// A parameter as text.
    pub fn query_text(&self, name: &str) -> Option<&str> {
        self.query.get(name).map(String::as_str)
    }

    /// The same request without parameters that are empty, as forms send what was not filled in.
    pub fn without_empty(mut self) -> Self {
        self.query.retain(|_, value| !value.is_empty());
        self
    }

    /// A parameter. `None` if it is not given, or if it is wrong, which is recorded in `problems`.
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

    /// `true` or `false`. Defaults to false.
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

    /// The most entries that a page may have.
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

    /// Whether this request may be parked after this answer.
    pub fn may_park(&self) -> bool {
        self.request.can_park && self.request.attempt != Attempt::Last
    }
}
