//! The file of targets (`--notify FILE`): who is told what. It is checked as a whole, and each fault is named with its line.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::limits;
use super::reader::{Faults, Reader};
use super::receiver::{Endpoint, Signer};
use crate::client::http::encode;
use crate::core::names::NamePattern;
use crate::core::time::Span;
use crate::env;
use crate::server::secret_file;
use crate::wire::escape::escape;
use crate::wire::notification::Event;
use crate::wire::problems::unknown;
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;
use crate::wire::text::parse_duration;
use crate::wire::yaml::{self, Node};

/// The longest name of a target, bytes: a label of metrics.
const NAME_BYTES: usize = 64;
/// The keys of every target.
const BOTH: [&str; 3] = ["name", "pools", "ca_cert_file"];
/// The keys of a webhook.
const WEBHOOK: [&str; 9] = [
    "url",
    "url_file",
    "format",
    "secret_file",
    "token_file",
    "events",
    "waits_longer_than",
    "holds_longer_than",
    "suspect_longer_than",
];
/// Those of them that say what it is told.
const TELLING: [&str; 4] = ["events", "waits_longer_than", "holds_longer_than", "suspect_longer_than"];

/// What the file says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Settings {
    /// Where people find the server's pages, for links.
    pub server_url: Option<String>,
    pub targets: Vec<Target>,
}

/// Somebody who is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub name: String,
    pub to: To,
    /// A PEM file: trust only these issuers of its certificate.
    pub ca: Option<PathBuf>,
}

/// Who that is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum To {
    Webhook(Webhook),
    /// A resource of a Concourse is checked whenever its pool has a new version.
    Concourse(Concourse),
}

/// A receiver of notifications.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Webhook {
    pub url: Address,
    pub format: Format,
    /// The file with the key that signs.
    pub secret: Option<PathBuf>,
    /// The file with a bearer token.
    pub token: Option<PathBuf>,
    pub rules: Rules,
}

/// Where a webhook is. Its path may be a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    Given(Endpoint),
    File(PathBuf),
}

/// The body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    Json,
    /// `{"text": "..."}`, as Slack and Mattermost take it.
    Slack,
}

/// What a webhook is told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Only pools with such names; all if empty.
    pub pools: Vec<NamePattern>,
    pub events: BTreeSet<Event>,
    pub waits: Option<Span>,
    pub holds: Option<Span>,
    pub suspect: Option<Span>,
}

/// A resource of a Concourse.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Concourse {
    pub url: ServerUrl,
    /// The path and query of its webhook, without the token.
    pub path: String,
    /// The file with its `webhook_token`.
    pub token: PathBuf,
    /// As in [`Rules`].
    pub pools: Vec<NamePattern>,
}

/// A file that cannot be used, and every reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    pub file: PathBuf,
    /// Each with its line.
    pub faults: Vec<(u64, String)>,
}

impl BadFile {
    /// Each fault, with the file and its line.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let file = escape(&self.file.display().to_string());
        let line = |(line, what): &(u64, String)| match line {
            0 => format!("{file}: {what}"),
            _ => format!("{file}:{line}: {what}"),
        };
        self.faults.iter().map(line).collect()
    }
}

impl fmt::Display for BadFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.lines().join("; "))
    }
}

impl std::error::Error for BadFile {}

/// The content of the file.
///
/// # Errors
/// It cannot be read, or is too large.
pub fn read_text(file: &Path) -> Result<String, BadFile> {
    let bad = |what: String| BadFile { file: file.to_owned(), faults: vec![(0, what)] };
    let bytes = env::read_file(file, limits::NOTIFY_FILE_BYTES).map_err(|error| bad(error.to_string()))?;
    let bytes = bytes.ok_or_else(|| bad(format!("larger than {} bytes", limits::NOTIFY_FILE_BYTES)))?;
    String::from_utf8(bytes).map_err(|_| bad("not valid UTF-8".to_owned()))
}

