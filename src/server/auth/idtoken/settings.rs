//! `issuers:` of the access file: whose tokens are accepted, and what their claims mean.
//!
//! ```yaml
//! issuers:
//!   - name: ci
//!     kind: concourse
//!     issuer: https://ci.example.com
//!     audience: locker
//! ```

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::str::FromStr;

use serde_json::Value;

use super::jwk::Algorithm;
use super::limits::IDTOKEN_ISSUERS;
use crate::core::limits::OWNER_FIELD_BYTES;
use crate::server::build_watch::address::ClusterUrl;
use crate::wire::members::Members;
use crate::wire::problems::{Problems, quoted, unknown};
use crate::wire::server_url::ServerUrl;

/// Issuers that sign tokens for everybody, so that a token of theirs alone says little.
const OPEN_TO_ALL: [&str; 2] = [GITHUB, GITLAB];
const GITHUB: &str = "https://token.actions.githubusercontent.com";
const GITLAB: &str = "https://gitlab.com";

/// What kind of system an issuer is, which says what its claims are called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Concourse,
    GithubActions,
    Gitlab,
    /// Another one: `claims` says everything.
    Custom,
}

impl Kind {
    const ALL: [(&'static str, Self); 4] = [
        ("concourse", Self::Concourse),
        ("github-actions", Self::GithubActions),
        ("gitlab", Self::Gitlab),
        ("custom", Self::Custom),
    ];

    /// The name of its issuer, where there is only one.
    fn issuer(self) -> Option<&'static str> {
        match self {
            Self::GithubActions => Some(GITHUB),
            Self::Gitlab => Some(GITLAB),
            Self::Concourse | Self::Custom => None,
        }
    }

    fn algorithms(self) -> Vec<Algorithm> {
        match self {
            Self::Concourse => vec![Algorithm::Rs256, Algorithm::Es256],
            Self::GithubActions | Self::Gitlab | Self::Custom => vec![Algorithm::Rs256],
        }
    }

    fn claims(self) -> ClaimNames {
        let some = |name: &str| Some(name.to_owned());
        let each = |names: &[&str]| Some(VarsFrom::Each(names.iter().map(|name| (*name).to_owned()).collect()));
        match self {
            Self::Concourse => ClaimNames {
                team: "team".to_owned(),
                pipeline: some("pipeline"),
                job: some("job"),
                instance_vars: Some(VarsFrom::Object("instance_vars".to_owned())),
            },
            Self::GithubActions => ClaimNames {
                team: "repository_owner".to_owned(),
                pipeline: some("repository"),
                job: some("workflow"),
                instance_vars: each(&["ref", "environment"]),
            },
            Self::Gitlab => ClaimNames {
                team: "namespace_path".to_owned(),
                pipeline: some("project_path"),
                job: None,
                instance_vars: each(&["ref", "environment"]),
            },
            Self::Custom => ClaimNames::default(),
        }
    }
}

impl FromStr for Kind {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(|(name, _)| name);
        Self::ALL
            .into_iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| kind)
            .ok_or_else(|| unknown("kind", text, &names))
    }
}

/// Which claims say where a build belongs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClaimNames {
    pub team: String,
    /// If it begins with the team and a slash, as `acme/app` does for the team `acme`, the rest is the pipeline.
    pub pipeline: Option<String>,
    pub job: Option<String>,
    pub instance_vars: Option<VarsFrom>,
}

/// Where the instance vars of a pipeline come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VarsFrom {
    /// One claim, which is an object.
    Object(String),
    /// One var for each of these claims that the token has.
    Each(Vec<String>),
}

/// Where the keys of an issuer come from. Files are named relative to the access file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeySource {
    /// From the issuer itself. `ca_cert`, a PEM file: trust only these issuers of its certificate.
    Discovery { ca_cert: Option<PathBuf> },
    /// From a file with a JWK set, for issuers that this server cannot reach.
    File(PathBuf),
}

