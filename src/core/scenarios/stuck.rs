//! Self-wait and deadlock: claims that wait for their own build, and builds that wait for each other.

use super::harness;

scenarios! {
    a_claim_that_waits_for_its_own_build_is_told_so: "
        - settings stuck_look=0s               =>
        a ask env build=7                      => held env/env
        b ask env build=7 confirm              => waiting 1 recent self_wait env/env=a
        - history env 2                        => waiting self_wait
        b again park=1                         => waiting 1 parked self_wait env/env=a   # its client knows already
        - notices                              =>
        - reconcile                            =>
        - notices                              =>
        a end                                  => released
        b ?                                    => granted env/env
        - stuck                                =>
    "
    a_parked_request_is_told_once: "
        - settings stuck_look=0s               =>
        a ask env build=7                      => held env/env
        b ask env build=7 confirm park=1       => waiting 1 parked self_wait env/env=a
        - notices                              => 1
        b again park=1                         => waiting 1 recent    # answered, not parked again
        b again park=2                         => waiting 1 parked
        - notices                              =>
        b again over=2                         => waiting 1 recent
        b again park=3                         => waiting 1 parked
    "
    an_answer_to_another_client_does_not_count_as_told: "
        - settings stuck_look=0s               =>
        a ask env build=7                      => held env/env
        b ask env build=7 confirm park=1       => waiting 1 parked self_wait env/env=a
        - notices                              => 1
        b deliver                              => waiting 1 parked
        b again park=1                         => waiting 1 recent    # its client has not been told yet
    "
    a_lost_notice_is_repeated: "
        - settings stuck_look=0s               =>
        a ask env build=7                      => held env/env
        b ask env build=7 confirm park=1       => waiting 1 parked
        - notices                              => 1
        - reconcile                            =>
        - notices                              => 1
    "
    other_builds_and_people_do_not_wait_for_themselves: "
        a ask env build=7                      => held env/env
        b ask env build=8                      => waiting 1
        c ask env build=7 ci=https://other     => waiting 2
        d ask env                              => waiting 3
        e ask db                               => held db/db
        f ask db                               => waiting 1
        - stuck                                =>
    "
    only_claims_that_need_their_own_builds_locks_wait_for_themselves: "
        - settings stuck_look=0s               =>
        - pool env capacity=3                  => done
        - add env/gpu gpu=yes                  => done
        a ask env/1 build=7                    => held env/1
        b ask env/2+3 build=8                  => held env/2 env/3
        c ask env/gpu                          => held env/gpu
        d ask env build=7                      => waiting 1
        e ask env*3 build=7                    => waiting 2
        f ask env*4 build=7                    => waiting 3 recent self_wait env/1=a
        g ask env/1 build=7                    => waiting 4 recent self_wait env/1=a
        i ask env[gpu=yes] build=7             => waiting 5
        j ask env/2 build=8                    => waiting 6 recent self_wait env/2=b
        - stuck                                => f g j
    "
    a_claim_that_shares_a_key_does_not_wait_for_itself: "
        - settings stuck_look=0s               =>
        a ask env key=k who=x build=7          => held env/env
        b ask env key=k who=y build=7          => held env/env
        c ask env key=j build=7                => waiting 1 recent self_wait env/env=a env/env=b
        d ask env key=k who=z build=7          => held env/env     # passes c, which waits for its build
        - stuck                                => c
    "
    a_grant_of_its_own_build_counts: "
        - settings stuck_look=0s               =>
        a ask env build=7 confirm              => granted env/env
        b ask env build=7 confirm park=1       => waiting 1 parked self_wait env/env=a
   +45s b ?                                    => granted env/env
        - stuck                                =>
    "
    one_part_of_a_set_is_enough: "
        - settings stuck_look=0s               =>
        a ask p build=7                        => held p/p
        b ask q                                => held q/q
        c ask p,q build=7                      => waiting 1 recent self_wait p/p=a
    "
    builds_that_wait_for_each_other_are_named: "
        - settings stuck_look=0s               =>
        a ask p build=1                        => held p/p
        b ask q build=2                        => held q/q
        a2 ask q build=1 confirm park=1        => waiting 1 parked
        - stuck                                =>
        b2 ask p build=2 confirm               => waiting 1 recent deadlock 2 1
        - notices                              => 1
        a2 again park=1                        => waiting 1 recent deadlock 1 2
        a2 again park=2                        => waiting 1 parked deadlock 1 2
        - history p                            => added claimed waiting deadlock
        - history q                            => added claimed waiting deadlock
        c ask p build=3                        => waiting 2       # waits for them, not in the cycle
        - stuck                                => a2 b2
        b2 end                                 => cancelled
        - stuck                                =>
        - notices                              => 2               # its end is news too
        a2 again park=2                        => waiting 1 recent
        a2 again park=3                        => waiting 1 parked
        b end                                  => released
        a2 ?                                   => granted q/q
    "
    cycles_may_be_longer: "
        - settings stuck_look=0s               =>
        a ask p build=1                        => held p/p
        b ask q build=2                        => held q/q
        c ask r build=3                        => held r/r
        d ask s build=4                        => held s/s
        a2 ask q build=1                       => waiting 1
        b2 ask r build=2                       => waiting 1
        d2 ask q build=4                       => waiting 2
        - stuck                                =>
        c2 ask p build=3                       => waiting 1 recent deadlock 3 1 2
        a2 ?                                   => waiting 1 recent deadlock 1 2 3
        b2 ?                                   => waiting 1 recent deadlock 2 3 1
        d2 ?                                   => waiting 2 recent
        - stuck                                => a2 b2 c2         # 4 waits for the cycle, no build for 4
    "
    a_cycle_through_a_grant: "
        - settings stuck_look=0s               =>
        x ask q                                => held q/q
        a ask p build=1                        => held p/p
        b2 ask p build=2                       => waiting 1
        b ask q build=2 confirm park=1         => waiting 1
        a2 ask q build=1                       => waiting 2
        - stuck                                =>
        x end                                  => released
        b ?                                    => granted q/q
        - stuck                                => a2 b2
        a2 ?                                   => waiting 1 recent deadlock 1 2
        b2 ?                                   => waiting 1 recent deadlock 2 1
    "
    while_another_lock_would_do_no_claim_is_stuck: "
        - settings stuck_look=0s               =>
        - pool p capacity=2                    => done
        a ask p/1 build=1                      => held p/1
        x ask p/2 build=3                      => held p/2
        b ask q build=2                        => held q/q
        a2 ask q build=1                       => waiting 1
        b2 ask p build=2                       => waiting 1
        - stuck                                =>                  # 3 will give p/2 back
        x2 ask q build=3                       => waiting 2 recent deadlock 3 2
        - stuck                                => a2 b2 x2
        - add p/3                              => done
        - stuck                                =>
    "
    a_waiter_that_does_not_listen_waits_for_no_claim: "
        - settings stuck_look=0s               =>
        a ask p build=1                        => held p/p
        b ask q build=2                        => held q/q
        a2 ask q build=1                       => waiting 1
        b2 ask p build=2                       => waiting 1 recent deadlock
   +20s - stuck                                =>
        a2 again                               => waiting 1 recent
        - stuck                                =>
        b2 again                               => waiting 1 recent deadlock
        - stuck                                => a2 b2
    "
    a_loss_ends_a_deadlock: "
        - settings stuck_look=0s               =>
        a ask p build=1 ttl=60s                => held p/p
        b ask q build=2                        => held q/q
        a2 ask q build=1 confirm park=1        => waiting 1
        b2 ask p build=2 confirm park=2        => waiting 1
        - stuck                                => a2 b2
   +60s - stuck                                =>
   +30s b2 ?                                   => granted p/p
    "
    a_restart_finds_a_deadlock_and_tells_its_clients_again: "
        - settings stuck_look=0s               =>
        a ask p build=1                        => held p/p
        b ask q build=2                        => held q/q
        a2 ask q build=1                       => waiting 1
        b2 ask p build=2                       => waiting 1
        - stuck                                => a2 b2
        - restart                              => same
        - stuck                                => a2 b2
        a2 again park=1                        => waiting 1 recent deadlock
        a2 again park=2                        => waiting 1 parked
        - history p                            => added claimed waiting deadlock
    "
    searches_keep_a_distance: "
        a ask p build=1                        => held p/p
        b ask q build=2                        => held q/q
        a2 ask q build=1 park=1                => waiting 1 parked
        b2 ask p build=2 park=2                => waiting 1 parked
        - stuck                                =>                  # the last search is recent
 +250ms - stuck                                => a2 b2
        - notices                              => 1 2
        c ask r build=1                        => held r/r
        c2 ask r build=1 park=3                => waiting 1 parked
        - stuck                                => a2 b2
 +249ms - stuck                                => a2 b2
   +1ms - stuck                                => a2 b2 c2
        - notices                              => 3
    "
}

