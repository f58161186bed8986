//! Makes `openapi.json` from the table of routes and the wire types, so that it cannot differ from either.

use std::collections::BTreeMap;

use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use super::routes::route::Need;
use super::routes::route::{Parameter, Route};
use crate::wire::api::{ErrorView, WaitingView};
use crate::wire::contracts::Contract;
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
        // Any one of these; the last one is a server without authentication.
        "security": [{ "password": [] }, { "token": [] }, { "certificate": [] }, {}],
        "tags": TAGS.map(|(name, about)| json!({ "name": name, "description": about })),
        "paths": paths,
        "components": {
            "schemas": schemas.take_definitions(true),
            "securitySchemes": {
                "password": { "type": "http", "scheme": "basic", "description": "AUTH_USER and AUTH_PASS of the server, or a user of its access file." },
                "token": { "type": "http", "scheme": "bearer", "description": "A token that the server has made, or an id token of an issuer in its access file." },
                "certificate": { "type": "mutualTLS", "description": "A certificate of the server's --client-ca." },
            },
        },
    })
}

/// The groups of routes, with what they are about.
const TAGS: [(&str, &str); 7] = [
    ("claims", "Ask for locks, hold them, give them back."),
    ("pools", "Pools and their policies."),
    ("locks", "The locks of a pool."),
    ("history", "What happened."),
    ("server", "The server itself."),
    ("locker and lockd", "The APIs of the locker and lockd servers that Locker replaces."),
    ("latches", "The API of the Argo locks."),
];

/// The group of a route.
fn tag(route: &Route) -> &'static str {
    let path = route.path.trim_start_matches("/api/v1");
    match (route.contracts, path) {
        ([Contract::Latches], _) => "latches",
        ([_, ..], _) => "locker and lockd",
        ([], path) if path.contains("/changes") || path == "/events" => "history",
        ([], path) if path.contains("/locks") || path == "/verify" => "locks",
        ([], path) if path.starts_with("/claims") => "claims",
        ([], path) if path.starts_with("/pools") => "pools",
        ([], _) => "server",
    }
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let in_path = route
        .path_params()
        .flatten()
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" }, "example": in_path_example(name) }));
    let parameters: Vec<Value> = in_path.chain(route.query.iter().map(parameter)).collect();
    let mut operation = json!({
        "summary": route.summary,
        "tags": [tag(route)],
        "operationId": operation_id(route),
        "parameters": parameters,
        "responses": responses(route, schemas),
    });
    if let Some(body) = route.body {
        let content = json!({ "schema": body(schemas).to_value(), "example": body_example(&operation_id(route)) });
        operation["requestBody"] =
            json!({ "required": route.body_required, "content": { "application/json": content } });
    }
    if route.need == Need::Nothing {
        operation["security"] = json!([]);
    }
    operation
}

fn in_path_example(name: &str) -> &'static str {
    match name {
        "id" => "deploy-4711",
        "pool" | "name" => "staging",
        "lock" => "env-1",
        _ => "268435460",
    }
}

/// A body that this operation accepts. A test checks each against its schema.
fn body_example(operation: &str) -> Value {
    let by = json!({ "op": "0f3a77c1", "owner": { "person": "ada" }, "reason": "upgrade" });
    match operation {
        "put_claims_id" => json!({
            "pool": "staging", "confirm": true, "wait": "25s", "ttl": "2h", "run": "8c1f0e52", "reason": "deploy",
            "owner": { "cluster": "https://ci.example.com", "team": "main", "pipeline": "app", "job": "deploy", "build_id": "4711" },
        }),
        "post_claims_id_confirm" => json!({ "fence": 268_435_460, "run": "8c1f0e52" }),
        "post_claims_id_renew" => json!({ "run": "8c1f0e52" }),
        "post_claims_id_deliver" => json!({ "revision": 268_435_461 }),
        "post_claims_id_break" => json!({ "drain": true, "by": by }),
        "post_claims_id_move" => json!({ "to": "first", "by": by }),
        "put_pools_pool" => json!({ "capacity": 3, "policy": { "order": "priority", "max_hold": "4h" }, "by": by }),
        "patch_pools_pool" => json!({ "policy": { "scope": "build" }, "defaults": ["max_hold"], "by": by }),
        "put_pools_pool_locks_lock" => json!({ "metadata": "zone: eu", "labels": { "size": "large" }, "by": by }),
        "patch_pools_pool_locks_lock" => json!({ "labels": { "size": "small" }, "if_free": true, "by": by }),
        "post_pools_pool_locks_lock_move" => json!({ "to": "repair", "by": by }),
        "post_pools_pool_locks_lock_quarantine" => json!({ "for": "2h", "by": by }),
        "delete_lock_name" | "put_lock_name" => json!({ "key": "main/app", "requestor": "deploy" }),
        "post_tokens" => json!({ "name": "grafana", "ttl": "365d" }),
        "post_lock" => json!({ "workflow": "deploy-x7k2p", "namespace": "ci" }),
        "delete_pools_pool"
        | "delete_pools_pool_locks_lock"
        | "post_pools_pool_locks_lock_return"
        | "post_pools_pool_changes" => json!({ "by": by }),
        // The others need nothing.
        _ => json!({}),
    }
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
    let guard: &[Code] = match route.need {
        Need::Nothing => &[],
        Need::Identity => &[Code::Unauthorized, Code::IssuerUnavailable],
        _ => &[Code::Unauthorized, Code::Forbidden, Code::IssuerUnavailable],
    };
    for code in guard.iter().chain(common).chain(route.codes) {
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
