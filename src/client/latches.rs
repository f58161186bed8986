//! Latches from the client's side: the calls of the Argo contract (docs/latches.md).

use std::collections::BTreeMap;
use std::time::Duration;

use super::connect::Access;
use super::http::{CallError, Client, Method, PATIENCE, Request, encode};
use crate::wire::errors::Code;
use crate::wire::latch::{BindBody, CreateBody, LatchView, ReleaseBody};
use crate::wire::server_url::{Credentials, ServerUrl, UrlError};
use crate::wire::tls::Tls;

/// How often a call that got no usable answer is made again. Each of them is harmless to repeat.
const ATTEMPTS: u32 = 4;
/// Pause before a call is made again.
const PAUSE: Duration = Duration::from_secs(1);

/// A client of one endpoint. The endpoint is used as it was given: the query of a call is appended to its own.
#[derive(Clone)]
pub struct LatchClient {
    client: Client,
    /// What follows the server's address: a slash if it was given, and the endpoint's own query.
    suffix: String,
}

/// Released latches.
#[derive(Debug, Clone)]
pub struct Listing {
    /// In the order of their release.
    pub latches: Vec<LatchView>,
    /// The revision up to which the listing is complete; `None` from a server that cannot hold a request.
    pub revision: Option<u64>,
}

impl LatchClient {
    /// A client of `endpoint`, such as `https://HOST/lock` or `https://HOST/lock/?apikey=KEY`.
    ///
    /// # Errors
    /// It is no URL, or a certificate or key cannot be used. The endpoint is not repeated, because it may carry a secret.
    pub fn open(
        endpoint: &str,
        credentials: Option<Credentials>,
        tls: Tls,
        vars: &BTreeMap<String, String>,
    ) -> Result<Self, String> {
        let (server, suffix) = Self::parts(endpoint).map_err(|why| format!("the API endpoint {why}"))?;
        Ok(Self { client: Client::open(Access::to(server, credentials, tls), vars)?, suffix })
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

    /// Makes a latch. The id in the body makes it safe to repeat.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn create(&self, body: &CreateBody) -> Result<LatchView, CallError> {
        repeated(|_| self.client.call(self.request(Method::Post, &[], json(body))))
    }

    /// Makes a latch as another server has shown it, but locked.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn create_as(&self, latch: &LatchView) -> Result<LatchView, CallError> {
        repeated(|_| self.client.call(self.request(Method::Post, &[], json(latch))))
    }

    /// Releases a latch as another server has shown it.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn release_as(&self, latch: &LatchView) -> Result<LatchView, CallError> {
        self.patch(&latch.id, latch)
    }

    /// Looks at a latch.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn get(&self, id: &str) -> Result<LatchView, CallError> {
        repeated(|_| self.client.call(self.request(Method::Get, &[("id", id)], None)))
    }

    /// Looks at a latch once it is released, or after `wait` as it then is.
    ///
    /// # Errors
    /// As [`CallError`]; it is not repeated.
    pub fn get_released(&self, id: &str, wait: Duration) -> Result<LatchView, CallError> {
        let span = format!("{}ms", wait.as_millis());
        let request = self.request(Method::Get, &[("id", id), ("wait", &span)], None);
        self.client.call(Request { patience: PATIENCE + wait, ..request })
    }

    /// Releases a latch; with an empty body it ends as its creator said.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn release(&self, id: &str, body: &ReleaseBody) -> Result<LatchView, CallError> {
        self.patch(id, body)
    }

    /// Writes down which node of which very workflow a released latch is for. A server that cannot keep that gives
    /// the latch without it.
    ///
    /// # Errors
    /// As [`CallError`]; refused when it is bound otherwise.
    pub fn bind(&self, id: &str, body: &BindBody) -> Result<LatchView, CallError> {
        self.patch(id, body)
    }

    fn patch(&self, id: &str, body: &impl serde::Serialize) -> Result<LatchView, CallError> {
        repeated(|_| self.client.call(self.request(Method::Patch, &[("id", id)], json(body))))
    }

    /// Released latches: all of them; or, held by the server until there are some or so long, only those released after
    /// a revision.
    ///
    /// # Errors
    /// As [`CallError`]; it is not repeated.
    pub fn list_released(&self, news: Option<(u64, Duration)>) -> Result<Listing, CallError> {
        let request = match news {
            None => self.request(Method::Get, &[("status", "released")], None),
            Some((after, wait)) => {
                let (after, span) = (after.to_string(), format!("{}ms", wait.as_millis()));
                let query = [("status", "released"), ("after", &*after), ("wait", &*span)];
                Request { patience: PATIENCE + wait, ..self.request(Method::Get, &query, None) }
            }
        };
        let (latches, revision) = self.client.call_listing(&request)?;
        Ok(Listing { latches, revision })
    }

    /// Deletes a latch.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn delete(&self, id: &str) -> Result<(), CallError> {
        repeated(|attempt| {
            let deleted = self.client.call::<serde_json::Value>(self.request(Method::Delete, &[("id", id)], None));
            match deleted {
                // The attempt whose answer was lost has done it.
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
        repeated(|_| self.client.call(self.request(Method::Get, &[("status", status)], None)))
    }
}

fn json<T: serde::Serialize>(body: &T) -> Option<Vec<u8>> {
    // Our own types hold nothing that JSON cannot say.
    Some(serde_json::to_vec(body).unwrap_or_default())
}

/// Calls until there is an answer, a few times. The caller runs it where a signal can leave it behind.
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