/// One issuer, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerSettings {
    /// What rules, logs and messages call it.
    pub name: String,
    /// What its tokens call it, letter for letter.
    pub issuer: String,
    /// A token must be meant for one of these. Never empty.
    pub audiences: Vec<String>,
    /// Never empty.
    pub algorithms: Vec<Algorithm>,
    pub claims: ClaimNames,
    /// Claims that must have one of these values.
    pub require: BTreeMap<String, Vec<String>>,
    pub keys: KeySource,
    /// The external URL of its builds, if it is a Concourse.
    pub cluster: Option<ClusterUrl>,
}

impl IssuerSettings {
    /// Whether somebody on the network between could give this server other keys.
    #[must_use]
    pub fn fetches_in_the_clear(&self) -> bool {
        matches!(self.keys, KeySource::Discovery { .. }) && self.issuer.starts_with("http:")
    }

    /// The algorithms, for messages.
    #[must_use]
    pub fn algorithm_names(&self) -> String {
        self.algorithms.iter().map(|algorithm| algorithm.name()).collect::<Vec<_>>().join(", ")
    }
}

/// Reads the list `issuers` at `at`. Records every problem with the path of the member that it is about, such as
/// `issuers[0].audience`.
pub fn read(at: &str, value: Value, problems: &mut Problems) -> Vec<IssuerSettings> {
    let Value::Array(list) = value else {
        problems.add(at, "must be a list of issuers");
        return Vec::new();
    };
    if list.len() > IDTOKEN_ISSUERS {
        problems.add(at, format!("has {} issuers, and at most {IDTOKEN_ISSUERS} are allowed", list.len()));
        return Vec::new();
    }
    let mut found: Vec<IssuerSettings> = Vec::new();
    for (n, value) in list.into_iter().enumerate() {
        let at = format!("{at}[{n}]");
        let Some(one) = read_one(&at, value, problems) else { continue };
        for other in &found {
            if other.name == one.name {
                problems.add(&format!("{at}.name"), format!("{} is the name of two issuers", quoted(&one.name)));
            }
            if other.issuer == one.issuer {
                problems.add(&format!("{at}.issuer"), "is listed twice: give one entry all audiences");
            }
        }
        found.push(one);
    }
    found
}

const KEYS: &[&str] =
    &["name", "kind", "issuer", "audience", "algorithms", "claims", "require", "ca_cert", "jwks", "cluster"];

fn read_one(at: &str, value: Value, problems: &mut Problems) -> Option<IssuerSettings> {
    let mut fields = Members::of(at, Some(value), problems).from_yaml();
    fields.expect(KEYS);
    let name = fields.text("name", problems);
    let kind = if fields.has("kind") {
        fields.parsed::<Kind>("kind", problems)
    } else {
        fields.wrong("kind", "is missing: one of concourse, github-actions, gitlab, custom", problems);
        None
    };
    let issuer = fields.text("issuer", problems);
    let audiences = one_or_several(&mut fields, "audience", problems);
    let algorithms = algorithms(&mut fields, kind, problems);
    let claims = claims(&mut fields, kind, problems);
    let require = required(&mut fields, problems);
    let keys = keys(&mut fields, problems);
    let cluster = fields.text("cluster", problems);
    let is_named = name.as_ref().is_some_and(|name| is_word(name));
    if !is_named {
        fields.wrong("name", "must be a word of at most 64 letters, digits, - _ . for rules and logs", problems);
    }
    if audiences.is_empty() && kind.is_some() {
        let what = "is missing: the word that tokens for this server carry as their audience, such as locker";
        fields.wrong("audience", what, problems);
    }
    let issuer = kind.and_then(|kind| checked_issuer(&fields, kind, issuer, problems));
    let cluster = cluster_of(&fields, kind, cluster, issuer.as_deref(), problems);
    if let Some(issuer) = issuer.as_deref().filter(|issuer| OPEN_TO_ALL.contains(issuer))
        && require.is_empty()
    {
        let what = format!(
            "is missing: {issuer} signs tokens for everybody, so say whose are accepted, such as \
             `require: {{{}: [my-organisation]}}`",
            if issuer == GITHUB { "repository_owner" } else { "namespace_path" }
        );
        fields.wrong("require", what, problems);
    }
    fields.finish(problems);
    let name = name.filter(|_| is_named)?;
    Some(IssuerSettings {
        name,
        issuer: issuer?,
        audiences,
        algorithms,
        claims: claims?,
        require,
        keys: keys?,
        cluster,
    })
}

