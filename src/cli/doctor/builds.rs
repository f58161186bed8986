//! Whether the server can see the builds behind claims: what it reports about the Concourse installations that it
//! watches.

use super::Stop;
use super::report::Report;
use crate::env::Env;
use crate::server::build_watch::address::ClusterUrl;
use crate::wire::api::{ConcourseState, ConcourseView};
use crate::wire::text::counted;

/// Reports one line for each Concourse, and one about the Concourse that runs this container.
pub(super) fn examine(concourses: &[ConcourseView], report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    for concourse in concourses {
        watched(concourse, report, env)?;
    }
    here(concourses, report, env)
}

fn watched(concourse: &ConcourseView, report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let ConcourseView { url, login, watched, suspects, .. } = concourse;
    match concourse.state {
        ConcourseState::NotYet => {
            report.warn(
                env,
                "builds",
                format!("the server has not asked {url} yet"),
                "run this again in a few seconds",
            )?;
        }
        ConcourseState::Ok => {
            report.ok(
                env,
                "builds",
                format!("{url} is watched {login}: {}, {suspects} suspect", counted(*watched, "build")),
            )?;
        }
        ConcourseState::Failing => {
            let since = concourse.since.as_deref().unwrap_or("some time ago");
            let why = concourse.why.as_deref().unwrap_or("no reason is known");
            let text = format!("the server has been unable to see the builds of {url} since {since}: {why}");
            let next = "holds stay until it can: see \"The build watch\" in docs/operations.md";
            report.warn(env, "builds", text, next)?;
        }
    }
    if let Some(other) = &concourse.external_url {
        let text = format!("the builds of {url} know their Concourse as {other}: none of their claims will match");
        report.warn(env, "builds", text, format!("start the server with alias={other} in that --concourse"))?;
    }
    if concourse.build_rerun {
        let text = format!(
            "{url} runs builds again when a worker vanishes: a lock that a step gives back stays with its build until the \
             build is over"
        );
        report.ok(env, "builds", text)?;
    }
    Ok(())
}

/// In a container of Concourse: reports whether the server watches that Concourse.
fn here(concourses: &[ConcourseView], report: &mut Report, env: &mut Env<'_>) -> Result<(), Stop> {
    let Some(here) = env.var("ATC_EXTERNAL_URL").map(str::to_owned) else { return Ok(()) };
    let parse = |url: &String| ClusterUrl::parse(url).ok();
    let known = concourses.iter().flat_map(|concourse| std::iter::once(&concourse.url).chain(&concourse.aliases));
    if parse(&here).is_some_and(|here| known.filter_map(parse).any(|known| known == here)) {
        return report.ok(env, "builds", format!("this Concourse, {here}, is among them"));
    }
    let text =
        format!("the server does not watch this Concourse, {here}: scope build is refused, and holds outlive builds");
    report.warn(env, "builds", text, format!("start the server with --concourse {here}, or add that URL as an alias"))
}
