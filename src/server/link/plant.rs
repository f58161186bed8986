//! The planted bug of a server that follows, which the tests must find.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::Forwarder;
use crate::core::names::ParkId;
use crate::server::http::{Admitting, Answering, Handler, Request, Response};

/// Repeats what the leader has told of a claim before, without asking it.
pub struct AnswersByItself {
    forwarder: Arc<Forwarder>,
    told: Mutex<HashMap<String, Response>>,
}

impl AnswersByItself {
    #[must_use]
    pub fn new(forwarder: Arc<Forwarder>) -> Self {
        Self { forwarder, told: Mutex::default() }
    }
}

impl Handler for AnswersByItself {
    fn admit<'a>(&'a self, request: &'a mut Request) -> Admitting<'a> {
        self.forwarder.admit(request)
    }

    fn handle<'a>(&'a self, request: &'a Request) -> Answering<'a> {
        Box::pin(async {
            let told = || self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let is_look = request.method == "GET" && request.path.starts_with("/api/v1/claims/");
            if is_look && let Some(response) = told().get(&request.path) {
                return response.clone();
            }
            let response = self.forwarder.handle(request).await;
            if is_look && response.status == 200 {
                told().insert(request.path.clone(), response.clone());
            }
            response
        })
    }

    fn left(&self, park: ParkId) {
        self.forwarder.left(park);
    }
}
