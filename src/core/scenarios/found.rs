//! Bugs found by a review, load scripts and mutants of the rules; `docs/bugs.md` describes them.

use super::harness;
use super::lines;

// A lock that an earlier waiter can no longer get may go to later ones.
scenarios! {
    claims_behind_the_waiter_of_a_removed_lock_are_served: "
        - add env/xy x=1 y=1                   => done
        - add env/x x=1                        => done
        - add env/y y=1                        => done
        h ask env/x                            => held env/x
        - quarantine env/xy                    => done
        a ask env[x=1] confirm park=1          => waiting 1 parked
        b ask env[y=1] confirm park=2          => waiting 2 parked     # a may still get xy
        - remove env/xy                        => done
        b ?                                    => granted env/y
        a ?                                    => waiting 1 parked
    "
    claims_behind_the_waiter_of_a_changed_lock_are_served: "
        - add env/xy x=1 y=1                   => done
        - add env/x x=1                        => done
        - add env/y y=1                        => done
        h ask env/x                            => held env/x
        - quarantine env/xy                    => done
        a ask env[x=1] confirm park=1          => waiting 1 parked
        b ask env[y=1] confirm park=2          => waiting 2 parked
        - update env/xy x=1                    => done
        b ?                                    => granted env/y
    "
    claims_behind_the_waiter_of_a_lock_that_left_are_served: "
        - pool env capacity=1                  => done
        - update env/1 x=1 y=1                 => done
        - add env/x x=1                        => done
        - add env/y y=1                        => done
        h ask env/1                            => held env/1
        i ask env/x                            => held env/x
        a ask env[x=1] confirm park=1          => waiting 1 parked
        b ask env[y=1] confirm park=2          => waiting 2 parked
        - pool env capacity=0                  => done
        b ?                                    => granted env/y
        h end                                  => released
        - lock env/1                           => none
        a ?                                    => waiting 1 parked
    "
}

// Drains.
scenarios! {
    a_lock_that_comes_back_within_its_drain_still_drains: "
        - pool env capacity=2 drain=5m         => done
        a ask env/2 ttl=1m                     => held env/2
        - pool env capacity=1 drain=5m         => done
   +1m  a ?                                    => ended lost
        - lock env/2                           => meta= draining leaving
        - restart                              => same
        - pool env capacity=2 drain=5m         => done
        - lock env/2                           => meta= draining
        - free env                             => 1
   +5m  - free env                             => 1 2
    "
    a_lock_that_was_shrunk_away_leaves_when_its_drain_is_over: "
        - pool env capacity=2 drain=5m         => done
        a ask env/2 ttl=1m                     => held env/2
   +1m  a ?                                    => ended lost
        - pool env capacity=1 drain=5m         => done
        - lock env/2                           => meta= draining leaving
        b ask env/2                            => refused no_such_lock
   +5m  - lock env/2                           => none
        - history env 2                        => lost removed
    "
    a_released_lock_that_was_shrunk_away_leaves_at_once: "
        - pool env capacity=2 drain=5m         => done
        a ask env/2                            => held env/2
        - pool env capacity=1 drain=5m         => done
        a end                                  => released
        - lock env/2                           => none
    "
}

// Operations.
scenarios! {
    an_operation_is_one_request: "
        - add env/x op=1                       => done
        - add env/y op=1                       => refused different_operation
        - lock env/y                           => none
        - update env/x meta=m op=2             => done
        - update env/x meta=n op=2             => refused different_operation
        - update env/x size=big op=2           => refused different_operation
        - remove env/x op=2                    => refused different_operation
        - restart                              => same
        - update env/x meta=n op=2             => refused different_operation
        - update env/x meta=m op=2             => done again
        - pool p capacity=2 op=3               => done
        - pool p capacity=3 op=3               => refused different_operation
        - pool p capacity=2 order=lifo op=3    => refused different_operation
        - pool p capacity=2 op=3               => done again
        - quarantine p/1 op=4                  => done
        - quarantine p/1 for=1m op=4           => refused different_operation
        - return p/1 op=4                      => refused different_operation
        - quarantine p/1 op=4                  => done again
    "
    the_oldest_operations_are_forgotten_first: "
        - settings ops=2
        - note env op=9                        => refused no_such_pool
        - pool env capacity=1                  => done
        - note env op=1                        => done
   +1s  - note env op=2                        => done
   +1s  - note env op=3                        => done
        - note env op=2                        => done again
        - note env op=3                        => done again
        - note env op=1                        => done anew
    "
}