/// A name in lines of the log and in rules.
fn is_word(text: &str) -> bool {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=64).contains(&text.len()) && text.chars().all(fits)
}

fn checked_issuer(fields: &Members, kind: Kind, given: Option<String>, problems: &mut Problems) -> Option<String> {
    let Some(issuer) = given.or_else(|| kind.issuer().map(str::to_owned)) else {
        let what = match kind {
            Kind::Concourse => "is missing: the external URL of the Concourse, or its --oidc-issuer-url",
            _ => "is missing: what the tokens carry as `iss`",
        };
        fields.wrong("issuer", what, problems);
        return None;
    };
    if let Err(why) = ServerUrl::parse(&issuer) {
        fields.wrong("issuer", why, problems);
        return None;
    }
    if issuer.contains('@') || issuer.trim() != issuer {
        fields.wrong(
            "issuer",
            "must be exactly what the tokens carry as `iss`: a URL without user and spaces",
            problems,
        );
        return None;
    }
    if kind == Kind::Concourse && issuer.ends_with('/') {
        fields.wrong("issuer", "must not end with a slash: the tokens of Concourse have none there", problems);
        return None;
    }
    Some(issuer)
}

/// The Concourse whose builds have the tokens: `cluster`, else the issuer itself.
fn cluster_of(
    fields: &Members,
    kind: Option<Kind>,
    given: Option<String>,
    issuer: Option<&str>,
    problems: &mut Problems,
) -> Option<ClusterUrl> {
    let url = match (kind, given) {
        (Some(Kind::Concourse), Some(given)) => given,
        (Some(Kind::Concourse), None) => issuer?.to_owned(),
        (_, Some(_)) => {
            fields.wrong("cluster", "is for `kind: concourse`: its external URL, if that is not the issuer", problems);
            return None;
        }
        (_, None) => return None,
    };
    ClusterUrl::parse(&url).map_err(|why| fields.wrong("cluster", why, problems)).ok()
}

fn algorithms(fields: &mut Members, kind: Option<Kind>, problems: &mut Problems) -> Vec<Algorithm> {
    if !fields.has("algorithms") {
        return kind.map(Kind::algorithms).unwrap_or_default();
    }
    let words = one_or_several(fields, "algorithms", problems);
    if words.is_empty() {
        fields.wrong("algorithms", "must name at least one of RS256, ES256, EdDSA", problems);
    }
    let path = fields.path("algorithms");
    words.iter().filter_map(|word| problems.parse(&path, word)).collect()
}

fn claims(fields: &mut Members, kind: Option<Kind>, problems: &mut Problems) -> Option<ClaimNames> {
    let is_given = fields.has("claims");
    let mut given = fields.object("claims", problems);
    given.expect(&["team", "pipeline", "job", "instance_vars"]);
    let kind = kind?;
    if kind == Kind::Concourse && is_given {
        fields.wrong("claims", "is not for `kind: concourse`, whose claims are known", problems);
        return None;
    }
    let usual = kind.claims();
    let team = given.text("team", problems).unwrap_or(usual.team);
    let pipeline = given.text("pipeline", problems).or(usual.pipeline);
    let job = given.text("job", problems).or(usual.job);
    let instance_vars = match given.take("instance_vars") {
        None => usual.instance_vars,
        Some(Value::String(name)) => Some(VarsFrom::Object(name)),
        Some(value) => match serde_json::from_value(value) {
            Ok(names) => Some(VarsFrom::Each(names)),
            Err(_) => {
                given.wrong("instance_vars", "must be the name of a claim, or a list of such names", problems);
                None
            }
        },
    };
    if team.is_empty() {
        given.wrong("team", "is missing: the claim that says to which team a build belongs", problems);
    }
    given.finish(problems);
    (!team.is_empty()).then_some(ClaimNames { team, pipeline, job, instance_vars })
}

