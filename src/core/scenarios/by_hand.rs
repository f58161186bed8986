//! What people do to other people's claims and to locks.

use super::harness;

// Breaking a hold.
scenarios! {
    a_broken_hold_is_free_at_once: "
        a ask env                              => held env/env
        b ask env confirm park=1               => waiting 1 parked
        a break                                => broken
        b ?                                    => granted env/env
        a break                                => broken again
        a end                                  => refused ended broken
        a renew                                => refused ended broken
        a again run=new                        => refused ended broken
        b ?                                    => granted env/env
        - history env 3                        => waiting broken granted
    "
    a_broken_hold_can_drain_first: "
        a ask env                              => held env/env
        b ask env confirm park=1               => waiting 1 parked
        a break drain                          => broken
   +29s b ?                                    => waiting 1 parked
    +1s b ?                                    => granted env/env
    "
    a_grant_can_be_broken_and_a_waiter_cancelled: "
        a ask env confirm                      => granted env/env
        b ask env confirm park=1               => waiting 1 parked
        b break                                => refused not_granted
        a cancel                               => refused not_waiting
        a break drain                          => broken
        b ?                                    => granted env/env     # it was never held
        c ask env confirm park=2               => waiting 1 parked
        - notices                              => 1
        c cancel                               => cancelled
        - notices                              => 2
        c cancel                               => cancelled again
        c again                                => refused ended cancelled
        d break                                => refused no_such_claim
    "
}

// Quarantine.
scenarios! {
    a_lock_out_of_service_is_not_granted: "
        - pool env capacity=2                  => done
        - quarantine env/1                     => done
        - free env                             => 2
        - lock env/1                           => meta= quarantined
        a ask env                              => held env/2
        b ask env/1 confirm park=1             => waiting 1 parked
        c ask env*2 try                        => busy                 # it is still a lock of the pool
        - restart                              => same
        - lock env/1                           => meta= quarantined
        b again park=1                         => waiting 1 parked
        - return env/1                         => done
        b ?                                    => granted env/1
        - return env/1                         => done
        - history env 4                        => waiting returned granted noted
    "
    a_holder_keeps_a_lock_out_of_service: "
        a ask env key=k who=x                  => held env/env
        - quarantine env/env                   => done
        a ?                                    => held env/env
        b ask env key=k who=y try              => busy
        a end                                  => released
        c ask env confirm park=1               => waiting 1 parked
        - lock env/env                         => meta= quarantined
        - return env/env                       => done
        c ?                                    => granted env/env
    "
    a_quarantine_ends_by_itself: "
        a ask env confirm                      => granted env/env
        a end                                  => cancelled
        - quarantine env/env for=20m           => done
        b ask env confirm park=1               => waiting 1 parked
   +10m - restart                              => same
   +9m  b again park=2                         => waiting 1 parked
   +1m  b ?                                    => granted env/env
        - history env 3                        => waiting returned granted
    "
    quarantines_end_in_the_order_of_their_last_deadlines: "
        - pool env capacity=2                  => done
        - quarantine env/1 for=10m             => done
        - quarantine env/2 for=15m             => done
        - quarantine env/1 for=20m             => done
  +30m! a ask env                              => held env/2           # the server was stopped meanwhile
    "
    a_quarantine_ends_with_its_pool: "
        - pool env capacity=2                  => done
        - quarantine env/1 for=10m             => done
        - unpool env                           => done
        - pool env capacity=2                  => done
        - quarantine env/2 for=15m             => done
        - quarantine env/1 for=20m             => done
  +30m! a ask env                              => held env/2
    "
    the_last_quarantine_counts: "
        - pool env capacity=1                  => done
        - quarantine env/1 for=1m              => done
   +30s - quarantine env/1                     => done
   +5m  - lock env/1                           => meta= quarantined
        - quarantine env/1 for=1m              => done
   +1m  - lock env/1                           => meta=
        - quarantine env/2                     => refused no_such_lock
        - remove env/1                         => done
    "
}

