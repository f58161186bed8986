//! Orders, overtaking and picking (docs/policies.md), and changes of them in use.

use super::harness;

// Last come, first served.
scenarios! {
    the_last_to_come_is_served_first: "
        - pool env capacity=1 order=lifo       => done
        h ask env                              => held env/1
        a ask env confirm park=1               => waiting 1 parked
        b ask env confirm park=2               => waiting 1 parked
        - queue env                            => b a
        h end                                  => released
        b ?                                    => granted env/1
        a ?                                    => waiting 1 parked
        - pool db capacity=1 order=lifo        => done
        c ask env,db                           => refused order_of_one
    "
    orders_change_without_losing_a_waiter: "
        - pool env capacity=1                  => done
        h ask env                              => held env/1
        a ask env confirm park=1               => waiting 1 parked
        b ask env confirm park=2 priority=5    => waiting 2 parked
        c ask env confirm park=3               => waiting 3 parked
        - pool env capacity=1 order=lifo       => done
        - queue env                            => c b a
        - pool env capacity=1 order=priority   => done
        - queue env                            => b a c
        - restart                              => same
        - queue env                            => b a c
        - pool env capacity=1                  => done
        - queue env                            => a b c
        h end                                  => released
        a ?                                    => granted env/1
    "
    the_order_stays_while_a_set_waits: "
        - pool env capacity=1                  => done
        h ask env                              => held env/1
        a ask env,db                           => waiting 1
        - pool env capacity=1 order=lifo       => refused order_in_use
        - pool env capacity=1 overtaking=backfill => done
    "
}

// Small claims pass a large one that cannot be served.
scenarios! {
    strict_holds_small_claims_back: "
        - pool env capacity=3                  => done
        h ask env                              => held env/1
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env try                          => busy
    "
    backfill_lets_them_pass_a_head_that_cannot_be_served: "
        - pool env capacity=3 overtaking=backfill => done
        h ask env                              => held env/1
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env                              => held env/2
        b ask env confirm                      => granted env/3
        c ask env confirm park=2               => waiting 2 parked
        h end                                  => released
        c ?                                    => granted env/1
    "
    backfill_does_not_pass_a_head_that_can_be_served: "
        - pool env capacity=2 overtaking=backfill => done
        big ask env*2 confirm park=1           => granted env/1 env/2
        two ask env*2                          => waiting 1 recent  # takes them itself when it asks
        big end                                => cancelled
        c ask env try                          => busy
        two again                              => held env/1 env/2
    "
    backfill_passes_each_claim_at_most_n_times: "
        - pool env capacity=3 overtaking=backfill:2 => done
        h ask env                              => held env/1
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env                              => held env/2        # 1
        a end                                  => released
        b ask env                              => held env/3        # 2
        b end                                  => released
        c ask env try                          => busy
        - restart                              => same
        big again park=1                       => waiting 1 parked
        c ask env try                          => busy              # counted durably
        d ask env confirm park=2               => waiting 2 parked
        h end                                  => released
        big ?                                  => granted env/1 env/2 env/3
        big end                                => cancelled
        d ?                                    => granted env/1
    "
    a_claim_that_becomes_unservable_elsewhere_may_be_passed_here: "
        - pool p capacity=1                    => done
        - pool q capacity=1 overtaking=backfill => done
        h ask p                                => held p/1
        w ask q                                => held q/1
        f ask p confirm park=1                 => waiting 1 parked
        d ask p,q confirm park=2               => waiting 2 parked
        b ask q confirm park=3                 => waiting 2 parked
        w end                                  => released
        b ?                                    => granted q/1      # d cannot be served: p is taken
        b end                                  => cancelled
        h end                                  => released
        f ?                                    => granted p/1
        x ask q try                            => held q/1
        d ?                                    => waiting 1 parked
    "
    a_lock_out_of_service_lets_others_pass: "
        - pool env capacity=2 overtaking=backfill => done
        big ask env*2                          => held env/1 env/2
        two ask env*2                          => waiting 1 recent
        big end                                => released
        one ask env park=1                     => waiting 2 parked  # two can be served
        - notices                              =>
        - quarantine env/1                     => done
        - notices                              => 1
        one again                              => held env/2
    "
    each_claim_counts_its_own_passes: "
        - pool env capacity=4 overtaking=backfill:1 => done
        h ask env*2                            => held env/1 env/2
        x ask env*3 confirm park=1             => waiting 1 parked
        y ask env*4 confirm park=2             => waiting 2 parked
        a ask env                              => held env/3        # passes both
        b ask env try                          => busy
        x end                                  => cancelled
        b ask env try                          => busy              # y was passed too
        y end                                  => cancelled
        b ask env                              => held env/4
    "
    a_waiter_that_does_not_listen_is_passed_without_counting: "
        - settings listen=5s
        - pool env capacity=2 overtaking=backfill:1 => done
        h ask env                              => held env/1
        big ask env*2 confirm                  => waiting 1 recent
    +5s a ask env                              => held env/2
        a end                                  => released
        big again park=1                       => waiting 1 parked
        b ask env                              => held env/2        # the first pass that counts
        b end                                  => released
        c ask env try                          => busy
    "
    joining_ones_own_hold_passes_no_claim: "
        - pool env capacity=2 overtaking=backfill:1 => done
        h ask env key=k who=x                  => held env/1
        big ask env*2 confirm park=1           => waiting 1 parked
        i ask env key=k who=x                  => held env/1
        i end                                  => released
        a ask env                              => held env/2
        b ask env try                          => busy
    "
    a_stricter_policy_applies_from_now_on: "
        - pool env capacity=3 overtaking=backfill => done
        h ask env                              => held env/1
        big ask env*3 confirm park=1           => waiting 1 parked
        a ask env                              => held env/2
        - pool env capacity=3                  => done
        b ask env confirm park=2               => waiting 2 parked
        - pool env capacity=3 overtaking=backfill => done
        b ?                                    => granted env/3
    "
}

// Which lock.
scenarios! {
    by_name_or_the_least_recently_used: "
        - pool env capacity=3                  => done
        a ask env                              => held env/1
        a end                                  => released
        b ask env                              => held env/2
        b end                                  => released
        - pool env capacity=3 pick=name        => done
        c ask env*2                            => held env/1 env/2
        c end                                  => released
        - pool env capacity=3                  => done
        d ask env                              => held env/3
    "
}

/// A random pick uses every lock, and the same seed gives the same picks.
#[test]
fn a_random_pick_uses_every_lock() {
    let turn = |n: u32| format!("c{n} ask env => held\nc{n} end => released\n");
    let turns: String = (0..60).map(turn).collect();
    let text = format!("- pool env capacity=4 pick=random => done\n{turns}");
    let taken = harness::locks_taken(&text);
    for lock in ["1", "2", "3", "4"] {
        let count = taken.iter().filter(|name| *name == lock).count();
        assert!(count >= 5, "lock {lock} was taken {count} times of 60");
    }
    assert_eq!(taken, harness::locks_taken(&text));
    assert!(taken.windows(2).any(|pair| pair[0] > pair[1]) && taken.windows(2).any(|pair| pair[0] == pair[1]));
}