fn required(fields: &mut Members, problems: &mut Problems) -> BTreeMap<String, Vec<String>> {
    let path = fields.path("require");
    let map = match fields.take("require") {
        None => return BTreeMap::new(),
        Some(Value::Object(map)) => map,
        Some(_) => {
            problems.add(&path, "must be an object of claims and the values that they may have");
            return BTreeMap::new();
        }
    };
    let one = |(claim, value): (String, Value)| {
        let values = texts(value).filter(|values| !values.is_empty());
        if values.is_none() {
            problems.add(&format!("{path}.{claim}"), "must be a value, or a list of values, that the claim may have");
        }
        Some((claim, values?))
    };
    map.into_iter().filter_map(one).collect()
}

fn keys(fields: &mut Members, problems: &mut Problems) -> Option<KeySource> {
    let (ca_cert, jwks) = (fields.text("ca_cert", problems), fields.text("jwks", problems));
    match (ca_cert, jwks) {
        (Some(_), Some(_)) => {
            fields.wrong("ca_cert", "has no effect with `jwks`: the keys come from that file", problems);
            None
        }
        (ca_cert, None) => Some(KeySource::Discovery { ca_cert: ca_cert.map(PathBuf::from) }),
        (None, Some(jwks)) => Some(KeySource::File(jwks.into())),
    }
}

/// A text, or a list of texts. Empty if it is missing or wrong; what is wrong is recorded.
fn one_or_several(fields: &mut Members, key: &str, problems: &mut Problems) -> Vec<String> {
    let Some(value) = fields.take(key) else { return Vec::new() };
    let found = texts(value).filter(|list| list.iter().all(|text| (1..=OWNER_FIELD_BYTES).contains(&text.len())));
    found.unwrap_or_else(|| {
        fields.wrong(key, "must be a word, or a list of words", problems);
        Vec::new()
    })
}

