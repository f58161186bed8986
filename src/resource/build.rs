//! What the environment says about the build (`docs/concourse.md#environment-variables`). This is data, not proof.

use sha2::{Digest as _, Sha256};

use crate::core::limits::{INSTANCE_VARS_BYTES, OWNER_FIELD_BYTES};
use crate::env::{Env, hex};
use crate::wire::api::Owner;
use crate::wire::escape::cut;

/// The build behind this step, as far as the environment knows it.
pub(super) fn owner(env: &Env<'_>) -> Owner {
    let field = |name| env.var(name).map(|value| fitting(value, OWNER_FIELD_BYTES));
    let cluster = field("ATC_EXTERNAL_URL");
    let build_id = field("BUILD_ID");
    let short_url = || {
        let (cluster, id) = (env.var("ATC_EXTERNAL_URL")?, env.var("BUILD_ID")?);
        Some(format!("{cluster}/builds/{id}")).filter(|url| url.len() <= OWNER_FIELD_BYTES)
    };
    // A truncated URL leads nowhere: use the short form, or none.
    let build_url = env.var("BUILD_URL").filter(|url| url.len() <= OWNER_FIELD_BYTES).map(str::to_owned);
    Owner {
        team: field("BUILD_TEAM_NAME"),
        pipeline: field("BUILD_PIPELINE_NAME"),
        instance_vars: env.var("BUILD_PIPELINE_INSTANCE_VARS").map(|vars| fitting(vars, INSTANCE_VARS_BYTES)),
        job: field("BUILD_JOB_NAME"),
        build_name: field("BUILD_NAME"),
        build_url: build_url.or_else(short_url),
        person: None,
        program: None,
        cluster,
        build_id,
    }
}

/// Shortens a text that is too long for the server to its beginning plus a digest of the whole, so that different texts
/// stay different.
fn fitting(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let digest = format!("...sha256:{}", &hex(&Sha256::digest(text.as_bytes()))[..16]);
    format!("{}{digest}", cut(text, max - digest.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_stay_different() {
        let long = "ä".repeat(200);
        let other = format!("{long}x");
        assert_eq!(fitting("a", 256), "a");
        assert!(fitting(&long, 256).len() <= 256);
        assert_ne!(fitting(&long, 256), fitting(&other, 256));
    }
}
