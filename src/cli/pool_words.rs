//! The policy of a pool in words.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::wire::api::Policy;

/// The rules of a policy that are not at their defaults, such as `order priority, scope build`. `None` if all are.
pub(super) fn policy_words(policy: &Policy) -> Option<String> {
    let words: Vec<String> = rules(policy).into_iter().map(|(rule, value)| format!("{rule} {value}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}

/// The rules of a policy that are not at their defaults, with their values, by the names that the API uses.
pub(super) fn rules(policy: &Policy) -> BTreeMap<String, String> {
    let Ok(Value::Object(members)) = serde_json::to_value(policy) else { return BTreeMap::new() };
    let shown = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    members.into_iter().map(|(rule, value)| (rule, shown(value))).collect()
}

/// A count with its noun: `1 lock`, `2 locks`.
pub(super) fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
