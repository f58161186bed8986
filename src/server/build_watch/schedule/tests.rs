//! The rules of asking, as tables.

use super::super::build_status::Cause;
use super::*;

const PERIOD: Duration = Duration::from_secs(15);
const PACE: Pace = Pace { period: PERIOD, gone: Duration::from_secs(60) };

const DECIDES: Watched = Watched { concern: Concern::Decides, suspect: false, marked: false };
const SHOWS: Watched = Watched { concern: Concern::Shows, suspect: false, marked: false };

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn watching(ids: impl IntoIterator<Item = BuildNo>) -> Schedule {
    let mut schedule = Schedule::new(PACE);
    schedule.keep(&ids.into_iter().map(|id| (id, DECIDES)).collect(), Duration::ZERO);
    schedule
}

fn trouble(cause: Cause) -> Trouble {
    Trouble::new(cause, "trouble")
}

fn unknown(cause: Cause) -> BuildStatus {
    BuildStatus::Unknown(trouble(cause))
}

/// Asks whenever it is time to, until `end`. Returns the moments and the builds.
fn asked(schedule: &mut Schedule, from: Duration, end: Duration, status: &BuildStatus) -> Vec<(Duration, BuildNo)> {
    let (mut now, mut asked) = (from, Vec::new());
    loop {
        match schedule.next(now) {
            Next::Ask(id) => {
                asked.push((now, id));
                schedule.saw(id, status, now);
            }
            Next::Wait(Some(wait)) => now += wait,
            Next::Wait(None) => return asked,
        }
        if now >= end {
            return asked;
        }
    }
}

#[test]
fn each_build_once_a_period_and_evenly_spread() {
    for count in [1_u64, 10, 300] {
        let mut schedule = watching(1_000_000..1_000_000 + count);
        let asked = asked(&mut schedule, Duration::ZERO, 10 * PERIOD, &BuildStatus::Alive);
        let per_build = asked.iter().filter(|(_, id)| *id == 1_000_000).count();
        assert_eq!(asked.len() as u64, count * 10, "{count} builds");
        assert_eq!(per_build, 10);
        let gaps = asked.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0));
        assert!(gaps.max().is_none_or(|gap| gap <= 3 * PERIOD / u32::try_from(count).unwrap()), "{count} builds");
    }
}

#[test]
fn nothing_watched_asks_nothing() {
    let mut schedule = watching([]);
    assert_eq!(schedule.next(secs(1)), Next::Wait(None));
    schedule.keep(&[(7, DECIDES)].into(), secs(1));
    assert!(matches!(schedule.next(secs(1)), Next::Wait(Some(wait)) if wait <= PERIOD));
    schedule.keep(&BTreeMap::new(), secs(2));
    assert_eq!((schedule.next(secs(100)), schedule.watched()), (Next::Wait(None), 0));
}

#[test]
fn a_build_that_is_over_is_told_so() {
    for how in [BuildEnd::Succeeded, BuildEnd::Failed, BuildEnd::Errored, BuildEnd::Aborted] {
        let at = Some(WallMs(9));
        assert_eq!(watching([7]).saw(7, &BuildStatus::Over(how, at), secs(1)), [Decision::Over(7, how, at)]);
    }
    let over = BuildStatus::Over(BuildEnd::Failed, None);
    assert_eq!(watching([7]).saw(8, &over, secs(1)), [], "it is no longer watched");
}

#[test]
fn two_404s_far_enough_apart() {
    use BuildStatus::{Alive, Missing};
    let away = unknown(Cause::NoAnswer);
    let gone = [Decision::Over(7, BuildEnd::Gone, None)];
    // When a build is seen as what, and whether the last answer makes the build gone.
    let table: [(&str, &[(u64, &BuildStatus)], bool); 7] = [
        ("one is not enough", &[(1, &Missing)], false),
        ("two at once", &[(1, &Missing), (60, &Missing)], false),
        ("two, 60 s apart", &[(1, &Missing), (61, &Missing)], true),
        ("many in a minute, then one after it", &[(1, &Missing), (16, &Missing), (31, &Missing), (61, &Missing)], true),
        ("seen in between", &[(1, &Missing), (31, &Alive), (61, &Missing)], false),
        ("seen in between, and then two more", &[(1, &Missing), (2, &Alive), (3, &Missing), (63, &Missing)], true),
        ("silence in between proves nothing", &[(1, &Missing), (31, &away), (50, &Missing)], false),
    ];
    for (name, looks, expected) in table {
        let mut schedule = watching([7]);
        let last = looks.iter().map(|(at, status)| {
            let told_before = schedule.would_be_gone(7, secs(*at)) && **status == Missing;
            let decisions = schedule.saw(7, status, secs(*at));
            assert_eq!(told_before, decisions == gone, "{name}: announced before");
            decisions
        });
        assert_eq!(last.last().unwrap() == gone, expected, "{name}");
    }
}

