//! The policy of a pool in words.

use crate::wire::api::Policy;

/// The rules of a policy that are not at their defaults, such as `order priority, scope build`. `None` if all are.
pub(super) fn policy_words(policy: &Policy) -> Option<String> {
    let words: Vec<String> = policy.shown().into_iter().map(|(rule, value)| format!("{rule} {value}")).collect();
    (!words.is_empty()).then(|| words.join(", "))
}
