//! The client of latches: the calls of the Argo contract (docs/latches.md).

use std::collections::BTreeMap;
use std::time::Duration;

use super::connect::{Access, Authorization};
use super::http::{CallError, Client, Method, PATIENCE, Request, encode};
use crate::wire::errors::Code;
use crate::wire::latch::{BindBody, CreateBody, LatchView, ReleaseBody};
use crate::wire::server_url::{ServerUrl, UrlError};
use crate::wire::tls::Tls;

/// How many times a call is made at most while it gets no usable answer. Every call is harmless to repeat.
const ATTEMPTS: u32 = 4;
/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// A client of one endpoint. The endpoint is used as given; the query of a call is appended to the endpoint's own.
#[derive(Clone)]
pub struct LatchClient {
    client: Client,
    /// What follows the server's address: a slash, if one was given, and the endpoint's own query.
    suffix: String,
}

/// Released latches.
#[derive(Debug, Clone)]
pub struct Listing {
    /// In the order of their release.
    pub latches: Vec<LatchView>,
    /// The revision up to which the listing is complete; `None` if the server cannot hold requests.
    pub revision: Option<u64>,
}

impl LatchClient {
    /// A client of `endpoint`, such as `https://HOST/lock` or `https://HOST/lock/?apikey=KEY`.
    ///
    /// # Errors
    /// It is not a URL, or a certificate or key cannot be used. The error does not repeat the endpoint, which may carry
    /// a secret.
    pub fn open(
        endpoint: &str,
        authorization: Option<Authorization>,
        tls: Tls,
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let (server, suffix) = Self::parts(endpoint).map_err(|why| format!("the API endpoint {why}"))?;
        Ok(Self { client: Client::open(Access::to(server, authorization, tls), vars)?, suffix })
    }

    /// Whether the server has answered.
    #[must_use]
    pub fn has_met(&self) -> bool {
        self.client.has_met()
    }

    /// The address of the server, without credentials and without the endpoint's query.
    #[must_use]
    pub fn server(&self) -> String {
        self.client.server()
    }

    fn parts(endpoint: &str) -> Result<(ServerUrl, String), UrlError> {
        let (address, query) = match endpoint.trim().split_once('?') {
            Some((address, query)) => (address, Some(query)),
            None => (endpoint.trim(), None),
        };
        let server = ServerUrl::parse(address)?;
        if query.is_some_and(|q| q.contains(|c: char| c == '#' || c.is_control() || c.is_whitespace())) {
            return Err(UrlError::in_query());
        }
        let slash = if address.ends_with('/') { "/" } else { "" };
        let query = query.filter(|q| !q.is_empty()).map(|q| format!("?{q}")).unwrap_or_default();
        Ok((server, format!("{slash}{query}")))
    }

    fn request(&self, method: Method, query: &[(&str, &str)], body: Option<Vec<u8>>) -> Request {
        let mut path = self.suffix.clone();
        for (name, value) in query {
            path.push(if path.contains('?') { '&' } else { '?' });
            path += &format!("{name}={}", encode(value));
        }
        Request { method, path, body, patience: PATIENCE }
    }

    fn call<T: serde::de::DeserializeOwned>(&self, request: Request) -> Result<T, CallError> {
        self.client.call(request).map_err(advised)
    }