/// Texts as YAML writes them, where a number is a text as well.
fn texts(value: Value) -> Option<Vec<String>> {
    let text = |value: Value| match value {
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        _ => None,
    };
    match value {
        Value::Array(list) => list.into_iter().map(text).collect(),
        one => text(one).map(|one| vec![one]),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read_all(value: Value) -> (Vec<IssuerSettings>, Vec<String>) {
        let mut problems = Problems::default();
        let found = read("issuers", value, &mut problems);
        (found, problems.into_list())
    }

    #[test]
    fn presets_know_their_claims() {
        let (found, problems) = read_all(json!([
            {"name": "ci", "kind": "concourse", "issuer": "https://ci.example.com", "audience": "locker"},
            {"name": "gh", "kind": "github-actions", "audience": ["a", "b"], "require": {"repository_owner_id": 42}},
            {"name": "gl", "kind": "gitlab", "issuer": "https://git.example.com", "audience": "a", "jwks": "keys.json"},
            {"name": "x", "kind": "custom", "issuer": "https://x/", "audience": "a", "algorithms": "EdDSA",
             "claims": {"team": "org", "instance_vars": ["branch"]}, "ca_cert": "/ca.pem"},
        ]));
        assert_eq!(problems, Vec::<String>::new());
        let shown: Vec<_> = found
            .iter()
            .map(|one| (one.issuer.as_str(), one.algorithm_names(), one.claims.team.as_str(), one.cluster.is_some()))
            .collect();
        assert_eq!(
            shown,
            [
                ("https://ci.example.com", "RS256, ES256".to_owned(), "team", true),
                (GITHUB, "RS256".to_owned(), "repository_owner", false),
                ("https://git.example.com", "RS256".to_owned(), "namespace_path", false),
                ("https://x/", "EdDSA".to_owned(), "org", false),
            ]
        );
        assert_eq!(found[1].require["repository_owner_id"], ["42"]);
        assert_eq!(found[2].keys, KeySource::File("keys.json".into()));
        assert_eq!(found[3].keys, KeySource::Discovery { ca_cert: Some("/ca.pem".into()) });
        assert_eq!(found[3].claims.instance_vars, Some(VarsFrom::Each(vec!["branch".to_owned()])));
    }

    #[test]
    fn faults_are_named_with_the_nearest_valid_word() {
        let good = json!({"name": "ci", "kind": "concourse", "issuer": "https://ci", "audience": "locker"});
        let with = |key: &str, value: Value| {
            let mut one = good.clone();
            one[key] = value;
            json!([one])
        };
        let table = [
            (json!({}), "issuers: must be a list of issuers"),
            (json!(vec![good.clone(); 17]), "issuers: has 17 issuers, and at most 16 are allowed"),
            (json!([good, good]), r#"issuers[1].name: "ci" is the name of two issuers"#),
            (with("name", json!("a b")), "issuers[0].name: must be a word"),
            (with("kind", json!("concorse")), r#"issuers[0].kind: unknown kind "concorse": did you mean "concourse"?"#),
            (with("kind", json!(null)), "issuers[0].kind: is missing: one of concourse"),
            (with("issuer", json!(null)), "issuers[0].issuer: is missing: the external URL of the Concourse"),
            (with("issuer", json!("https://ci/")), "issuers[0].issuer: must not end with a slash"),
            (with("issuer", json!("ci")), "issuers[0].issuer: must begin with http:// or https://"),
            (with("issuer", json!("https://me:x@ci")), "issuers[0].issuer: must be exactly what the tokens carry"),
            (with("audience", json!([])), "issuers[0].audience: is missing"),
            (with("audience", json!({})), "issuers[0].audience: must be a word, or a list of words"),
            (with("algorithms", json!(["RS265"])), r#"algorithms: unknown algorithm "RS265": did you mean "RS256"?"#),
            (with("algorithms", json!("HS256")), r#"algorithms: unknown algorithm "HS256": did you mean"#),
            (with("algorithms", json!("none")), r#"algorithms: unknown algorithm "none": expected one of"#),
            (with("algorithms", json!([])), "issuers[0].algorithms: must name at least one of"),
            (with("audiense", json!("x")), r#"unknown issuers[0] key "audiense": did you mean "audience"?"#),
            (with("claims", json!({"team": "x"})), "issuers[0].claims: is not for `kind: concourse`"),
            (with("cluster", json!("nothing")), "issuers[0].cluster: must begin with http:// or https://"),
            (with("kind", json!("custom")), "issuers[0].claims.team: is missing"),
            (with("require", json!({"ref": {}})), "issuers[0].require.ref: must be a value, or a list of values"),
            (json!([{"name": "gh", "kind": "github-actions", "audience": "x"}]), "issuers[0].require: is missing"),
            (json!([{"name": "gl", "kind": "gitlab", "audience": "x"}]), "issuers[0].require: is missing"),
            (
                json!([{"name": "ci", "kind": "concourse", "issuer": "https://ci", "audience": "x", "jwks": "j", "ca_cert": "c"}]),
                "issuers[0].ca_cert: has no effect with `jwks`",
            ),
        ];
        for (value, expected) in table {
            let (_, problems) = read_all(value.clone());
            assert!(problems.iter().any(|problem| problem.contains(expected)), "{value}: {problems:?}");
        }
    }
}
