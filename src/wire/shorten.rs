//! What a step says about its build, if it is too long for the server: its beginning and a digest of the whole.
//!
//! The step shortens, and a server that verifies builds shortens what its Concourse says in the same way, so that an
//! honest step with long names or instance vars is recognised.

use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::core::limits::{INSTANCE_VARS_BYTES, OWNER_FIELD_BYTES};
use crate::env::hex;
use crate::wire::escape::cut;

/// A field of an owner, such as a pipeline's name.
#[must_use]
pub fn field(text: &str) -> String {
    shortened(text, OWNER_FIELD_BYTES)
}

/// Instance vars as Concourse writes them. If they are too long, they are first written in one form for everybody: JSON
/// without spaces, with sorted keys.
#[must_use]
pub fn instance_vars(text: &str) -> String {
    if text.len() <= INSTANCE_VARS_BYTES {
        return text.to_owned();
    }
    let one_form = serde_json::from_str::<Value>(text).map(|vars| vars.to_string());
    shortened(&one_form.unwrap_or_else(|_| text.to_owned()), INSTANCE_VARS_BYTES)
}

/// Whether a step that says `said` means these instance vars.
#[must_use]
pub fn means_instance_vars(said: &str, vars: Option<&Value>) -> bool {
    match serde_json::from_str::<Value>(said) {
        Ok(said) => Some(&said) == vars,
        Err(_) => vars.is_some_and(|vars| shortened(&vars.to_string(), INSTANCE_VARS_BYTES) == said),
    }
}

/// Different texts stay different.
fn shortened(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let digest = format!("...sha256:{}", &hex(&Sha256::digest(text.as_bytes()))[..16]);
    format!("{}{digest}", cut(text, max - digest.len()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_stay_different() {
        let long = "ä".repeat(200);
        let other = format!("{long}x");
        assert_eq!(field("a"), "a");
        assert!(field(&long).len() <= OWNER_FIELD_BYTES);
        assert_ne!(field(&long), field(&other));
    }

    #[test]
    fn long_instance_vars_are_recognised_and_others_are_not() {
        let vars = |n: usize| json!({"z": "<&>", "branch": "ä".repeat(n), "n": 1.5});
        for n in [1, 400, 600, 5_000] {
            // As Go writes it: in another order, with escapes.
            let text = format!(r#"{{ "n": 1.5, "z": "\u003c\u0026\u003e", "branch": "{}"}}"#, "ä".repeat(n));
            let said = instance_vars(&text);
            assert!(said.len() <= INSTANCE_VARS_BYTES, "{n}");
            assert!(means_instance_vars(&said, Some(&vars(n))), "{n}: {said}");
            assert!(!means_instance_vars(&said, Some(&vars(n + 1))), "{n}");
            assert!(!means_instance_vars(&said, None), "{n}");
        }
        assert!(!means_instance_vars("rubbish", Some(&vars(1))));
        assert!(instance_vars(&"rubbish".repeat(1_000)).len() <= INSTANCE_VARS_BYTES);
    }
}