/// The search finds a cycle of many builds, and the answer stays short.
#[test]
fn a_cycle_of_two_hundred_builds() {
    let holds = super::lines(0..200, |n| format!("h{n} ask l{n} build={n} => held"));
    let waits = super::lines(0..200, |n| format!("w{n} ask l{} build={n} => waiting", (n + 1) % 200));
    harness::play_at_scale(&format!(
        "{holds}
        {waits}
        +1s w7 ? => waiting 1 recent deadlock 7 8 9 10 11 12 13 14 15 16
        h8 end => released
        w8 end => cancelled
        +1s - stuck =>"
    ));
}
// A claim that may pass others because they wait for its build still comes after an earlier one that can be served.
scenarios! {
    two_exceptions_in_two_pools_go_by_ticket: "
        - pool p capacity=1                    => done
        - add p/big                            => done
        e ask r                                => held r/r
        c ask t build=1                        => held t/t
        d ask p build=2                        => held p/1
        a ask r,t park=7                       => waiting 1 parked
        i ask r build=1 confirm park=8         => waiting 2 parked
        g ask p,r build=2 confirm park=10      => waiting 1 parked
        j ask p*2 build=1 park=21              => waiting 2 parked
        e end                                  => released
        i ?                                    => granted r/r
    "
    a_claim_over_two_pools_is_granted_before_a_later_one_that_joins: "
        - pool p capacity=2                    => done
        - pool q capacity=1 overtaking=backfill => done
        c ask p*2                              => held p/1 p/2
        i ask p*2 key=k confirm park=1         => waiting 1 parked
        e ask p,q key=k confirm park=2         => waiting 2 parked
        g ask p*2 key=k who=k confirm park=3   => waiting 3 parked
        c end                                  => released
        - lock p/1                             => meta= by=i by=e by=g
    "
}
