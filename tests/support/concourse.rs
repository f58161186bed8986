//! A pretend Concourse over real sockets: the endpoints, fields, statuses and access rules that the build watch uses,
//! and the ways in which a network, a proxy or an installation can fail.
//!
//! - `GET /api/v1/info`: needs no login; 401 for an invalid token.
//! - `POST /sky/issuer/token`: the password grant. Tokens expire and can be revoked.
//! - `GET /api/v1/builds/{id}`: 404 before it checks the token; 200 for members of the build's team, and for everybody
//!   when the pipeline is exposed; otherwise 403 with a valid token, 401 without.
//! - `GET /api/v1/teams/{team}/pipelines/{pipeline}/jobs/{job}/builds/{number}`, with `?vars={...}` for an instance of a
//!   pipeline: the same for the build that has that number in its job.
//!
//! Its answers are those of a real web node (`concourse.json`), with the facts of the test in them.

#![allow(dead_code, reason = "each test binary uses its own part of the harness")]

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use percent_encoding::percent_decode_str;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

use super::port::Port;

/// How it fails. A fault affects all endpoints unless it says otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// Accepts connections and sends nothing.
    Silent,
    /// Refuses connections.
    Refuses,
    /// Answers after this time.
    Slow(Duration),
    /// Answers with this status and nothing else.
    Says(u16),
    /// Answers with this status, but only for builds.
    SaysForBuilds(u16),
    /// 200 with a body that is not valid JSON.
    BadJson,
    /// 200 with other JSON.
    OtherJson,
    /// Sends the first half of the correct answer, then closes the connection.
    Cut,
    /// Sends an answer slowly, one byte at a time.
    Trickles,
    /// Redirects to this address, with the path.
    Redirects(String),
    /// Sends endless headers, or an endless body.
    Endless,
}

/// A build, as its row in the database has it.
#[derive(Debug, Clone)]
pub struct Row {
    /// Its number in its job.
    pub number: String,
    pub team: String,
    pub pipeline: Option<String>,
    pub instance_vars: Option<Value>,
    pub job: Option<String>,
    pub status: String,
    /// Seconds since 1970 UTC. Concourse sends it only for builds that are over.
    pub end_time: Option<u64>,
    pub exposed: bool,
}

struct Token {
    /// `None` if the client did not ask for `federated:id`: then the token has no role anywhere.
    user: Option<String>,
    expires: Instant,
}

struct User {
    password: String,
    teams: Vec<String>,
}

#[derive(Default)]
struct State {
    builds: BTreeMap<u64, Row>,
    users: BTreeMap<String, User>,
    tokens: BTreeMap<String, Token>,
    token_lasts: Option<Duration>,
    fault: Option<Fault>,
    external_url: String,
    build_rerun: bool,
    /// The number of requests about each build.
    asked: BTreeMap<u64, usize>,
    /// The times of all requests about builds.
    moments: Vec<(Instant, u64)>,
    logins: usize,
    logins_refused: usize,
    infos: usize,
    /// The number of 401 answers about builds.
    unauthorized: usize,
    /// Connections that get no answer.
    kept: Vec<TcpStream>,
    /// The paths of all requests.
    paths: Vec<String>,
}

struct Shared {
    state: Mutex<State>,
    tls: Mutex<Option<Arc<ServerConfig>>>,
}

/// A running Concourse.
pub struct Concourse {
    pub url: String,
    port: Port,
    shared: Arc<Shared>,
}

impl Concourse {
    pub fn start() -> Self {
        Self::start_with(None)
    }

    /// A Concourse over TLS, with this certificate chain and key in PEM form.
    pub fn start_tls(cert: &str, key: &str) -> Self {
        Self::start_with(Some(tls(cert, key)))
    }