// Memory and pruning.
scenarios! {
    the_oldest_released_claims_are_forgotten_first: "
        - settings ended=2
        a ask env                              => held env/env
        a end                                  => released
   +1s  b ask env                              => held env/env
        b break                                => broken
   +1s  c ask env                              => held env/env
        c end                                  => released
        a ?                                    => unknown
        b ?                                    => ended broken
        c ?                                    => ended released
   +1s  d ask env                              => held env/env
        d end                                  => released
        b ?                                    => ended broken
        c ?                                    => unknown
        d ?                                    => ended released
    "
    short_deadlines_start_again_with_the_server: "
        - settings confirm=3m
        - pool env capacity=5 max_hold=5m drain=5m => done
        z ask other ttl=1h                     => held other/other     # engine time goes on over the restart
        a ask env/1 ttl=8m                     => held env/1
        b ask env/2 ttl=3m                     => held env/2
        c ask env/3 ttl=1s                     => held env/3
        d ask env/5 confirm                    => granted env/5
        w ask env/1 give_up=5m                 => waiting 1
        - quarantine env/4 for=5m              => done
   +1s  c ?                                    => ended lost
   +2m  - restart                              => same
        a left?                                => 300s
        b left?                                => 180s
   +90s d ?                                    => granted env/5
  +150s d ?                                    => waiting 1
        b ?                                    => ended lost
        w ?                                    => waiting 2
        - free env                             => 5
   +1m  a ?                                    => ended lost
        w ?                                    => ended gave_up
        - free env                             => 3 5 4
    "
    a_pool_that_is_made_again_has_only_its_own_history: "
        - pool env capacity=1                  => done
        - pool other capacity=1                => done
        a ask env,other                        => held env/1 other/1
        a end                                  => released
        - unpool env                           => done
        - pool env capacity=1                  => done
        - history env                          => pool added
        - history other                        => pool added claimed released
        - restart                              => same
        - history env                          => pool added
    "
}

/// The oldest thousand entries must stay here, but they do not hide the entries that may go.
#[test]
fn the_history_is_limited_behind_a_thousand_entries_that_stay() {
    let notes = lines(0..100, |_| "- note env => done".into());
    harness::play_at_scale(&format!(
        "- settings changes=120
         - pool env capacity=1100 => done
         {notes}
         - count env => 1160"
    ));
}

// Found by `ci/mutants`.
scenarios! {
    a_claim_that_was_passed_often_enough_is_not_passed_again_in_the_same_walk: "
        - pool env capacity=3 overtaking=backfill:1   => done
        x ask env/3                                 => held env/3
        h ask env/1+2                               => held env/1 env/2
        w ask env*3 confirm park=1                  => waiting 1 parked
        a ask env confirm park=2                    => waiting 2 parked
        b ask env confirm park=3                    => waiting 3 parked
        h end                                       => released
        a ?                                         => granted
        b ?                                         => waiting 2 parked
    "
    a_claim_knows_which_pools_it_has_made: "
        - pool env capacity=1                       => done
        a ask fresh,env                             => held env/1 fresh/fresh made fresh
    "
    a_lock_that_a_capacity_names_stays_when_others_come: "
        a ask 1                                     => held 1/1
        a end                                       => released
        - pool 1 capacity=1                         => done
        - add 1/x                                   => done
        - free 1                                    => 1 x
    "
    an_implicit_lock_that_is_added_while_it_leaves_stays: "
        a ask p                                     => held p/p
        - add p/x                                   => done
        - add p/p meta=m size=big                   => done
        - lock p/p                                  => meta=m size=big
        a end                                       => released
        - free p                                    => x p
    "
    an_implicit_lock_that_is_changed_stays: "
        a ask p                                     => held p/p
        a end                                       => released
        - update p/p meta=m                         => done
        - add p/x                                   => done
        - free p                                    => p x
    "
    a_lock_that_drains_goes_on_draining_in_another_pool: "
        - pool env capacity=1 drain=1m              => done
        a ask env ttl=10s                           => held env/1
        +10s a ?                                    => ended lost
        - move env/1 to=other                       => done
        - free other                                =>
        +1m - free other                            => 1
    "
    a_pool_without_a_drain_gives_a_lost_lock_at_once: "
        - pool env capacity=1 drain=0s              => done
        a ask env                                   => held env/1
        a break drain                               => broken
        - free env                                  => 1
    "
    a_grant_may_close_a_circle_of_builds: "
        - pool p capacity=1                         => done
        - pool q capacity=1                         => done
        h ask p build=2                             => held p/1
        s ask q                                     => held q/1
        a ask q build=1                             => waiting 1 recent
        +30s a ?                                    => waiting 1 away
        c ask p build=1 park=1                      => waiting 1 parked
        b ask q build=2 park=2                      => waiting 2 parked
        +10s - stuck                                =>
        s end                                       => released
        +10s - stuck                                =>
        a again                                     => held q/1
        +10s - stuck                                => b c
        b ?                                         => waiting 1 parked deadlock 2 1
    "
    the_end_of_a_hold_may_open_a_circle_of_builds: "
        - pool p capacity=1                         => done
        - pool q capacity=1                         => done
        h ask p build=2                             => held p/1
        s ask q build=1                             => held q/1
        c ask p build=1 park=1                      => waiting 1 parked
        a ask q build=3                             => waiting 1 recent
        +30s b ask q build=2 park=2                 => waiting 2 parked
        +10s - stuck                                => b c
        s end                                       => released
        +10s - stuck                                =>
    "
}

#[test]
fn only_deadlines_of_more_than_ten_minutes_go_on_over_a_restart() {
    let has = harness::has_long_deadline;
    assert!(!has("a ask env ttl=10m"));
    assert!(!has("- pool env capacity=2 drain=10m\na ask env/1 ttl=1s\n+1s - quarantine env/2 for=10m"));
    assert!(has("a ask env ttl=11m"));
    assert!(has("- pool env capacity=1\n- quarantine env/1 for=11m"));
    assert!(!has("- pool env capacity=1\n- note env op=1"), "an operation is forgotten after a day");
}
