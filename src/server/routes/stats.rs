//! Figures over a span of the history (`docs/api.md`).

use super::super::history::{self, Counted, Named, Scope};
use super::super::http::Response;
use super::super::limits::{GROUPS_SHOWN, LONGEST_SHOWN};
use super::super::views::{self, Viewer};
use super::browse::is_long;
use super::call::Call;
use super::failure::Failure;
use super::{Routes, changes, json};
use crate::core::claim::{Claim, Phase};
use crate::core::command::Refusal;
use crate::core::figures::{Figures, Group, Spread};
use crate::core::names::{NamePattern, PoolName, Text};
use crate::core::state::Snapshot;
use crate::core::time::{Span, WallMs};
use crate::wire::api::{ClaimView, GroupView, PoolStatsView, SpreadView, StatsView, TeamStatsView};

/// How many of the longest waits and holds are listed if the request does not say.
const TOP: usize = 10;

/// `GET /api/v1/stats`: all pools, or those with a name like `pool`.
pub(super) async fn of_all(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let like = call.query::<NamePattern>("pool", &mut problems);
    answer(routes, call, problems, Some(like.map_or(Named::All, Named::Like))).await
}

/// `GET /api/v1/pools/{pool}/stats`.
pub(super) async fn of_pool(routes: &Routes, call: &Call<'_>) -> Result<Response, Failure> {
    let mut problems = call.problems();
    let pool = call.path::<PoolName>("pool", &mut problems);
    answer(routes, call, problems, pool.map(Named::Pool)).await
}

async fn answer(
    routes: &Routes,
    call: &Call<'_>,
    mut problems: crate::wire::problems::Problems,
    named: Option<Named>,
) -> Result<Response, Failure> {
    let now = routes.engine.now().wall;
    let day_ago = WallMs(now.0.saturating_sub(Span::hours(24).0));
    let since = changes::time("since", call, now, &mut problems).unwrap_or(day_ago);
    let until = changes::time("until", call, now, &mut problems).unwrap_or(now).min(now);
    if since >= until {
        problems.add("since", "must be before `until`, and before now");
    }
    let top = call.query::<usize>("top", &mut problems).unwrap_or(TOP);
    if top > LONGEST_SHOWN {
        problems.add("top", format!("must be 0 to {LONGEST_SHOWN}"));
    }
    let scope = Scope { of: problems.done(named)?, caller: call.caller.clone() };
    if let Named::Pool(pool) = &scope.of
        && routes.engine.snapshot().pool(pool).is_none()
    {
        return Err(Refusal::NoSuchPool { pool: pool.clone() }.into());
    }
    let counted = history::count(&routes.engine, &scope, (since, until), top).await.map_err(Failure::unreadable)?;
    let is_long = |snapshot: &Snapshot| is_long(snapshot.claims.len());
    routes.browse(call, is_long, move |viewer| json(&view(viewer, &scope, counted, top))).await
}

fn view(viewer: &Viewer<'_>, scope: &Scope, counted: Counted, top: usize) -> StatsView {
    let Counted { figures, since, until, complete } = counted;
    let span = Span(until.0.saturating_sub(since.0));
    let mut pools: Vec<(PoolName, Group)> = figures.pools.into_iter().collect();
    pools.sort_by_key(|(_, group)| std::cmp::Reverse(group.in_use));
    let pool = |(pool, group): (PoolName, Group)| {
        let locks = viewer.snapshot.pool(&pool).map_or(0, |pool| pool.locks.len());
        let share = Figures::share(group.in_use, locks, span);
        let utilisation = (share * 1000.0).round() / 10.0;
        PoolStatsView { pool: pool.to_string(), locks, utilisation, figures: group_view(&group) }
    };
    let mut teams: Vec<(Option<Text>, Group)> = figures.teams.into_iter().collect();
    teams.sort_by_key(|(_, group)| std::cmp::Reverse(group.in_use));
    let team = |(team, group): (Option<Text>, Group)| TeamStatsView {
        team: team.map(|team| team.to_string()),
        figures: group_view(&group),
    };
    StatsView {
        since: crate::wire::text::time(since),
        until: crate::wire::text::time(until),
        complete,
        entries: figures.entries,
        pools_left_out: pools.len().saturating_sub(GROUPS_SHOWN),
        teams_left_out: teams.len().saturating_sub(GROUPS_SHOWN),
        pools: pools.into_iter().take(GROUPS_SHOWN).map(pool).collect(),
        teams: teams.into_iter().take(GROUPS_SHOWN).map(team).collect(),
        longest_waits: figures.longest_waits.iter().map(views::change).collect(),
        longest_holds: figures.longest_holds.iter().map(views::change).collect(),
        waiting: longest(viewer, scope, top, |claim| claim.waits().then_some(claim.asked_at)),
        held: longest(viewer, scope, top, |claim| match claim.phase {
            Phase::Held { since, .. } => Some(since),
            Phase::Waiting { .. } | Phase::Granted { .. } => None,
        }),
    }
}

/// The live claims in a state, the ones that are in it for longest first.
fn longest(viewer: &Viewer<'_>, scope: &Scope, top: usize, since: impl Fn(&Claim) -> Option<WallMs>) -> Vec<ClaimView> {
    let in_scope = |claim: &Claim| claim.terms.ask.parts.iter().any(|part| scope.has(&part.pool));
    let claims = viewer.snapshot.claims.values().filter(|claim| in_scope(claim));
    let mut found: Vec<_> = claims.filter_map(|claim| Some((since(claim)?, claim))).collect();
    found.sort_by_key(|(since, _)| *since);
    found.into_iter().take(top).map(|(_, claim)| viewer.claim(claim, false)).collect()
}

fn group_view(group: &Group) -> GroupView {
    let Group { waits, holds, in_vain, lost, broken, in_use } = *group;
    let in_use = views::lasted(in_use);
    GroupView { waits: spread(waits), holds: spread(holds), in_vain, lost, broken, in_use }
}

fn spread(spread: Spread) -> SpreadView {
    let Spread { count, p50, p95, longest } = spread;
    SpreadView { count, p50: views::lasted(p50), p95: views::lasted(p95), longest: views::lasted(longest) }
}