    fn start_with(tls: Option<Arc<ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let scheme = if tls.is_some() { "https" } else { "http" };
        let url = format!("{scheme}://{address}");
        let state = State { external_url: url.clone(), ..State::default() };
        let shared = Shared { state: Mutex::new(state), tls: Mutex::new(tls) };
        let shared = Arc::new(shared);
        let theirs = Arc::clone(&shared);
        Self { url, port: Port::open(listener, move |stream| theirs.serve(stream)), shared }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.shared.state.lock().unwrap()
    }

    /// Fails like this from now on.
    pub fn fails(&self, fault: Fault) {
        self.well();
        if fault == Fault::Refuses {
            self.port.refuses();
        }
        self.state().fault = Some(fault);
    }

    /// Works again.
    pub fn well(&self) {
        let mut state = self.state();
        state.fault = None;
        state.kept.clear();
        drop(state);
        self.port.accepts();
    }

    /// Uses another certificate from now on.
    pub fn shows(&self, cert: &str, key: &str) {
        *self.shared.tls.lock().unwrap() = Some(tls(cert, key));
    }

    /// Adds a build of job `deploy` of the exposed pipeline `app` in team `main`, or changes its status.
    pub fn build(&self, id: u64, status: &str) {
        let mut state = self.state();
        let row = state.builds.entry(id).or_insert_with(|| Row {
            number: id.to_string(),
            team: "main".into(),
            pipeline: Some("app".into()),
            instance_vars: None,
            job: Some("deploy".into()),
            status: String::new(),
            end_time: None,
            exposed: true,
        });
        status.clone_into(&mut row.status);
    }

    /// A build that has ended, so many seconds ago.
    pub fn ended_build(&self, id: u64, status: &str, ago: u64) {
        self.build(id, status);
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
        self.state().builds.get_mut(&id).unwrap().end_time = Some(now - ago);
    }

    /// The same, but the pipeline is not exposed.
    pub fn private_build(&self, id: u64, status: &str) {
        self.build(id, status);
        self.change(id, |row| row.exposed = false);
    }

    /// Changes the row of a build.
    pub fn change(&self, id: u64, change: impl FnOnce(&mut Row)) {
        change(self.state().builds.get_mut(&id).unwrap());
    }

    /// Destroys the pipeline of the build: the row is gone.
    pub fn destroy(&self, id: u64) {
        self.state().builds.remove(&id);
    }

    /// Adds a user with the role viewer in these teams.
    pub fn user(&self, name: &str, password: &str, teams: &[&str]) {
        let teams = teams.iter().map(|team| (*team).to_owned()).collect();
        self.state().users.insert(name.to_owned(), User { password: password.to_owned(), teams });
    }

    /// New tokens last this long.
    pub fn tokens_last(&self, span: Duration) {
        self.state().token_lasts = Some(span);
    }

    /// Revokes all tokens so far.
    pub fn revoke_tokens(&self) {
        self.state().tokens.clear();
    }

    /// A token for the settings of the server.
    pub fn token_of(&self, user: &str) -> String {
        self.state().give_token(Some(user.to_owned()), Duration::from_secs(3600))
    }

    /// Sets what `/api/v1/info` returns: the external URL, and whether builds are re-run.
    pub fn says_of_itself(&self, external_url: &str, build_rerun: bool) {
        let mut state = self.state();
        external_url.clone_into(&mut state.external_url);
        state.build_rerun = build_rerun;
    }

    /// The number of requests about this build so far.
    pub fn asked(&self, id: u64) -> usize {
        self.state().asked.get(&id).copied().unwrap_or_default()
    }

    /// Waits for this many more requests about this build.
    pub fn until_asked(&self, id: u64, more: usize) {
        let before = self.asked(id);
        super::eventually(&format!("{more} questions about build {id}"), || {
            (self.asked(id) >= before + more).then_some(())
        });
    }

    /// The times of all requests about builds.
    pub fn moments(&self) -> Vec<(Instant, u64)> {
        self.state().moments.clone()
    }

    pub fn logins(&self) -> usize {
        self.state().logins
    }

