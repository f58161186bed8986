//! Calls about tokens that the server makes.

use super::calls::get;
use super::http::{CallError, Client, Method, PATIENCE, Request, encode};
use crate::wire::api::{NewTokenView, Page, TokenBody, TokenView};

impl Client {
    /// Makes a token. Only this answer has it: if the answer is lost, revoke the token and make another.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn create_token(&self, body: &TokenBody) -> Result<NewTokenView, CallError> {
        // Our own types contain nothing that JSON cannot express.
        let body = serde_json::to_vec(body).unwrap_or_default();
        let path = "/api/v1/tokens".to_owned();
        self.call(Request { method: Method::Post, path, body: Some(body), patience: PATIENCE })
    }

    /// All tokens, without their secrets.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn list_tokens(&self) -> Result<Vec<TokenView>, CallError> {
        let page: Page<TokenView> = self.call(get("/api/v1/tokens".to_owned()))?;
        Ok(page.items)
    }

    /// Ends a token.
    ///
    /// # Errors
    /// As [`CallError`].
    pub fn revoke_token(&self, name: &str) -> Result<TokenView, CallError> {
        let path = format!("/api/v1/tokens/{}", encode(name));
        self.call(Request { method: Method::Delete, path, body: None, patience: PATIENCE })
    }
}
