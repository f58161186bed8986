//! What the environment says about the build (`docs/concourse.md#environment-variables`). This is data, not proof.

use crate::core::limits::OWNER_FIELD_BYTES;
use crate::env::Env;
use crate::wire::api::Owner;
use crate::wire::shorten;

/// The build behind this step, as far as the environment knows it.
pub(super) fn owner(env: &Env<'_>) -> Owner {
    let field = |name| env.var(name).map(shorten::field);
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
        instance_vars: env.var("BUILD_PIPELINE_INSTANCE_VARS").map(shorten::instance_vars),
        job: field("BUILD_JOB_NAME"),
        build_name: field("BUILD_NAME"),
        build_url: build_url.or_else(short_url),
        person: None,
        program: None,
        cluster,
        build_id,
    }
}