    pub fn logins_refused(&self) -> usize {
        self.state().logins_refused
    }

    /// The number of 401 answers about builds so far.
    pub fn unauthorized(&self) -> usize {
        self.state().unauthorized
    }

    pub fn infos(&self) -> usize {
        self.state().infos
    }

    /// The paths of all requests so far.
    pub fn paths(&self) -> Vec<String> {
        self.state().paths.clone()
    }
}

fn tls(cert: &str, key: &str) -> Arc<ServerConfig> {
    let chain = CertificateDer::pem_slice_iter(cert.as_bytes()).map(Result::unwrap).collect();
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    Arc::new(builder.with_no_client_auth().with_single_cert(chain, key).unwrap())
}

struct Request {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
    body: String,
}

struct Reply {
    status: u16,
    body: String,
}

/// What a real web node answered to this request.
fn recorded(request: &str, with_login: bool) -> Reply {
    let all: Value = serde_json::from_str(include_str!("concourse.json")).unwrap();
    let mut answers = all["answers"].as_array().unwrap().iter();
    let answer = answers.find(|answer| answer["request"] == request && answer["with_login"] == with_login);
    let answer = answer.unwrap_or_else(|| panic!("{request} was not recorded"));
    let status = answer["status"].as_u64().unwrap().try_into().unwrap();
    Reply { status, body: answer["body"].as_str().unwrap().to_owned() }
}

/// The same, as JSON to put the facts of a test into.
fn recorded_json(request: &str, with_login: bool) -> Value {
    serde_json::from_str(&recorded(request, with_login).body).unwrap()
}

impl Reply {
    fn empty(status: u16) -> Self {
        Self { status, body: String::new() }
    }

    fn json(status: u16, body: &Value) -> Self {
        Self { status, body: body.to_string() }
    }
}

trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

impl Shared {
    fn serve(&self, stream: TcpStream) {
        let fault = self.state.lock().unwrap().fault.clone();
        if fault == Some(Fault::Silent) {
            self.state.lock().unwrap().kept.push(stream);
            return;
        }
        let kept = stream.try_clone();
        let tls = self.tls.lock().unwrap().clone();
        let mut duplex: Box<dyn Duplex> = match tls {
            Some(config) => Box::new(StreamOwned::new(ServerConnection::new(config).unwrap(), stream)),
            None => Box::new(stream),
        };
        // The client may have disconnected, or does not trust us.
        if let Ok(request) = read(&mut *duplex) {
            let _ = self.answer(&request, fault, &mut *duplex);
        }
        let _ = duplex.flush();
        drop(duplex);
        drop(kept);
    }

    fn answer(&self, request: &Request, fault: Option<Fault>, to: &mut dyn Duplex) -> io::Result<()> {
        let is_build = request.path.starts_with("/api/v1/builds/") || request.path.contains("/jobs/");
        let good = self.state.lock().unwrap().reply(request);
        match fault {
            Some(Fault::Slow(span)) => {
                std::thread::sleep(span);
                write(to, &good, "")
            }
            Some(Fault::Says(status)) => write(to, &Reply::empty(status), ""),
            Some(Fault::SaysForBuilds(status)) if is_build => write(to, &Reply::empty(status), ""),
            Some(Fault::BadJson) => write(to, &Reply { status: 200, body: "<html>hello</html>".into() }, ""),
            Some(Fault::OtherJson) => write(to, &Reply { status: 200, body: r#"{"status":"aborted"}"#.into() }, ""),
            Some(Fault::Cut) => {
                let (head, body) = text(&good, "");
                let whole = head + &body;
                to.write_all(&whole.as_bytes()[..whole.len() - body.len() / 2 - 1])
            }
            Some(Fault::Trickles) => {
                let (head, body) = text(&good, "");
                for byte in (head + &body).bytes() {
                    to.write_all(&[byte])?;
                    to.flush()?;
                    std::thread::sleep(Duration::from_millis(100));
                }
                Ok(())
            }
            Some(Fault::Redirects(place)) => {
                write(to, &Reply::empty(302), &format!("location: {place}{}\r\n", request.path))
            }
            Some(Fault::Endless) => {
                to.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n[\"")?;
                loop {
                    to.write_all(&[b'x'; 8 * 1024])?;
                }
            }
            Some(Fault::SaysForBuilds(_) | Fault::Silent | Fault::Refuses) | None => write(to, &good, ""),
        }
    }
}

fn read(from: &mut dyn Duplex) -> io::Result<Request> {
    let (mut bytes, mut chunk) = (Vec::new(), [0; 8 * 1024]);
    loop {
        if let Some(head) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
            let mut lines = text.lines();
            let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
            let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
            let headers: BTreeMap<String, String> = lines
                .filter_map(|line| line.split_once(':'))
                .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
                .collect();
            let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
            if bytes.len() >= head + 4 + length {
                let body = String::from_utf8_lossy(&bytes[head + 4..]).into_owned();
                return Ok(Request { method, path, headers, body });
            }
        }
        match from.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => bytes.extend_from_slice(&chunk[..read]),
        }
    }
}

