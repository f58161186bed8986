//! Who shows a token: what it proves now, or what it proved when a claim began.
//!
//! Tokens live shorter than queues, and a step cannot get a new one. So the server remembers with each claim who made
//! it, and a hash of the token that was shown then. Until the claim ends, exactly that token stands for exactly that
//! identity in requests about this claim, and for nothing else.

use std::sync::Arc;

use super::issuers::Trusted;
use super::{Proved, Refusal};
use crate::core::claim::Claim;
use crate::core::names::{ClaimId, Digest};
use crate::core::origin::{Identity, Job};
use crate::server::http::Request;
use crate::wire::digest::Fields;
use crate::wire::text::percent_decoded;

/// What a request with a token has shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// Who it is.
    pub identity: Identity,
    /// All that the token proves now. `None` if it is good only for the claim that it began.
    pub proved: Option<Arc<Proved>>,
    /// The hash of the token, to be remembered with a claim.
    pub credential: Digest,
}

/// The claim of this id, if it is live.
pub type FindClaim = dyn Fn(&ClaimId) -> Option<Arc<Claim>> + Send + Sync;

/// Knows builds by their tokens.
pub struct Builds {
    trusted: Trusted,
    /// What makes the hashes of this server's store unlike those of others.
    store: String,
    find: Box<FindClaim>,
}

impl Builds {
    /// Knows the builds of these issuers, and the claims that they have made in this store.
    #[must_use]
    pub fn new(trusted: Trusted, store: String, find: Box<FindClaim>) -> Self {
        Self { trusted, store, find }
    }

    /// Whether no token counts at all.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.trusted.now().is_empty()
    }

    /// Who shows this token. Never blocks.
    ///
    /// # Errors
    /// The token proves nothing now, and did not begin the claim that the request is about.
    pub fn identify(&self, request: &Request, token: &str) -> Result<Shown, Refusal> {
        let credential = credential(&self.store, token);
        let refusal = match self.trusted.now().check(token) {
            Ok(proved) => {
                let (identity, proved) = (proved.identity(), Some(Arc::new(proved)));
                return Ok(Shown { identity, proved, credential });
            }
            Err(refusal) => refusal,
        };
        // It was true, and only time has passed since: it has expired, its key has left, or the keys of its issuer are
        // not here yet after a start. Where the settings have changed, they count.
        let is_of_time = matches!(
            refusal,
            Refusal::Expired(_) | Refusal::UnknownKey(_) | Refusal::KeyNotYetKnown { .. } | Refusal::NoKeys { .. }
        );
        let claim = claim_id(&request.path).filter(|_| is_of_time).and_then(|id| (self.find)(&id));
        match claim.as_deref().and_then(|claim| maker(claim, credential)) {
            Some(identity) => Ok(Shown { identity, proved: None, credential }),
            None => Err(refusal),
        }
    }
}

/// Who made this claim, if that was with this credential.
fn maker(claim: &Claim, credential: Digest) -> Option<Identity> {
    let origin = claim.origin.as_ref().filter(|origin| origin.credential == Some(credential))?;
    origin.proved.clone().filter(|identity| matches!(identity, Identity::Build(_)))
}

/// The hash of a token. A token has more randomness than its hash (the signature), so nobody finds it from the hash.
fn credential(store: &str, token: &str) -> Digest {
    let mut fields = Fields::default();
    ["locker id token 1", store, token].into_iter().for_each(|text| fields.text(text));
    Digest(fields.finish())
}

/// The claim that a path of our API is about: `/api/v1/claims/{id}`, also with more behind it.
fn claim_id(path: &str) -> Option<ClaimId> {
    let id = path.strip_prefix("/api/v1/claims/")?.split('/').next()?;
    percent_decoded(id).ok()?.parse().ok()
}

impl Proved {
    /// The identity that rules, history and logs know.
    #[must_use]
    pub fn identity(&self) -> Identity {
        let text = |text: &crate::core::names::Text| text.as_str().to_owned();
        Identity::Build(Job {
            issuer: self.issuer.clone(),
            team: text(&self.team),
            pipeline: self.pipeline.as_ref().map(text),
            job: self.job.as_ref().map(text),
        })
    }
}
