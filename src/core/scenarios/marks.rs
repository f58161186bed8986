//! Holds that are released by a step of their build where builds run again (docs/decisions/0023).

use super::harness;

scenarios! {
    a_marked_hold_lasts_until_its_build_is_over: "
        a ask env confirm build=7                   => granted env/env
        a confirm                                   => held env/env
        a deliver                                   => held env/env
        b ask env confirm build=8 park=1            => waiting 1 parked
        - watched                                   => 7~ 8             # only to show its end
        a release build=7                           => held env/env marked as a
        - history env 2                             => waiting noted
        - watched                                   => 7 8              # delivered or not
        a release build=7                           => held env/env marked as a     # may be repeated
        b ?                                         => waiting 1 parked
        - over 7 succeeded                          =>
        a ?                                         => ended released
        b ?                                         => granted env/env  # at once: it was released
        - history env 2                             => released granted
    "
    a_marked_hold_is_released_whatever_its_scope_and_however_its_build_ends: "
        - pool env capacity=4                       => done
        a ask env build=1 scope=build               => held env/1
        b ask env build=2 scope=flow                => held env/2
        c ask env build=3 scope=person              => held env/3
        d ask env build=4 scope=lease               => held env/4
        a release build=1                           => held env/1 marked
        b release build=2                           => held env/2 marked
        c release build=3                           => held env/3 marked
        d release build=4                           => held env/4 marked
        - watched                                   => 1 2 3 4
        - over 1 aborted                            =>
        - over 2 errored                            =>
        - over 3 failed                             =>
        - over 4 gone                               =>
        a ?                                         => ended released
        b ?                                         => ended released
        c ?                                         => ended released
        d ?                                         => ended released
        - free env                                  => 1 2 3 4          # without a drain
        a end                                       => released again
    "
    only_a_hold_of_the_same_build_is_marked: "
        - pool env capacity=5                       => done
        a ask env build=7                           => held env/1
        b ask env build=7                           => held env/2
        c ask env build=7                           => held env/3
        a release build=8                           => released         # another build
        b release                                   => released         # no build
        c release build=7 plain                     => released         # its Concourse does not run builds again
        d ask env*3 confirm build=7                 => granted env/1 env/4 env/5
        w ask env*5 build=7                         => waiting 1
        w release build=7                           => cancelled
        d release build=7                           => cancelled
        x release build=7                           => refused no_such_claim
        e ask env build=9                           => held
        - over 9 succeeded                          =>
        e release build=9                           => released         # that build runs no more
    "
    everything_else_ends_a_marked_hold_as_before: "
        - pool env capacity=3                       => done
        a ask env build=1                           => held env/1
        b ask env build=2 ttl=20s                   => held env/2
        c ask env build=3                           => held env/3
        a release build=1                           => held env/1 marked
        b release build=2                           => held env/2 marked
        c release build=3                           => held env/3 marked
        a end                                       => released         # `DELETE` acts at once
        c break                                     => broken
   +20s b ?                                         => ended lost
        - lock env/2                                => meta= draining
        - marked                                    =>
    "
    the_second_pass_of_a_build_gets_the_marked_hold_back: "
        a ask env confirm build=7 run=r             => granted env/env
        a confirm                                   => held env/env
        b ask env confirm build=8 park=1            => waiting 1 parked
        a release build=7                           => held env/env marked as a
        x ask env confirm build=7 run=s             => held env/env marked as a     # from another container
        - marked                                    => a+1
        x again run=s                               => held env/env marked as a
        a again run=t                               => held env/env marked as a     # with a name of its own
        - marked                                    => a+1
        x ask env*2 build=7                         => refused different_request
        x deliver                                   => held env/env marked as a
        - restart                                   => same
        x ?                                         => held env/env marked as a
        x release build=7                           => held env/env marked as a     # nothing clears the mark
        - over 7 succeeded                          =>
        x ?                                         => ended released
        a ?                                         => ended released
        x end run=s                                 => released again
        x ask env confirm build=7 run=u             => waiting 1        # a new life, as of any released claim
    "
    a_second_pass_that_is_aborted_leaves_the_hold: "
        a ask env build=7                           => held env/env
        a release build=7                           => held env/env marked
        x ask env build=7 run=s                     => held env/env marked as a
        x end run=s                                 => held env/env marked as a
        x end                                       => released
        a ?                                         => ended released
    "
    equal_requests_of_one_build_get_different_holds: "
        - pool env capacity=2                       => done
        a ask env build=7                           => held env/1
        b ask env build=7                           => held env/2
        a release build=7                           => held env/1 marked
        b release build=7                           => held env/2 marked
        x ask env build=7                           => held env/1 marked as a
        y ask env build=7                           => held env/2 marked as b
        z ask env build=7                           => held env/1 marked as a
        - marked                                    => a+2 b+1
    "
    a_hold_that_is_not_marked_answers_nobody: "
        a ask env build=7                           => held env/env
        x ask env build=7                           => waiting 1
    "
    another_build_gets_nothing: "
        a ask env build=7                           => held env/env
        a release build=7                           => held env/env marked
        x ask env build=8                           => waiting 1
        y ask env                                   => waiting 2
        - marked                                    => a+0
    "
    a_waiting_twin_shares_the_marked_hold: "
        a ask env confirm build=7 park=1            => granted env/env
        a confirm                                   => held env/env
        b ask env confirm build=8 park=2            => waiting 1 parked
        x ask env confirm build=7 park=3            => waiting 2
        x again over=3                              => waiting 2 recent self_wait env/env=a
        x again park=4                              => waiting 2 parked
        a release build=7                           => held env/env marked
        - notices                                   => 3 4
        x again over=4                              => held env/env marked as a
        - queue env                                 => b
    "
    another_request_of_the_build_ends_a_marked_hold_that_it_needs: "
        - pool env capacity=2                       => done
        a ask env build=7                           => held env/1
        a release build=7                           => held env/1 marked
        b ask env/2 build=7                         => held env/2       # it did not need it
        b end                                       => released
        c ask env*2 build=7                         => held env/1 env/2
        a ?                                         => ended released
        - history env 2                             => released claimed
    "
    a_try_ends_a_marked_hold_that_it_needs: "
        a ask env build=7                           => held env/env
        a release build=7                           => held env/env marked
        b ask env/env try build=7                   => held env/env
        a ?                                         => ended released
    "
    who_waited_longer_gets_the_lock_first: "
        a ask env build=7                           => held env/env
        b ask env confirm build=8 park=1            => waiting 1 parked
        a release build=7                           => held env/env marked
        c ask env/env confirm build=7 park=2        => waiting 1 parked
        a ?                                         => ended released
        b ?                                         => granted env/env
    "
    a_hold_is_not_marked_while_its_build_waits_for_it: "
        a ask env build=7                           => held env/env
        c ask env/env confirm build=7 park=2        => waiting 1
        a release build=7                           => released
        c ?                                         => granted env/env
    "
    a_deadlock_through_a_marked_hold_ends_it: "
        a ask env build=7                           => held env/env
        b ask db build=8                            => held db/db
        a release build=7                           => held env/env marked
        x ask db confirm build=7 park=1             => waiting 1 parked
   +1s  y ask env confirm build=8 park=2            => waiting
        a ?                                         => ended released
        y ?                                         => granted env/env
        - stuck                                     =>
        - history env 2                             => released granted  # no deadlock was reported
        x ?                                         => waiting 1 parked
    "
    a_release_within_a_deadlock_ends_the_hold: "
        a ask env build=7                           => held env/env
        b ask db build=8                            => held db/db
        x ask db confirm build=7 park=1             => waiting 1 parked
        y ask env confirm build=8 park=2            => waiting 1
   +1s  - stuck                                     => x y
        a release build=7                           => held env/env marked
        a ?                                         => ended released
        y ?                                         => granted env/env
        - stuck                                     =>
    "
    a_restart_that_wakes_a_waiter_ends_a_marked_hold_in_its_way: "
        - settings listen=20s
        a ask env build=7                           => held env/env
        b ask db build=8                            => held db/db
        y ask env confirm build=8                   => waiting 1 recent
   +30s y ?                                         => waiting 1 away
        a release build=7                           => held env/env marked
        x ask db confirm build=7 park=1             => waiting 1 parked
        - stuck                                     =>
        - restart                                   => same
    +1s - tick                                      =>
        a ?                                         => ended released
        y ?                                         => granted env/env
    "
    a_marked_hold_without_news_of_its_build_ends_with_a_drain: "
        a ask env build=7                           => held env/env
        a release build=7                           => held env/env marked
   +9m  - alive 7                                   =>
   +9m  a ?                                         => held env/env marked
        - restart                                   => same
   +9m  a ?                                         => held env/env marked   # the wait begins again with the server
   +1m  a ?                                         => ended released
        - lock env/env                              => meta= draining
        b ask env confirm build=8 park=1            => waiting 1 parked
   +29s b ?                                         => waiting 1 parked
    +1s b ?                                         => granted env/env
        - alive 7                                   =>
    "
    news_of_other_builds_means_nothing: "
        a ask env build=7                           => held env/env
        a release build=7                           => held env/env marked
   +9m  - alive 8                                   =>
        - suspect 7 unreachable                     =>
   +1m  a ?                                         => ended released
    "
    what_a_concourse_says_of_itself_is_remembered: "
        - marked                                    =>
        - reruns https://ci on                      =>
        - reruns https://other on                   =>
        - reruns https://third off                  =>
        - restart                                   => same
        - marked                                    => https://ci https://other
        - reruns https://ci off                     =>
        - restart                                   => same
        - marked                                    => https://other
    "
    shared_locks_are_marked_too: "
        a ask env key=k who=x build=7               => held env/env
        b ask env key=k who=y build=8               => held env/env
        a release build=7                           => held env/env marked
        x ask env key=k who=x build=7               => held env/env marked as a
        c ask env key=k who=z build=7               => held env/env      # the lock admits it
        b release build=8                           => held env/env marked
        - over 7 succeeded                          =>
        - lock env/env                              => meta= by=b by=c
    "
}
