//! What Concourse writes to `check`, `in` and `out`, and what they answer (contracts sections 2 and 3).
//!
//! A request is parsed once, into types that cannot be wrong; every problem of it is listed at once. Unknown keys
//! are refused with the nearest valid name. `null` counts as missing, as Concourse writes `"source": null`.

mod params;
mod payload;
mod source;

use std::time::Duration;

use serde::Serialize;

pub use params::{AddClaimed, Ask, Op, OutParams, Release, Watch, param_names};
pub use payload::PayloadError;
pub use source::{LogLevel, Place, Source, SourceKind};

use payload::{Fields, Problems};

/// What `check` is given.
#[derive(Debug, Clone)]
pub struct CheckRequest {
    pub source: Source,
    /// The newest known version; `None` on the first check.
    pub version: Option<String>,
}

/// What `in` is given.
#[derive(Debug, Clone)]
pub struct InRequest {
    pub source: Source,
    /// The version to fetch.
    pub version: String,
}

/// What `out` is given.
#[derive(Debug, Clone)]
pub struct OutRequest {
    pub source: Source,
    pub params: OutParams,
}

/// What `in` and `out` print.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Answer {
    pub version: Version,
    pub metadata: Vec<Metadata>,
}

/// A version of the resource: the revision of a change, as text, because Concourse takes only text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    #[serde(rename = "ref")]
    pub revision: String,
}

/// One pair that Concourse shows with a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Metadata {
    pub name: &'static str,
    pub value: String,
}

impl CheckRequest {
    /// Parses what stands on stdin.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        let mut problems = Problems::default();
        let mut request = Fields::request(text, &["source", "version"], &mut problems)?;
        let source = Source::read(request.object("source", &mut problems), &mut problems);
        let version = read_version(&mut request, &mut problems);
        request.finish(&mut problems);
        problems.or(source.map(|source| Self { source, version }))
    }
}

impl InRequest {
    /// Parses what stands on stdin. A missing version is a problem: Concourse takes an `in` that succeeds without
    /// one for a step that has done its work.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        let mut problems = Problems::default();
        let mut request = Fields::request(text, &["source", "version", "params"], &mut problems)?;
        let mut source = Source::read(request.object("source", &mut problems), &mut problems);
        let version = read_version(&mut request, &mut problems);
        if version.is_none() {
            problems.add("missing version".into());
        }
        let has_depth = params::read_depth(request.object("params", &mut problems), &mut problems);
        if let Some(source) = source.as_mut().filter(|_| has_depth) {
            source.ignored.push("depth");
        }
        request.finish(&mut problems);
        problems.or(source.zip(version).map(|(source, version)| Self { source, version }))
    }
}

impl OutRequest {
    /// Parses what stands on stdin.
    ///
    /// # Errors
    /// All problems of the payload.
    pub fn parse(text: &[u8]) -> Result<Self, PayloadError> {
        let mut problems = Problems::default();
        let mut request = Fields::request(text, &["source", "params"], &mut problems)?;
        let source = Source::read(request.object("source", &mut problems), &mut problems);
        let params = request.object("params", &mut problems);
        let params = OutParams::read(params, source.as_ref(), &mut problems);
        request.finish(&mut problems);
        problems.or(source.zip(params).map(|(source, params)| Self { source, params }))
    }
}

fn read_version(request: &mut Fields, problems: &mut Problems) -> Option<String> {
    // Other keys of a version are what an older image of the type wrote: no reason to fail.
    request.object("version", problems).text("ref", problems)
}

/// A duration as people and Concourse pipelines write it: `90s`, `1h30m`, `500ms`.
///
/// # Errors
/// Says what forms are understood.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text.trim()).map_err(|_| "is no duration like 90s, 5m or 1h30m".to_owned())
}

/// A duration as our API takes it.
#[must_use]
pub fn api_duration(span: Duration) -> String {
    match span.subsec_millis() {
        0 => format!("{}s", span.as_secs()),
        _ => format!("{}ms", span.as_millis()),
    }
}

#[cfg(test)]
mod tests;
