//! What ends a hold besides a release: scopes, renewals and the ends of builds (docs/design.md#ends-of-a-hold).

use super::harness;

// The scope is the requested one, else the pool's, and stays as it was when the claim began.
scenarios! {
    a_claim_that_names_no_scope_has_that_of_its_pool: "
        - pool env capacity=2 scope=build           => done
        a ask env build=7                           => held env/1
        b ask env build=7 scope=flow                => held env/2
        - pool env capacity=2                       => done         # too late for claim a
        - over 7 succeeded                          =>
        a ?                                         => ended build_over
        b ?                                         => held env/2
    "
    the_requested_scope_is_part_of_the_request: "
        a ask env build=7                           => held env/env
        a ask env build=7 scope=flow                => refused different_request
        a ask env build=7                           => held env/env
        - pool env capacity=1 scope=build           => done
        a ask env build=7                           => held env/env # the pool's default is not compared
    "
    over_several_pools_the_scope_with_the_most_ends_counts: "
        - pool a capacity=1                         => done
        - pool b capacity=1 scope=build             => done
        - pool c capacity=1 scope=person            => done
        x ask a,b,c build=7                         => held a/1 b/1 c/1
        - over 7 failed                             =>
        x ?                                         => ended build_over
    "
    scope_build_needs_a_build: "
        a ask env scope=build                       => refused no_build
        - pool env capacity=1 scope=build           => done
        b ask env                                   => refused no_build
        c ask env scope=person                      => held env/1
    "
}

// Leases.
scenarios! {
    a_lease_lasts_as_long_as_it_is_renewed: "
        a ask env confirm scope=lease               => granted env/env
        a confirm                                   => held env/env
        b ask env confirm park=1                    => waiting 1 parked
        a left?                                     => 60s          # the default
   +59s a renew                                     => held env/env
        a left?                                     => 60s
   +59s a renew unnamed                             => held env/env
   +59s a ?                                         => held env/env
    +1s a ?                                         => ended lease_lost
        b ?                                         => waiting 1 parked  # drains first
   +30s b ?                                         => granted env/env
        - history env 3                             => waiting lost granted
    "
    the_first_renewal_confirms: "
        a ask env confirm scope=lease ttl=20s       => granted env/env
        a renew wrong                               => refused wrong_fence
        a renew                                     => held env/env
        a left?                                     => 20s
        b ask env confirm                           => waiting 1
        b renew                                     => refused not_granted
        c renew                                     => refused no_such_claim
    "
    a_lost_lease_never_comes_back: "
        a ask env confirm scope=lease ttl=20s run=r => granted env/env
        a renew run=r                               => held env/env
   +20s a renew run=r                               => refused ended lease_lost
        a end run=r                                 => refused ended lease_lost
        a again run=r                               => refused ended lease_lost
        a again run=other                           => refused ended lease_lost
    "
    renewals_by_others_change_nothing: "
        a ask env confirm scope=lease ttl=20s run=r => granted env/env
        a renew run=r                               => held env/env
   +10s a renew wrong run=r                         => refused wrong_fence
        a again run=s                               => held env/env
        a renew run=r                               => refused superseded_run
        a left?                                     => 10s
        a renew run=s                               => held env/env
        a left?                                     => 20s
    "
    nothing_moves_the_max_hold_of_a_pool: "
        - pool env capacity=1 max_hold=50s          => done
        a ask env scope=lease ttl=20s               => held env/1
   +15s a renew                                     => held env/1
   +15s a renew                                     => held env/1
        a left?                                     => 20s
   +15s a renew                                     => held env/1
        a left?                                     => 5s
    +5s a ?                                         => ended lost
    "
    any_hold_with_a_ttl_can_be_renewed: "
        - pool env capacity=2                       => done
        a ask env ttl=5m                            => held env/1
        b ask env                                   => held env/2
   +4m  a renew                                     => held env/1
        a left?                                     => 300s
        b renew                                     => held env/2
        b left?                                     => for ever
   +5m  a ?                                         => ended lost
    "
    a_lease_starts_again_in_full_with_the_server: "
        a ask env scope=lease ttl=20s               => held env/env
   +15s - restart                                   => same
   +19s a ?                                         => held env/env
    +1s a ?                                         => ended lease_lost
    "
}

