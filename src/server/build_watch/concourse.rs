//! One Concourse over HTTP: what it says about itself and about builds. Logs in again when needed.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::address::ClusterUrl;
use super::build_status::{Answer, Cause, Question, Seen, Trouble, unreadable};
use super::session::{Refused, Token, is_worth_a_login};
use super::settings::{ConcourseSettings, Login};
use crate::client::connect::{self, Authorization};
use crate::client::http::encode;
use crate::client::{proxy, trust};
use crate::core::claim::Owner;
use crate::core::names::Text;
use crate::env::{self, Clock};
use crate::server::build_watch::limits;
use crate::server::door::limits::DOOR_PEM_BYTES;
use crate::wire::atc::{Info, TokenReply};
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// The client that every Concourse knows, and its password. Both are public constants of Concourse, not secrets.
const CLIENT: (&str, &str) = ("fly", "Zmx5");
/// `openid` is mandatory for the password grant. `federated:id` carries the user to the roles.
const SCOPE: &str = "openid profile email federated:id groups";

/// A Concourse that can be asked. The watch and the checks at claim time share it.
pub struct Concourse {
    /// The external URLs under which its builds are known.
    pub urls: Vec<ClusterUrl>,
    pub login: Login,
    base: ServerUrl,
    agent: ureq::Agent,
    /// Locked during a login, so that one login serves everyone who needs it.
    session: Mutex<Session>,
    /// The period of the watch. Pauses are measured in it.
    period: Duration,
    clock: Arc<dyn Clock>,
}

#[derive(Default)]
struct Session {
    token: Option<Token>,
    refused: Option<Refused>,
}

/// What is sent, and the moment (monotonic) by which everything must be done.
struct Call<'a> {
    path: &'a str,
    authorization: Option<Secret>,
    /// A form to post. Without one, the request is a GET.
    form: Option<Secret>,
    until: Duration,
}

impl Concourse {
    /// Prepares the client. Nothing is sent. `vars` is the environment, which may name proxies.
    ///
    /// # Errors
    /// A CA file cannot be used.
    pub fn open(
        settings: &ConcourseSettings,
        period: Duration,
        vars: &BTreeMap<String, String>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let ca_cert = settings.ca.as_ref().map(|file| {
            let broken = |why: &dyn std::fmt::Display| format!("cannot read {}: {why}", file.display());
            let read = env::read_file(file, DOOR_PEM_BYTES).map_err(|error| broken(&error))?;
            let text = read.ok_or_else(|| broken(&"it is too large for PEM"))?;
            String::from_utf8(text).map_err(|_| broken(&"it is not valid UTF-8"))
        });
        let tls = Tls { ca_cert: ca_cert.transpose()?, ..Tls::default() };
        let base = settings.url.clone();
        let proxy = proxy::proxy_for(&base, None, vars)?;
        let tls = trust::client_config(&tls, proxy::needs_tls(&base, proxy.as_ref())).map_err(|why| {
            let file = settings.ca.as_deref().unwrap_or_else(|| std::path::Path::new("ca"));
            format!("{}: {why}", file.display())
        })?;
        let idle = Some(Duration::from_millis(limits::WATCH_IDLE_MS));
        let agent = connect::agent(&base, proxy, tls, idle, vars);
        let (urls, login) = (settings.urls(), settings.login.clone());
        Ok(Self { urls, login, base, agent, session: Mutex::default(), period, clock })
    }

    /// The name under which the store keeps what it says about itself. `None` if its URL is longer than any that a claim
    /// could name.
    #[must_use]
    pub fn stored_name(&self) -> Option<Text> {
        Text::parse(&self.urls.first()?.to_string()).ok()
    }

    /// Whether the login can be read on the network.
    #[must_use]
    pub fn sends_secrets_in_the_clear(&self) -> bool {
        !self.base.is_tls() && self.login != Login::None
    }

