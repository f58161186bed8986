//! What Concourse sends to `check`, `in` and `out`, and what they return (`docs/concourse.md#the-resource-protocol`).
//!
//! A request is parsed once, into types that cannot hold invalid values. All its problems are reported at once. Unknown
//! keys are refused, with the nearest valid name. `null` counts as missing: Concourse sends `"source": null` if there
//! is no source.

mod actions;
mod params;
mod source;

use std::fmt;

use serde::Serialize;

pub use actions::{AddClaimed, Adding, Ask, InputFile, LockChoice, Op, Release, Watch};
pub use params::{GetParams, OutParams, param_names};
pub use source::{LogLevel, Place, Source, SourceKind};

use super::members::Members;
use super::problems::{Problem, Problems};

/// All problems of a payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PayloadError(pub Vec<Problem>);

impl fmt::Display for PayloadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts: Vec<&str> = self.0.iter().map(|problem| problem.text.as_str()).collect();
        write!(f, "invalid payload ({})", texts.join(", "))
    }
}

impl std::error::Error for PayloadError {}

/// The input of `check`.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    pub source: Source,
    /// The newest known version; `None` on the first check.
    pub version: Option<String>,
}

/// The input of `in`.
#[derive(Debug, Clone)]
pub struct InRequest {
    pub source: Source,
    /// The version to fetch.
    pub version: String,
    pub params: GetParams,
}

/// The input of `out`.
#[derive(Debug, Clone)]
pub struct OutRequest {
    pub source: Source,
    pub params: OutParams,
}

/// The output of `in` and `out`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub version: Version,
    pub metadata: Vec<Metadata>,
}

/// A version of the resource: the revision of a change, as text, because Concourse accepts only text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    #[serde(rename = "ref")]
    pub revision: String,
}

/// A name and value that Concourse shows with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    pub name: &'static str,
    pub value: String,
}

impl CheckRequest {
    /// Parses the payload from stdin.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        read(text, &["source", "version"], |request, problems| {
            let source = Source::read(request.object("source", problems), problems);
            let version = read_version(request, problems);
            Some(Self { source: source?, version })
        })
    }
}

impl InRequest {
    /// Parses the payload from stdin. A missing version is an error: Concourse takes an `in` that succeeds without one
    /// for a step that has done its work.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        read(text, &["source", "version", "params"], |request, problems| {
            let mut source = Source::read(request.object("source", problems), problems);
            let version = read_version(request, problems);
            if version.is_none() {
                problems.add("", "missing version");
            }
            let (params, ignored) = GetParams::read(request.object("params", problems), problems);
            if let Some(source) = &mut source {
                source.ignored.extend(ignored);
            }
            Some(Self { source: source?, version: version?, params })
        })
    }
}

impl OutRequest {
    /// Parses the payload from stdin.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        read(text, &["source", "params"], |request, problems| {
            let source = Source::read(request.object("source", problems), problems);
            let params = request.object("params", problems);
            let params = OutParams::read(params, source.as_ref(), problems);
            Some(Self { source: source?, params: params? })
        })
    }
}

/// Parses a payload with these members.
fn read<T>(
    text: &[u8],
    known: &[&'static str],
    members: impl FnOnce(&mut Members, &mut Problems) -> Option<T>,
) -> Result<T, PayloadError> {
    let mut problems = Problems::default();
    let request = Members::parse("stdin", text, &mut problems).map(|mut request| {
        request.expect(known);
        let mut request = request.from_yaml();
        let value = members(&mut request, &mut problems);
        request.finish(&mut problems);
        value
    });
    problems.done(request.flatten()).map_err(|problems| PayloadError(problems.into_problems()))
}

fn read_version(request: &mut Members, problems: &mut Problems) -> Option<String> {
    // Other keys of a version come from an older image of the resource type. That is no reason to fail.
    request.object("version", problems).text("ref", problems)
}

#[cfg(test)]
mod tests;
