//! What is searched, and what must be found when a rule is left out.

use super::super::search;
use super::store::Standby;
use super::{Bounds, Clocks, Leaders, Without};
use super::{CHAIN, GROW, ONCE, ONE, PAGES, SEES, STAYS, TRUE};

const NOTHING: [&str; 0] = [];

const BOUNDS: Bounds = Bounds {
    claims: [1, 1],
    questions: 0,
    beats: 0,
    repeats: 0,
    take_overs: 1,
    restarts: 0,
    copies: 0,
    promotions: 0,
    replicas: 0,
};

/// Without clocks: claims, releases, a take-over, and appends whose outcome is unknown.
const GRANTS: Leaders = Leaders {
    without: Without::Nothing,
    standby: Standby::None,
    bounds: Bounds { beats: 1, repeats: 1, ..BOUNDS },
    clocks: Clocks::Useless,
    span: 1,
    only: None,
};
/// Without clocks: somebody asks who holds the lock.
const ANSWERS: Leaders = Leaders { bounds: Bounds { questions: 1, beats: 1, ..BOUNDS }, ..GRANTS };
/// Without clocks: a client asks both servers.
const REPEATS: Leaders =
    Leaders { bounds: Bounds { claims: [2, 0], questions: 1, beats: 1, repeats: 1, ..BOUNDS }, ..GRANTS };
/// The first leader is killed or drops its state, and takes over again.
const RESTARTS: Leaders = Leaders { bounds: Bounds { take_overs: 2, restarts: 1, ..BOUNDS }, ..GRANTS };
/// Writes arrive twice.
const COPIES: Leaders = Leaders { bounds: Bounds { repeats: 1, copies: 1, ..BOUNDS }, ..GRANTS };
/// With clocks, one of which stands still: pages under a lease.
const PAGES_STILL: Leaders =
    Leaders { bounds: Bounds { claims: [1, 0], beats: 1, ..BOUNDS }, clocks: Clocks::MayStandStill, span: 2, ..GRANTS };
/// With clocks that run, more beats, and copies of them.
const PAGES_COPIES: Leaders =
    Leaders { bounds: Bounds { claims: [1, 0], beats: 2, copies: 1, ..BOUNDS }, clocks: Clocks::Run, ..GRANTS };
/// A synchronous standby is promoted.
const PROMOTED: Leaders = Leaders {
    standby: Standby::Synchronous,
    bounds: Bounds { beats: 1, repeats: 1, take_overs: 0, promotions: 1, ..BOUNDS },
    ..GRANTS
};
/// The same, with a take-over.
const PROMOTED_TAKEN: Leaders = Leaders { bounds: Bounds { beats: 1, promotions: 1, ..BOUNDS }, ..PROMOTED };
/// The log is set back.
const SET_BACK: Leaders =
    Leaders { standby: Standby::Asynchronous, bounds: Bounds { beats: 1, promotions: 1, ..BOUNDS }, ..GRANTS };
/// The log is set back, and both servers take over, so that two have led with the same term.
const SET_BACK_TAKEN: Leaders =
    Leaders { bounds: Bounds { take_overs: 2, restarts: 1, promotions: 1, ..BOUNDS }, ..SET_BACK };

#[test]
fn answers_rest_on_the_log_whatever_the_clocks_say() {
    assert_eq!(search("leaders: grants", GRANTS), NOTHING);
    assert_eq!(search("leaders: answers", ANSWERS), NOTHING);
    assert_eq!(search("leaders: a client asks both", REPEATS), NOTHING);
    assert_eq!(search("leaders: restarts", RESTARTS), NOTHING);
    assert_eq!(search("leaders: copies", COPIES), NOTHING);
}

#[test]
fn a_page_under_a_lease_is_current() {
    for (name, model) in [("leaders: pages", PAGES_STILL), ("leaders: pages and copies", PAGES_COPIES)] {
        assert_eq!(search(name, model), NOTHING);
    }
}

#[test]
fn a_synchronous_standby_loses_nothing() {
    assert_eq!(search("leaders: a standby is promoted", PROMOTED), NOTHING);
    assert_eq!(search("leaders: the same, and a take-over", PROMOTED_TAKEN), NOTHING);
}

#[test]
fn a_log_that_was_set_back_is_followed() {
    assert_eq!(search("leaders: a log that was set back", SET_BACK), NOTHING);
    assert_eq!(search("leaders: the same, and two take-overs", SET_BACK_TAKEN), NOTHING);
}

/// Every rule is needed: when it is left out, a search ends with the events that break a promise.
#[test]
fn naive_each_rule_of_the_leaders_is_needed() {
    for (without, model, only) in [
        (Without::Beat, PAGES_STILL, PAGES),
        (Without::Rising, PAGES_COPIES, PAGES),
        (Without::Term, PAGES_STILL, PAGES),
        (Without::Record, SET_BACK_TAKEN, CHAIN),
        (Without::SentAfter, ANSWERS, SEES),
        (Without::Beats, ANSWERS, SEES),
        (Without::Acknowledgement, GRANTS, ONE),
        (Without::SameId, GRANTS, ONCE),
        (Without::SameContent, GRANTS, STAYS),
        (Without::DecidingBeat, PROMOTED, STAYS),
        (Without::OwnAnswer, REPEATS, SEES),
        (Without::CountedFromSending, PAGES_STILL, PAGES),
        (Without::Predecessor, SET_BACK, TRUE),
        (Without::Newest, SET_BACK, GROW),
    ] {
        let wrong = search(&format!("leaders, without {without:?}"), Leaders { without, only: Some(only), ..model });
        assert_eq!(wrong, [only], "without {without:?}");
    }
}
