//! `--concourse`: which installations are watched, and how the server logs in to them.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::address::ClusterUrl;
use crate::server::build_watch::limits;
use crate::server::secret_file;
use crate::wire::problems::unknown;
use crate::wire::secret::Secret;
use crate::wire::server_url::ServerUrl;

/// One Concourse installation, as `--concourse` describes it. Secrets stay in the files that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConcourseSettings {
    /// The address of its API, and the first spelling of its external URL.
    pub url: ServerUrl,
    /// Its other external URLs, for example those from before it moved.
    pub aliases: Vec<ClusterUrl>,
    pub login: Login,
    /// A PEM file: trust only these issuers of its certificate.
    pub ca: Option<PathBuf>,
}

/// How the server logs in to a Concourse.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// No login. Enough for exposed pipelines.
    #[default]
    None,
    /// As a user of Concourse. The file holds the password.
    Password { user: String, file: PathBuf },
    /// With a bearer token from this file. Somebody else keeps it fresh.
    Token { file: PathBuf },
}

impl Login {
    /// Describes the login, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match self {
            Self::None => "without login (exposed pipelines only)".to_owned(),
            Self::Password { user, .. } => format!("as user {user:?}"),
            Self::Token { file } => format!("with the token in {}", file.display()),
        }
    }

    /// The secret that its file holds now. `None` if the login has no secret.
    ///
    /// # Errors
    /// The file cannot be read, is empty, or is too large for a secret.
    pub fn secret(&self) -> Result<Option<Secret>, String> {
        let (Self::Password { file, .. } | Self::Token { file }) = self else { return Ok(None) };
        secret_file::read(file, limits::WATCH_SECRET_BYTES, "a password or token").map(Some)
    }
}

/// The settings of the build watch. Without any Concourse nothing is watched, and `scope: build` is refused.
#[derive(Debug, Clone)]
pub struct WatchSettings {
    pub concourses: Vec<ConcourseSettings>,
    /// Whether a new claim of a build is checked against its Concourse.
    pub verify: bool,
    pub pace: Pace,
    /// Longest time for one request to a Concourse.
    pub timeout: Duration,
}

/// How often to ask. The defaults are those of [`limits`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Time between two questions about one build.
    pub period: Duration,
    /// Least time between the two 404s that make a build gone.
    pub gone: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            period: Duration::from_millis(limits::WATCH_PERIOD_MS),
            gone: Duration::from_millis(limits::WATCH_GONE_MS),
        }
    }
}

impl Default for WatchSettings {
    fn default() -> Self {
        let timeout = Duration::from_millis(limits::WATCH_TIMEOUT_MS);
        Self { concourses: Vec::new(), verify: false, pace: Pace::default(), timeout }
    }
}

impl WatchSettings {
    /// Checks the settings before anything is started. Finds a URL that two installations share, and secrets that
    /// cannot be read.
    ///
    /// # Errors
    /// Says which installation, what is wrong, and what to do.
    pub fn check(&self) -> Result<(), String> {
        let mut seen = BTreeSet::new();
        for concourse in &self.concourses {
            let urls: BTreeSet<ClusterUrl> = concourse.urls().into_iter().collect();
            for url in urls {
                if seen.contains(&url) {
                    return Err(format!("--concourse: {url} is given for two installations: name it once"));
                }
                seen.insert(url);
            }
            concourse.login.secret().map_err(|why| format!("--concourse {}: {why}", concourse.url))?;
        }
        if self.verify && self.concourses.is_empty() {
            return Err("--verify-builds needs a --concourse to ask".to_owned());
        }
        if self.pace.period.is_zero() || self.timeout.is_zero() {
            return Err("--watch-period and --watch-timeout must be longer than 0s".to_owned());
        }
        Ok(())
    }
}

impl ConcourseSettings {
    /// The external URLs under which its builds are known.
    #[must_use]
    pub fn urls(&self) -> Vec<ClusterUrl> {
        std::iter::once(ClusterUrl::of(&self.url)).chain(self.aliases.iter().cloned()).collect()
    }

    /// `URL[,USER,PASSFILE]`
    fn short(text: &str) -> Result<Self, String> {
        let fields: Vec<&str> = text.split(',').collect();
        let (url, login) = match fields.as_slice() {
            [url] => (url, Login::None),
            [url, user, file] => (url, password(user, file)?),
            _ => return Err(FORMS.to_owned()),
        };
        Ok(Self { url: plain_url("the URL", url)?, aliases: Vec::new(), login, ca: None })
    }

