//! Who shows a token: what it proves now, or what it proved when a claim began.
//!
//! Tokens live shorter than queues, and a step cannot get a new one. So the server remembers with each claim who made
//! it, and a hash of the token that was shown then. Exactly that token stands for exactly that identity in requests about
//! this claim, and for nothing else. After the claim has ended, it learns how.

use std::sync::Arc;

use super::issuers::Trusted;
use super::{Proved, Refusal};
use crate::core::names::{ClaimId, Digest};
use crate::core::origin::{Identity, Job};
use crate::server::engine::{Engine, EngineError};
use crate::server::http::Request;
use crate::store::Found;
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

/// Knows builds by their tokens.
pub struct Builds {
    trusted: Trusted,
    /// Knows the claims that builds have made. The id of its store makes the hashes unlike those of other servers.
    engine: Engine,
}

impl Builds {
    /// Knows the builds of these issuers, and the claims that they have made.
    #[must_use]
    pub fn new(trusted: Trusted, engine: Engine) -> Self {
        Self { trusted, engine }
    }

    /// Whether no token counts at all.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.trusted.now().is_empty()
    }

    /// Who shows this token. Waits for the store only where the token has expired and its claim has ended.
    ///
    /// # Errors
    /// The token proves nothing now, and did not begin the claim that the request is about.
    pub async fn identify(&self, request: &Request, token: &str) -> Result<Shown, Refusal> {
        let credential = credential(self.engine.store_id(), token);
        let refusal = match self.trusted.now().check(token) {
            Ok(proved) => return Ok(Shown { identity: proved.identity(), proved: Some(proved), credential }),
            Err(refusal) => refusal,
        };
        let Some(id) = claim_id(&request.path).filter(|_| refusal.is_of_time()) else { return Err(refusal) };
        let origin = self.engine.snapshot().claim(&id).and_then(|claim| claim.origin.clone());
        let made = match origin {
            Some(origin) => origin.proved.clone().filter(|_| origin.credential == Some(credential)),
            // The signature of a token that has expired is right. Others are no reason to ask the store.
            None if matches!(refusal, Refusal::Expired(_)) => self.maker_of_ended(id, credential).await,
            None => None,
        };
        match made.filter(|identity| matches!(identity, Identity::Build(_))) {
            Some(identity) => Ok(Shown { identity, proved: None, credential }),
            None => Err(refusal),
        }
    }

    /// Makes certain that the claim that a refused token has begun is not known to another server, which leads by now.
    ///
    /// # Errors
    /// This server no longer leads, or too many commands wait.
    pub async fn confirm(&self, refusal: &Refusal) -> Result<(), EngineError> {
        if refusal.is_of_time() { self.engine.confirm_for_strangers().await } else { Ok(()) }
    }

    /// Who made this claim, which has ended, if that was with this credential. It may learn how its claim ended.
    async fn maker_of_ended(&self, id: ClaimId, credential: Digest) -> Option<Identity> {
        match self.engine.read(move |reader| reader.find(&id)).await {
            Ok(Found::Ended(ended)) if ended.credential == Some(credential) => ended.maker,
            // Where the store cannot be read, the token is refused like any other that has expired.
            _ => None,
        }
    }
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
        Identity::Build(Box::new(Job {
            issuer: self.issuer.clone(),
            team: text(&self.team),
            pipeline: self.pipeline.as_ref().map(text),
            job: self.job.as_ref().map(text),
        }))
    }
}