impl Settings {
    /// Reads the file, and checks that every file that it names can be used now.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn open(file: &Path) -> Result<Self, BadFile> {
        Self::parse(file, &read_text(file)?)
    }

    /// Reads its text. Files that it names are found from the directory of `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &Path, text: &str) -> Result<Self, BadFile> {
        let bad = |faults: Vec<(u64, String)>| BadFile { file: file.to_owned(), faults };
        let root = yaml::parse(text).map_err(|broken| bad(vec![(broken.at.line, broken.why)]))?;
        let mut faults = Faults::default();
        let dir = file.parent().unwrap_or(Path::new("."));
        let mut top = Reader::new(&root, "", dir, &mut faults);
        top.only(&["server_url", "targets"]);
        let server_url = top.text("server_url").and_then(|(at, text)| match ServerUrl::parse(text) {
            Ok(url) if url.credentials().is_none() => Some(url.join("")),
            Ok(_) => top.fault(at, "server_url must have no credentials: links would show them"),
            Err(why) => top.fault(at, format!("server_url {why}")),
        });
        let mut targets: Vec<Target> = Vec::new();
        for node in top.list("targets", limits::TARGETS) {
            let Some(target) = target(node, dir, &mut faults) else { continue };
            if targets.iter().any(|other| other.name == target.name) {
                faults.add(node.at.line, format!("there are two targets of the name {:?}", target.name));
            }
            targets.push(target);
        }
        let faults = faults.done();
        if faults.is_empty() { Ok(Self { server_url, targets }) } else { Err(bad(faults)) }
    }
}

fn target(node: &Node, dir: &Path, faults: &mut Faults) -> Option<Target> {
    let name = node.text("name").unwrap_or_default();
    let is_concourse = node.entry("concourse").is_some();
    let what = if name.is_empty() { "the target".to_owned() } else { format!("target {}", escape(name)) };
    let mut of = Reader::new(node, &what, dir, faults);
    let own: &[&str] = if is_concourse { &["concourse"] } else { &WEBHOOK };
    of.only_or(&[&BOTH, own].concat(), &[&BOTH, &WEBHOOK[..], &["concourse"]].concat());
    let is_name = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    let name = match of.text("name") {
        None => of.fault(node.at.line, "name is missing: messages of the log and metrics name the target"),
        Some((_, name)) if name.len() <= NAME_BYTES && !name.is_empty() && name.chars().all(is_name) => {
            Some(name.to_owned())
        }
        Some((at, _)) => {
            of.fault(at, format!("name must be 1 to {NAME_BYTES} of A-Z, a-z, 0-9, dot, dash, underscore"))
        }
    };
    let patterns = of.list_or_one("pools", limits::PATTERNS);
    let pools: Vec<_> = patterns.iter().filter_map(|node| of.parse::<NamePattern>("pools", node)).collect();
    let ca = of.file("ca_cert_file", |file| {
        env::read_file(file, limits::NOTIFY_FILE_BYTES).map_err(|error| error.to_string())
    });
    let to = match node.entry("concourse") {
        Some(entry) => concourse(&entry.value, &what, dir, pools, faults).map(To::Concourse),
        None => webhook(&mut of, node, pools).map(To::Webhook),
    };
    Some(Target { name: name?, to: to?, ca })
}

fn webhook(of: &mut Reader<'_, '_>, node: &Node, pools: Vec<NamePattern>) -> Option<Webhook> {
    let max = limits::NOTIFY_SECRET_BYTES;
    let read = |file: &Path| secret_file::read(file, max, "a URL").and_then(|url| Endpoint::parse(url.expose()));
    let file = of.file("url_file", read);
    let url = match (of.text("url"), file, node.entry("url_file")) {
        (Some((at, _)), _, Some(_)) => of.fault(at, "url and url_file are both given: keep one"),
        (Some((at, text)), _, None) => match Endpoint::parse(text) {
            Ok(url) if url.has_credentials() => {
                of.fault(at, "url has a user and password in it: write the URL into a file, and name that as url_file")
            }
            Ok(url) => Some(Address::Given(url)),
            Err(why) => of.fault(at, why),
        },
        (None, file, Some(_)) => file.map(Address::File),
        (None, _, None) => of.fault(node.at.line, "one of url, url_file and concourse is missing: where it is told"),
    };
    let format = of.word("format", &[("json", Format::Json), ("slack", Format::Slack)]).unwrap_or(Format::Json);
    let secret = of.file("secret_file", Signer::read);
    let token = of.file("token_file", |file| secret_file::read(file, max, "a token"));
    let words: Vec<(&str, Event)> = Event::NAMED.iter().map(|event| (event.word(), *event)).collect();
    let mut events = BTreeSet::new();
    for node in of.list_or_one("events", words.len()) {
        events.extend(of.known("event", node, &words));
    }
    let [waits, holds, suspect] = [TELLING[1], TELLING[2], TELLING[3]].map(|key| limit(of, key));
    if TELLING.iter().all(|key| node.entry(key).is_none()) {
        let _: Option<()> =
            of.fault(node.at.line, format!("it would never be told anything: give {}", TELLING.join(", ")));
    }
    Some(Webhook { url: url?, format, secret, token, rules: Rules { pools, events, waits, holds, suspect } })
}

