//! Claims for locks that a pool does not have (docs/policies.md#pools-without-locks).

use super::harness;

// Where the pool says nothing, a claim for any one lock may say that it waits while there is none.
scenarios! {
    a_claim_may_wait_for_the_first_lock_of_an_empty_pool: "
        - pool env                             => done
        a ask env if_empty confirm park=1      => waiting 1 parked
        - add env/x                            => done
        a ?                                    => granted env/x
    "
    other_claims_fail_at_once: "
        - pool env                             => done
        a ask env                              => refused too_many
        b ask env*2 if_empty                   => refused too_many
        c ask env[size=big] if_empty           => refused too_many
        d ask env/x if_empty                   => refused no_such_lock
        - add env/x                            => done
        e ask env*2 if_empty                   => refused too_many
        f ask env/y if_empty                   => refused no_such_lock
    "
    an_unknown_pool_is_made_or_refused_as_ever: "
        - settings declared_only
        a ask env if_empty                     => refused may_not_make
        - pool env                             => done
        a ask env if_empty                     => waiting 1 recent
        b ask env,db if_empty                  => refused may_not_make
    "
    a_try_lock_in_an_empty_pool_is_busy: "
        - pool env                             => done
        a ask env if_empty try                 => busy
        - queue env                            =>
    "
    it_waits_on_when_the_last_lock_is_removed: "
        - pool env                             => done
        - add env/x                            => done
        h ask env if_empty confirm             => granted env/x
        h confirm                              => held
        a ask env if_empty confirm park=1      => waiting 1 parked
        b ask env confirm park=2               => waiting 2 parked
        - remove env/x claim=h                 => done
        a ?                                    => waiting 1 parked
        b ?                                    => ended removed
        - restart                              => same
        a again park=3                         => waiting 1 parked
        - add env/y                            => done
        a ?                                    => granted env/y
    "
}

// The pool decides for all claims.
scenarios! {
    with_wait_claims_of_every_kind_wait: "
        - pool env when_empty=wait             => done
        any ask env confirm park=1             => waiting 1 parked
        two ask env*2 confirm park=2           => waiting 2 parked
        big ask env[size=big] confirm park=3   => waiting 3 parked
        x ask env/x confirm park=4             => waiting 4 parked
        - restart                              => same
        any again park=1                       => waiting 1 parked
        two again park=2                       => waiting 2 parked
        big again park=3                       => waiting 3 parked
        x again park=4                         => waiting 4 parked
        - add env/x                            => done
        any ?                                  => granted env/x        # the earliest that one lock can serve
        - add env/y size=big                   => done
        two ?                                  => waiting 1 parked
        big ?                                  => waiting 2 parked     # behind two, which the pool could serve now
        any confirm                            => held env/x
        any end                                => released
        two ?                                  => granted env/x env/y
    "
    with_fail_no_claim_waits: "
        - pool env when_empty=fail             => done
        a ask env if_empty                     => refused too_many
        - add env/x                            => done
        h ask env                              => held env/x
        a ask env if_empty confirm park=1      => waiting 1 parked
        - remove env/x claim=h                 => done
        a ?                                    => ended removed
    "
    a_change_to_fail_ends_those_that_wait_for_locks: "
        - pool env when_empty=wait             => done
        a ask env/x confirm park=1             => waiting 1 parked
        b ask env if_empty confirm park=2      => waiting 2 parked
        - pool env                             => done
        a ?                                    => ended removed
        b ?                                    => waiting 1 parked
        - pool env when_empty=fail             => done
        b ?                                    => ended removed
    "
    new_locks_count_before_a_new_policy: "
        - pool env when_empty=wait             => done
        a ask env/1 confirm park=1             => waiting 1 parked
        - pool env capacity=1                  => done
        a ?                                    => granted env/1
    "
    relabelling_and_shrinking_do_not_end_a_wait: "
        - pool env capacity=2 when_empty=wait  => done
        h ask env*2                            => held env/1 env/2
        a ask env/2 confirm park=1             => waiting 1 parked
        b ask env*2 confirm park=2             => waiting 2 parked
        - pool env capacity=1 when_empty=wait  => done
        a ?                                    => waiting 1 parked
        h end                                  => released
        b ?                                    => waiting 2 parked
        - pool env capacity=2 when_empty=wait  => done
        a ?                                    => granted env/2
    "
    a_withdrawn_claim_waits_on: "
        - pool env when_empty=wait             => done
        - add env/x                            => done
        a ask env/x confirm park=1             => granted env/x
    +45s - tick                                =>
        - remove env/x                         => done
        a ?                                    => waiting 1 away
    "
}

