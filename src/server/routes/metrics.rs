//! `/metrics`.

use std::sync::Arc;

use super::super::http::Response;
use super::super::metrics::{Format, exposition};
use super::Routes;
use super::call::Call;
use super::failure::Failure;
use crate::wire::errors::Code;

/// `GET /metrics`, in the format that the client accepts.
pub(super) async fn get(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    call.asks_nothing()?;
    let format = Format::accepted(call.request.header("accept"));
    let (engine, concourses, more) = (routes.engine.clone(), routes.builds.report(), Arc::clone(&routes.metrics));
    // All pools are looked at, so this takes too long for a thread that serves clients.
    let text = move || exposition(&engine, concourses, |registry| more(registry), format);
    let body = tokio::task::spawn_blocking(text).await.map_err(|_| failed())?.map_err(|_| failed())?;
    let headers = vec![("content-type", format.content_type().to_owned())];
    Ok(Response { headers, ..Response::new(200, body.into_bytes()) })
}

fn failed() -> Failure {
    Failure::new(Code::Internal, "the metrics cannot be written")
}
