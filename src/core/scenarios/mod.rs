//! The rules (docs/design.md) as readable scenarios. The language is explained in [`harness`].

mod harness;

pub(in crate::core) use harness::entries_of;

macro_rules! scenarios {
    ($($name:ident: $text:literal)*) => {
        $(#[test] fn $name() { harness::play($text); })*
    };
}

mod by_hand;
mod empty;
mod entries;
mod found;
mod implicit;
mod marks;
mod order;
mod policies;
mod scopes;
mod stuck;
mod supersede;

// A lock moves from one pool to another.
scenarios! {
    a_held_lock_moves_only_with_its_holder: "
        - add fresh/x meta=m size=big          => done
        a ask fresh                            => held fresh/x
        b ask fresh/x confirm park=1           => waiting 1 parked
        - move fresh/x to=used                 => refused lock_held
        - move fresh/x to=used claim=c         => refused lock_held
        - move fresh/x to=used claim=a op=o    => done
        - move fresh/x to=used claim=a op=o    => done again
        a ?                                    => ended released
        b ?                                    => ended removed
        - lock used/x                          => meta=m size=big
        - free fresh                           =>
        - free used                            => x
        - history fresh 3                      => released removed ended
        - history used                         => added
        - restart                              => same
    "
    a_free_lock_moves_and_is_given_to_a_waiter_there: "
        - pool used when_empty=wait            => done
        a ask used/x confirm park=1            => waiting 1 parked
        - add fresh/x meta=m                   => done
        - move fresh/x to=used meta=n size=big => done
        a ?                                    => granted used/x
        - lock used/x                          => meta=n size=big by=a
        - move fresh/x to=used                 => refused no_such_lock
        - move none/x to=used                  => refused no_such_pool
        - move used/x to=fresh claim=a         => refused not_holder
        - add fresh/x                          => done
        a confirm                              => held used/x
        - move used/x to=fresh claim=a         => refused lock_exists
        a ?                                    => held used/x
        - move used/x to=used claim=a          => refused lock_exists
    "
    a_lock_stays_out_of_service_when_it_moves: "
        - add fresh/x                          => done
        - quarantine fresh/x for=1m            => done
        - move fresh/x to=used                 => done
        - lock used/x                          => meta= quarantined
        - restart                              => same
   +60s - tick                                 =>
        - free used                            => x
    "
}

// Repeats of a PUT, and other requests with the same id.
scenarios! {
    the_id_is_the_idempotency_key: "
        a ask env confirm                  => granted env/env
        a again                            => granted env/env      # same grant; the harness knows its fence
        a confirm                          => held env/env
        a again                            => held env/env
        b ask env                          => waiting 1 recent
        c ask env                          => waiting 2 recent
        b again                            => waiting 1 recent     # same place
        - queue env                        => b c
    "
    a_repeat_must_ask_for_the_same: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        a ask env*2                        => refused different_request
        a ask env/1                        => refused different_request
        a ask env[gpu=yes]                 => refused different_request
        a ask other                        => refused different_request
        a ask env key=k                    => refused different_request
        a ask env build=7                  => refused different_request
        a ask env ttl=5m                   => held env/1           # not compared
        a ask env give_up=5m run=r1        => held env/1
        - pool other capacity=1            => done
        - free other                       => 1
    "
    another_request_is_refused_before_an_earlier_run: "
        a ask env run=r1                   => held env/env
        a again run=r2                     => held env/env
        a ask other run=r1                 => refused different_request
        a end run=r2                       => released
        a ask other run=r1                 => refused different_request
        a ask env run=r1                   => refused superseded_run
        a ask env run=r2                   => refused ended released
    "
    first_come_first_served: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        b ask env                          => held env/2
        c ask env confirm park=1           => waiting 1 parked
        d ask env confirm park=2           => waiting 2 parked
        - notices                          =>
        a end                              => released
        c ?                                => granted env/1
        d ?                                => waiting 1 parked
        - notices                          => 1
        b end                              => released
        d ?                                => granted env/2
        - notices                          => 2
    "
}

// Runs.
scenarios! {
    a_call_of_an_earlier_run_changes_nothing: "
        a ask env confirm run=r1           => granted env/env
        a again run=r2                     => granted env/env
        a again run=r1                     => refused superseded_run
        a confirm run=r1                   => refused superseded_run
        a end run=r1                       => refused superseded_run
        a ?                                => granted env/env
        a confirm run=r2                   => held env/env
        a end run=r1                       => refused superseded_run
        a ?                                => held env/env
    "
    a_release_without_a_run_always_acts: "
        a ask env run=r1                   => held env/env
        a again run=r2                     => held env/env
        a end                              => released
    "
    runs_survive_a_restart: "
        a ask env run=r1                   => held env/env
        a again run=r2                     => held env/env
        - restart                          => same
        a again run=r1                     => refused superseded_run
        a end run=r1                       => refused superseded_run
        a again run=r2                     => held env/env
    "
    an_end_by_a_new_run_counts_as_its_call: "
        a ask env run=r1                   => held env/env
        a end run=r2                       => released
        a again run=r2                     => refused ended released   # the end overtook its own PUT
        a again run=r1                     => refused superseded_run
    "
    a_refused_call_of_a_new_run_leaves_no_trace: "
        a ask env confirm run=r1           => granted env/env
        a confirm wrong run=r2             => refused wrong_fence
        a confirm run=r1                   => held env/env
        b ask env confirm run=r1           => waiting 1
        b confirm wrong run=r2             => refused not_granted
        b again run=r1                     => waiting 1
    "
    an_earlier_run_is_refused_after_the_end_too: "
        a ask env run=r1                   => held env/env
        a again run=r2                     => held env/env
        a end run=r2                       => released
        a end run=r1                       => refused superseded_run
        a again run=r1                     => refused superseded_run
        a confirm run=r1                   => refused superseded_run
        a end run=r2                       => released again
        a confirm run=r2                   => refused ended released
    "
    a_parked_request_of_an_earlier_run_does_not_listen_forever: "
        h ask env                          => held env/env
        a ask env confirm park=1 run=r1    => waiting 1 parked
        a again park=2 run=r2              => waiting 1 parked
        a again over=2 run=r2              => waiting 1 parked     # park 1 is still there
        a again over=1 run=r1              => refused superseded_run
        a ?                                => waiting 1 grace
    +3s a ?                                => waiting 1 away
        b ask env confirm park=3           => waiting 2 parked
        h end                              => released
        b ?                                => granted env/env
    "
}

#[test]
fn a_claim_has_at_most_a_hundred_runs() {
    let again = |n: u32| format!("a again run=r{n} => held env/env\n");
    let many: String = (2..=100).map(again).collect();
    harness::play(&format!(
        "a ask env run=r1 => held env/env
        {many}
        a again run=r101 => refused too_many_runs
        a end run=r101 => refused too_many_runs
        a end run=r1 => refused superseded_run
        a end run=r100 => released
        a again run=r101 => refused too_many_runs"
    ));
}

// Lives.
scenarios! {
    an_ended_claim_says_how_it_ended: "
        a ask env run=r1                   => held env/env
        a end run=r1                       => released
        a again run=r1                     => refused ended released
        a again                            => refused ended released
        a confirm                          => refused ended released
        a ?                                => ended released
    "
    a_new_run_begins_a_new_life_at_the_end_of_the_queue: "
        a ask env run=r1                   => held env/env
        b ask env park=1                   => waiting 1 parked
        c ask env run=r1 park=2            => waiting 2 parked
        c end run=r1                       => cancelled
        d ask env park=3                   => waiting 2 parked
        c again run=r1                     => refused ended cancelled
        c again run=r2                     => waiting 3 recent life=2
        a end run=r1                       => released
        a again run=r9                     => waiting 4 recent life=2
        - queue env                        => b d c a
    "
    a_lost_listener_may_come_back_with_the_same_run: "
        a ask env                          => held env/env
        b ask env run=r1                   => waiting 1 recent
   +20s b ?                                => waiting 1 away
   +10m b ?                                => ended listener_lost
        b again run=r1                     => waiting 1 recent life=2
        c ask env                          => waiting 2
   +20s - tick                             =>
   +10m - queue env                        =>
        c again                            => waiting 1 recent life=2     # also without a run
    "
    a_claim_that_gave_up_begins_again_only_with_a_new_run: "
        a ask env                          => held env/env
        b ask env run=r1 give_up=10s       => waiting 1
   +10s b ?                                => ended gave_up
        b again run=r1                     => refused ended gave_up
        b again                            => refused ended gave_up
        b again run=r2                     => waiting 1 recent life=2
    "
    an_unconfirmed_claim_begins_again_only_with_a_new_run: "
        a ask env confirm run=r1           => granted
   +45s a again run=r1                     => granted
   +45s a again run=r1                     => granted
   +45s a ?                                => ended unconfirmed
        a again run=r1                     => refused ended unconfirmed
        a again run=r2                     => granted env/env life=2
    "
    a_lost_claim_stays_ended: "
        a ask env run=r1 ttl=60s           => held env/env
   +60s a ?                                => ended lost
        a again run=r1                     => refused ended lost
        a again run=r2                     => refused ended lost
        a again                            => refused ended lost
        a end                              => refused ended lost
    "
    an_unknown_id_is_remembered_as_cancelled: "
        a end run=r1                       => refused no_such_claim
        a ?                                => ended cancelled
        a end run=r1                       => cancelled again
        a ask env run=r1                   => refused ended cancelled   # the cancel overtook its own PUT
        a ask env                          => refused ended cancelled
        a ask env run=r2                   => held env/env
    "
    ended_ids_are_forgotten_after_a_day_and_those_of_builds_after_90_days: "
        - pool env capacity=2              => done
        a ask env                          => held
        b ask env build=7                  => held
        c end                              => refused no_such_claim
        a end                              => released
        b end                              => released
   +24h a ?                                => unknown
        c ?                                => unknown
        b ?                                => ended released
        a again                            => held env/1
 +2136h b ?                                => unknown
    "
    ended_ids_survive_a_restart: "
        a ask env run=r1                   => held
        a end run=r1                       => released
        - restart                          => same
        a again run=r1                     => refused ended released
        a end                              => released again
        a again run=r2                     => held env/env life=2
    "
    withdrawals_count_within_a_life: "
        a ask env confirm run=r1           => granted
   +45s a again run=r1                     => granted
   +45s a again run=r1                     => granted
        a end run=r1                       => cancelled
        a again run=r2                     => granted env/env life=2
   +45s a ?                                => waiting 1 away life=2
    "
}

// Releasing.
scenarios! {
    a_late_release_never_touches_the_present_holder: "
        a ask env                          => held env/env
        a end                              => released
        b ask env                          => held env/env
        a end                              => released again
        b ?                                => held env/env
        - lock env/env                     => meta= by=b
    "
    a_release_frees_at_once_and_a_loss_drains: "
        a ask env                          => held env/env
        a end                              => released
        b ask env ttl=60s                  => held env/env
        c ask env confirm park=1           => waiting 1
   +60s b ?                                => ended lost
        c ?                                => waiting 1 parked
        - lock env/env                     => meta= draining
  +29s  c ?                                => waiting 1 parked
   +1s  c ?                                => granted env/env
    "
    a_pool_sets_its_own_drain: "
        - pool fast capacity=1 drain=0s    => done
        - pool slow capacity=1 drain=5m    => done
        a ask fast ttl=10s                 => held
        b ask slow ttl=10s                 => held
        c ask fast confirm park=1          => waiting
        d ask slow confirm park=2          => waiting
   +10s c ?                                => granted fast/1
   +4m  d ?                                => waiting
   +1m  d ?                                => granted slow/1
    "
    a_pools_max_hold_bounds_every_hold: "
        - pool env capacity=1 max_hold=5m  => done
        a ask env                          => held
   +5m  a ?                                => ended lost
   +30s b ask env ttl=1m                   => held env/1          # the shorter of the two
   +1m  b ?                                => ended lost
   +30s c ask env confirm                  => granted env/1
   +40s c confirm                          => held env/1          # it counts from the confirm
   +4m  c ?                                => held
   +1m  c ?                                => ended lost
    "
    a_cancel_of_a_grant_frees_without_drain: "
        a ask env confirm                  => granted env/env
        b ask env confirm park=1           => waiting 1
        a end                              => cancelled
        b ?                                => granted env/env
        a end                              => cancelled again
    "
    a_cancelled_waiter_lets_the_next_one_through: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        b ask env*2 confirm park=1         => waiting 1
        c ask env confirm park=2           => waiting 2            # strict: held back by b
        b end                              => cancelled
        c ?                                => granted env/2
        - notices                          => 1 2
    "
}

// Listening.
scenarios! {
    a_waiter_listens_for_20_s_after_its_last_answer: "
        a ask env                          => held
        b ask env confirm                  => waiting 1 recent
   +19s b ?                                => waiting 1 recent
        a end                              => released
        b ?                                => granted env/env      # in the background, between two requests
    "
    a_waiter_that_does_not_listen_is_passed_over_but_keeps_its_place: "
        a ask env                          => held
        b ask env confirm                  => waiting 1 recent
   +20s b ?                                => waiting 1 away
        c ask env confirm park=1           => waiting 2 parked
        a end                              => released
        c ?                                => granted
        c confirm                          => held
        d ask env confirm park=2           => waiting 2 parked
        - queue env                        => b d
   +9m  b again                            => waiting 1 recent
    "
    a_new_ask_passes_a_waiter_that_does_not_listen: "
        a ask env                          => held
        b ask env confirm                  => waiting 1
   +20s a end                              => released
        b ?                                => waiting 1 away
        c ask env                          => held env/env
    "
    a_killed_waiter_delays_others_only_for_its_grace: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
        c ask env confirm park=2           => waiting 2 parked
   +1m  b left 1                           =>
        b ?                                => waiting 1 grace
        a end                              => released
        b ?                                => waiting 1 grace      # no client would learn of a grant
        c ?                                => waiting 2 parked     # but the order is kept
    +2s c ?                                => waiting 2 parked
    +1s c ?                                => granted
        b ?                                => waiting 1 away
    "
    a_waiter_that_comes_back_within_its_grace_takes_the_lock: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
        c ask env confirm park=2           => waiting 2 parked
   +1m  b left 1                           =>
        a end                              => released
    +2s b again park=3                     => granted env/env
        c ?                                => waiting 1 parked
    "
    a_proxy_that_drops_all_connections_keeps_the_order: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
        c ask env confirm park=2           => waiting 2 parked
   +1m  b left 1                           =>
        c left 2                           =>
        a end                              => released
        c again park=3                     => waiting 2 parked
    +1s b again park=4                     => granted
        c ?                                => waiting 1 parked
    "
    the_end_of_one_park_ends_that_park_only: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
        b again park=2                     => waiting 1 parked
        b left 1                           =>
        b ?                                => waiting 1 parked
        b left 1                           =>                      # twice is harmless
        b ?                                => waiting 1 parked
        b left 2                           =>
        b ?                                => waiting 1 grace
        b left 99                          =>
    "
    a_park_that_ends_after_the_grant_changes_nothing: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
        a end                              => released
        b left 1                           =>
        b ?                                => granted env/env
    "
    a_place_is_kept_for_ten_minutes: "
        a ask env                          => held
        b ask env park=1                   => waiting 1 parked
        b left 1                           =>
    +3s b ?                                => waiting 1 away
  +599s b ?                                => waiting 1 away
    +1s b ?                                => ended listener_lost
        - queue env                        =>
    "
    each_absence_gets_the_full_ten_minutes: "
        a ask env                          => held
        b ask env                          => waiting 1 recent
   +20s b ?                                => waiting 1 away
   +9m  b again                            => waiting 1 recent
   +20s b ?                                => waiting 1 away
   +9m  b ?                                => waiting 1 away
   +1m  b ?                                => ended listener_lost
    "
    a_parked_wait_that_is_over_leaves_a_recent_listener: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1 parked
   +25s b again over=1                     => waiting 1 recent
        b again park=2                     => waiting 1 parked
    "
}

// Confirming.
scenarios! {
    a_confirm_makes_the_hold_and_may_be_repeated: "
        a ask env confirm                  => granted
        a confirm                          => held env/env
        a confirm                          => held env/env
        a confirm wrong                    => refused wrong_fence
        - history env                      => added granted claimed
    "
    a_confirm_names_the_right_fence: "
        a ask env confirm                  => granted
        a confirm wrong                    => refused wrong_fence
   +45s a ?                                => waiting 1 away
        a confirm                          => refused not_granted
        a again                            => granted              # a new fence
        a confirm first                    => refused wrong_fence
        a confirm                          => held
    "
    a_confirm_of_an_unknown_claim: "
        a confirm                          => refused no_such_claim
    "
    a_grant_that_is_not_confirmed_goes_back_with_its_old_ticket: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1
        c ask env confirm park=2           => waiting 2
        a end                              => released
        b ?                                => granted env/env
  +44s  b ?                                => granted env/env
   +1s  c ?                                => granted env/env      # no drain after a withdrawal
        b ?                                => waiting 1 away
        d ask env confirm park=3           => waiting 2
        - queue env                        => b d
        b again park=4                     => waiting 1 parked     # before d, which came later
        c end                              => cancelled
        b ?                                => granted
        - history env 3                    => waiting ended granted
    "
    the_third_withdrawal_ends_the_claim: "
        a ask env confirm                  => granted
   +45s a ?                                => waiting 1 away
        a again                            => granted
   +45s a ?                                => waiting 1 away
        a again                            => granted
   +45s a ?                                => ended unconfirmed
        - free env                         => env
        a end                              => unconfirmed again
        a confirm                          => refused ended unconfirmed
    "
    without_confirm_nothing_is_granted_in_the_background: "
        a ask env                          => held
        b ask env park=1                   => waiting 1 parked
        a end                              => released
        b ?                                => waiting 1 parked
        - notices                          => 1                    # 'try now'
        c ask env confirm park=2           => waiting 2 parked     # does not overtake b meanwhile
        b again over=1                     => held env/env
        c ?                                => waiting 1 parked
    "
    without_confirm_and_without_a_park_a_repeat_takes_the_lock: "
        a ask env                          => held
        b ask env                          => waiting 1 recent
        a end                              => released
        b ?                                => waiting 1 recent
        - notices                          =>
   +10s b again                            => held
    "
    a_reconcile_repeats_notices: "
        a ask env                          => held
        b ask env park=1                   => waiting 1
        c ask env confirm park=2           => waiting 2
        a end                              => released
        - notices                          => 1
        - reconcile                        =>
        - notices                          => 1
        b again over=1                     => held
        b end                              => released
        - notices                          => 2
        - reconcile                        =>
        - notices                          => 2
        c again over=2                     => granted
        - reconcile                        =>
        - notices                          =>
    "
    a_notice_from_before_a_withdrawal_is_repeated_too: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1
        a end                              => released
        - notices                          => 1
   +45s b ?                                => waiting 1 away
        - reconcile                        =>
        - notices                          => 1
        b again over=1                     => granted env/env
    "
}

// Giving up, and try-lock.
scenarios! {
    give_up_after_bounds_the_wait: "
        a ask env                          => held
        b ask env confirm park=1 give_up=1m => waiting 1
  +59s  b ?                                => waiting 1 parked
   +1s  b ?                                => ended gave_up
        - notices                          => 1
        b again over=1                     => refused ended gave_up
    "
    give_up_after_includes_a_withdrawn_grant: "
        a ask env confirm give_up=30s      => granted
   +31s a ?                                => granted env/env      # a grant is not a wait
  +14s  a ?                                => ended gave_up        # back to waiting, and the wait was over
    "
    a_repeat_does_not_extend_give_up_after: "
        a ask env                          => held
        b ask env give_up=15s              => waiting 1
   +10s b ask env give_up=15s              => waiting 1
    +5s b ?                                => ended gave_up
    "
    try_lock_takes_it_or_leaves_no_trace: "
        a ask env try                      => held env/env
        b ask env try                      => busy
        b ?                                => unknown
        - queue env                        =>
        a end                              => released
        b again try                        => held env/env
    "
    try_lock_does_not_overtake: "
        - pool env capacity=2              => done
        a ask env                          => held
        b ask env*2 park=1                 => waiting 1
        c ask env try                      => busy
        b left 1                           =>
        c ask env try                      => busy                 # in its grace b still holds back
    +3s c ask env try                      => held env/2
    "
    a_failed_try_lock_makes_no_pool: "
        a ask env                          => held
        b ask env,fresh try                => busy
        b ?                                => unknown
        - free fresh                       => none
    "
    try_lock_of_an_ended_id_keeps_its_end: "
        a ask env                          => held
        b ask env run=r1                   => waiting
        b end run=r1                       => cancelled
        b again try run=r2                 => busy
        b ?                                => ended cancelled
        b again run=r1                     => refused ended cancelled
    "
    a_try_lock_by_a_waiter_keeps_its_place: "
        a ask env                          => held
        b ask env                          => waiting 1
        b again try                        => waiting 1
        - queue env                        => b
    "
}

// Making pools, and claims that could never be served.
scenarios! {
    the_first_claim_makes_a_pool_with_one_lock_named_like_it: "
        a ask env                          => held env/env
        b ask db/db                        => held db/db
        - history env                      => added claimed
        - restart                          => same
        - lock db/db                       => meta= by=b
    "
    other_claims_on_an_unknown_pool_create_nothing: "
        a ask env*2                        => refused no_such_pool
        a ask env[gpu=yes]                 => refused no_such_pool
        a ask env/1                        => refused no_such_pool
        a ask env/env+1                    => refused no_such_pool
        a ask db,env*2                     => refused no_such_pool
        a ?                                => unknown
        - free env                         => none
        - free db                          => none
    "
    with_declared_only_a_claim_makes_no_pool: "
        - settings declared_only           =>
        a ask env                          => refused may_not_make
        - add env/x                        => done                 # add declares
        a ask env                          => held env/x
        - pool db capacity=1               => done
        b ask db                           => held db/1
    "
    a_claim_that_could_never_be_served_fails_at_once: "
        - pool env capacity=2              => done
        - add env/gpu gpu=yes              => done
        h ask env                          => held env/1
        a ask env/9                        => refused no_such_lock
        a ask env/1+9                      => refused no_such_lock
        a ask env*4                        => refused too_many
        a ask env*2[gpu=yes]               => refused too_many
        a ask env[gpu=no]                  => refused too_many
        a ask env*3                        => waiting 1
        - pool empty                       => done
        b ask empty                        => refused too_many
    "
    an_impossible_claim_is_refused_before_a_full_queue: "
        - pool env capacity=1 max_queue=1  => done
        a ask env                          => held env/1
        b ask env                          => waiting 1
        c ask env*2                        => refused too_many
        c ask env/9                        => refused no_such_lock
        c ask env                          => refused queue_full
        c ?                                => unknown
        b again                            => waiting 1            # a waiter keeps its place
    "
    a_full_queue_refuses_only_claims_that_must_wait: "
        - pool none capacity=2 max_queue=0 => done
        a ask none                         => held none/1
        b ask none/2                       => held none/2
        c ask none                         => refused queue_full
        c ask none try                     => busy
        a end                              => released
        c ask none                         => held none/1
        - pool env capacity=2 max_queue=1  => done
        d ask env/1                        => held env/1
        e ask env/1                        => waiting 1
        f ask env/2                        => held env/2           # no claim waits for this lock
        g ask env/1                        => refused queue_full
    "
    refusals_over_several_pools_name_the_first_in_order: "
        - pool env capacity=1              => done
        a ask env*2,abc*2                  => refused no_such_pool
        a ask env*2,xyz*2                  => refused too_many
    "
    an_ended_id_is_answered_before_an_impossible_claim: "
        - pool env capacity=1              => done
        a ask env run=r1                   => held env/1
        a end run=r1                       => released
        - remove env/1                     => done
        a again run=r1                     => refused ended released
        a again run=r2                     => refused too_many
        a ?                                => ended released
    "
}

// All or nothing.
scenarios! {
    a_grant_takes_all_locks_or_none: "
        - pool env capacity=3              => done
        - pool db capacity=1               => done
        a ask db                           => held db/1
        b ask env*2,db confirm park=1      => waiting 1
        - free env                         => 1 2 3
        a end                              => released
        b ?                                => granted db/1 env/1 env/2
        b confirm                          => held db/1 env/1 env/2
        - history db 1                     => claimed
        - history env 1                    => claimed
        b end                              => released
        - free db                          => 1
    "
    sets_never_deadlock: "
        - pool x capacity=1                => done
        - pool y capacity=1                => done
        h ask x                            => held x/1
        a ask x,y confirm park=1           => waiting 1
        b ask y,x confirm park=2           => waiting 2
        c ask y confirm park=3             => waiting 3            # held back though y/1 is free
        h end                              => released
        a ?                                => granted x/1 y/1
        a end                              => cancelled
        b ?                                => granted x/1 y/1
        b end                              => cancelled
        c ?                                => granted y/1
    "
    named_locks_and_any_lock_share_one_queue: "
        - pool env capacity=2              => done
        a ask env/1                        => held env/1
        b ask env/1 confirm park=1         => waiting 1
        c ask env confirm                  => waiting 2            # overlaps with b in lock 1
        d ask env/2 confirm                => waiting 3            # overlaps with c
        b end                              => cancelled
        c ?                                => granted env/2
        d ?                                => waiting 1
    "
    waiters_without_a_common_lock_do_not_hold_each_other_back: "
        - pool env capacity=2              => done
        a ask env/1                        => held env/1
        b ask env/1 park=1                 => waiting 1
        c ask env/2                        => held env/2
    "
    labels_choose_locks_and_keep_queues_apart: "
        - add env/big size=big os=linux    => done
        - add env/mac size=big os=mac      => done
        - add env/tiny size=tiny os=linux  => done
        a ask env[size=big;os=mac]         => held env/mac
        b ask env[os=mac] park=1           => waiting 1
        c ask env[size=tiny]               => held env/tiny        # no common lock with b
        d ask env[size=big] park=2         => waiting 2 parked     # env/mac is common: held back
        b end                              => cancelled
        d again over=2                     => held env/big
        e ask env[os=linux]                => waiting
    "
    a_head_with_labels_holds_back_only_claims_for_the_same_locks: "
        - add env/m os=mac                 => done
        - add env/l os=linux               => done
        a ask env[os=mac]                  => held env/m
        h ask env[os=linux]                => held env/l
        b ask env[os=mac] confirm park=1   => waiting 1
        c ask env[os=linux] confirm park=2 => waiting 2
        d ask env/l confirm park=3         => waiting 3
        h end                              => released
        c ?                                => granted env/l
        c end                              => cancelled
        d ?                                => granted env/l
    "
    least_recently_used_locks_go_first: "
        - pool env capacity=3              => done
        a ask env                          => held env/1
        a end                              => released
        b ask env                          => held env/2
        c ask env                          => held env/3
        b end                              => released
        d ask env                          => held env/1
        - free env                         => 2
    "
}

// Sharing.
scenarios! {
    a_key_with_labels_joins_when_the_waiter_before_it_leaves: "
        - add env/gpu is=gpu                     => done
        - add env/cpu is=cpu                     => done
        a ask env[is=gpu] key=k who=a            => held env/gpu
        b ask env[is=gpu] confirm park=1         => waiting 1
        c ask env[is=gpu] key=k who=c confirm park=2 => waiting 2 parked   # b is before it
        b end                                    => cancelled
        c ?                                      => granted env/gpu        # although no free lock fits
    "
    an_equal_key_shares_a_lock: "
        a ask env key=k who=a              => held env/env
        b ask env key=k who=b              => held env/env
        c ask env key=j who=c              => waiting 1
        d ask env                          => waiting 2
        - lock env/env                     => meta= by=a by=b
        a end                              => released
        c ?                                => waiting 1
        b end                              => released
        c again                            => held env/env
    "
    a_new_requestor_waits_behind_earlier_waiters_of_other_keys: "
        a ask env key=k who=a              => held
        x ask env key=j park=1             => waiting 1
        b ask env key=k who=b confirm park=2 => waiting 2          # fair
        a2 ask env key=k who=a             => held env/env         # a holder's requestor gets in
        x end                              => cancelled
        b ?                                => granted env/env
    "
    a_waiter_joins_its_own_requestor_behind_a_head_that_cannot_be_served: "
        - pool env capacity=3              => done
        h1 ask env                         => held env/1
        h2 ask env                         => held env/2
        h3 ask env                         => held env/3
        z ask env key=k who=x              => waiting 1
   +20s z ?                                => waiting 1 away
        w ask env*3 confirm park=1         => waiting 2
        y ask env key=k who=x confirm park=2 => waiting 3
        h1 end                             => released
        h2 end                             => released
        y ?                                => waiting 3
        z again                            => held env/1
        y ?                                => granted env/1
        w ?                                => waiting 1
        - free env                         => 2
    "
    waiters_of_one_key_are_let_in_together: "
        x ask env                          => held
        a ask env key=k who=a confirm park=1 => waiting 1
        b ask env key=k who=b confirm park=2 => waiting 2
        y ask env confirm park=3           => waiting 3
        c ask env key=k who=c confirm park=4 => waiting 4
        x end                              => released
        a ?                                => granted env/env
        b ?                                => granted env/env
        y ?                                => waiting 1
        c ?                                => waiting 2
    "
    the_requestor_defaults_to_the_key: "
        a ask env key=k                    => held
        x ask env park=1                   => waiting 1
        b ask env key=k who=k              => held env/env
        c ask env key=k who=c              => waiting 2
    "
    a_holder_of_one_shared_lock_joins_that_one: "
        - pool env capacity=2              => done
        b ask env/1 key=k who=b            => held env/1
        a ask env/2 key=k who=a            => held env/2
        x ask env park=1                   => waiting 1
        a2 ask env key=k who=a             => held env/2           # not env/1, which needs a turn
    "
    sharing_prefers_a_lock_of_its_key_to_a_free_one: "
        - pool env capacity=2              => done
        a ask env key=k who=a              => held env/1
        b ask env key=k who=b              => held env/1
        - free env                         => 2
        c ask env*2 key=k who=c            => held env/1 env/2
    "
    one_lost_sharer_leaves_the_others_alone: "
        a ask env key=k who=a ttl=10s      => held
        b ask env key=k who=b              => held
   +10s a ?                                => ended lost
        b ?                                => held env/env
        c ask env key=k who=c confirm park=1 => waiting 1          # newcomers wait for the drain
   +30s c ?                                => granted env/env
        b end                              => released
        c end                              => cancelled
        - free env                         => env
    "
}

// Strictness and its exception.
scenarios! {
    small_claims_do_not_pass_a_large_head: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        b ask env*2 confirm park=1         => waiting 1
        c ask env confirm park=2           => waiting 2
        - free env                         => 2
        a end                              => released
        b ?                                => granted env/1 env/2
    "
    a_build_passes_claims_that_wait_for_its_locks: "
        - pool env capacity=3              => done
        a ask env build=7                  => held env/1
        b ask env*3 build=8 confirm park=1 => waiting 1            # waits for build 7
        c ask env build=9 confirm park=2   => waiting 2            # held back
        a2 ask env build=7                 => held env/2           # else build 7 and b would deadlock
        p ask env                          => waiting 3
    "
    a_build_passes_claims_that_wait_for_it_through_others: "
        - pool x capacity=1                => done
        - pool y capacity=1                => done
        - pool z capacity=2                => done
        a1 ask x build=1                   => held x/1
        b1 ask y build=2                   => held y/1
        b2 ask x build=2 park=1            => waiting 1            # build 2 waits for build 1
        c ask y,z*2 build=3 park=2         => waiting 1            # waits for build 2, so for build 1
        d ask z build=4                    => waiting 2
        a2 ask z build=1                   => held z/1             # build 1 may pass c
    "
    a_build_passes_through_an_order_edge: "
        - pool x capacity=1                => done
        - pool z capacity=2                => done
        a1 ask x build=1                   => held x/1
        b ask x,z build=2 park=1           => waiting 1            # waits for build 1
        c ask z build=3 park=2             => waiting 2            # waits behind b, so for build 1
        a2 ask z build=1                   => held z/1
    "
    a_build_passes_through_the_queue_of_another_builds_claim: "
        - pool z capacity=1                => done
        a1 ask q build=1                   => held q/q
        b1 ask p build=2                   => held p/p
        c ask p,z build=3 park=1           => waiting 1            # waits for build 2,
        d ask p,q build=4 park=2           => waiting 2
        b2 ask p build=2 park=3            => waiting 3            # which waits behind d, which waits for build 1
        a2 ask z build=1                   => held z/1
    "
    a_grant_elsewhere_can_let_a_build_pass: "
        - pool p capacity=1                => done
        - pool q capacity=1                => done
        h ask q                            => held q/1
        c3 ask q build=2 confirm park=1    => waiting 1
        c1 ask p,q build=1 confirm park=2  => waiting 1
        c2 ask p build=2 confirm park=3    => waiting 2            # held back by c1
        h end                              => released
        c3 ?                               => granted q/1          # now c1 waits for build 2
        c2 ?                               => granted p/1
    "
    a_new_wait_elsewhere_can_let_a_build_pass: "
        - pool p capacity=1                => done
        - pool q capacity=1                => done
        - pool r capacity=1                => done
        x ask r build=5                    => held r/1
        y ask q build=2                    => held q/1
        c1 ask p,q build=1 confirm park=2  => waiting 1            # waits for build 2
        c5 ask p build=5 confirm park=3    => waiting 2            # held back by c1
        y2 ask r build=2 confirm park=4    => waiting 1            # now build 2 waits for build 5
        c5 ?                               => granted p/1
    "
    a_waiter_that_needs_nothing_of_the_build_holds_it_back: "
        - pool env capacity=3              => done
        h ask env                          => held env/1
        a ask env build=7                  => held env/2
        b ask env build=8                  => held env/3
        g ask env*1 park=1                 => waiting 1
        h end                              => released
        g ?                                => waiting 1 parked     # it could take env/1 at once
        a2 ask env build=7                 => waiting 2            # so it does not wait for build 7
    "
    a_build_behind_a_sharer_that_may_join_waits: "
        a ask env key=k who=a build=7      => held env/env
        x ask env key=j park=1             => waiting 1
        b ask env key=k who=b park=2       => waiting 2
        x end                              => cancelled
        b ?                                => waiting 1 parked     # told to try
        c ask env key=k who=c build=7      => waiting 2            # b does not wait for build 7
        b again over=2                     => held env/env
        c again                            => held env/env
    "
    claims_without_a_build_get_no_exception: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        b ask env*2 park=1                 => waiting 1
        c ask env                          => waiting 2
    "
    equal_build_ids_without_a_cluster_are_not_a_build: "
        - pool env capacity=3              => done
        a ask env build=1                  => held env/1
        b ask env*3 build=2 park=1         => waiting 1
        - restart                          => same
        a2 ask env build=1                 => held env/2
    "
}

// Declaring pools and locks.
scenarios! {
    a_lock_that_comes_with_a_claim_is_never_free: "
        - pool env                         => done
        w ask db                           => held db/db
        - add env/a for=a meta=x op=1      => done
        - history env 2                    => added
        - lock env/a                       => meta=x by=a
        b ask env confirm                  => waiting 1
        - add env/b for=b                  => refused different_request   # that claim asked for something else
        - add env/a for=c                  => refused lock_exists
        - add env/b for=c                  => done                 # b still waits: c has the lock from the start
        b ?                                => waiting 1
        - add env/a for=a meta=x op=1      => done again
        c end                              => released
        b ?                                => granted env/b
        - add new/a for=n                  => done                 # makes the pool
        - lock new/a                       => meta= by=n
        n end                              => released
        - add new/b for=n                  => refused different_request   # its id asked for another lock before
        - free new                         => a
    "
    an_update_can_require_a_free_lock: "
        - add env/a                        => done
        - update env/a meta=x if_free      => done
        a ask env                          => held env/a
        - update env/a meta=y if_free      => refused lock_held
        - update env/a meta=y              => done
        a end                              => released
        - update env/a meta=z if_free      => done
        - update env/b meta=z if_free      => refused no_such_lock
    "
    a_capacity_declares_numbered_locks: "
        - pool env capacity=3              => done
        - free env                         => 1 2 3
        - add env/x                        => done
        - add env/0                        => done
        - pool env capacity=1              => done
        - free env                         => 1 x 0
        - pool env capacity=2              => done
        - free env                         => 1 x 0 2
        - pool env capacity=10001          => refused limit
        - history env 1                    => added
    "
    shrinking_evicts_no_holder: "
        - pool env capacity=3              => done
        a ask env/3                        => held env/3
        b ask env                          => held env/1
        w ask env/3 park=1                 => waiting 1
        v ask env*2 confirm park=2         => waiting 2
        - pool env capacity=1              => done
        a ?                                => held env/3
        - lock env/3                       => meta= by=a leaving
        - lock env/2                       => none
        w ?                                => ended removed        # can never be served now
        v ?                                => ended removed
        - notices                          => 1 2
        c ask env/3                        => refused no_such_lock
        c ask env*2                        => refused too_many
        a again                            => held env/3
        - restart                          => same
        a end                              => released
        - lock env/3                       => none
    "
    growing_again_keeps_a_leaving_lock: "
        - pool env capacity=2              => done
        a ask env/2                        => held env/2
        - pool env capacity=1              => done
        - pool env capacity=2              => done
        a end                              => released
        - free env                         => 1 2
    "
    a_withdrawn_grant_of_a_leaving_lock_removes_it: "
        - pool env capacity=2              => done
        a ask env/2 confirm                => granted env/2
        b ask env*2 confirm park=1         => waiting 1
        - pool env capacity=1              => done
        a ?                                => granted env/2
        b ?                                => ended removed
   +45s - lock env/2                       => none
        a ?                                => ended removed
        a confirm                          => refused ended removed
    "
    no_claim_joins_a_leaving_lock: "
        - pool env capacity=2              => done
        a ask env/2 key=k who=a            => held env/2
        - pool env capacity=1              => done
        b ask env key=k who=b              => held env/1
    "
    growing_serves_a_waiter: "
        - pool env capacity=1              => done
        a ask env                          => held env/1
        b ask env confirm park=1           => waiting 1
        - pool env capacity=2              => done
        b ?                                => granted env/2
    "
    adding_a_lock_serves_a_waiter: "
        - add env/env                      => done
        a ask env                          => held env/env
        b ask env confirm park=1           => waiting 1
        - add env/new                      => done
        b ?                                => granted env/new
    "
    add_makes_the_pool_with_only_that_lock: "
        - add env/x meta=hello             => done
        - free env                         => x
        - lock env/x                       => meta=hello
        - add env/x                        => refused lock_exists
        - history env                      => added
    "
    metadata_changes_under_a_hold_survive_the_release: "
        - add env/x meta=old               => done
        a ask env                          => held env/x
        - update env/x meta=new            => done
        a ?                                => held env/x
        a end                              => released
        - lock env/x                       => meta=new
        - restart                          => same
        - lock env/x                       => meta=new
        - update env/y meta=new            => refused no_such_lock
        - update db/y meta=new             => refused no_such_pool
    "
    an_update_that_changes_nothing_has_its_own_version: "
        - add env/x meta=old               => done
        - update env/x meta=old            => done
        - history env                      => added noted
    "
    labels_change_under_a_hold: "
        - add env/x gpu=yes                => done
        a ask env[gpu=yes]                 => held env/x
        b ask env[gpu=yes] park=1          => waiting 1
        - update env/x gpu=no              => done
        a ?                                => held env/x
        b ?                                => ended removed        # no lock has it any more
        - lock env/x                       => meta= gpu=no by=a
        c ask env[gpu=no] confirm park=2   => waiting 1
        a end                              => released
        c ?                                => granted
    "
    a_label_change_can_serve_a_waiter: "
        - add env/x gpu=yes                => done
        - add env/y gpu=no                 => done
        a ask env[gpu=yes]                 => held env/x
        b ask env[gpu=yes] confirm park=1  => waiting 1
        - update env/y gpu=yes             => done
        b ?                                => granted env/y
    "
    a_withdrawn_grant_for_lost_labels_ends: "
        - add env/x gpu=yes                => done
        a ask env[gpu=yes] confirm         => granted env/x
        - update env/x gpu=no              => done
   +45s a ?                                => ended removed
    "
    only_its_holder_removes_a_held_lock: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        b ask env                          => held env/2
        w ask env/1 confirm park=1         => waiting 1
        - remove env/1                     => refused lock_held
        - remove env/1 claim=b             => refused lock_held
        - remove env/1 claim=x             => refused lock_held
        - remove env/1 claim=a             => done
        a ?                                => ended released
        w ?                                => ended removed        # it was not granted in between
        - lock env/1                       => none
        - history env 3                    => released removed ended
        - remove env/1                     => refused no_such_lock
        - remove nix/1                     => refused no_such_pool
        a end                              => released again
    "
    remove_must_name_a_holder: "
        - pool env capacity=2              => done
        a ask env                          => held env/1
        - remove env/2 claim=a             => refused not_holder
        g ask env confirm                  => granted env/2
        - remove env/2 claim=g             => refused not_holder
        g end                              => cancelled
        - remove env/2                     => done
        a ask env                          => held env/1
        - pool env capacity=0              => done
        - remove env/1 claim=a             => done
        - history env 2                    => released removed       # removed once
    "
    a_shared_lock_is_removed_by_its_last_holder: "
        a ask env key=k who=a              => held
        b ask env key=k who=b              => held
        - remove env/env claim=a           => refused lock_held
        b end                              => released
        - remove env/env claim=a           => done
    "
    a_pool_in_use_is_not_removed: "
        a ask env                          => held
        - unpool env                       => refused pool_in_use
        b ask env                          => waiting 1
        a end                              => released
        - unpool env                       => refused pool_in_use
        b end                              => cancelled
        - unpool env                       => done
        - unpool env                       => refused no_such_pool
        - free env                         => none
        a2 ask env                         => held env/env
    "
    an_operation_is_done_once: "
        - add env/x op=1                   => done
        - add env/x op=1                   => done again
        - add env/x op=2                   => refused lock_exists
        - update env/x meta=m op=3         => done
        - update env/x meta=other op=4     => done
        - update env/x meta=m op=3         => done again
        - lock env/x                       => meta=other
        a ask env                          => held env/x
        - remove env/x claim=a op=5        => done
        - remove env/x claim=a op=5        => done again
        - restart                          => same
        - remove env/x claim=a op=5        => done again
        - note env/x op=6                  => done
        - note env/x op=6                  => done again
        - pool env capacity=1 op=7         => done
        - pool env capacity=1 op=7         => done again
        - unpool env op=8                  => done
        - unpool env op=8                  => done again
   +24h - unpool env op=8                  => refused no_such_pool
    "
    a_note_changes_nothing: "
        - note env                         => refused no_such_pool
        - add env/x                        => done
        - note env/x                       => done
        - note env                         => done
        - history env                      => added noted noted
    "
}

// Restart.
scenarios! {
    a_restart_keeps_holds_order_and_ids: "
        - pool env capacity=2 drain=1m     => done
        a ask env run=r1                   => held env/1
        b ask env confirm                  => granted env/2
        c ask env confirm park=1           => waiting 1
        d ask env                          => waiting 2
        - restart                          => same
        - queue env                        => c d
        c ?                                => waiting 1 recent     # counts as listening in full
        b confirm                          => held env/2
        a end                              => released
        c ?                                => granted env/1        # the next fence is larger: checked on each line
        - restart                          => same
        c confirm                          => held env/1
    "
    short_deadlines_start_again_in_full: "
        a ask env confirm                  => granted
   +40s - restart                          => same
   +40s a ?                                => granted
    +5s a ?                                => waiting 1 away
        x ask db ttl=5m                    => held
   +4m  - restart                          => same
   +4m  x ?                                => held
   +1m  x ?                                => ended lost
        - lock db/db                       => meta= draining
  +20s  - restart                          => same
  +20s  - lock db/db                       => meta= draining
  +10s  - free db                          => db
    "
    long_deadlines_continue: "
        a ask env ttl=60m                  => held
  +30m  - restart                          => same
  +29m  a ?                                => held
  +55s! - restart                          => same                 # time while stopped counts too
    +5s a ?                                => ended lost
        - lock env/env                     => meta= draining
    "
    a_long_drain_continues: "
        - pool env capacity=1 drain=60m    => done
        a ask env ttl=10s                  => held
  +10s  a ?                                => ended lost
  +59m! - restart                          => same
   +59s - lock env/1                       => meta= draining
    +1s - free env                         => 1
    "
    a_waiter_counts_as_listening_after_a_restart: "
        a ask env                          => held
        b ask env confirm park=1           => waiting 1
        - restart                          => same
   +19s b ?                                => waiting 1 recent
    +1s b ?                                => waiting 1 away
        - restart                          => same
        b ?                                => waiting 1 recent
    "
    withdrawals_survive_a_restart: "
        a ask env confirm                  => granted
   +45s a again                            => granted
   +45s a again                            => granted
        - restart                          => same
   +45s a ?                                => ended unconfirmed
    "
    a_restart_keeps_a_grant: "
        a ask env                          => held
        b ask env confirm                  => waiting 1
        a end                              => released
        b ?                                => granted env/env
        - restart                          => same
        b ?                                => granted env/env
    "
    holders_of_a_shared_lock_keep_their_order: "
        z ask env key=k who=z              => held
        a ask env key=k who=a              => held
        - lock env/env                     => meta= by=z by=a
        - restart                          => same
        - lock env/env                     => meta= by=z by=a
    "
}

// History.
scenarios! {
    each_claimed_hold_is_one_entry: "
        - pool env capacity=2              => done
        - history env                      => pool added added
        a ask env*2                        => held
        b ask env confirm                  => waiting 1
        a end                              => released
        b confirm                          => held
        - history env                      => pool added added claimed waiting released granted claimed
    "
    live_entries_are_not_pruned: "
        - settings changes=6               =>
        - pool env capacity=2              => done
        a ask env/1                        => held env/1
   +1h  - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - update env/1 meta=x              => done
        - history env                      => added claimed noted noted noted updated
        a end                              => released
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - history env                      => added updated released noted noted noted
        - restart                          => same
    "
    a_pool_of_many_locks_keeps_some_other_history: "
        - settings changes=4               =>
        - pool env capacity=8              => done
   +1h  - note env                         => done
        - note env                         => done
        - note env                         => done
        - history env 3                    => added noted noted
        - restart                          => same
    "
    an_entry_pruned_in_its_own_step_is_never_stored: "
        - settings changes=0               =>
        - pool env capacity=1              => done
        - note env                         => done
        - history env                      => added
        - restart                          => same
    "
    details_go_first_but_not_all_of_them: "
        - settings changes=8               =>
        - pool env capacity=1              => done
        a ask env                          => held env/1
  +10h  a end                              => released
   +2h  - note env                         => done
   +8h  - note env                         => done
        b ask env                          => held env/1
        c ask env                          => waiting 1
        - history env                      => pool added claimed released noted noted claimed waiting
        - note env                         => done
        - history env                      => pool added claimed released noted claimed waiting noted
        - note env                         => done
        - history env                      => added claimed released noted claimed waiting noted noted
        - restart                          => same
    "
    the_pool_with_the_largest_history_loses_entries: "
        - settings changes=8               =>
        - pool quiet capacity=1            => done
        - pool env capacity=1              => done
        - note env                         => done
        - note quiet                       => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - history quiet                    => pool added noted
        - history env                      => pool added noted noted noted
        - restart                          => same
    "
    bytes_of_history_are_counted: "
        - settings history_bytes=900       =>
        - pool env capacity=1              => done
        - note env                         => done
        - note env                         => done
        - note env                         => done
        - history env                      => pool added noted noted noted
        - restart                          => same
    "
    old_entries_are_pruned_by_age: "
        - pool env capacity=1              => done
        - note env                         => done
 +2161h - reconcile                        =>
        - history env                      => added                # the newest of a lock stays
    "
}

/// One line for each number.
fn lines(numbers: std::ops::Range<u32>, line: impl Fn(u32) -> String) -> String {
    numbers.map(|n| line(n) + "\n").collect()
}

#[test]
fn a_history_keeps_so_many_entries() {
    let notes = lines(0..1_100, |_| "- note env => done".into());
    harness::play_at_scale(&format!(
        "- settings changes=1000 =>
        - pool env capacity=3 => done
        a ask env/2 => held env/2
        +1h - note env => done
        {notes}
        - count env => 1000
        - history env => added added claimed noted
        - restart => same
        - update env/2 meta=x => done
        - count env => 1000
        - history env => added added claimed noted
        a end => released
        - note env => done
        - count env => 1000
        - history env => added added noted noted"
    ));
}

/// Each of these lines would take long if it looked at all waiters.
#[test]
fn two_thousand_claims_wait_behind_a_head_that_cannot_be_served() {
    let asks = lines(1..2_000, |n| format!("w{n} ask env confirm park={n} build={} => waiting", n % 1_000 + 10));
    let left = lines(1..2_000, |n| format!("w{n} left {n} =>"));
    let back = lines(1..2_000, |n| format!("w{n} again park={} => waiting", n + 20_000));
    harness::play_at_scale(&format!(
        "- pool env capacity=3 max_queue=2000 => done
        a ask env build=1 => held env/1
        b ask env*3 confirm park=100000 => waiting 1
        {asks}
        x ask env => refused queue_full
        x ask env try => busy
        {left}
        {back}
        a2 ask env/1 build=1 => refused queue_full
        b end => cancelled
        w1 ? => granted env/2
        w2 ? => granted env/3
        w3 ? => waiting 1 parked
        a end => released
        w3 ? => granted env/1
        - reconcile =>
        - restart => same
        +20s - reconcile =>
        w1999 ? => waiting 1996 away"
    ));
}