fn text(reply: &Reply, headers: &str) -> (String, String) {
    let length = reply.body.len();
    let head = format!("HTTP/1.1 {} X\r\ncontent-length: {length}\r\nconnection: close\r\n{headers}\r\n", reply.status);
    (head, reply.body.clone())
}

fn write(to: &mut dyn Duplex, reply: &Reply, headers: &str) -> io::Result<()> {
    let (head, body) = text(reply, headers);
    to.write_all((head + &body).as_bytes())?;
    to.flush()
}

impl State {
    fn reply(&mut self, request: &Request) -> Reply {
        self.paths.push(request.path.clone());
        match (request.method.as_str(), request.path.as_str()) {
            ("GET", "/api/v1/info") => self.info(request),
            ("POST", "/sky/issuer/token") => self.log_in(request),
            ("GET", path) => match path.strip_prefix("/api/v1/builds/").map(str::parse::<u64>) {
                Some(Ok(id)) => self.look(id, request),
                Some(Err(_)) => recorded("GET /api/v1/builds/abc", true),
                None => match self.id_at(path) {
                    Some(id) => self.look(id, request),
                    None => Reply::empty(404),
                },
            },
            _ => Reply::empty(405),
        }
    }

    /// The build that has this place in a pipeline.
    fn id_at(&self, path: &str) -> Option<u64> {
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<String> = path.strip_prefix("/api/v1/")?.split('/').map(decode).collect();
        let [teams, team, pipelines, pipeline, jobs, job, builds, number] = parts.as_slice() else { return None };
        if [teams.as_str(), pipelines, jobs, builds] != ["teams", "pipelines", "jobs", "builds"] {
            return None;
        }
        let vars = query.strip_prefix("vars=").map(|vars| serde_json::from_str::<Value>(&decode(vars)).unwrap());
        let is_it = |row: &Row| {
            (&row.team, &row.pipeline, &row.job) == (team, &Some(pipeline.clone()), &Some(job.clone()))
                && (&row.number, &row.instance_vars) == (number, &vars)
        };
        self.builds.iter().find(|(_, row)| is_it(row)).map(|(id, _)| *id)
    }

    /// The user of the token in a request: `Err` if it is not valid (any more), `Ok(None)` if there is none.
    fn token(&self, request: &Request) -> Result<Option<&Token>, ()> {
        let Some(sent) = request.headers.get("authorization") else { return Ok(None) };
        let token = sent.strip_prefix("Bearer ").and_then(|token| self.tokens.get(token)).ok_or(())?;
        if token.expires > Instant::now() { Ok(Some(token)) } else { Err(()) }
    }

