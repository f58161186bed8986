//! Whether a token is true, and what it proves. Pure: the time and the keys are given.

use serde_json::{Map, Value};

use super::jwk::{Algorithm, Checked, KeySet};
use super::jws::Token;
use super::limits::IDTOKEN_LEEWAY_SECONDS;
use super::refusal::Refusal;
use super::settings::{IssuerSettings, VarsFrom};
use crate::core::claim::Owner;
use crate::core::names::{InstanceVars, Text};
use crate::server::build_watch::address::ClusterUrl;
use crate::wire::problems::quoted;
use crate::wire::shorten;

/// What a true token proves of the step that sent it. It names no build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proved {
    /// The name of the issuer in the access file.
    pub issuer: String,
    pub team: Text,
    pub pipeline: Option<Text>,
    /// A check of a resource has none.
    pub job: Option<Text>,
    pub instance_vars: Option<InstanceVars>,
    /// The Concourse of the step.
    pub cluster: Option<ClusterUrl>,
}

/// Checks a token of this issuer. `now` is in seconds since 1970 UTC. The signature is checked before anything else that
/// the token says, except for the name of its algorithm, which must be allowed.
///
/// # Errors
/// Why it proves nothing.
pub fn verify(token: &Token<'_>, issuer: &IssuerSettings, keys: &KeySet, now: i64) -> Result<Proved, Refusal> {
    let name = || issuer.name.clone();
    let allowed = token.algorithm.parse::<Algorithm>().ok().filter(|algorithm| issuer.algorithms.contains(algorithm));
    let algorithm = allowed.ok_or_else(|| Refusal::Algorithm {
        issuer: name(),
        algorithm: token.algorithm.clone(),
        allowed: issuer.algorithm_names(),
    })?;
    if token.issuer() != Some(&issuer.issuer) {
        return Err(Refusal::OtherIssuer(token.issuer().unwrap_or_default().to_owned()));
    }
    match keys.check(token.key.as_deref(), algorithm, token.signed.as_bytes(), &token.signature) {
        Checked::Signed => {}
        Checked::NotSigned => return Err(Refusal::Signature),
        Checked::NoSuchKey => return Err(Refusal::UnknownKey(name())),
        Checked::Unclear(keys) => return Err(Refusal::NoKeyNamed { issuer: name(), keys }),
    }
    check_audience(token, issuer)?;
    check_required(token, issuer)?;
    // Last, so that what has expired is right in all else.
    check_times(token, issuer, now)?;
    proved(&token.claims, issuer)
}

/// It must be good now, give or take the leeway.
fn check_times(token: &Token<'_>, issuer: &IssuerSettings, now: i64) -> Result<(), Refusal> {
    let lacks = |claim: &str| Refusal::Claim { issuer: issuer.name.clone(), claim: claim.to_owned() };
    let expires = token.time("exp").ok_or_else(|| lacks("exp"))?;
    let made = token.time("iat").ok_or_else(|| lacks("iat"))?;
    let good_from = match token.claims.get("nbf") {
        None => made,
        Some(_) => token.time("nbf").ok_or_else(|| lacks("nbf"))?,
    };
    if now - expires >= IDTOKEN_LEEWAY_SECONDS {
        return Err(Refusal::Expired(now - expires));
    }
    if made - now > IDTOKEN_LEEWAY_SECONDS {
        return Err(Refusal::FromTheFuture(made - now));
    }
    if good_from - now > IDTOKEN_LEEWAY_SECONDS {
        return Err(Refusal::NotYetValid(good_from - now));
    }
    Ok(())
}