#[test]
fn trouble_with_one_build_leaves_the_others_alone() {
    for cause in [Cause::Forbidden, Cause::LoginNeeded] {
        let mut schedule = watching([7, 8]);
        assert_eq!(schedule.saw(7, &unknown(cause), secs(1)), [Decision::Suspect(vec![7], trouble(cause))]);
        assert_eq!(schedule.saw(7, &unknown(cause), secs(20)), [], "reported once");
        assert_eq!((schedule.suspects(), schedule.failing()), (1, None));
        assert_eq!(schedule.saw(8, &BuildStatus::Alive, secs(20)), []);
        assert_eq!(schedule.saw(7, &BuildStatus::Alive, secs(60)), [Decision::Clear(7)]);
        assert_eq!(schedule.saw(7, &BuildStatus::Alive, secs(75)), []);
    }
}

#[test]
fn one_build_that_cannot_be_seen_is_asked_about_ever_more_rarely() {
    let mut schedule = watching([7]);
    let asked = asked(&mut schedule, Duration::ZERO, secs(1_000), &unknown(Cause::Forbidden));
    let gaps: Vec<u64> = asked.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0).as_secs()).collect();
    assert_eq!(gaps[..5], [15, 30, 60, 120, 120]);
}

#[test]
fn a_concourse_that_fails_is_asked_ever_more_rarely_and_makes_all_its_builds_suspect() {
    let mut schedule = watching(1..=100);
    let mut now = Duration::ZERO;
    let (mut moments, mut all) = (Vec::new(), Vec::new());
    while moments.len() < 12 {
        match schedule.next(now) {
            Next::Ask(id) => {
                moments.push(now);
                all.push(schedule.saw(id, &unknown(Cause::NoAnswer), now));
            }
            Next::Wait(wait) => now += wait.unwrap(),
        }
    }
    let gaps: Vec<u64> = moments.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs()).collect();
    assert_eq!(gaps, [1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]);
    assert_eq!(schedule.suspects(), 100);
    let down: Vec<usize> = (0..12).filter(|n| all[*n].contains(&Decision::Down(trouble(Cause::NoAnswer)))).collect();
    assert_eq!(down, [2], "reported once");
    let told: usize = all.iter().flatten().map(|d| if let Decision::Suspect(ids, _) = d { ids.len() } else { 0 }).sum();
    assert_eq!(told, 100, "each build is reported once");
    // A build that is added while the Concourse is down is suspect as soon as the next question fails.
    schedule.keep(&(1..=101).map(|id| (id, Watched { suspect: id <= 100, ..DECIDES })).collect(), now);
    let Next::Wait(Some(wait)) = schedule.next(now) else { panic!() };
    assert!(
        schedule
            .saw(1, &unknown(Cause::NoAnswer), now + wait)
            .contains(&Decision::Suspect(vec![101], trouble(Cause::NoAnswer)))
    );
}

#[test]
fn a_concourse_that_answers_again_is_asked_about_all_builds_within_a_period_but_not_at_once() {
    let mut schedule = watching(1..=100);
    asked(&mut schedule, Duration::ZERO, secs(300), &unknown(Cause::Failing));
    let (mut now, mut moments) = (secs(300), Vec::new());
    let mut cleared = 0;
    while cleared < 100 {
        match schedule.next(now) {
            Next::Ask(id) => {
                moments.push(now);
                let decisions = schedule.saw(id, &BuildStatus::Alive, now);
                assert_eq!(decisions.contains(&Decision::Up), cleared == 0);
                cleared += usize::from(decisions.contains(&Decision::Clear(id)));
            }
            Next::Wait(wait) => now += wait.unwrap(),
        }
    }
    assert!(
        moments[99].saturating_sub(moments[0]) <= PERIOD && moments[50].saturating_sub(moments[0]) >= PERIOD / 4,
        "{moments:?}"
    );
}

#[test]
fn one_failure_is_a_blip() {
    let mut schedule = watching([7, 8]);
    assert_eq!(
        schedule.saw(7, &unknown(Cause::NoAnswer), secs(1)),
        [Decision::Suspect(vec![7], trouble(Cause::NoAnswer))]
    );
    assert_eq!(schedule.saw(8, &BuildStatus::Alive, secs(2)), [], "the other was seen: nothing is down");
    assert_eq!(schedule.failing(), None);
}

#[test]
fn a_build_that_was_suspect_before_the_server_started_is_cleared() {
    let mut schedule = Schedule::new(PACE);
    schedule.keep(&[(7, Watched { suspect: true, ..DECIDES })].into(), Duration::ZERO);
    assert_eq!(schedule.suspects(), 1);
    assert_eq!(schedule.saw(7, &unknown(Cause::Forbidden), secs(1)), [], "it is already known");
    assert_eq!(schedule.saw(7, &BuildStatus::Alive, secs(20)), [Decision::Clear(7)]);
}