// A build that is over.
scenarios! {
    a_build_whose_claims_have_ended_is_asked_about_later: "
        a ask env build=7                           => held env/env
        a end                                       => released
        b ask env                                   => held env/env
        - reconcile                                 =>
        - past                                      =>
  +10m  - reconcile                                 =>
        - past                                      => 7
        - over 7 succeeded                          =>
        - past                                      =>
  +10m  - reconcile                                 =>
        - past                                      =>
        a ?                                         => ended released
  +24h  a ?                                         => unknown
    "
    waiting_and_granted_claims_end_with_their_build: "
        h ask env                                   => held env/env
        g ask db confirm build=7                    => granted db/db
        w ask env confirm build=7 park=1            => waiting 1 parked
        o ask db confirm build=8 park=2             => waiting 1 parked
        - watched                                   => 7 8
        - over 7 aborted                            =>
        w ?                                         => ended build_over
        g ?                                         => ended build_over
        o ?                                         => granted db/db      # at once: it was never held
        - notices                                   => 1 2
        g confirm                                   => refused ended build_over
        w end                                       => build_over again   # it had nothing to lose
        - watched                                   => 8
    "
    a_hold_of_scope_build_is_lost_with_its_build: "
        a ask env scope=build build=7               => held env/env
        b ask env confirm park=1                    => waiting 1 parked
        a deliver                                   => held env/env
        - watched                                   => 7
        - over 7 succeeded                          =>
        a ?                                         => ended build_over
        a end                                       => refused ended build_over
        a again run=new                             => refused ended build_over
        - lock env/env                              => meta= draining
   +29s b ?                                         => waiting 1 parked
    +1s b ?                                         => granted env/env
        - history env 3                             => waiting lost granted
    "
    a_flow_ends_undelivered_when_its_build_is_cut_short: "
        - pool env capacity=9                       => done
        a ask env build=1                           => held env/1
        b ask env build=2                           => held env/2
        c ask env build=3                           => held env/3
        d ask env build=4                           => held env/4
        e ask env build=5                           => held env/5
        f ask env build=6                           => held env/6
        f deliver                                   => held env/6
        - watched                                   => 1 2 3 4 5 6~     # the end of 6 is only shown
        - over 1 aborted                            =>
        a ?                                         => ended undelivered
        - lock env/1                                => meta= draining
        - over 2 errored                            =>
        b ?                                         => ended undelivered
        - over 3 gone                               =>
        c ?                                         => ended undelivered
        - over 4 succeeded                          =>
        d ?                                         => held env/4 build=succeeded:0s
        - over 5 failed                             =>
        e ?                                         => ended undelivered  # nobody has it
        - over 6 aborted                            =>
        f ?                                         => held env/6 build=aborted:0s
        - watched                                   =>
        a end                                       => refused ended undelivered
        d end                                       => released
    "
    what_only_its_own_build_fetched_is_not_delivered: "
        - pool env capacity=9                       => done
        a ask env build=1                           => held env/1
        b ask env build=2                           => held env/2
        c ask env build=3                           => held env/3
        d ask env build=4                           => held env/4
        e ask env build=5                           => held env/5
        f ask env build=6                           => held env/6
        a deliver own                               => held env/1
        b deliver own                               => held env/2
        c deliver own                               => held env/3
        d deliver own                               => held env/4
        e deliver own                               => held env/5
        f deliver unsaid                            => held env/6
        - restart                                   => same
        - watched                                   => 1 2 3 4 5 6~
        - over 1 aborted                            =>
        a ?                                         => ended undelivered
        - lock env/1                                => meta= draining
        - over 2 errored                            =>
        b ?                                         => ended undelivered
        - over 3 gone                               =>
        c ?                                         => ended undelivered
        - over 4 failed                             =>             # somebody may be examining it
        d ?                                         => held env/4 build=failed:0s
        - over 5 succeeded                          =>             # a later job fetches it
        e ?                                         => held env/5 build=succeeded:0s
        - over 6 aborted                            =>             # an older in does not say whose it is
        f ?                                         => held env/6 build=aborted:0s
    "
    a_fetch_by_its_own_build_takes_nothing_back: "
        a ask env build=1                           => held env/env
        a deliver                                   => held env/env
        a deliver own                               => held env/env
        - over 1 aborted                            =>
        a ?                                         => held env/env build=aborted:0s
    "
    a_pool_may_keep_what_a_build_leaves: "
        - pool env capacity=3 cut_short=keep        => done
        - pool db capacity=1                        => done
        a ask env build=1                           => held env/1
        b ask env build=2                           => held env/2
        c ask env,db build=3                        => held db/1 env/3
        a deliver own                               => held env/1
        c deliver own                               => held db/1 env/3
        - over 1 aborted                            =>
        a ?                                         => held env/1 build=aborted:0s
        - over 2 failed                             =>             # that is no look at an environment
        b ?                                         => ended undelivered
        - over 3 errored                            =>             # one of its pools says so
        c ?                                         => held db/1 env/3 build=errored:0s
        a end                                       => released
    "
    a_build_is_not_asked_about_after_its_end: "
        a ask env build=7                           => held env/env
        - over 7 succeeded ago=40s                  =>
        - restart                                   => same
        - watched                                   =>
   +20s - over 7 gone                               =>             # its Concourse has forgotten it by now
        a ?                                         => held env/env build=succeeded:60s
    "
    a_fetched_flow_shows_how_its_build_ended: "
        a ask env build=7                           => held env/env
        a deliver                                   => held env/env
        b ask db build=7 scope=build                => held db/db
        - watched                                   => 7               # b depends on it
        b end                                       => released
        - watched                                   => 7~
        - restart                                   => same
        - over 7 failed                             =>
   +5m  a ?                                         => held env/env build=failed:300s
        - watched                                   =>
        a end                                       => released
    "
    the_build_that_a_hold_names_by_its_place_is_found_once: "
        - pool env capacity=4                       => done
        a ask env place=12                          => held env/1
        b ask env place=12                          => held env/2
        c ask env place=12 scope=person             => held env/3
        d ask env build=8                           => held env/4
        - seeking                                   =>                 # its end could end them: no guess
        a found 7                                   =>
        - watched                                   => 8
        a deliver                                   => held env/1
        c deliver                                   => held env/3
        d deliver                                   => held env/4
        - seeking                                   => a
        - restart                                   => same
        - seeking                                   => a
        a found 7                                   =>
        a found 9                                   =>                 # it has an id
        - seeking                                   =>
        - watched                                   => 7~ 8~
        - restart                                   => same
        - watched                                   => 7~ 8~
        - over 7 aborted                            =>
        a ?                                         => held env/1 build=aborted:0s
        a end                                       => released
        b end                                       => released
    "
    only_the_present_hold_is_delivered: "
        a ask env build=7                           => held env/env
        a deliver wrong                             => held env/env
        - watched                                   => 7
        a deliver                                   => held env/env
        a deliver                                   => held env/env
        - watched                                   => 7~
        - restart                                   => same
        - watched                                   => 7~
        a end                                       => released
        a deliver                                   => refused ended released
    "
    a_fetch_of_a_waiting_claim_tells_its_client_nothing: "
        a ask env build=7                           => held env/env
        b ask env build=7 park=1                    => waiting 1 parked
        - notices                                   => 1            # it waits for its own build
        b deliver                                   => waiting 1 parked
        b left 1                                    =>
        b again park=2                              => waiting 1 recent self_wait env/env=a   # answered, not parked
        - queue env                                 => b
    "
    persons_and_leases_outlive_a_build: "
        - pool env capacity=2                       => done
        a ask env build=7 scope=person              => held env/1
        b ask env build=7 scope=lease               => held env/2
        - watched                                   =>
        - over 7 aborted                            =>
        a ?                                         => held env/1
        b ?                                         => held env/2
    "
    ended_claims_of_a_build_are_remembered_as_long_as_it_may_go_on: "
        - settings memory=10m build_memory=60m
        - pool env capacity=3                       => done
        a ask env build=7 run=r                     => held env/1
        b ask env build=7 run=r                     => held env/2
        c ask env build=7 run=r                     => held env/3
        a end                                       => released
   +5m  b end                                       => released
   +20m a ?                                         => ended released
        - over 7 succeeded                          =>
        a ?                                         => unknown       # at once
        b ?                                         => unknown
        c end                                       => released      # its build had ended before
   +10m c ?                                         => unknown
    "
    a_build_is_suspect_until_its_state_is_known: "
        - pool env capacity=2                       => done
        a ask env build=7 scope=build               => held env/1
        b ask env build=8 scope=build               => held env/2
        - suspect 7 unreachable                     =>
        - suspect 9 unreachable                     =>             # of no claim
        - watched                                   => 7? 8
        a ?                                         => held env/1
        - suspect 7                                 =>
        - watched                                   => 7 8
        - suspect 7 unreachable                     =>
        - suspect 8 unreachable                     =>
        - over 7 failed                             =>
        a ?                                         => ended build_over
        b end                                       => released
        c ask env build=8                           => held env/2
        - watched                                   => 8             # forgotten with the last claim
    "
}