// A waiter that the whole pool could not serve holds back no other.
scenarios! {
    a_waiter_for_too_many_holds_back_nobody: "
        - pool env capacity=2 when_empty=wait  => done
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env                              => held env/1
        b ask env try                          => held env/2
        c ask env confirm park=2               => waiting 2 parked
        a end                                  => released
        c ?                                    => granted env/1
        - pool env capacity=3 when_empty=wait  => done
        d ask env try                          => busy                 # from now on it has its turn
        b end                                  => released
        c confirm                              => held
        c end                                  => released
        big ?                                  => granted env/1 env/2 env/3
    "
    a_waiter_for_a_missing_name_holds_back_nobody: "
        - pool env capacity=2 when_empty=wait  => done
        h ask env/1                            => held env/1
        pair ask env/1+9 confirm park=1        => waiting 1 parked
        a ask env/1 confirm park=2             => waiting 2 parked
        h end                                  => released
        a ?                                    => granted env/1
    "
    a_waiter_for_an_empty_pool_holds_back_nobody_in_its_other_pools: "
        - pool env capacity=1                  => done
        - pool spare when_empty=wait           => done
        both ask env,spare confirm park=1      => waiting 1 parked
        a ask env                              => held env/1
        - add spare/s                          => done
        b ask env confirm park=2               => waiting 2 parked
        a end                                  => released
        both ?                                 => granted env/1 spare/s
    "
    it_stops_holding_back_when_the_other_pool_loses_its_lock: "
        - pool env capacity=1                  => done
        - pool spare when_empty=wait           => done
        - add spare/s                          => done
        h ask env                              => held env/1
        x ask spare                            => held spare/s
        both ask env,spare confirm park=1      => waiting 1 parked
        a ask env confirm park=2               => waiting 2 parked
        h end                                  => released
        a ?                                    => waiting 2 parked     # strict order
        - remove spare/s claim=x               => done
        a ?                                    => granted env/1
    "
    a_waiter_with_missing_labels_holds_back_nobody: "
        - pool env capacity=1 when_empty=wait  => done
        - add env/big size=big                 => done
        two ask env*2[size=big] confirm park=1 => waiting 1 parked
        a ask env[size=big] confirm park=2     => granted env/big
        b ask env try                          => held env/1
    "
    a_waiter_that_loses_its_locks_lets_others_pass: "
        - pool env capacity=2 when_empty=wait  => done
        h ask env/1                            => held env/1
        big ask env*2 confirm park=1           => waiting 1 parked
        a ask env confirm park=2               => waiting 2 parked
        - remove env/1 claim=h                 => done
        a ?                                    => granted env/2
        - unpool env                           => refused pool_in_use
        - pool lab capacity=2 when_empty=wait  => done
        - add lab/x size=big                   => done
        i ask lab/1                            => held lab/1
        two ask lab*3 confirm park=3           => waiting 1 parked
        b ask lab confirm park=4               => waiting 2 parked
        - pool lab capacity=1 when_empty=wait  => done
        b ?                                    => granted lab/x
    "
    passing_it_is_not_counted: "
        - pool env capacity=2 overtaking=backfill:1 when_empty=wait => done
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env                              => held env/1
        b ask env                              => held env/2
        - pool env capacity=3 overtaking=backfill:1 when_empty=wait => done
        c ask env                              => held env/3           # the first that counts
        a end                                  => released
        d ask env try                          => busy
    "
    nobody_is_to_blame_for_what_does_not_exist: "
        - pool env capacity=1 when_empty=wait  => done
        h ask env build=7                      => held env/1
        a ask env*2 build=7                    => waiting 1 recent
        b ask env/x build=7                    => waiting 2 recent
        - stuck                                =>
        c ask env build=7                      => waiting 3 recent
    +5s - tick                                 =>
        - stuck                                => c                    # it has reason to blame its own build
    "
}
