//! The id of a build's claim: the same for the same request of the same step, so that a re-run or re-attached `out`
//! finds its claim again (design section 6).

use std::collections::BTreeSet;

use sha2::{Digest as _, Sha256};

use crate::env::{hex, random_hex};
use crate::wire::api::{ClaimBody, Owner, PartBody, Scope};

/// Bytes of the digest that make the id: 40 hexadecimal digits.
const ID_BYTES: usize = 20;

/// Where the claim comes from, beside its owner.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The container: an `out` that runs again there finds its claim.
    Host(&'a str),
    /// A name given with `as`: found again from every container of the build.
    Named(&'a str),
}

/// The id for this request. Without a build there is nothing to find it again by, and the id is random.
#[must_use]
pub fn claim_id(owner: &Owner, place: Place<'_>, body: &ClaimBody) -> String {
    if owner.build_id.is_none() {
        return random_hex::<ID_BYTES>();
    }
    let (host, name) = match place {
        Place::Host(host) => (host, ""),
        Place::Named(name) => ("", name),
    };
    let mut fields = Fields(Sha256::new());
    let who = [&owner.cluster, &owner.team, &owner.pipeline, &owner.instance_vars, &owner.job, &owner.build_id];
    who.iter().for_each(|field| fields.text(field.as_deref().unwrap_or_default()));
    fields.text(host);
    fields.text(name);
    fields.what_is_asked(body);
    hex(&fields.0.finalize()[..ID_BYTES])
}

struct Fields(Sha256);

impl Fields {
    /// Each field goes with its length, so that no two lists of fields read the same.
    fn text(&mut self, text: &str) {
        self.0.update((text.len() as u64).to_be_bytes());
        self.0.update(text.as_bytes());
    }

    fn number(&mut self, number: usize) {
        self.text(&number.to_string());
    }

    /// What two requests with one id must agree in (design section 2), in one order, defaults filled in.
    fn what_is_asked(&mut self, body: &ClaimBody) {
        let first = PartBody {
            pool: body.pool.clone(),
            lock: body.lock.clone(),
            locks: body.locks.clone(),
            count: body.count,
            labels: body.labels.clone(),
        };
        let mut parts: Vec<&PartBody> = std::iter::once(&first).chain(&body.also).collect();
        parts.sort_by(|a, b| a.pool.cmp(&b.pool));
        self.number(parts.len());
        parts.into_iter().for_each(|part| self.part(part));
        self.text(body.key.as_deref().unwrap_or_default());
        self.text(body.requestor.as_deref().or(body.key.as_deref()).unwrap_or_default());
        self.text(match body.scope {
            None => "",
            Some(Scope::Flow) => "flow",
            Some(Scope::Person) => "person",
        });
    }

    fn part(&mut self, part: &PartBody) {
        self.text(&part.pool);
        let names: BTreeSet<&String> = part.lock.iter().chain(part.locks.iter().flatten()).collect();
        self.number(names.len());
        names.iter().for_each(|name| self.text(name));
        let count = if names.is_empty() { part.count.unwrap_or(1) } else { 0 };
        self.number(count as usize);
        self.number(part.labels.len());
        for (name, value) in &part.labels {
            self.text(name);
            self.text(value);
        }
    }
}
