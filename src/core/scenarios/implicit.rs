//! The lock that a pool has because it was given none (docs/design.md#making-pools), and how it leaves.

use super::harness;

// A capacity means that many locks.
scenarios! {
    a_capacity_replaces_a_free_implicit_lock: "
        a ask env                              => held env/env
        a end                                  => released
        - lock env/env                         => meta= implicit
        - pool env capacity=2                  => done
        - lock env/env                         => none
        - free env                             => 1 2
        - pool env capacity=2                  => done
        - free env                             => 1 2
    "
    a_mutex_stays_a_mutex_while_its_lock_is_held: "
        h ask env                              => held env/env
        b ask env confirm park=1               => waiting 1 parked
        - pool env capacity=1                  => done
        - lock env/env                         => meta= by=h leaving implicit
        b ?                                    => waiting 1 parked
        c ask env try                          => busy
        d ask env/1 try                        => busy
        - restart                              => same
        c ask env try                          => busy
        b again park=2                         => waiting 1 parked
        h end                                  => released
        b ?                                    => granted env/1
        - lock env/env                         => none
    "
    no_more_than_n_are_given_while_the_implicit_lock_leaves: "
        h ask env                              => held env/env
        - pool env capacity=3                  => done
        a ask env*3 confirm park=1             => waiting 1 parked
        a end                                  => cancelled
        b ask env*2                            => held env/1 env/2
        c ask env confirm park=2               => waiting 1 parked
        b end                                  => released
        c ?                                    => granted env/3
        d ask env                              => held env/1
        e ask env/2 confirm park=3             => waiting 1 parked
        - quarantine env/2                     => done
        h end                                  => released
        e ?                                    => waiting 1 parked
        - return env/2                         => done
        e ?                                    => granted env/2
    "
    a_lost_implicit_lock_drains_first: "
        h ask env ttl=1m                       => held env/env
        - pool env capacity=1                  => done
        b ask env confirm park=1               => waiting 1 parked
   +60s h ?                                    => ended lost
        - lock env/env                         => meta= draining leaving implicit
   +29s b ?                                    => waiting 1 parked
    +1s b ?                                    => granted env/1
    "
    a_claim_for_the_lock_that_leaves_ends: "
        h ask env/env                          => held env/env
        w ask env/env confirm park=1           => waiting 1 parked
        - pool env capacity=1                  => done
        w ?                                    => ended removed
        h ?                                    => held env/env
        x ask env/env                          => refused no_such_lock
    "
    sharers_of_a_lock_that_leaves_are_not_joined: "
        h ask env key=k who=x                  => held env/env
        - pool env capacity=1                  => done
        i ask env key=k who=y try              => busy
        h end                                  => released
        i ask env key=k who=y                  => held env/1
        j ask env key=k who=z                  => held env/1
    "
    no_capacity_takes_away_a_lock_that_somebody_added: "
        - add env/env                          => done
        - add env/eu-1                         => done
        - lock env/env                         => meta=
        - pool env capacity=1                  => done
        - free env                             => env eu-1 1
        - pool env capacity=0                  => done
        - free env                             => env eu-1
    "
    a_pool_named_like_a_number: "
        h ask 2                                => held 2/2
        - pool 2 capacity=2                    => done
        - lock 2/2                             => meta= by=h
        a ask 2                                => held 2/1
        h2 ask 7                               => held 7/7
        - pool 7 capacity=1                    => done
        - lock 7/7                             => meta= by=h2 leaving implicit
        b ask 7 try                            => busy
        h2 end                                 => released
        b ask 7                                => held 7/1
    "
    nothing_is_left_of_an_implicit_lock_whose_grant_is_withdrawn: "
        g ask env confirm                      => granted env/env
        - pool env capacity=1                  => done
        b ask env confirm park=1               => waiting 1 parked
   +45s g ?                                    => waiting 1 away
        - lock env/env                         => none
        b ?                                    => granted env/1
    "
    a_build_passes_those_who_wait_for_its_implicit_lock: "
        h ask p build=7                        => held p/p
        - pool p capacity=1                    => done
        x ask q                                => held q/q
        e ask p,q confirm park=1               => waiting 1 parked
        b ask q build=7 confirm park=2         => waiting 2 parked
        x end                                  => released
        b ?                                    => granted q/q          # e waits for the build
    "
}

// Other ways in which it goes, or stays.
scenarios! {
    the_first_lock_that_is_added_replaces_it: "
        h ask env                              => held env/env
        - add env/eu-1                         => done
        - lock env/env                         => meta= by=h leaving implicit
        a ask env try                          => busy
        - add env/eu-2                         => done
        a ask env                              => held env/eu-1
        b ask env try                          => busy
        h end                                  => released
        b ask env                              => held env/eu-2
    "
    a_lock_that_comes_claimed_replaces_it: "
        h ask env                              => held env/env
        - add env/eu-1 for=x                   => done
        - add env/eu-2                         => done
        a ask env try                          => busy                 # two locks, two holders
        h end                                  => released
        a ask env                              => held env/eu-2
    "
    whoever_adds_it_by_its_name_keeps_it: "
        h ask env                              => held env/env
        - add env/env meta=m                   => done
        - lock env/env                         => meta=m by=h
        - add env/env                          => refused lock_exists
        - add env/eu-1                         => done
        a ask env                              => held env/eu-1
        h ?                                    => held env/env
    "
    whoever_gives_it_content_keeps_it: "
        h ask env                              => held env/env
        - update env/env meta=m                => done
        - lock env/env                         => meta=m by=h
        - pool env capacity=1                  => done
        a ask env                              => held env/1
        h ?                                    => held env/env
    "
    a_policy_on_a_new_pool_leaves_it_with_a_lock: "
        - change env scope=build               => done
        - lock env/env                         => meta= implicit
        a ask env build=7                      => held env/env
        - over 7 failed                        =>
        a ?                                    => ended build_over
        - change env max_hold=1m               => done
        - change env capacity=2                => done
   +30s b ask env build=8 confirm park=1       => granted env/1
        - change other capacity=1              => done
        - free other                           => 1
        - pool empty                           => done
        - free empty                           =>
        - change empty drain=0s                => done
        - free empty                           =>                      # it was declared so
    "
    a_change_keeps_what_it_does_not_name: "
        - pool env capacity=1 drain=0s max_hold=1m => done
        - change env scope=build               => done
        a ask env build=7                      => held env/1
        a left?                                => 60s
        - over 7 aborted                       =>
        b ask env scope=flow try               => held env/1           # no drain
        - change env order=lifo                => done
        - history env 4                        => claimed lost claimed pool
    "
}

// Which pools a claim may make.
scenarios! {
    a_claim_makes_only_pools_that_match: "
        - settings claims_make=dev-*
        a ask dev-1                            => held dev-1/dev-1
        b ask prod                             => refused may_not_make
        c ask prod*2                           => refused no_such_pool
        d ask dev-1,prod                       => refused may_not_make
        - pool prod capacity=1                 => done
        b ask prod                             => held prod/1
        - add other/x                          => done
    "
}
