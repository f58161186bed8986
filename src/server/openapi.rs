//! Makes `openapi.json` from the table of routes and the wire types, so that it cannot differ from either.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::route::{Parameter, Route};
use crate::wire::api::{ErrorView, WaitingView};
use crate::wire::errors::Code;

/// The codes that any route of our own API may answer. Contracts ignore what they do not know.
const COMMON: &[Code] = &[Code::BadRequest];

/// The description of an API with these routes: `OpenAPI` 3.1, with schemas in plain JSON Schema 2020-12.
pub(super) fn document(routes: &[Route]) -> Value {
    let settings = SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
    let mut schemas = settings.into_generator();
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for route in routes.iter().filter(|route| route.is_api) {
        let method = route.method.word().to_lowercase();
        paths.entry(route.path).or_default().insert(method, operation(route, &mut schemas));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Locker",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Locks for CI. Durations are text such as \"90s\", times are RFC 3339 UTC with \
                milliseconds, unknown members and parameters are refused.",
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "paths": paths,
        "components": { "schemas": schemas.take_definitions(true) },
    })
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let in_path = route
        .path_params()
        .flatten()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }));
    let parameters: Vec<Value> = in_path.chain(route.query.iter().map(parameter)).collect();
    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": responses(route, schemas),
    });
    if let Some(body) = route.body {
        let schema = body(schemas).to_value();
        operation["requestBody"] =
            json!({ "required": route.body_required, "content": { "application/json": { "schema": schema } } });
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let Parameter { name, about, kind, required } = parameter;
    json!({ "name": name, "in": "query", "required": required, "description": about, "schema": { "type": kind } })
}

/// Method and path as one word, such as `put_claims_id`.
fn operation_id(route: &Route) -> String {
    let path = route.path.trim_start_matches("/api/v1").replace(['{', '}'], "");
    let words = path.split(['/', '.']).filter(|word| !word.is_empty());
    std::iter::once(route.method.word().to_lowercase().as_str()).chain(words).collect::<Vec<_>>().join("_")
}

/// The 200 response, and one entry for each status that a refusal may have.
fn responses(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let answer = route.answer.map_or_else(|| json!({}), |answer| answer(schemas).to_value());
    let mut responses = Map::new();
    responses.insert("200".into(), response("Done", route.media, &answer));
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    let common = if route.contracts.is_empty() { COMMON } else { &[] };
    for code in common.iter().chain(route.codes) {
        by_status.entry(code.status()).or_default().push(*code);
    }
    for (status, code) in route.statuses {
        by_status.entry(*status).or_default().push(*code);
    }
    for (status, codes) in by_status {
        let ours = route.contracts.is_empty();
        let waits = ours && codes.iter().any(|code| matches!(code, Code::Waiting | Code::Locked));
        let schema = if waits { schemas.subschema_for::<WaitingView>() } else { schemas.subschema_for::<ErrorView>() };
        let words: Vec<&str> = codes.iter().map(|code| code.word()).collect();
        responses.insert(status.to_string(), response(&words.join(", "), "application/json", &schema.to_value()));
    }
    Value::Object(responses)
}

fn response(description: &str, media: &str, schema: &Value) -> Value {
    json!({ "description": description, "content": { media: { "schema": schema } } })
}