fn check_audience(token: &Token<'_>, issuer: &IssuerSettings) -> Result<(), Refusal> {
    let given: Vec<&str> = match token.claims.get("aud") {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if given.iter().any(|audience| issuer.audiences.iter().any(|accepted| accepted == audience)) {
        return Ok(());
    }
    let list = |names: Vec<&str>| names.into_iter().take(5).map(quoted).collect::<Vec<_>>().join(", ");
    let found = if given.is_empty() { "no audience".to_owned() } else { list(given) };
    let accepted = list(issuer.audiences.iter().map(String::as_str).collect());
    Err(Refusal::Audience { issuer: issuer.name.clone(), found, accepted })
}

fn check_required(token: &Token<'_>, issuer: &IssuerSettings) -> Result<(), Refusal> {
    for (claim, allowed) in &issuer.require {
        let found = token.claims.get(claim).and_then(word);
        if !found.as_ref().is_some_and(|found| allowed.contains(found)) {
            let found = found.map_or_else(|| "nothing usable".to_owned(), |found| quoted(&found));
            return Err(Refusal::Required { issuer: issuer.name.clone(), claim: claim.clone(), found });
        }
    }
    Ok(())
}

/// A claim with one value, as text.
fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// Where the build belongs, as the settings read the claims.
fn proved(claims: &Map<String, Value>, issuer: &IssuerSettings) -> Result<Proved, Refusal> {
    let lacks = |claim: &str| Refusal::Claim { issuer: issuer.name.clone(), claim: claim.to_owned() };
    let names = &issuer.claims;
    // An empty claim is a missing one.
    let said = |claim: &str| claims.get(claim).and_then(word).filter(|text| !text.is_empty());
    // Names have no control characters. What is too long for an owner is shortened as steps shorten it, so that both stay comparable.
    let text = |claim: &str, said: &str| match Text::parse(&shorten::field(said)) {
        Ok(text) if !said.chars().any(char::is_control) => Ok(text),
        _ => Err(lacks(claim)),
    };
    let whole_team = said(&names.team).ok_or_else(|| lacks(&names.team))?;
    let team = text(&names.team, &whole_team)?;
    let pipeline = names.pipeline.as_deref().map(|claim| {
        let whole = said(claim).ok_or_else(|| lacks(claim))?;
        let rest = whole.strip_prefix(&whole_team).and_then(|rest| rest.strip_prefix('/'));
        text(claim, rest.filter(|rest| !rest.is_empty()).unwrap_or(&whole))
    });
    let job = names.job.as_deref().and_then(|claim| Some(text(claim, &said(claim)?)));
    let vars = match &names.instance_vars {
        None => None,
        Some(VarsFrom::Object(claim)) => match claims.get(claim) {
            None | Some(Value::Null) => None,
            Some(Value::Object(vars)) => Some((claim.as_str(), vars.clone())),
            Some(_) => return Err(lacks(claim)),
        },
        Some(VarsFrom::Each(each)) => {
            let found = each.iter().filter_map(|claim| Some((claim.clone(), claims.get(claim)?.clone())));
            Some(("instance_vars", found.collect::<Map<_, _>>()))
        }
    };
    let vars = vars.filter(|(_, vars)| !vars.is_empty()).map(|(claim, vars)| {
        let text = shorten::instance_vars(&Value::Object(vars).to_string());
        InstanceVars::parse(&text).map_err(|_| lacks(claim))
    });
    Ok(Proved {
        issuer: issuer.name.clone(),
        team,
        pipeline: pipeline.transpose()?,
        job: job.transpose()?,
        instance_vars: vars.transpose()?,
        cluster: issuer.cluster.clone(),
    })
}

impl Proved {
    /// What a step says about itself that is not true by this proof: one sentence for the first such thing. What it does
    /// not say is not compared.
    #[must_use]
    pub fn contradicts(&self, owner: &Owner) -> Option<String> {
        let says = |what: &str, said: &str, proved: Option<&str>| {
            let proved = proved.map_or_else(|| format!("no {what}"), |proved| format!("{what} {}", quoted(proved)));
            format!(
                "the token is of {proved}, but the request says {what} {}: a build can claim locks only for itself",
                quoted(said)
            )
        };
        if let Some(said) = &owner.cluster {
            let is_true = self.cluster.is_some() && ClusterUrl::parse(said.as_str()).ok() == self.cluster;
            if !is_true {
                let cluster = self.cluster.as_ref().map(ToString::to_string);
                return Some(says("Concourse", said.as_str(), cluster.as_deref()));
            }
        }
        let fields = [
            ("team", &owner.team, Some(&self.team)),
            ("pipeline", &owner.pipeline, self.pipeline.as_ref()),
            ("job", &owner.job, self.job.as_ref()),
        ];
        for (what, said, proved) in fields {
            if let Some(said) = said.as_ref().filter(|said| Some(*said) != proved) {
                return Some(says(what, said.as_str(), proved.map(Text::as_str)));
            }
        }
        let said = owner.instance_vars.as_ref()?;
        let proved = self.instance_vars.as_ref();
        let is_true = proved.is_some_and(|proved| said == proved || same_json(said.as_str(), proved.as_str()));
        (!is_true).then(|| says("instance vars", said.as_str(), proved.map(InstanceVars::as_str)))
    }

    /// Fills in what the step did not say. [`Self::contradicts`] comes first.
    pub fn complete(&self, owner: &mut Owner) {
        owner.team.get_or_insert_with(|| self.team.clone());
        let fill = |field: &mut Option<Text>, proved: &Option<Text>| {
            if field.is_none() {
                field.clone_from(proved);
            }
        };
        fill(&mut owner.pipeline, &self.pipeline);
        fill(&mut owner.job, &self.job);
        if owner.instance_vars.is_none() {
            owner.instance_vars.clone_from(&self.instance_vars);
        }
    }

    /// Whether both are of the same pipeline, so that one may end what the other has: also of another job of it, or of
    /// another of its instances.
    #[must_use]
    pub fn is_of_pipeline_of(&self, other: &Self) -> bool {
        (&self.issuer, &self.team, &self.pipeline) == (&other.issuer, &other.team, &other.pipeline)
    }
}

fn same_json(a: &str, b: &str) -> bool {
    let [a, b] = [a, b].map(|text| serde_json::from_str::<Value>(text).ok());
    a.is_some() && a == b
}