    fn info(&mut self, request: &Request) -> Reply {
        self.infos += 1;
        if self.token(request).is_err() {
            return Reply::empty(401);
        }
        let mut info = recorded_json("GET /api/v1/info", false);
        info["feature_flags"]["build_rerun"] = json!(self.build_rerun);
        info["external_url"] = json!(self.external_url);
        Reply::json(200, &info)
    }

    fn give_token(&mut self, user: Option<String>, lasts: Duration) -> String {
        let token = format!("A+b/{}{}", self.tokens.len(), self.logins);
        self.tokens.insert(token.clone(), Token { user, expires: Instant::now() + lasts });
        token
    }

    fn log_in(&mut self, request: &Request) -> Reply {
        let error = |status, word: &str| Reply::json(status, &json!({"error": word, "error_description": "no"}));
        let client = base64::engine::general_purpose::STANDARD.encode("fly:Zmx5");
        if request.headers.get("authorization") != Some(&format!("Basic {client}")) {
            return error(401, "invalid_client");
        }
        let decode = |text: &str| percent_decode_str(&text.replace('+', " ")).decode_utf8_lossy().into_owned();
        let form: BTreeMap<String, String> = request
            .body
            .split('&')
            .filter_map(|pair| pair.split_once('='))
            .map(|(name, value)| (decode(name), decode(value)))
            .collect();
        let field = |name: &str| form.get(name).cloned().unwrap_or_default();
        if field("grant_type") != "password" {
            return error(400, "unsupported_grant_type");
        }
        let scopes = field("scope");
        if !scopes.split(' ').any(|scope| scope == "openid") {
            return error(400, "invalid_scope");
        }
        let name = field("username");
        if self.users.get(&name).is_none_or(|user| user.password != field("password")) {
            self.logins_refused += 1;
            return error(401, "access_denied");
        }
        self.logins += 1;
        let lasts = self.token_lasts.unwrap_or(Duration::from_secs(24 * 3600));
        let token = self.give_token(scopes.split(' ').any(|scope| scope == "federated:id").then_some(name), lasts);
        Reply::json(
            200,
            &json!({"access_token": token, "token_type": "bearer", "expires_in": lasts.as_secs(), "id_token": "a.b.c"}),
        )
    }

    fn look(&mut self, id: u64, request: &Request) -> Reply {
        *self.asked.entry(id).or_default() += 1;
        self.moments.push((Instant::now(), id));
        let Some(row) = self.builds.get(&id) else { return recorded("GET /api/v1/builds/99999", true) };
        let token = self.token(request);
        let user = token.ok().flatten().and_then(|token| token.user.as_ref()).and_then(|name| self.users.get(name));
        let may_see = user.is_some_and(|user| user.teams.contains(&row.team));
        if !may_see && !row.exposed {
            let is_valid = token.is_ok_and(|token| token.is_some());
            self.unauthorized += usize::from(!is_valid);
            return if is_valid { Reply::empty(403) } else { recorded("GET /api/v1/builds/19", false) };
        }
        let mut body = recorded_json("GET /api/v1/builds/39", true);
        let members = body.as_object_mut().unwrap();
        members.insert("id".to_owned(), json!(id));
        members.insert("name".to_owned(), json!(row.number));
        members.insert("api_url".to_owned(), json!(format!("/api/v1/builds/{id}")));
        members.insert("status".to_owned(), json!(row.status));
        members.insert("team_name".to_owned(), json!(row.team));
        let more = [
            ("pipeline_name", row.pipeline.clone().map(Value::from)),
            ("pipeline_instance_vars", row.instance_vars.clone()),
            ("job_name", row.job.clone().map(Value::from)),
            ("end_time", row.end_time.map(Value::from)),
        ];
        for (name, value) in more {
            match value {
                Some(value) => drop(members.insert(name.to_owned(), value)),
                None => drop(members.remove(name)),
            }
        }
        Reply::json(200, &body)
    }
}
