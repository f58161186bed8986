//! One method for each call of our API (docs/api.md).

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::http::{CallError, Client, Method, PATIENCE, Request, encode, query};
use crate::wire::api::{
    BreakBody, ChangeView, ClaimBody, ClaimView, ConfirmBody, DeliverBody, DoneView, InfoView, LockBody, LockView,
    MoveBody, MoveLockBody, NoteBody, Page, PoolBody, PoolChangeBody, PoolSummary, PoolView, QuarantineBody,
    ReleaseBody, ReleaseView, RemoveBody, RenewBody, ReturnBody, VerifyView, WaitingView,
};
use crate::wire::errors::Code;

/// The answer to a `PUT` of a claim.
#[derive(Debug, Clone)]
pub enum Asked {
    /// Granted (to be confirmed) or held.
    Given(Box<ClaimView>),
    /// It waits, or a try-lock found no free lock.
    Waiting(Box<WaitingView>),
}

/// Which claims to list.
#[derive(Debug, Clone, Default)]
pub struct ClaimFilter<'a> {
    pub pool: Option<&'a str>,
    pub state: Option<&'a str>,
    /// `ATC_EXTERNAL_URL` and `BUILD_ID`.
    pub build: Option<(&'a str, &'a str)>,
}

/// Which changes of a pool to list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Changes {
    /// Only the newest version.
    Newest,
    /// Versions from this revision on. The revision itself is included whatever happened in it.
    From(u64),
    /// Versions after this revision.
    After(u64),
}

/// How long each of several servers may take to tell which store it serves.
const AGREE: Duration = Duration::from_secs(5);
/// How many changes one request asks for at most.
const CHANGES_PAGE: usize = 1_000;

fn json<T: Serialize>(body: &T) -> Vec<u8> {
    // Our own types contain nothing that JSON cannot express.
    serde_json::to_vec(body).unwrap_or_default()
}

/// A question that is answered at once.
pub(super) fn get(path: String) -> Request {
    Request { method: Method::Get, path, body: None, patience: PATIENCE }
}

fn claim_path(id: &str) -> String {
    format!("/api/v1/claims/{}", encode(id))
}

pub(super) fn pool_path(pool: &str) -> String {
    format!("/api/v1/pools/{}", encode(pool))
}

fn lock_path(pool: &str, lock: &str) -> String {
    format!("{}/locks/{}", pool_path(pool), encode(lock))
}

impl Client {
    /// Asks for locks, or asks again. `wait` is how long the body asks the server to hold the request.
    ///
    /// # Errors
    /// As [`CallError`]; waiting is not an error.
    pub fn put_claim(&self, id: &str, body: &ClaimBody, wait: Duration) -> Result<Asked, CallError> {
        let request =
            Request { method: Method::Put, path: claim_path(id), body: Some(json(body)), patience: PATIENCE + wait };
        let raw = self.send(&request)?;
        match raw.status {
            200..300 => self.parse(&raw).map(|view| Asked::Given(Box::new(view))),
            423 => match self.parse::<WaitingView>(&raw) {
                Ok(view) if matches!(view.code, Code::Waiting | Code::SelfWait | Code::Deadlock | Code::Locked) => {
                    Ok(Asked::Waiting(Box::new(view)))
                }
                _ => Err(self.error(&raw)),
            },
            _ => Err(self.error(&raw)),
        }
    }

    /// Returns a claim.
    ///
    /// # Errors
    /// As [`CallError`]; an ended claim may be reported as a refusal with code `ended`.
    pub fn get_claim(&self, id: &str) -> Result<ClaimView, CallError> {
        self.call(get(claim_path(id)))
    }

