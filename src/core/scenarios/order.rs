//! Pools ordered by priority (docs/policies.md).

use super::harness;

scenarios! {
    the_highest_priority_comes_first_then_the_earliest_claim: "
        - pool env capacity=1 order=priority   => done
        h ask env                              => held env/1
        a ask env confirm park=1               => waiting 1 parked
        b ask env confirm park=2 priority=5    => waiting 1 parked
        c ask env confirm park=3 priority=5    => waiting 2 parked
        d ask env confirm park=4 priority=-1   => waiting 4 parked
        - queue env                            => b c a d
        a ?                                    => waiting 3 parked
        h end                                  => released
        b ?                                    => granted env/1
        - restart                              => same
        - queue env                            => c a d
        b confirm                              => held env/1
        a again park=5                         => waiting 2 parked
        c end                                  => cancelled
        b end                                  => released
        a ?                                    => granted env/1
    "
    priority_means_nothing_in_a_fifo_pool: "
        h ask env                              => held env/env
        a ask env                              => waiting 1
        b ask env priority=1000                => waiting 2
        - queue env                            => a b
    "
    a_priority_is_not_compared_and_stays: "
        - pool env capacity=1 order=priority   => done
        h ask env                              => held env/1
        a ask env                              => waiting 1
        b ask env priority=1                   => waiting 1
        a ask env priority=9                   => waiting 2      # the same claim, the same place
        - queue env                            => b a
    "
    a_higher_priority_does_not_take_a_grant: "
        - pool env capacity=1 order=priority   => done
        a ask env confirm                      => granted env/1
        b ask env confirm priority=9 park=1    => waiting 1 parked
        a confirm                              => held env/1
   +45s b ?                                    => waiting 1 parked
    "
    a_withdrawn_grant_goes_back_to_its_place: "
        - pool env capacity=1 order=priority   => done
        a ask env confirm                      => granted env/1
        b ask env priority=9                   => waiting 1
        c ask env priority=-9                  => waiting 2
   +45s - queue env                            => b a c
    "
    a_later_claim_of_higher_priority_is_strict_too: "
        - pool env capacity=2 order=priority   => done
        h ask env                              => held env/1
        a ask env*2 confirm park=1 priority=9  => waiting 1 parked
        b ask env confirm park=2               => waiting 2 parked   # one is free, but a comes first
        a end                                  => cancelled
        b ?                                    => granted env/2
    "
    a_full_queue_is_full_at_every_priority: "
        - pool env capacity=1 order=priority max_queue=1 => done
        h ask env                              => held env/1
        a ask env                              => waiting 1
        b ask env priority=9                   => refused queue_full
    "
    sharers_wait_by_priority_too: "
        - pool env capacity=1 order=priority   => done
        h ask env key=k who=h                  => held env/1
        x ask env priority=1                   => waiting 1
        a ask env key=k who=a                  => waiting 2          # behind another key
        b ask env key=k who=b priority=2       => held env/1         # before it
        - queue env                            => x a
    "
    a_new_order_drops_no_waiter: "
        - pool env capacity=1                  => done
        h ask env                              => held env/1
        a ask env key=k who=a park=1           => waiting 1
        b ask env key=k who=b priority=3       => waiting 2
        c ask env confirm priority=9 park=3    => waiting 3
        - pool env order=priority              => done
        - queue env                            => c b a
        - history env 1                        => pool
        - restart                              => same
        - queue env                            => c b a
        - pool env                             => done
        - queue env                            => a b c
        - pool env order=priority              => done
        c again park=4                         => waiting 1 parked
        h end                                  => released
        c ?                                    => granted env/1
    "
    a_new_order_can_serve_a_waiter: "
        - pool env capacity=2                  => done
        h ask env                              => held env/1
        a ask env*2 confirm park=1             => waiting 1 parked
        b ask env confirm park=2 priority=1    => waiting 2 parked
        - pool env order=priority              => done
        b ?                                    => granted env/2
    "
    several_pools_need_one_order: "
        - pool p capacity=1 order=priority     => done
        - pool q capacity=1                    => done
        - pool r capacity=1 order=priority     => done
        a ask p,q                              => refused mixed_orders
        a ask p,fresh                          => refused mixed_orders   # a pool that a claim makes is fifo
        - free fresh                           => none
        a ask p,r                              => held p/1 r/1
        b ask q,fresh                          => held fresh/fresh q/1
    "
    the_order_stays_while_a_claim_over_several_pools_waits: "
        - pool p capacity=1 order=priority     => done
        - pool r capacity=1 order=priority     => done
        a ask p,r confirm                      => granted p/1 r/1
        - pool p                               => refused order_in_use   # it may wait again
        a confirm                              => held p/1 r/1
        b ask p                                => waiting 1
        - pool p                               => done
        - pool p order=priority                => done
        c ask p,r priority=1                   => waiting 1
        - pool r capacity=3                    => refused order_in_use
        - free r                               =>
        - pool r order=priority max_queue=7    => done                   # all else may change
        c end                                  => cancelled
        - pool r                               => done
    "
    sets_by_priority_never_deadlock: "
        - pool p capacity=1 order=priority     => done
        - pool q capacity=1 order=priority     => done
        h ask p                                => held p/1
        i ask q                                => held q/1
        a ask p,q confirm park=1               => waiting 1
        b ask p,q confirm park=2 priority=1    => waiting 1
        h end                                  => released
        i end                                  => released
        b ?                                    => granted p/1 q/1
        a ?                                    => waiting 1 parked
        b confirm                              => held
        b end                                  => released
        a ?                                    => granted p/1 q/1
    "
    a_build_passes_claims_of_higher_priority_that_wait_for_it: "
        - pool p capacity=1 order=priority     => done
        - pool q capacity=1 order=priority     => done
        a ask p build=1                        => held p/1
        b ask p,q confirm park=1 priority=9    => waiting 1
        a2 ask q build=1 confirm               => granted q/1
    "
    the_earlier_claim_of_a_build_is_served_first: "
        - pool p capacity=2                          => done
        a ask p,r build=1                            => held p/1 r/r
        i ask r,t                                    => waiting 1
        c ask t build=2 confirm                      => waiting 2
        e ask q,t build=2 confirm                    => waiting 1
        g ask p build=2                              => held p/2
        f ask p build=1                              => waiting 1   # i now waits for build 2, and no longer holds it back
        c ?                                          => granted t/t
        e ?                                          => waiting
    "
    a_claim_that_can_no_longer_be_served_is_passed_at_once: "
        - pool p capacity=2 overtaking=backfill      => done
        j ask r confirm                              => granted r/r
        c ask r confirm park=1                       => waiting 1
        h ask p,r park=2                             => waiting 1
        e ask p confirm                              => granted p/1
        a ask p*2 confirm park=3                     => waiting 2
        +45s! - tick                                 =>
        c ?                                          => granted r/r
        a ?                                          => granted p/1 p/2
    "
}