    /// `url=URL,KEY=VALUE,...`
    fn long(text: &str) -> Result<Self, String> {
        let (mut url, mut user, mut password_file, mut token_file, mut ca) = (None, None, None, None, None);
        let mut aliases = Vec::new();
        for field in text.split(',') {
            let (key, value) = field.split_once('=').ok_or_else(|| format!("{field:?} is not KEY=VALUE"))?;
            let place = match key {
                "url" => &mut url,
                "user" => &mut user,
                "password-file" => &mut password_file,
                "token-file" => &mut token_file,
                "ca" => &mut ca,
                "alias" => {
                    aliases.push(ClusterUrl::of(&plain_url("alias", value)?));
                    continue;
                }
                other => return Err(unknown("key", other, KEYS)),
            };
            if value.is_empty() {
                return Err(format!("{key} is empty"));
            }
            if place.replace(value).is_some() {
                return Err(format!("{key} is given twice"));
            }
        }
        let url = plain_url("url", url.ok_or("url is missing")?)?;
        let login = match (user, password_file, token_file) {
            (None, None, None) => Login::None,
            (Some(user), Some(file), None) => password(user, file)?,
            (None, None, Some(file)) => Login::Token { file: file.into() },
            (_, _, Some(_)) => return Err("give either user and password-file, or token-file, not both".to_owned()),
            (Some(_), None, None) => return Err("user needs password-file".to_owned()),
            (None, Some(_), None) => return Err("password-file needs user".to_owned()),
        };
        Ok(Self { url, aliases, login, ca: ca.map(Into::into) })
    }
}

const KEYS: &[&str] = &["url", "user", "password-file", "token-file", "ca", "alias"];
const FORMS: &str = "must be URL, URL,USER,PASSWORD-FILE or url=URL,KEY=VALUE,... with the keys user, password-file, \
                     token-file, ca and alias";

impl FromStr for ConcourseSettings {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let first = text.split(',').next().unwrap_or_default();
        let has_key =
            first.split_once('=').is_some_and(|(key, _)| key.chars().all(|c| c.is_ascii_lowercase() || c == '-'));
        if has_key { Self::long(text) } else { Self::short(text) }
    }
}

fn plain_url(what: &str, text: &str) -> Result<ServerUrl, String> {
    let url = ServerUrl::parse(text).map_err(|error| format!("{what} {error}"))?;
    match url.credentials() {
        None => Ok(url),
        Some(_) => Err(format!("{what} must not contain credentials: others can read command lines; {FORMS}")),
    }
}

fn password(user: &str, file: &str) -> Result<Login, String> {
    if user.is_empty() || file.is_empty() {
        return Err("user and password file must both be given".to_owned());
    }
    Ok(Login::Password { user: user.to_owned(), file: file.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<ConcourseSettings, String> {
        text.parse()
    }

    #[test]
    fn forms() {
        let user = Login::Password { user: "locker".into(), file: "/run/secrets/ci".into() };
        let table = [
            ("https://ci.example.com", "https://ci.example.com", Login::None, None, vec![]),
            ("https://ci.example.com/,locker,/run/secrets/ci", "https://ci.example.com", user.clone(), None, vec![]),
            (
                "url=https://ci.example.com,user=locker,password-file=/run/secrets/ci,ca=/etc/ci.pem,alias=https://Old/",
                "https://ci.example.com",
                user,
                Some("/etc/ci.pem"),
                vec!["https://old"],
            ),
            (
                "url=http://ci:8080,token-file=/t,alias=http://a,alias=http://b",
                "http://ci:8080",
                Login::Token { file: "/t".into() },
                None,
                vec!["http://a", "http://b"],
            ),
        ];
        for (text, url, login, ca, aliases) in table {
            let read = read(text).unwrap();
            let shown: Vec<String> = read.aliases.iter().map(ToString::to_string).collect();
            assert_eq!((read.url.to_string().as_str(), &read.login), (url, &login), "{text}");
            assert_eq!((read.ca, shown), (ca.map(PathBuf::from), aliases.iter().map(ToString::to_string).collect()));
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let table = [
            ("ci.example.com", "http://"),
            ("https://ci,user", "URL,USER,PASSWORD-FILE"),
            ("https://ci,user,", "must both be given"),
            ("https://ci,user,file,more", "URL,USER,PASSWORD-FILE"),
            ("https://me:hunter2@ci", "not contain credentials"),
            ("url=https://ci,user=u", "user needs password-file"),
            ("url=https://ci,password-file=f", "password-file needs user"),
            ("url=https://ci,user=u,password-file=f,token-file=t", "either"),
            ("url=https://ci,url=https://ci", "twice"),
            ("url=https://ci,ca=", "ca is empty"),
            ("url=https://ci,pasword-file=f", "\"password-file\""),
            ("user=u,password-file=f", "url is missing"),
            ("url=https://ci,alias=old", "alias must begin with"),
            ("", "http://"),
        ];
        for (text, expected) in table {
            let error = read(text).unwrap_err();
            assert!(error.contains(expected) && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn what_cannot_work_is_found_at_start() {
        let settings = |specs: &[&str]| WatchSettings {
            concourses: specs.iter().map(|spec| spec.parse().unwrap()).collect(),
            ..WatchSettings::default()
        };
        assert_eq!(settings(&["http://a", "url=http://b,alias=http://c"]).check(), Ok(()));
        let twice = settings(&["http://a", "url=http://b,alias=http://A:80/"]).check().unwrap_err();
        assert!(twice.contains("http://a"), "{twice}");
        let no_file = settings(&["http://a,me,/nowhere/at/all"]).check().unwrap_err();
        assert!(no_file.contains("/nowhere/at/all"), "{no_file}");
        assert!(WatchSettings { verify: true, ..settings(&[]) }.check().unwrap_err().contains("--concourse"));
    }
}