// Moving a waiter.
scenarios! {
    a_moved_waiter_passes_others_which_keep_their_order: "
        h ask env                              => held env/env
        a ask env                              => waiting 1
        b ask env                              => waiting 2
        c ask env                              => waiting 3
        d ask env                              => waiting 4
        d move b                               => done
        - queue env                            => a d b c
        a move last                            => done
        - queue env                            => d b c a
        c move first                           => done
        - queue env                            => c d b a
        c move c                               => done
        d move first                           => done
        d move first                           => done
        - queue env                            => d c b a
        - restart                              => same
        - queue env                            => d c b a
        h move first                           => refused not_waiting
        a move h                               => refused not_waiting
        x move first                           => refused no_such_claim
        a move x                               => refused no_such_claim
        - history env 3                        => moved moved moved
    "
    later_claims_stay_behind_a_moved_one: "
        h ask env                              => held env/env
        a ask env confirm park=1               => waiting 1 parked
        b ask env confirm park=2               => waiting 2 parked
        a move last                            => done
        c ask env confirm park=3               => waiting 3 parked
        - queue env                            => b a c
        h end                                  => released
        b ?                                    => granted env/env
        b end                                  => cancelled
        a ?                                    => granted env/env
    "
    a_moved_waiter_stays_behind_a_granted_claim: "
        b ask env confirm                      => granted env/env
        c ask env                              => waiting 1
        d ask env                              => waiting 2
        d move first                           => done
        - queue env                            => d c
   +45s - queue env                            => b d c         # it is withdrawn, and came first
    "
    sets_keep_one_order_in_all_their_pools: "
        - pool p capacity=1                    => done
        - pool q capacity=1                    => done
        h ask p,q                              => held p/1 q/1
        a ask p                                => waiting 1
        b ask p,q                              => waiting 2
        c ask q                                => waiting 2
        d ask p,q                              => waiting 3
        d move a                               => done
        - queue p                              => d a b
        - queue q                              => d b c
        b move last                            => done
        - queue p                              => d a b
        - queue q                              => d c b
        a move c                               => refused not_waiting   # they share no queue
    "
    moving_in_pools_by_priority_and_last_come_first: "
        - pool env capacity=1 order=priority   => done
        h ask env                              => held env/1
        a ask env priority=5                   => waiting 1
        b ask env                              => waiting 2
        c ask env                              => waiting 3
        c move a                               => done
        - queue env                            => c a b
        a move last                            => done
        - queue env                            => c b a
        - pool pile capacity=1 order=lifo      => done
        i ask pile                             => held pile/1
        x ask pile                             => waiting 1
        y ask pile                             => waiting 1
        z ask pile                             => waiting 1
        - queue pile                           => z y x
        x move y                               => done
        - queue pile                           => z x y
        y move first                           => done
        - queue pile                           => y z x
        y move last                            => done
        - queue pile                           => z x y
    "
    a_withdrawn_grant_returns_to_its_place_after_a_move: "
        a ask env confirm                      => granted env/env
        b ask env confirm park=1               => waiting 1 parked
        c ask env confirm park=2               => waiting 2 parked
        c move b                               => done
   +45s a ?                                    => waiting 1 away
        c ?                                    => granted env/env
        - queue env                            => a b
    "
}

// A person reserves a lock that somebody else holds.
scenarios! {
    a_reservation_joins_the_queue_and_expires: "
        h ask env build=7                      => held env/env
        p ask env confirm scope=person ttl=2h park=1 => waiting 1 parked
        b ask env confirm park=2               => waiting 2 parked
        h end                                  => released
        p confirm                              => held env/env
        p left?                                => 7200s
  +110m b again park=3                         => waiting 1 parked
  +10m  p ?                                    => ended lost
   +30s b ?                                    => granted env/env
    "
}