    /// Creates a latch. The id in the body makes it safe to repeat.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn create(&self, body: &CreateBody) -> Result<LatchView, CallError> {
        repeated(|_| self.call(self.request(Method::Post, &[], json(body))))
    }

    /// Creates a latch from another server's view of it, but locked.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn create_as(&self, latch: &LatchView) -> Result<LatchView, CallError> {
        repeated(|_| self.call(self.request(Method::Post, &[], json(latch))))
    }

    /// Releases a latch as another server's view of it shows.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn release_as(&self, latch: &LatchView) -> Result<LatchView, CallError> {
        self.patch(&latch.id, latch)
    }

    /// Returns a latch.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn get(&self, id: &str) -> Result<LatchView, CallError> {
        repeated(|_| self.call(self.request(Method::Get, &[("id", id)], None)))
    }

    /// Returns a latch once it is released; after `wait`, returns it as it is then.
    ///
    /// # Errors
    /// As [`CallError`]; the call is not retried.
    pub fn get_released(&self, id: &str, wait: Duration) -> Result<LatchView, CallError> {
        let span = format!("{}ms", wait.as_millis());
        let request = self.request(Method::Get, &[("id", id), ("wait", &span)], None);
        self.call(Request { patience: PATIENCE + wait, ..request })
    }

    /// Releases a latch. With an empty body, the result is the one that its creator set.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn release(&self, id: &str, body: &ReleaseBody) -> Result<LatchView, CallError> {
        self.patch(id, body)
    }

    /// Records which node of exactly which workflow a released latch is for. A server that cannot store this returns
    /// the latch without it.
    ///
    /// # Errors
    /// As [`CallError`]; refused if it is already bound to another node or workflow.
    pub fn bind(&self, id: &str, body: &BindBody) -> Result<LatchView, CallError> {
        self.patch(id, body)
    }

    fn patch(&self, id: &str, body: &impl serde::Serialize) -> Result<LatchView, CallError> {
        repeated(|_| self.call(self.request(Method::Patch, &[("id", id)], json(body))))
    }

    /// Released latches. Without `news`, all of them. With `news`, only those released after that revision; the server
    /// holds the request until there are some, at most that long.
    ///
    /// # Errors
    /// As [`CallError`]; the call is not retried.
    pub fn list_released(&self, news: Option<(u64, Duration)>) -> Result<Listing, CallError> {
        let request = match news {
            None => self.request(Method::Get, &[("status", "released")], None),
            Some((after, wait)) => {
                let (after, span) = (after.to_string(), format!("{}ms", wait.as_millis()));
                let query = [("status", "released"), ("after", &*after), ("wait", &*span)];
                Request { patience: PATIENCE + wait, ..self.request(Method::Get, &query, None) }
            }
        };
        let (latches, revision) = self.client.call_listing(&request).map_err(advised)?;
        Ok(Listing { latches, revision })
    }

    /// Deletes a latch.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn delete(&self, id: &str) -> Result<(), CallError> {
        repeated(|attempt| {
            let deleted = self.call::<serde_json::Value>(self.request(Method::Delete, &[("id", id)], None));
            match deleted {
                // An earlier attempt, whose answer was lost, has deleted it.
                Err(error) if attempt > 0 && error.code() == Some(Code::NoSuchLatch) => Ok(()),
                other => other.map(drop),
            }
        })
    }

    /// All latches with a status: `released` (in the order of their release), `locked` or `all`.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn list(&self, status: &str) -> Result<Vec<LatchView>, CallError> {
        repeated(|_| self.call(self.request(Method::Get, &[("status", status)], None)))
    }
}

fn json<T: serde::Serialize>(body: &T) -> Option<Vec<u8>> {
    // Our own types contain nothing that JSON cannot express.
    Some(serde_json::to_vec(body).unwrap_or_default())
}

/// What a server says at an address that is not that of its latches speaks of paths and parameters which the user has not
/// written.
fn advised(error: CallError) -> CallError {
    match error {
        CallError::Refused(mut refused)
            if matches!(refused.code, Some(Code::NoSuchRoute | Code::MethodNotAllowed))
                || (refused.code == Some(Code::BadRequest)
                    && refused.problems.iter().any(|problem| is_unknown_parameter(problem))) =>
        {
            refused.next = Some("does the API endpoint have the path of the latches, as in http://HOST:8910/lock?");
            CallError::Refused(refused)
        }
        other => other,
    }
}

/// The parameters of these calls are known wherever latches are served.
fn is_unknown_parameter(problem: &str) -> bool {
    problem.starts_with("query: unknown parameter")
}

/// Calls until there is an answer, at most [`ATTEMPTS`] times. Callers run it in a thread that a signal can abandon.
fn repeated<T>(call: impl Fn(u32) -> Result<T, CallError>) -> Result<T, CallError> {
    let mut attempt = 0;
    loop {
        match call(attempt) {
            Err(CallError::NoAnswer(_)) if attempt + 1 < ATTEMPTS => std::thread::sleep(PAUSE),
            other => return other,
        }
        attempt += 1;
    }
}