    /// Confirms a grant.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn confirm(&self, id: &str, body: &ConfirmBody) -> Result<ClaimView, CallError> {
        let path = format!("{}/confirm", claim_path(id));
        self.call(Request { method: Method::Post, path, body: Some(json(body)), patience: PATIENCE })
    }

    /// Renews a hold: its ttl counts from now. This also confirms a grant.
    ///
    /// # Errors
    /// As [`CallError`]; a lost hold is a refusal with code `ended` that says how it ended. Count the validity of the
    /// hold from before this call, not from its answer.
    pub fn renew(&self, id: &str, body: &RenewBody, patience: Duration) -> Result<ClaimView, CallError> {
        let path = format!("{}/renew", claim_path(id));
        self.call(Request { method: Method::Post, path, body: Some(json(body)), patience })
    }

    /// Returns the claim of a version that an `in` fetches, and tells the server about the fetch.
    ///
    /// # Errors
    /// As [`CallError`]; an ended claim is a refusal with code `ended`.
    pub fn deliver(&self, id: &str, body: &DeliverBody) -> Result<ClaimView, CallError> {
        let path = format!("{}/deliver", claim_path(id));
        self.call(Request { method: Method::Post, path, body: Some(json(body)), patience: PATIENCE })
    }

    /// Ends a grant or a hold by force. Safe to repeat.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn break_claim(&self, id: &str, body: &BreakBody) -> Result<ClaimView, CallError> {
        let path = format!("{}/break", claim_path(id));
        self.call(Request { method: Method::Post, path, body: Some(json(body)), patience: PATIENCE })
    }

    /// Moves a waiting claim to another place in the queue.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn move_claim(&self, id: &str, body: &MoveBody) -> Result<DoneView, CallError> {
        self.change(Method::Post, format!("{}/move", claim_path(id)), body)
    }

    /// Cancels somebody else's claim while it waits.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn cancel_claim(&self, id: &str, by: &str, reason: &str) -> Result<ClaimView, CallError> {
        let path = format!("{}?if_waiting=true&by={}&reason={}", claim_path(id), encode(by), encode(reason));
        self.call(Request { method: Method::Delete, path, body: None, patience: PATIENCE })
    }

    /// Takes a lock out of service.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn quarantine(&self, pool: &str, lock: &str, body: &QuarantineBody) -> Result<DoneView, CallError> {
        self.change(Method::Post, format!("{}/quarantine", lock_path(pool, lock)), body)
    }

    /// Puts a lock back into service.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn put_back(&self, pool: &str, lock: &str, body: &ReturnBody) -> Result<DoneView, CallError> {
        self.change(Method::Post, format!("{}/return", lock_path(pool, lock)), body)
    }

    /// Whether this fence belongs to a current holder.
    ///
    /// # Errors
    /// As [`CallError`]; [`Code::NotHeld`] when it is not.
    pub fn verify(&self, pool: &str, lock: &str, fence: u64) -> Result<VerifyView, CallError> {
        self.call(get(format!("/api/v1/verify?pool={}&lock={}&fence={fence}", encode(pool), encode(lock))))
    }

    /// Cancels or releases a claim. With a `run` it only takes effect if that process still acts for the claim.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn delete_claim(&self, id: &str, run: Option<&str>, patience: Duration) -> Result<ClaimView, CallError> {
        let query = run.map(|run| format!("?run={}", encode(run))).unwrap_or_default();
        let path = format!("{}{query}", claim_path(id));
        self.call(Request { method: Method::Delete, path, body: None, patience })
    }

    /// Releases a claim from a step of a build. An older server without that call ends the claim.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn release_claim(&self, id: &str, body: &ReleaseBody) -> Result<ReleaseView, CallError> {
        let path = format!("{}/release", claim_path(id));
        let request = Request { method: Method::Post, path, body: Some(json(body)), patience: PATIENCE };
        match self.call(request) {
            Err(error) if error.code() == Some(Code::NoSuchRoute) => self.end_claim(id),
            answer => answer,
        }
    }

    /// Ends a claim at once, whoever owns it.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn end_claim(&self, id: &str) -> Result<ReleaseView, CallError> {
        let claim = self.delete_claim(id, None, PATIENCE)?;
        Ok(ReleaseView { revision: claim.revision, claim, reruns: false })
    }

    /// Releases or cancels a claim in the name of this person.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn end_claim_by(&self, id: &str, person: Option<&str>) -> Result<ClaimView, CallError> {
        let path = format!("{}{}", claim_path(id), query(&[("by", person)]));
        self.call(Request { method: Method::Delete, path, body: None, patience: PATIENCE })
    }

    /// All claims that match the filter.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn list_claims(&self, filter: &ClaimFilter<'_>) -> Result<Vec<ClaimView>, CallError> {
        let (cluster, build) = filter.build.unzip();
        let query = [("pool", filter.pool), ("state", filter.state), ("cluster", cluster), ("build", build)];
        self.pages("/api/v1/claims", &query)
    }

    /// Every page of a listing.
    fn pages<T: DeserializeOwned>(&self, path: &str, asked: &[(&str, Option<&str>)]) -> Result<Vec<T>, CallError> {
        let mut items = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let query = query(&[asked, &[("after", after.as_deref())]].concat());
            let page: Page<T> = self.call(get(format!("{path}{query}")))?;
            items.extend(page.items);
            let Some(next) = page.next else { return Ok(items) };
            if after.as_ref().is_some_and(|after| next <= *after) {
                return Err(self.repeats());
            }
            after = Some(next);
        }
    }

    /// Every pool.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn list_pools(&self) -> Result<Vec<PoolSummary>, CallError> {
        self.pages("/api/v1/pools", &[])
    }

    /// Returns a pool with its locks and its queue.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn get_pool(&self, pool: &str) -> Result<PoolView, CallError> {
        let mut view: PoolView = self.call(get(pool_path(pool)))?;
        let mut after = String::new();
        while let Some(next) = view.next.take() {
            if next <= after {
                return Err(self.repeats());
            }
            after.clone_from(&next);
            let more: PoolView = self.call(get(format!("{}?after={}", pool_path(pool), encode(&next))))?;
            view.items.extend(more.items);
            view.next = more.next;
        }
        Ok(view)
    }

    /// Declares a pool. Its whole policy is replaced.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn put_pool(&self, pool: &str, body: &PoolBody) -> Result<DoneView, CallError> {
        self.change(Method::Put, pool_path(pool), body)
    }

    /// Changes some rules of a pool. A pool that does not exist is made.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn patch_pool(&self, pool: &str, body: &PoolChangeBody) -> Result<DoneView, CallError> {
        self.change(Method::Patch, pool_path(pool), body)
    }

    /// Removes a pool that nobody uses.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn delete_pool(&self, pool: &str, body: &RemoveBody) -> Result<DoneView, CallError> {
        self.change(Method::Delete, pool_path(pool), body)
    }

    /// Returns a lock with its metadata and holders.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn get_lock(&self, pool: &str, lock: &str) -> Result<LockView, CallError> {
        self.call(get(lock_path(pool, lock)))
    }

    /// Puts a new lock into a pool.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn put_lock(&self, pool: &str, lock: &str, body: &LockBody) -> Result<DoneView, CallError> {
        self.change(Method::Put, lock_path(pool, lock), body)
    }

    /// Changes a lock. What the body leaves out stays as it is.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn patch_lock(&self, pool: &str, lock: &str, body: &LockBody) -> Result<DoneView, CallError> {
        self.change(Method::Patch, lock_path(pool, lock), body)
    }

    /// Removes a lock from its pool.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn delete_lock(&self, pool: &str, lock: &str, body: &RemoveBody) -> Result<DoneView, CallError> {
        self.change(Method::Delete, lock_path(pool, lock), body)
    }

    /// Moves a lock to another pool.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn move_lock(&self, pool: &str, lock: &str, body: &MoveLockBody) -> Result<DoneView, CallError> {
        self.change(Method::Post, format!("{}/move", lock_path(pool, lock)), body)
    }

    /// Adds a history entry that changes nothing, for a step that needs a version.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn note(&self, pool: &str, body: &NoteBody) -> Result<DoneView, CallError> {
        self.change(Method::Post, format!("{}/changes", pool_path(pool)), body)
    }

    fn change<T: Serialize>(&self, method: Method, path: String, body: &T) -> Result<DoneView, CallError> {
        self.call(Request { method, path, body: Some(json(body)), patience: PATIENCE })
    }

    /// One page of the versions of a pool, oldest first.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn changes(&self, pool: &str, which: Changes) -> Result<Page<ChangeView>, CallError> {
        let which = match which {
            Changes::Newest => "newest=true&limit=1".to_owned(),
            Changes::From(revision) => format!("from={revision}&limit={CHANGES_PAGE}"),
            Changes::After(revision) => format!("after={revision}&limit={CHANGES_PAGE}"),
        };
        self.call(get(format!("{}/changes?versions=true&{which}", pool_path(pool))))
    }

    /// All versions of a pool from this revision on, oldest first. If the revision is still known, it comes first.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn changes_from(&self, pool: &str, revision: u64) -> Result<Vec<ChangeView>, CallError> {
        let page = self.changes(pool, Changes::From(revision))?;
        if page.items.first().is_none_or(|first| first.revision != revision) {
            return Ok(page.items);
        }
        self.with_following(pool, page)
    }

    /// All versions of a pool that are kept, oldest first.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn all_changes(&self, pool: &str) -> Result<Vec<ChangeView>, CallError> {
        self.with_following(pool, self.changes(pool, Changes::After(0))?)
    }

    /// The kept versions of a pool that are about claims of this build (`ATC_EXTERNAL_URL` and `BUILD_ID`), oldest
    /// first.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn changes_of_build(&self, pool: &str, (cluster, build): (&str, &str)) -> Result<Vec<ChangeView>, CallError> {
        let of_build = format!("versions=true&cluster={}&build={}", encode(cluster), encode(build));
        let (mut all, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("{}/changes?{of_build}&after={after}&limit={CHANGES_PAGE}", pool_path(pool));
            let page: Page<ChangeView> = self.call(get(path))?;
            all.extend(page.items);
            let Some(next) = page.next.as_deref().and_then(|next| next.parse::<u64>().ok()) else { return Ok(all) };
            if next <= after {
                return Err(self.repeats());
            }
            after = next;
        }
    }

    /// The versions of this page and of all pages after it.
    fn with_following(&self, pool: &str, mut page: Page<ChangeView>) -> Result<Vec<ChangeView>, CallError> {
        let mut all = std::mem::take(&mut page.items);
        let mut after = None;
        while let Some(next) = page.next.as_deref().and_then(|next| next.parse::<u64>().ok()) {
            if after.is_some_and(|after| next <= after) {
                return Err(self.repeats());
            }
            after = Some(next);
            page = self.changes(pool, Changes::After(next))?;
            all.append(&mut page.items);
        }
        Ok(all)
    }

    /// The entries of one revision.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn revision(&self, pool: &str, revision: u64) -> Result<Vec<ChangeView>, CallError> {
        let page: Page<ChangeView> = self.call(get(format!("{}/changes/{revision}", pool_path(pool))))?;
        Ok(page.items)
    }

    /// The id of the store behind all servers that answer; `None` if none answers.
    ///
    /// # Errors
    /// The servers serve different stores, or one of them refuses.
    pub fn agree(&self) -> Result<Option<String>, String> {
        let info = || Request { patience: AGREE, ..get("/api/v1/info".to_owned()) };
        let ask = |index| self.only(index).call(info());
        let answers: Vec<Result<InfoView, CallError>> = std::thread::scope(|scope| {
            let calls: Vec<_> = (0..self.count()).map(|index| scope.spawn(move || ask(index))).collect();
            calls.into_iter().filter_map(|call| call.join().ok()).collect()
        });
        let mut found: Option<(String, String)> = None;
        for (index, answer) in answers.into_iter().enumerate() {
            let here = self.only(index).server();
            match (answer, &found) {
                (Ok(info), None) => found = Some((info.store_id, here)),
                (Ok(info), Some((id, there))) if info.store_id != *id => {
                    return Err(format!(
                        "the servers {there} and {here} serve different stores: name only servers of one store"
                    ));
                }
                (Err(CallError::Refused(refused)), _) => return Err(format!("{here}: {refused}")),
                (Ok(_), Some(_)) | (Err(CallError::NoAnswer(_) | CallError::Hopeless(_)), _) => {}
            }
        }
        Ok(found.map(|(id, _)| id))
    }

    /// Fetches any JSON from this path. Use a client without credentials for servers that are not ours.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn get_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, CallError> {
        self.call(Request { patience: AGREE, ..get(path.to_owned()) })
    }

    /// Waits at most `wait` for any change in the pool after this revision.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn wait_for_change(&self, pool: &str, after: u64, wait: Duration) -> Result<Page<ChangeView>, CallError> {
        let wait_text = crate::wire::text::api_duration(wait);
        let path = format!("{}/changes?after={after}&limit={CHANGES_PAGE}&wait={wait_text}", pool_path(pool));
        self.call(Request { patience: PATIENCE + wait, ..get(path) })
    }

    /// As [`Self::wait_for_change`], for all pools.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn wait_for_any_change(&self, after: u64, wait: Duration) -> Result<Page<ChangeView>, CallError> {
        let wait_text = crate::wire::text::api_duration(wait);
        let path = format!("/api/v1/changes?after={after}&limit={CHANGES_PAGE}&wait={wait_text}");
        self.call(Request { patience: PATIENCE + wait, ..get(path) })
    }

    /// The newest revision of the pool, whatever happened in it; 0 if nothing ever did.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn newest_revision(&self, pool: &str) -> Result<u64, CallError> {
        let page: Page<ChangeView> = self.call(get(format!("{}/changes?newest=true&limit=1", pool_path(pool))))?;
        Ok(page.items.last().map_or(0, |change| change.revision))
    }

    /// What the server says about itself.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn info(&self) -> Result<InfoView, CallError> {
        self.call(get("/api/v1/info".to_owned()))
    }
}
