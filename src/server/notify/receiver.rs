//! One target over HTTP: what is sent to it, and what its answer means. Redirects are not followed.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ring::hmac;

use super::limits;
use super::message;
use super::settings::{Concourse, Format, Target, To, Webhook};
use crate::client::connect::{self, Authorization};
use crate::client::http::encode;
use crate::client::{proxy, trust};
use crate::core::time::WallMs;
use crate::env;
use crate::server::secret_file;
use crate::wire::escape::escape;
use crate::wire::notification::Notification;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// A URL whose path and query may be a secret: only scheme, host and port are ever shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    pub base: ServerUrl,
    path: Secret,
}

impl Endpoint {
    /// Parses `http://` or `https://`, optional `USER[:PASSWORD]@`, host, optional port, path and query.
    ///
    /// # Errors
    /// Says what is wrong, without quoting the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let authority = text.find("://").map_or(0, |at| at + 3);
        let end = text[authority..].find(['/', '?']).map_or(text.len(), |at| authority + at);
        let (base, path) = text.split_at(end);
        if !path.chars().all(|c| c.is_ascii_graphic() && !"#\"<>\\".contains(c)) {
            return Err("url must be plain ASCII, without #, spaces or quotes".to_owned());
        }
        let base = ServerUrl::parse(base).map_err(|why| format!("url {why}"))?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Self { base, path: Secret::new(path) })
    }

    /// Whether a user and password are part of it.
    #[must_use]
    pub fn has_credentials(&self) -> bool {
        self.base.credentials().is_some()
    }
}

/// The key that signs, by the convention of Standard Webhooks.
pub struct Signer(hmac::Key);

impl Signer {
    /// Reads the key from its file: `whsec_` and base64.
    ///
    /// # Errors
    /// Says what is wrong with the file, without anything of its content.
    pub fn read(file: &Path) -> Result<Self, String> {
        let text = secret_file::read(file, limits::NOTIFY_SECRET_BYTES, "a key that signs")?;
        let key = text.expose().strip_prefix("whsec_").and_then(|key| BASE64.decode(key).ok());
        match key {
            Some(key) if limits::KEY_BYTES.contains(&key.len()) => Ok(Self(hmac::Key::new(hmac::HMAC_SHA256, &key))),
            _ => Err(format!(
                "{} must have whsec_ and the base64 of {} to {} random bytes: \
                 printf 'whsec_%s\\n' \"$(openssl rand -base64 32)\"",
                file.display(),
                limits::KEY_BYTES.start(),
                limits::KEY_BYTES.end()
            )),
        }
    }

    /// The value of `webhook-signature`.
    #[must_use]
    pub fn sign(&self, id: &str, timestamp: u64, body: &str) -> String {
        let tag = hmac::sign(&self.0, format!("{id}.{timestamp}.{body}").as_bytes());
        format!("v1,{}", BASE64.encode(tag))
    }
}

/// Why a target does not have what was sent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// For people: escaped, without secrets.
    pub why: String,
    /// It is this message that it does not want.
    pub is_refusal: bool,
    /// How long it asks to be left alone.
    pub retry_after: Option<Duration>,
}

impl From<String> for Failure {
    fn from(why: String) -> Self {
        Self { why, is_refusal: false, retry_after: None }
    }
}

/// A target, ready to be sent something: its files have been read.
pub struct Receiver {
    agent: ureq::Agent,
    base: ServerUrl,
    path: Secret,
    authorization: Option<Secret>,
    signer: Option<Signer>,
    format: Format,
}

/// What is sent.
#[derive(Debug, Clone, Copy)]
pub enum Parcel<'a> {
    /// One for JSON; any number in one message for people.
    Notifications(&'a [&'a Notification]),
    /// A check of a resource of Concourse.
    Check,
}

impl Receiver {
    /// Reads the files of a target. `vars` is the environment, which may name proxies.
    ///
    /// # Errors
    /// A file or a proxy cannot be used. The text has no secret.
    pub fn open(target: &Target, vars: &BTreeMap<String, String>) -> Result<Self, String> {
        let secret = |file: &Path| secret_file::read(file, limits::NOTIFY_SECRET_BYTES, "a token");
        let (endpoint, authorization, signer, format) = match &target.to {
            To::Concourse(Concourse { url, path, token, .. }) => {
                let token = encode(secret(token)?.expose());
                let sign = if path.contains('?') { '&' } else { '?' };
                let path = Secret::new(format!("{path}{sign}webhook_token={token}"));
                (Endpoint { base: url.clone(), path }, None, None, Format::Json)
            }
            To::Webhook(webhook) => {
                let Webhook { secret: key, token, format, .. } = webhook;
                let endpoint = webhook.endpoint()?;
                let token = token.as_deref().map(secret).transpose()?.map(Authorization::Bearer);
                let of_url = |own: &Credentials| Authorization::Basic(own.clone());
                let authorization = token.or_else(|| endpoint.base.credentials().map(of_url));
                let signer = key.as_deref().map(Signer::read).transpose()?;
                (endpoint, authorization.map(|authorization| authorization.header()), signer, *format)
            }
        };
        let Endpoint { base, path } = endpoint;
        let tls = Tls { ca_cert: target.ca.as_deref().map(pem).transpose()?, ..Tls::default() };
        let proxy = proxy::proxy_for(&base, None, vars)?;
        let tls = trust::client_config(&tls, proxy::needs_tls(&base, proxy.as_ref()))?;
        let agent = connect::agent(&base, proxy, tls, None, vars);
        Ok(Self { agent, base, path, authorization, signer, format })
    }