fn limit(of: &mut Reader<'_, '_>, key: &str) -> Option<Span> {
    let (at, text) = of.text(key)?;
    let millis = |span: std::time::Duration| u64::try_from(span.as_millis()).unwrap_or(u64::MAX);
    match parse_duration(text).map(millis) {
        Ok(millis) if millis >= limits::SHORTEST_LIMIT_MS => Some(Span(millis)),
        Ok(_) => of.fault(at, format!("{key} must be at least 1s")),
        Err(why) => of.fault(at, format!("{key} {why}")),
    }
}

fn concourse(node: &Node, what: &str, dir: &Path, pools: Vec<NamePattern>, faults: &mut Faults) -> Option<Concourse> {
    let mut of = Reader::new(node, what, dir, faults);
    of.only(&["url", "team", "pipeline", "instance_vars", "resource", "token_file"]);
    let url = match of.required("url") {
        Some((at, text)) => match ServerUrl::parse(text) {
            Ok(url) if url.credentials().is_none() => Some(url),
            Ok(_) => of.fault(at, "url must have no user and password: the token of the webhook is enough"),
            Err(why) => of.fault(at, format!("url {why}")),
        },
        None => None,
    };
    let [team, pipeline, resource] =
        ["team", "pipeline", "resource"].map(|key| of.required(key).map(|(_, text)| encode(text)));
    let vars = match node.entry("instance_vars") {
        None => String::new(),
        Some(entry) if matches!(entry.value.json(), Value::Object(_)) => {
            format!("?vars={}", encode(&entry.value.json().to_string()))
        }
        Some(entry) => {
            of.fault(entry.at.line, "instance_vars must be a mapping, as in fly set-pipeline").unwrap_or_default()
        }
    };
    let max = limits::NOTIFY_SECRET_BYTES;
    let token = of.file("token_file", |file| secret_file::read(file, max, "a token"));
    let token = match node.entry("token_file") {
        None => {
            of.fault(node.at.line, "concourse.token_file is missing: a file with the webhook_token of the resource")
        }
        Some(_) => token,
    };
    let (team, pipeline, resource) = (team?, pipeline?, resource?);
    let path = format!("/api/v1/teams/{team}/pipelines/{pipeline}/resources/{resource}/check/webhook{vars}");
    Some(Concourse { url: url?, path, token: token?, pools })
}

impl Target {
    /// Where it is, without anything that may be secret.
    #[must_use]
    pub fn place(&self) -> String {
        match &self.to {
            To::Concourse(Concourse { url, .. })
            | To::Webhook(Webhook { url: Address::Given(Endpoint { base: url, .. }), .. }) => url.to_string(),
            To::Webhook(Webhook { url: Address::File(file), .. }) => format!("the URL in {}", file.display()),
        }
    }

    /// Whether secrets for it can be read on the network.
    #[must_use]
    pub fn sends_secrets_in_the_clear(&self) -> bool {
        match &self.to {
            To::Concourse(concourse) => !concourse.url.is_tls(),
            To::Webhook(Webhook { url: Address::Given(endpoint), token, .. }) => {
                token.is_some() && !endpoint.base.is_tls()
            }
            To::Webhook(webhook) => webhook.endpoint().is_ok_and(|endpoint| !endpoint.base.is_tls()),
        }
    }

    /// How often the state must be looked at, if its limits need that.
    #[must_use]
    pub fn look(&self) -> Option<Span> {
        let To::Webhook(Webhook { rules, .. }) = &self.to else { return None };
        let shortest = [rules.waits, rules.holds, rules.suspect].into_iter().flatten().min()?;
        Some(Span((shortest.0 / 10).clamp(limits::LOOK_LEAST_MS, limits::LOOK_MS)))
    }
}

impl Webhook {
    /// Where it is now.
    ///
    /// # Errors
    /// The file cannot be used any more.
    pub fn endpoint(&self) -> Result<Endpoint, String> {
        match &self.url {
            Address::Given(endpoint) => Ok(endpoint.clone()),
            Address::File(file) => {
                let url: Secret = secret_file::read(file, limits::NOTIFY_SECRET_BYTES, "a URL")?;
                Endpoint::parse(url.expose()).map_err(|why| format!("{}: {why}", file.display()))
            }
        }
    }
}

/// A word of a list as a value.
pub(super) fn of_words<T: Copy>(what: &str, given: &str, words: &[(&str, T)]) -> Result<T, String> {
    let found = words.iter().find(|(word, _)| *word == given).map(|(_, value)| *value);
    found.ok_or_else(|| unknown(what, given, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>()))
}

#[cfg(test)]
mod tests;
