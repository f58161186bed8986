//! Newer claims of a name end older waiting ones.

use super::harness;

scenarios! {
    a_newer_build_ends_older_waits_of_its_name: "
        h ask env                                      => held env/env
        a ask env build=7 job=deploy supersede=x park=1 run=r1 => waiting 1 parked
        b ask env build=7 job=test supersede=x         => waiting 2        # another job
        c ask env build=10 job=deploy supersede=y      => waiting 3        # another name
        d ask env build=10 job=deploy                  => waiting 4        # no name
        e ask env build=10 job=deploy supersede=x      => waiting 4        # 10 is newer than 7
        - notices                                      => 1
        a ?                                            => ended superseded
        - queue env                                    => b c d e
        - history env 2                                => ended waiting
        a again run=r1                                 => refused ended superseded
        a again run=r2                                 => refused ended superseded  # no new life
        a end run=r2                                   => superseded again
        - restart                                      => same
        a again                                        => refused ended superseded
        f ask env build=11 job=deploy supersede=x      => waiting 4
        e ?                                            => ended superseded
    "
    a_late_outdated_build_ends_itself: "
        h ask env                                      => held env/env
        b ask env build=9 supersede=x                  => waiting 1
        a ask env build=8 supersede=x run=r1           => refused ended superseded
        a ?                                            => ended superseded
        a again run=r2                                 => refused ended superseded
        b ?                                            => waiting 1
        - history env 2                                => waiting ended
    "
    holders_stay_and_make_late_builds_outdated: "
        - pool env capacity=3                          => done
        a ask env build=8 supersede=x                  => held env/1
        b ask env build=9 supersede=x                  => held env/2
        a ?                                            => held env/1
        c ask env build=7 supersede=x                  => refused ended superseded   # although a lock is free
        d ask fresh build=7 supersede=x                => refused ended superseded
        - free fresh                                   => none
        - restart                                      => same
        b end                                          => released
        a end                                          => released
        e ask env build=7 supersede=x                  => held         # no newer one is remembered
    "
    a_withdrawn_grant_may_be_outdated: "
        a ask env build=8 supersede=x confirm          => granted env/env
        b ask env build=9 supersede=x confirm park=1   => waiting 1 parked
        a ?                                            => granted env/env
   +45s a ?                                            => ended superseded
        b ?                                            => granted env/env
    "
    claims_of_one_build_are_equally_new: "
        h ask env                                      => held env/env
        a ask env build=7 supersede=x                  => waiting 1
        b ask env build=7 supersede=x                  => waiting 2
        c ask env build=8 supersede=x                  => waiting 1
        - queue env                                    => c
    "
    without_a_build_the_later_claim_is_the_newer: "
        h ask env                                      => held env/env
        a ask env supersede=x run=r1                   => waiting 1
        b ask env supersede=x                          => waiting 1
        a ?                                            => ended superseded
        c ask env build=1 supersede=x                  => waiting 2        # of a Concourse: another origin
    "
    a_name_with_a_slash_is_shared_by_all_jobs: "
        h ask env                                      => held env/env
        a ask env build=8 job=deploy supersede=/x      => waiting 1
        b ask env build=7 job=test supersede=/x        => refused ended superseded
        c ask env build=9 job=test supersede=/x        => waiting 1
        a ?                                            => ended superseded
        d ask env build=3 ci=https://b supersede=/x    => waiting 1       # build ids of two Concourses do not compare
        c ?                                            => ended superseded
        e ask env supersede=/x                         => waiting 1
        - queue env                                    => e
    "
    instances_of_a_pipeline_do_not_compete: "
        h ask env                                      => held env/env
        a ask env build=8 job=deploy vars=a supersede=x => waiting 1
        b ask env build=9 job=deploy vars=b supersede=x => waiting 2
        c ask env build=10 job=deploy supersede=x      => waiting 3
        d ask env build=11 job=deploy vars=a supersede=x => waiting 3
        - queue env                                    => b c d
    "
    the_name_counts_in_all_pools: "
        - pool p capacity=2                            => done
        h ask p                                        => held p/1
        a ask p*2 build=7 supersede=x confirm park=1   => waiting 1
        c ask p confirm park=2                         => waiting 2       # held back by a
        b ask q build=8 supersede=x                    => held q/q
        a ?                                            => ended superseded
        c ?                                            => granted p/2
    "
    a_superseded_claim_makes_room_in_a_full_queue: "
        - pool env capacity=1 max_queue=1              => done
        h ask env                                      => held env/1
        a ask env build=7 supersede=x                  => waiting 1
        b ask env build=8 supersede=x                  => waiting 1
        c ask env build=9                              => refused queue_full
        - queue env                                    => b
    "
    try_lock_supersedes_only_when_it_is_served: "
        - pool env capacity=2                          => done
        h ask env/1                                    => held env/1
        a ask env/1 build=7 supersede=x                => waiting 1
        b ask env/1 build=8 supersede=x try            => busy
        a ?                                            => waiting 1
        c ask env/2 build=8 supersede=x try            => held env/2
        a ?                                            => ended superseded
    "
    a_repeated_put_supersedes_no_other_claim: "
        h ask env                                      => held env/env
        a ask env build=7 supersede=x                  => waiting 1
        b ask env build=8 supersede=x                  => waiting 1
        b again                                        => waiting 1
        b end                                          => cancelled
        c ask env build=7 supersede=x                  => waiting 1       # 8 has ended
    "
}