#[test]
fn a_build_whose_claims_ended_and_came_again_is_suspect_again() {
    let mut schedule = watching([7]);
    let suspect = [Decision::Suspect(vec![7], trouble(Cause::Forbidden))];
    assert_eq!(schedule.saw(7, &unknown(Cause::Forbidden), secs(1)), suspect);
    schedule.keep(&[(7, DECIDES)].into(), secs(2));
    assert_eq!(schedule.saw(7, &unknown(Cause::Forbidden), secs(20)), suspect);
}

#[test]
fn a_build_whose_end_is_only_shown_is_asked_about_rarely_and_is_never_suspect() {
    let mut schedule = Schedule::new(PACE);
    let builds: BTreeMap<BuildNo, Watched> = [(7, DECIDES), (8, SHOWS), (9, SHOWS)].into();
    schedule.keep(&builds, Duration::ZERO);
    let asked = asked(&mut schedule, Duration::ZERO, 60 * PERIOD, &BuildStatus::Alive);
    let times = |wanted| asked.iter().filter(|(_, id)| *id == wanted).count();
    assert_eq!([times(7), times(8), times(9)], [60, 3, 3]);
    for cause in [Cause::Forbidden, Cause::NoAnswer, Cause::NoAnswer, Cause::NoAnswer] {
        let decisions = schedule.saw(8, &unknown(cause), 61 * PERIOD);
        assert!(!decisions.iter().any(|d| matches!(d, Decision::Suspect(ids, _) if ids.contains(&8))), "{decisions:?}");
    }
    assert_eq!(schedule.suspects(), 1, "only the build that decides");
}

#[test]
fn a_build_that_comes_to_matter_is_asked_about_soon() {
    let mut schedule = Schedule::new(PACE);
    schedule.keep(&[(8, SHOWS)].into(), Duration::ZERO);
    let first = asked(&mut schedule, Duration::ZERO, 20 * PERIOD, &BuildStatus::Alive);
    let now = first[0].0 + secs(1);
    schedule.keep(&[(8, DECIDES)].into(), now);
    assert!(matches!(schedule.next(now), Next::Wait(Some(wait)) if wait <= PERIOD));
    // It matters less again: the question that is due is still asked.
    schedule.keep(&[(8, SHOWS)].into(), now);
    assert!(matches!(schedule.next(now), Next::Wait(Some(wait)) if wait <= PERIOD));
}

/// A schedule in which these builds have marked holds from `now` on.
fn marked(ids: impl IntoIterator<Item = BuildNo>, now: Duration) -> Schedule {
    let mut schedule = Schedule::new(PACE);
    let watched = Watched { marked: true, ..DECIDES };
    schedule.keep(&ids.into_iter().map(|id| (id, watched)).collect(), now);
    schedule
}

#[test]
fn a_build_with_a_marked_hold_is_asked_about_soon_and_often() {
    let start = secs(100);
    let mut schedule = marked([7], start);
    assert!(schedule.is_marked(7) && !schedule.is_marked(8));
    let asked = asked(&mut schedule, start, start + secs(8), &BuildStatus::Alive);
    let after: Vec<u64> =
        asked.iter().map(|(at, _)| u64::try_from(at.saturating_sub(start).as_millis()).unwrap()).collect();
    assert_eq!(after, [300, 1_000, 3_000, 5_000, 7_000]);
    // When the mark is gone but the build still matters, it is asked about as before.
    schedule.keep(&[(7, DECIDES)].into(), start + secs(8));
    assert!(!schedule.is_marked(7));
}

#[test]
fn builds_with_marked_holds_get_at_most_ten_questions_a_second_and_all_take_turns() {
    let start = secs(100);
    let mut schedule = marked(1..=100, start);
    let asked = asked(&mut schedule, start, start + secs(20), &BuildStatus::Alive);
    let gaps = asked.windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0));
    assert!(gaps.min() >= Some(Duration::from_millis(100)));
    let times = |id: BuildNo| asked.iter().filter(|(_, of)| *of == id).count();
    assert!((1..=100).all(|id| times(id) >= 1), "each within its turn: {asked:?}");
    assert!(asked.len() >= 190, "{}", asked.len());
}

#[test]
fn marked_holds_do_not_delay_the_questions_about_other_builds() {
    let mut schedule = Schedule::new(PACE);
    let watched = |id| (id, Watched { marked: id < 100, ..DECIDES });
    schedule.keep(&(1..=101).map(watched).collect(), Duration::ZERO);
    let asked = asked(&mut schedule, Duration::ZERO, 4 * PERIOD, &BuildStatus::Alive);
    assert_eq!(asked.iter().filter(|(_, id)| *id == 101).count(), 4);
}

#[test]
fn a_build_with_a_marked_hold_that_cannot_be_seen_is_asked_about_less_and_less_often() {
    let mut schedule = marked([7], Duration::ZERO);
    let asked = asked(&mut schedule, Duration::ZERO, secs(600), &unknown(Cause::Forbidden));
    assert!(asked.len() < 12, "{asked:?}");
    assert_eq!(asked[0].0, Duration::from_millis(300));
}
