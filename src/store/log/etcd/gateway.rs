//! Calls of etcd through its JSON gateway, which every member serves beside gRPC since 3.4 at this path. A client of gRPC
//! would bring a second HTTP stack; the client of HTTP is there already.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use ureq::Agent;

use super::address::Address;
use crate::client::connect;
use crate::store::log::{Cause, Room, Trouble};
use crate::wire::secret::Secret;

/// The largest answer, bytes: as many records as are read at once, in base64, and as much again.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;
/// How long a member that has not answered is asked whether it knows a leader.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// The most notes that are read: far more than there are servers.
const NOTES: usize = 1_000;
/// Where the metrics of etcd have its quota.
const QUOTA: &str = "etcd_server_quota_backend_bytes ";

/// A connection to the members.
pub(super) struct Gateway {
    address: Address,
    patience: Duration,
    /// One for each member; none after an error, so that certificates are read again and connections are new.
    agents: Vec<Agent>,
    /// The member that is asked first.
    first: usize,
    /// Of the user.
    token: Option<Secret>,
}

/// A key with its value, both as bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pair {
    pub key: String,
    pub value: Vec<u8>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Range {
    #[serde(default)]
    pub header: Header,
    #[serde(default)]
    kvs: Vec<StoredPair>,
}

#[derive(Debug, Default, Deserialize)]
pub(super) struct Header {
    #[serde(default)]
    pub revision: String,
}

#[derive(Debug, Deserialize)]
struct StoredPair {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Debug, Deserialize)]
struct Txn {
    #[serde(default)]
    succeeded: bool,
}

/// What a member says of itself.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Status {
    #[serde(rename = "dbSize")]
    size: String,
    #[serde(rename = "dbSizeInUse")]
    used: String,
    errors: Vec<String>,
}

/// The error of a call.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    error: String,
    message: String,
    code: i64,
}

impl Range {
    pub fn pairs(self) -> Result<Vec<Pair>, Trouble> {
        let damaged = || Trouble::new(Cause::Damaged, "etcd gives a key or a value that is not valid");
        let text = |text: &str| STANDARD.decode(text).map_err(|_| damaged());
        let pair = |stored: &StoredPair| {
            let key = String::from_utf8(text(&stored.key)?).map_err(|_| damaged())?;
            Ok(Pair { key, value: text(&stored.value)? })
        };
        self.kvs.iter().map(pair).collect()
    }
}

/// The parts of requests, as JSON. Base64 needs no escapes.
pub(super) fn encoded(bytes: impl AsRef<[u8]>) -> String {
    STANDARD.encode(bytes)
}

