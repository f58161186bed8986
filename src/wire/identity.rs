//! What two requests with the same claim id must agree on. The client derives the id from it and the server compares
//! it. Both must mean the same, so it is defined here, once. The other members of a claim (`wait`, `ttl`, `reason`,
//! `priority`, ...) may differ from request to request.

use std::collections::{BTreeMap, BTreeSet};

use super::api::ClaimBody;
use super::digest::Fields;
use crate::core::claim::{Ask, Owner, Scope, Want};
use crate::core::names::{Digest, Text};

/// What is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Identity<'a> {
    /// One part for each pool, ordered by pool.
    parts: Vec<(&'a str, Wanted<'a>)>,
    /// Key and requestor of a shared claim.
    sharer: Option<(&'a str, &'a str)>,
    scope: Option<Scope>,
}

/// What is asked of one pool.
#[derive(Debug, PartialEq, Eq)]
enum Wanted<'a> {
    Named(BTreeSet<&'a str>),
    Any { count: u32, labels: Vec<(&'a str, &'a str)> },
}

impl<'a> Identity<'a> {
    /// The identity of a parsed request.
    #[must_use]
    pub fn of_ask(ask: &'a Ask, scope: Option<Scope>) -> Self {
        let wanted = |want: &'a Want| match want {
            Want::Named(names) => Wanted::Named(names.iter().map(|name| name.as_str()).collect()),
            Want::Any { count, labels } => {
                let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                Wanted::Any { count: *count, labels }
            }
        };
        let parts = ask.parts.iter().map(|part| (part.pool.as_str(), wanted(&part.want))).collect();
        let sharer = ask.sharer().map(|(key, requestor)| (key.as_str(), requestor.as_str()));
        Self { parts, sharer, scope }
    }

    /// The identity of a request as it is sent, with its defaults filled in.
    #[must_use]
    pub fn of_body(body: &'a ClaimBody) -> Self {
        let first = Wanted::of(body.lock.as_ref(), body.locks.as_ref(), body.count, &body.labels);
        let also = body.also.iter().map(|part| {
            (part.pool.as_str(), Wanted::of(part.lock.as_ref(), part.locks.as_ref(), part.count, &part.labels))
        });
        let mut parts: Vec<_> = std::iter::once((body.pool.as_str(), first)).chain(also).collect();
        parts.sort_by_key(|(pool, _)| *pool);
        let sharer = body.key.as_deref().map(|key| (key, body.requestor.as_deref().unwrap_or(key)));
        Self { parts, sharer, scope: body.scope.map(Scope::from) }
    }

    /// The digest that the server compares. It covers this identity and the build that asks. Later releases compare
    /// stored digests, so the fields and their order never change; new fields are only appended.
    #[must_use]
    pub fn digest(&self, owner: &Owner) -> Digest {
        let mut fields = Fields::default();
        fields.text("locker claim 1");
        fields.number(self.parts.len());
        for (pool, wanted) in &self.parts {
            fields.text(pool);
            match wanted {
                Wanted::Any { count, labels } => {
                    fields.text("any");
                    fields.number(*count as usize);
                    fields.number(labels.len());
                    labels.iter().flat_map(|(name, value)| [name, value]).for_each(|text| fields.text(text));
                }
                Wanted::Named(names) => {
                    fields.text("named");
                    fields.number(names.len());
                    names.iter().for_each(|name| fields.text(name));
                }
            }
        }
        let (key, requestor) = self.sharer.unzip();
        fields.optional(key);
        fields.optional(requestor);
        // A claim without a scope may get a scope other than `flow`. This word dates from before that was possible.
        fields.text(match self.scope {
            None => "flow",
            Some(Scope::Flow) => "scope flow",
            Some(scope) => scope_word(scope),
        });
        for field in [&owner.cluster, &owner.team, &owner.build_id] {
            fields.optional(field.as_ref().map(Text::as_str));
        }
        Digest(fields.finish())
    }

    /// Adds the identity to the digest from which a client derives a claim's id. Servers keep these ids, so here too
    /// the fields and their order never change.
    pub fn add_to(&self, fields: &mut Fields) {
        let number = |fields: &mut Fields, number: usize| fields.text(number.to_string());
        number(fields, self.parts.len());
        for (pool, wanted) in &self.parts {
            fields.text(pool);
            let (names, count, labels) = match wanted {
                Wanted::Named(names) => (names.iter().copied().collect(), 0, &[][..]),
                Wanted::Any { count, labels } => (Vec::new(), *count, &labels[..]),
            };
            number(fields, names.len());
            names.iter().for_each(|name| fields.text(name));
            number(fields, count as usize);
            number(fields, labels.len());
            labels.iter().flat_map(|(name, value)| [name, value]).for_each(|text| fields.text(text));
        }
        let (key, requestor) = self.sharer.unwrap_or_default();
        fields.text(key);
        fields.text(requestor);
        fields.text(self.scope.map_or("", scope_word));
    }
}

impl<'a> Wanted<'a> {
    fn of(
        lock: Option<&'a String>,
        locks: Option<&'a Vec<String>>,
        count: Option<u32>,
        labels: &'a BTreeMap<String, String>,
    ) -> Self {
        if lock.is_some() || locks.is_some() {
            return Self::Named(lock.into_iter().chain(locks.into_iter().flatten()).map(String::as_str).collect());
        }
        let labels = labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        Self::Any { count: count.unwrap_or(1), labels }
    }
}

fn scope_word(scope: Scope) -> &'static str {
    match scope {
        Scope::Flow => "flow",
        Scope::Person => "person",
        Scope::Build => "build",
        Scope::Lease => "lease",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::names::ClaimId;
    use crate::wire::parse;
    use crate::wire::problems::Problems;

    /// The client must find the claim again that the server compares with.
    #[test]
    fn server_and_client_agree_on_the_identity() {
        for body in [
            r#"{"pool": "p"}"#,
            r#"{"pool": "p", "lock": "a", "scope": "build"}"#,
            r#"{"pool": "p", "locks": ["b", "a"], "key": "k"}"#,
            r#"{"pool": "p", "count": 2, "labels": {"b": "1", "a": "2"}, "key": "k", "requestor": "r"}"#,
            r#"{"pool": "p", "also": [{"pool": "z", "count": 3}, {"pool": "a", "lock": "x"}], "scope": "person"}"#,
        ] {
            let body: ClaimBody = serde_json::from_str(body).unwrap();
            let mut problems = Problems::default();
            let asked = parse::claim(ClaimId::parse("c").unwrap(), body.clone(), &mut problems);
            let asked = problems.done(asked).unwrap().ask;
            assert_eq!(Identity::of_body(&body), Identity::of_ask(&asked.terms.ask, asked.scope), "{body:?}");
        }
    }
}