    /// What it says about itself, within `limit`. Needs no login and sends none, because an outdated login would be
    /// refused.
    ///
    /// # Errors
    /// It does not answer, or the answer is not that of a Concourse.
    pub fn info(&self, limit: Duration) -> Result<Info, Trouble> {
        let until = self.clock.monotonic().saturating_add(limit);
        let answer = self.send(Call { path: "/api/v1/info", authorization: None, form: None, until })?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|error| unreadable(&error)),
            _ => Err(answer.trouble()),
        }
    }

    /// Makes sure that the login works before the first build is asked about.
    ///
    /// # Errors
    /// The login does not work, or that could not be found out.
    pub fn log_in_first(&self, limit: Duration) -> Result<(), Trouble> {
        self.token(self.clock.monotonic().saturating_add(limit)).map(|_| ())
    }

    /// Checks that the right Concourse answers at this address. A proxy or another Concourse would answer 404 for every
    /// build.
    ///
    /// # Errors
    /// Another server answers, or that could not be found out.
    pub fn is_itself(&self, limit: Duration) -> Result<(), Trouble> {
        let info = self.info(limit).map_err(|trouble| {
            let text = format!(
                "404 for a build, which is not believed: /api/v1/info did not answer properly ({})",
                trouble.text
            );
            Trouble::new(trouble.cause, text)
        })?;
        match self.stranger(&info) {
            None => Ok(()),
            Some(other) => {
                let text = format!("404 for a build, which is not believed: another Concourse answers, {other}");
                Err(Trouble::new(Cause::NotConcourse, text))
            }
        }
    }

    /// The external URL that a Concourse says it has, if it is none of ours.
    #[must_use]
    pub fn stranger(&self, info: &Info) -> Option<String> {
        let named = info.external_url.as_deref().filter(|url| !url.is_empty())?;
        match ClusterUrl::parse(named) {
            Ok(url) if self.urls.contains(&url) => None,
            Ok(url) => Some(url.to_string()),
            Err(_) => Some(crate::wire::escape::escape(named)),
        }
    }

    /// Asks about a build, within `limit`, including a new login if one is needed.
    pub fn build(&self, id: u64, limit: Duration) -> Seen {
        self.ask(Question::Id(id), limit)
    }

    /// Asks about the build that this owner names by team, pipeline, job and number, within `limit`, including a new
    /// login if one is needed. [`Seen::Missing`] may also mean that the pipeline or the job has another name by now.
    pub fn build_at(&self, owner: &Owner, limit: Duration) -> Seen {
        self.ask(Question::Place(owner), limit)
    }

    fn ask(&self, question: Question<'_>, limit: Duration) -> Seen {
        let until = self.clock.monotonic().saturating_add(limit);
        self.try_ask(question, until).unwrap_or_else(Seen::Unknown)
    }

    /// Like [`Self::build`], for callers that treat a 404 as final: a 404 counts only if Concourse itself answers.
    pub fn build_for_sure(&self, id: u64, limit: Duration) -> Seen {
        let until = self.clock.monotonic().saturating_add(limit);
        match self.build(id, limit) {
            Seen::Missing => match self.is_itself(until.saturating_sub(self.clock.monotonic())) {
                Ok(()) => Seen::Missing,
                Err(trouble) => Seen::Unknown(trouble),
            },
            seen => seen,
        }
    }

    fn try_ask(&self, question: Question<'_>, until: Duration) -> Result<Seen, Trouble> {
        let Some(path) = question.path() else { return Ok(Seen::Missing) };
        loop {
            let (token, just_now) = self.token(until)?;
            let authorization = token.clone().map(|token| Authorization::Bearer(token).header());
            let answer = self.send(Call { path: &path, authorization, form: None, until })?;
            if let Some(token) = token.as_ref().filter(|_| is_worth_a_login(answer.status, token.is_some(), just_now)) {
                self.forget(token);
                continue;
            }
            return Ok(Seen::read(&answer, question, token.is_some()));
        }
    }

    /// A usable token, and whether it was fetched for this call.
    fn token(&self, until: Duration) -> Result<(Option<Secret>, bool), Trouble> {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        if let Some(token) = session.token.as_ref().filter(|token| token.is_fresh(now)) {
            return Ok((Some(token.secret.clone()), false));
        }
        session.token = None;
        let unreadable = |why: String| Trouble::new(Cause::LoginRefused, format!("{why}; see --concourse"));
        let token = match (&self.login, self.login.secret().map_err(unreadable)?) {
            (_, None) => return Ok((None, false)),
            (Login::Password { user, .. }, Some(password)) => {
                if let Some(refused) = session.refused.as_ref().filter(|refused| refused.forbids(&password, now)) {
                    return Err(refused.trouble.clone());
                }
                match self.log_in(user, &password, until) {
                    Ok(reply) => Token::of_reply(reply, now),
                    Err(trouble) if trouble.cause == Cause::LoginRefused => {
                        let refused =
                            Refused::again(session.refused.take(), password, trouble.clone(), now, self.period);
                        session.refused = Some(refused);
                        return Err(trouble);
                    }
                    Err(trouble) => return Err(trouble),
                }
            }
            (Login::None | Login::Token { .. }, Some(given)) => Token::given(given),
        };
        *session = Session { token: Some(token.clone()), refused: None };
        Ok((Some(token.secret), true))
    }

    /// Drops the refused token, unless another thread has already replaced it.
    fn forget(&self, refused: &Secret) {
        let mut session = self.session.lock().unwrap_or_else(PoisonError::into_inner);
        session.token.take_if(|token| token.secret == *refused);
    }

    /// The password grant of Concourse's login service.
    fn log_in(&self, user: &str, password: &Secret, until: Duration) -> Result<TokenReply, Trouble> {
        let (name, secret) = CLIENT;
        let client = Credentials { username: name.to_owned(), password: Secret::new(secret) };
        let form = format!(
            "grant_type=password&username={}&password={}&scope={}",
            encode(user),
            encode(password.expose()),
            encode(SCOPE)
        );
        let answer = self.send(Call {
            path: "/sky/issuer/token",
            authorization: Some(Authorization::Basic(client).header()),
            form: Some(Secret::new(form)),
            until,
        })?;
        match answer.status {
            200 => serde_json::from_slice(&answer.body).map_err(|_| {
                // The text that could not be read may contain a token.
                Trouble::new(Cause::NotConcourse, "its login service answered without a token")
            }),
            400 | 401 | 403 => Err(Trouble::new(
                Cause::LoginRefused,
                format!(
                    "it refuses the login of user {user:?} ({}): is that a local user of this Concourse, and is the \
                     password file right?",
                    answer.status
                ),
            )),
            _ => Err(answer.trouble()),
        }
    }

    /// Sends one request. Any status is an answer. Redirects are not followed.
    fn send(&self, call: Call<'_>) -> Result<Answer, Trouble> {
        let left = call.until.saturating_sub(self.clock.monotonic());
        if left.is_zero() {
            return Err(Trouble::new(Cause::NoAnswer, "no answer in time"));
        }
        connect::guarded(|| self.try_send(call, left)).map_err(|error| {
            let why = connect::in_words(&error, "ca= in --concourse (a file)");
            Trouble::new(Cause::NoAnswer, format!("no answer: {why}"))
        })
    }

    fn try_send(&self, call: Call<'_>, left: Duration) -> Result<Answer, ureq::Error> {
        let Call { path, authorization, form, until: _ } = call;
        let url = self.base.join(path);
        let mut response = match form {
            None => {
                let request = self.agent.get(url).config().timeout_global(Some(left)).build();
                match &authorization {
                    Some(secret) => request.header("authorization", secret.expose()).call(),
                    None => request.call(),
                }
            }
            Some(form) => {
                let request = self.agent.post(url).config().timeout_global(Some(left)).build();
                let request = request.header("content-type", "application/x-www-form-urlencoded");
                match &authorization {
                    Some(secret) => request.header("authorization", secret.expose()).send(form.expose()),
                    None => request.send(form.expose()),
                }
            }
        }?;
        let location = response.headers().get("location").and_then(|place| place.to_str().ok()).map(str::to_owned);
        let body = response.body_mut().with_config().limit(limits::WATCH_ANSWER_BYTES).read_to_vec()?;
        Ok(Answer { status: response.status().as_u16(), body, location })
    }
}
