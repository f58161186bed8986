//! Requests of our own API, and what their answers say about a claim.

use locker::wire::api::{ClaimState, ClaimView, ErrorView, WaitingView};
use locker::wire::errors::Code;
use serde_json::json;

use super::history::{Asked, Seen, Want};
use crate::support::http::{Answer, request};

/// `PUT` of a claim.
pub fn ask(id: &str, asked: &Asked, run: &str, wait_ms: u64) -> String {
    let part = |want: &Want| match want {
        Want::Any { pool, count } => json!({ "pool": pool, "count": count }),
        Want::Named { pool, locks } => json!({ "pool": pool, "locks": locks }),
    };
    let mut body = part(&asked.wants[0]);
    body["run"] = json!(run);
    body["confirm"] = json!(asked.confirm);
    body["queue"] = json!(asked.queue);
    if asked.wants.len() > 1 {
        body["also"] = asked.wants[1..].iter().map(part).collect();
    }
    if let Some(key) = &asked.key {
        body["key"] = json!(key);
        body["requestor"] = json!(asked.requestor);
    }
    if wait_ms > 0 {
        body["wait"] = json!(format!("{wait_ms}ms"));
    }
    request("PUT", &format!("/api/v1/claims/{id}"), "", &body.to_string())
}

pub fn confirm(id: &str, run: &str, fence: u64) -> String {
    let body = json!({ "run": run, "fence": fence }).to_string();
    request("POST", &format!("/api/v1/claims/{id}/confirm"), "", &body)
}

/// `DELETE` of a claim. One from a lock directory has no run.
pub fn end(id: &str, run: Option<&str>) -> String {
    match run {
        Some(run) => request("DELETE", &format!("/api/v1/claims/{id}?run={run}"), "", ""),
        None => request("DELETE", &format!("/api/v1/claims/{id}"), "", ""),
    }
}

pub fn look(id: &str) -> String {
    request("GET", &format!("/api/v1/claims/{id}"), "", "")
}

/// What an answer about a claim says.
pub fn seen(answer: &Answer) -> Seen {
    if answer.status == 200 {
        return of_view(&answer.parse());
    }
    if answer.status == 423 {
        let waiting: WaitingView = answer.parse();
        return match (waiting.code, waiting.claim) {
            (Code::Waiting, Some(view)) => of_view(&view),
            (Code::Locked, _) => Seen::Absent,
            // It could not be parked. The next request shows the state of the claim.
            (Code::Waiting, None) => Seen::Nothing,
            (code, _) => Seen::Refused(code.word().to_owned()),
        };
    }
    // A door that has stood still for too long has lost the answer. Only doors say that.
    if answer.code() == "timeout" {
        return Seen::Nothing;
    }
    let error: ErrorView = answer.parse();
    match (error.code, error.claim) {
        (Code::Ended, Some(view)) => of_view(&view),
        (Code::NoSuchClaim, _) => Seen::Absent,
        // Its outcome is unknown.
        (Code::StoreFailed | Code::Unavailable | Code::NoLeader | Code::UnknownOutcome, _) => Seen::Nothing,
        (code, _) => Seen::Refused(code.word().to_owned()),
    }
}

/// # Panics
/// When the view lacks a member that its state always has.
pub fn of_view(view: &ClaimView) -> Seen {
    let life = view.life;
    let locks = || view.locks.iter().map(|l| (l.pool.clone(), l.lock.clone())).collect();
    let fence = || view.fence.unwrap_or_else(|| panic!("a grant without a fence: {view:?}"));
    match view.state {
        ClaimState::Waiting => Seen::Waiting { life },
        ClaimState::Granted => Seen::Granted { life, fence: fence(), locks: locks() },
        ClaimState::Held => Seen::Held { life, fence: fence(), locks: locks() },
        ClaimState::Ended => {
            let how = view.how.clone().unwrap_or_else(|| panic!("ended, but how? {view:?}"));
            Seen::Ended { life, how, fence: view.fence }
        }
    }
}