    /// How many notifications one request may carry.
    #[must_use]
    pub fn at_once(&self) -> usize {
        match self.format {
            Format::Json => 1,
            Format::Slack => limits::LINES_PER_POST,
        }
    }

    /// Sends one request. Returns the status of a success.
    ///
    /// # Errors
    /// The target does not have it, or may not have it.
    pub fn send(&self, parcel: Parcel<'_>, now: WallMs) -> Result<u16, Failure> {
        let body = match (parcel, self.format) {
            (Parcel::Check, _) => String::new(),
            (Parcel::Notifications(of), Format::Slack) => serde_json::json!({"text": message::chat(of)}).to_string(),
            (Parcel::Notifications(of), Format::Json) => {
                serde_json::to_string(&of.first()).map_err(|error| Failure::from(error.to_string()))?
            }
        };
        let mut headers: Vec<(&str, Secret)> = vec![("content-type", Secret::new("application/json"))];
        headers.extend(self.authorization.clone().map(|value| ("authorization", value)));
        if let Parcel::Notifications([first, ..]) = parcel {
            let timestamp = now.0 / 1_000;
            headers.push(("webhook-id", Secret::new(first.id.clone())));
            headers.push(("webhook-timestamp", Secret::new(timestamp.to_string())));
            let sign = |signer: &Signer| Secret::new(signer.sign(&first.id, timestamp, &body));
            headers.extend(self.signer.as_ref().map(sign).map(|value| ("webhook-signature", value)));
        }
        let (status, retry_after, answer) = connect::guarded(|| self.try_send(&headers, &body))
            .map_err(|error| Failure::from(connect::in_words(&error, "ca_cert_file of the target")))?;
        if (200..300).contains(&status) {
            return Ok(status);
        }
        let said = if answer.is_empty() { String::new() } else { format!(": {answer}") };
        let why = match status {
            300..400 => format!("it answers {status}, a redirect, which is not followed: name its real address"),
            _ => format!("it answers {status}{said}"),
        };
        Err(Failure { why, is_refusal: matches!(status, 400 | 413 | 415 | 422), retry_after })
    }

    fn try_send(&self, headers: &[(&str, Secret)], body: &str) -> Result<(u16, Option<Duration>, String), ureq::Error> {
        let limit = Duration::from_millis(limits::NOTIFY_TIMEOUT_MS);
        let end = Instant::now() + limit;
        let request = self.agent.post(self.base.join(self.path.expose())).config().timeout_global(Some(limit)).build();
        let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, value.expose()));
        let mut response = request.send(body)?;
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        let retry_after =
            header("retry-after").and_then(|seconds| seconds.trim().parse().ok()).map(Duration::from_secs);
        let status = response.status().as_u16();
        // The status counts. The text is only shown, so a broken one is no failure, and a success needs none.
        let text = if (200..300).contains(&status) || Instant::now() >= end {
            Vec::new()
        } else {
            response.body_mut().with_config().limit(limits::NOTIFY_ANSWER_BYTES).read_to_vec().unwrap_or_default()
        };
        Ok((status, retry_after, self.shown(&String::from_utf8_lossy(&text))))
    }

    /// An answer for the log: its beginning, and nothing of it if it repeats a secret.
    fn shown(&self, text: &str) -> String {
        let secrets = self.authorization.iter().chain(std::iter::once(&self.path)).map(Secret::expose);
        let parts = secrets.flat_map(|secret| secret.split(['/', '?', '&', '=', ' '])).filter(|part| part.len() >= 8);
        if parts.into_iter().any(|part| text.contains(part)) {
            return "an answer that repeats a part of its address or token, which is not shown".to_owned();
        }
        let mut chars = text.trim().chars();
        let mut shown: String = chars.by_ref().take(limits::SHOWN_CHARS).collect();
        if chars.next().is_some() {
            shown.push_str("...");
        }
        escape(&shown)
    }
}

fn pem(file: &Path) -> Result<String, String> {
    let broken = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", file.display());
    let bytes = env::read_file(file, limits::NOTIFY_FILE_BYTES).map_err(|error| broken(&error))?;
    let bytes = bytes.ok_or_else(|| broken(&"it is too large for PEM"))?;
    String::from_utf8(bytes).map_err(|_| broken(&"it is not valid UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_host_of_an_address_is_shown() {
        let url = Endpoint::parse("https://hooks.example.com:444/services/T0/B0/hunter2?x=1").unwrap();
        assert_eq!(url.base.to_string(), "https://hooks.example.com:444");
        assert_eq!(url.base.join(url.path.expose()), "https://hooks.example.com:444/services/T0/B0/hunter2?x=1");
        assert!(!format!("{url:?}").contains("hunter2"));
        assert_eq!(Endpoint::parse("http://a?token=x").unwrap().path.expose(), "/?token=x");
        for bad in ["", "a/b", "ftp://a", "http:///x", "http://a/b c", "http://a/#x", "http://ä/"] {
            let why = Endpoint::parse(bad).unwrap_err();
            assert!(why.starts_with("url ") && (bad.len() < 4 || !why.contains(bad)), "{bad}: {why}");
        }
    }

    #[test]
    fn the_signature_is_that_of_the_convention() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("key");
        let write = |text: &str| std::fs::write(&file, text).unwrap();
        // The example of Standard Webhooks' own libraries.
        write("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw\n");
        let signed =
            Signer::read(&file).unwrap().sign("msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
        for bad in ["hunter2", "whsec_hunter2", "whsec_aHVudGVyMg==", "whsec_"] {
            write(bad);
            let why = Signer::read(&file).map(|_| ()).unwrap_err();
            assert!(why.contains("openssl rand") && !why.contains("hunter2") && !why.contains("aHVu"), "{why}");
        }
    }
}