pub(super) fn put(key: &str, value: &[u8]) -> String {
    let (mut text, key) = (String::with_capacity(value.len() / 3 * 4 + 200), encoded(key));
    text.push_str(r#"{"requestPut":{"key":""#);
    text.push_str(&key);
    text.push_str(r#"","value":""#);
    STANDARD.encode_string(value, &mut text);
    text.push_str(r#""}}"#);
    text
}

pub(super) fn delete(from: &str, before: &str) -> String {
    let (from, before) = (encoded(from), encoded(before));
    format!(r#"{{"requestDeleteRange":{{"key":"{from}","range_end":"{before}"}}}}"#)
}

/// That a key has this value; `None`: that it does not exist.
pub(super) fn is(key: &str, value: Option<&[u8]>) -> String {
    let key = encoded(key);
    match value {
        Some(value) => {
            let value = encoded(value);
            format!(r#"{{"key":"{key}","target":"VALUE","result":"EQUAL","value":"{value}"}}"#)
        }
        None => format!(r#"{{"key":"{key}","target":"VERSION","result":"EQUAL","version":"0"}}"#),
    }
}

impl Gateway {
    pub fn new(address: Address, patience: Duration) -> Self {
        Self { address, patience, agents: Vec::new(), first: 0, token: None }
    }

    /// The values of keys from `from` on, before `before` if it is given: at most `most`.
    pub fn range(&mut self, from: &str, before: Option<&str>, most: usize) -> Result<Range, Trouble> {
        let mut body = json!({ "key": encoded(from), "limit": most.to_string() });
        if let Some(before) = before {
            body["range_end"] = encoded(before).into();
        }
        self.call("/v3/kv/range", &body.to_string())
    }

    /// Whether this revision is gone.
    pub fn is_compacted(&mut self, key: &str, revision: u64) -> Result<bool, Trouble> {
        let body = json!({ "key": encoded(key), "revision": revision.to_string(), "limit": "1" });
        match self.call::<Value>("/v3/kv/range", &body.to_string()) {
            Ok(_) => Ok(false),
            Err(trouble) if trouble.text.contains("has been compacted") => Ok(true),
            Err(trouble) => Err(trouble),
        }
    }

    /// Removes what was deleted or overwritten before this revision.
    pub fn compact(&mut self, revision: u64) -> Result<(), Trouble> {
        match self.call::<Value>("/v3/kv/compaction", &json!({ "revision": revision.to_string() }).to_string()) {
            Err(trouble) if trouble.text.contains("has been compacted") => Ok(()),
            answer => answer.map(drop),
        }
    }

    pub fn put(&mut self, key: &str, value: &[u8]) -> Result<(), Trouble> {
        let body = format!(r#"{{"key":"{}","value":"{}"}}"#, encoded(key), encoded(value));
        self.call::<Value>("/v3/kv/put", &body).map(drop)
    }

    pub fn delete(&mut self, key: &str) -> Result<(), Trouble> {
        let body = format!(r#"{{"key":"{}"}}"#, encoded(key));
        self.call::<Value>("/v3/kv/deleterange", &body).map(drop)
    }

    /// Makes the changes if everything compares. False if it does not.
    pub fn compare_and(&mut self, compare: &[String], changes: &[String]) -> Result<bool, Trouble> {
        let body = format!(r#"{{"compare":[{}],"success":[{}]}}"#, compare.join(","), changes.join(","));
        self.call::<Txn>("/v3/kv/txn", &body).map(|answer| answer.succeeded)
    }

    /// The version of a member, such as `3.4.23`.
    pub fn version(&mut self) -> Result<String, Trouble> {
        #[derive(Deserialize)]
        struct Version {
            etcdserver: String,
        }
        self.exchange("/version", None).and_then(read::<Version>).map(|version| version.etcdserver)
    }

    /// The values of all keys that begin like this, whose number is small.
    pub fn under(&mut self, prefix: &str) -> Result<Range, Trouble> {
        // `~` follows all that names of keys are made of.
        self.range(prefix, Some(&format!("{prefix}~")), NOTES)
    }

    /// How large the database of the member is that answers, and whether it is full. Its quota is among its metrics only.
    pub fn room(&mut self) -> Result<Room, Trouble> {
        let Status { size, used, errors } = self.call("/v3/maintenance/status", "{}")?;
        let metrics = self.exchange("/metrics", None).unwrap_or_default();
        let quota =
            String::from_utf8_lossy(&metrics).lines().find_map(|line| line.strip_prefix(QUOTA)?.trim().parse().ok());
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a number of bytes")]
        let quota = quota.filter(|quota: &f64| *quota > 0.0).map(|quota| quota as u64);
        let is_full = errors.iter().any(|error| error.contains("NOSPACE"));
        let number = |text: &str| text.parse().unwrap_or_default();
        Ok(Room { size: number(&size), used: Some(number(&used)), quota, is_full, async_standbys: 0 })
    }

    /// One call, with a token if there is a user. A call whose token has expired was refused, so it is repeated.
    fn call<T: for<'t> Deserialize<'t>>(&mut self, path: &str, body: &str) -> Result<T, Trouble> {
        if self.address.user.is_some() && self.token.is_none() {
            self.sign_in()?;
        }
        let had_token = self.token.is_some();
        let answer = self.exchange(path, Some(body));
        match answer {
            Err(trouble) if had_token && trouble.text.contains("invalid auth token") => {
                self.sign_in()?;
                self.exchange(path, Some(body)).and_then(read)
            }
            answer => answer.and_then(read),
        }
    }

    fn sign_in(&mut self) -> Result<(), Trouble> {
        #[derive(Deserialize)]
        struct Token {
            token: String,
        }
        self.token = None;
        let password = self.address.credentials.password().map_err(|text| Trouble::new(Cause::Failed, text))?;
        let password = password.as_ref().map(Secret::expose);
        let body = json!({ "name": self.address.user, "password": password });
        let answer = self.exchange("/v3/auth/authenticate", Some(&body.to_string()))?;
        self.token = Some(Secret::new(read::<Token>(answer)?.token));
        Ok(())
    }

    /// Asks one member; the next one only if the first cannot have received the request.
    fn exchange(&mut self, path: &str, body: Option<&str>) -> Result<Vec<u8>, Trouble> {
        if self.agents.is_empty() {
            let tls = self.address.credentials.tls().map_err(|text| Trouble::new(Cause::Failed, text))?;
            let agent = |member| connect::probe_agent(member, &tls, self.patience);
            let agents = self.address.members.iter().map(agent).collect::<Result<_, _>>();
            self.agents = agents.map_err(|text| Trouble::new(Cause::Failed, text))?;
        }
        let mut answer = Err(Trouble::new(Cause::NoAnswer, "no member can be reached"));
        for _ in 0..self.agents.len() {
            let member = self.first % self.agents.len();
            match self.ask(member, path, body) {
                Ok(reply) => return reply,
                Err(error) => {
                    let never_arrived = is_unreachable(&error);
                    let text = format!("{}: {error}", self.address.members[member]);
                    answer = Err(Trouble::new(Cause::NoAnswer, text));
                    self.first = member + 1;
                    if !never_arrived {
                        break;
                    }
                }
            }
        }
        if let Err(trouble) = &mut answer
            && self.has_no_leader()
        {
            trouble.cause = Cause::NoQuorum;
        }
        self.agents.clear();
        answer
    }

    /// The answer of a member, or why there is none.
    fn ask(&self, member: usize, path: &str, body: Option<&str>) -> Result<Result<Vec<u8>, Trouble>, ureq::Error> {
        let url = format!("{}{path}", self.address.members[member]);
        let answer = connect::guarded(|| match body {
            None => self.agents[member].get(&url).call(),
            Some(body) => {
                let mut request = self.agents[member].post(&url).content_type("application/json");
                if let Some(token) = &self.token {
                    request = request.header("authorization", token.expose());
                }
                request.send(body)
            }
        })?;
        let status = answer.status().as_u16();
        let bytes = connect::guarded(|| answer.into_body().with_config().limit(ANSWER_BYTES).read_to_vec())?;
        Ok(if status == 200 { Ok(bytes) } else { Err(refusal(status, &bytes)) })
    }

    /// Whether a member that answers by itself knows no leader.
    fn has_no_leader(&self) -> bool {
        let Ok(tls) = self.address.credentials.tls() else { return false };
        self.address.members.iter().any(|member| {
            let Ok(agent) = connect::probe_agent(member, &tls, ASK_AGAIN) else { return false };
            let answer = connect::guarded(|| {
                let url = format!("{member}/v3/maintenance/status");
                agent.post(&url).content_type("application/json").send("{}")?.into_body().read_to_vec()
            });
            let status: Option<Value> = answer.ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
            status.is_some_and(|status| {
                status["version"].is_string() && status["leader"].as_str().is_none_or(|leader| leader == "0")
            })
        })
    }
}

/// Whether the request cannot have arrived.
fn is_unreachable(error: &ureq::Error) -> bool {
    match error {
        ureq::Error::HostNotFound | ureq::Error::ConnectionFailed => true,
        ureq::Error::Io(error) => error.kind() == std::io::ErrorKind::ConnectionRefused,
        _ => false,
    }
}

fn read<T: for<'t> Deserialize<'t>>(bytes: Vec<u8>) -> Result<T, Trouble> {
    serde_json::from_slice(&bytes).map_err(|_| Trouble::new(Cause::Failed, "it does not answer like etcd: is it one?"))
}

/// What a refusal means. The codes are those of gRPC, and the texts those of etcd.
fn refusal(status: u16, body: &[u8]) -> Trouble {
    let Refusal { error, message, code } = serde_json::from_slice(body).unwrap_or_default();
    let text = if message.is_empty() { error } else { message };
    let cause = match code {
        8 if text.contains("space exceeded") => Cause::NoSpace,
        14 if text.contains("no leader") || text.contains("timed out") => Cause::NoQuorum,
        4 | 14 => Cause::NoAnswer,
        7 | 16 => Cause::Denied,
        3 if text.contains("authentication failed") || text.contains("user name is empty") => Cause::Denied,
        _ => Cause::Failed,
    };
    Trouble::new(cause, if text.is_empty() { format!("HTTP status {status}") } else { text })
}
