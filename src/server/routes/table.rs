//! The one table of routes: dispatch reads it, and `openapi.json` is made from it. `route` explains the columns.

use schemars::SchemaGenerator;

use super::super::auth::access::Right::{Admin, Break, Claim, Look as LookRight, Manage, Metrics};
use super::super::http::Response;
use super::call::Call;
use super::contracts::{self, latches, lockd, locker};
use super::failure::Failure;
use super::parameters::{
    AFTER, AFTER_REVISION, CHANGES_OF_BUILD, CLUSTER, FROM, KIND, LATCH_ID, LIKE, LIMIT, NEWEST, OF_CLAIM, OF_LOCK,
    ORDER, SINCE, SPAN_FROM, SPAN_TO, TOP, UNTIL, VERSIONS, WAIT_ENTRY, WHO,
};
use super::route::Method::{Delete, Get, Patch, Post, Put};
use super::route::Need::{self, AnyRight, Deed, DeedAt, Everywhere, Identity, LookAt, Sight};
use super::route::Place::{Path, Query};
use super::route::Repeat::{Always, WithId, WithOp};
use super::route::Run::{self, Do, Look, Talk};
use super::route::{Parameter, Route, guarded, parameter, public, required};
use super::{
    Routes, changes, claims, done, events, info, locks, metrics, pages, pools, release, sessions, stats, tokens,
};
use crate::core::limits;
use crate::wire::api::{
    BreakBody, ChangePage, ChangeView, ClaimBody, ClaimView, ConfirmBody, DeliverBody, DoneView, EventView, InfoView,
    LockBody, LockView, MoveBody, MoveLockBody, NewTokenView, NoteBody, Page, PoolBody, PoolChangeBody, PoolSummary,
    PoolView, QuarantineBody, ReleaseBody, ReleaseView, RemoveBody, RenewBody, ReturnBody, SessionView, StatsView,
    TokenBody, TokenView, VerifyView,
};
use crate::wire::contracts::Contract;
use crate::wire::contracts::lockd::EmptyView;
use crate::wire::contracts::locker::{LocksView, PartyBody, ResponseView, UnlockedView};
use crate::wire::errors::Code;
use crate::wire::latch::{LatchBody, LatchView, PatchBody};

/// The codes with which a client's call about its own grant or hold may be refused.
const OF_A_GRANT: &[Code] = &[
    Code::NoSuchClaim,
    Code::SupersededRun,
    Code::TooManyRuns,
    Code::NotGranted,
    Code::WrongFence,
    Code::Ended,
    Code::StoreFailed,
];

/// A route whose handler is async.
macro_rules! talk {
    ($handler:path) => {
        Talk(|routes, call| Box::pin($handler(routes, call)))
    };
}

/// `look` on the pool in the path.
const POOL: Need = LookAt(Path("pool"));

/// A page of the web page: it shows only what the reader may look at.
const fn page(path: &'static str, summary: &'static str, query: &'static [Parameter], run: Run) -> Route {
    Route { is_api: false, query, ..guarded(Sight, Get, path, summary, run) }
}

/// A part of the web page that anybody may load: it says nothing about pools.
const fn open_page(
    path: &'static str,
    summary: &'static str,
    look: fn(&Routes, &Call) -> Result<Response, Failure>,
) -> Route {
    Route { is_api: false, ..public(Get, path, summary, Look(look)) }
}

/// All routes, grouped by subject.
pub(in super::super) static ROUTES: &[Route] = &[
    Route {
        body: Some(SchemaGenerator::subschema_for::<ClaimBody>),
        body_required: true,
        max_body: limits::CLAIM_BODY_BYTES,
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: &[
            Code::NoSuchPool,
            Code::NoSuchLock,
            Code::DifferentRequest,
            Code::SupersededRun,
            Code::TooManyRuns,
            Code::Ended,
            Code::TooLarge,
            Code::OtherStore,
            Code::UnknownConcourse,
            Code::BuildRefused,
            Code::ConcourseUnavailable,
            Code::TooMany,
            Code::MixedOrders,
            Code::Unprocessable,
            Code::Waiting,
            Code::SelfWait,
            Code::Deadlock,
            Code::Locked,
            Code::QueueFull,
            Code::Limit,
            Code::StoreFailed,
        ],
        repeat: Always,
        ..guarded(
            Deed(Claim),
            Put,
            "/api/v1/claims/{id}",
            "Ask for locks, or repeat the request; granted and held are 200",
            talk!(claims::put),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: &[Code::NoSuchClaim],
        ..guarded(Sight, Get, "/api/v1/claims/{id}", "Get a claim, live or ended", talk!(claims::get))
    },
    Route {
        query: &[
            parameter("run", "string", "The run of the client process; leave it out to release somebody else's claim."),
            parameter("by", "string", "Who ends it, if not its own client."),
            parameter("reason", "string", "Why, for people."),
            parameter("if_waiting", "boolean", "Only cancel, never release: 409 unless the claim waits."),
        ],
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: &[
            Code::NoSuchClaim,
            Code::SupersededRun,
            Code::TooManyRuns,
            Code::NotWaiting,
            Code::Ended,
            Code::StoreFailed,
        ],
        repeat: Always,
        ..guarded(
            AnyRight,
            Delete,
            "/api/v1/claims/{id}",
            "Cancel or release a claim; may be repeated",
            Do(claims::delete, claims::ended),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<ReleaseBody>),
        answer: Some(SchemaGenerator::subschema_for::<ReleaseView>),
        codes: &[Code::NoSuchClaim, Code::Ended, Code::StoreFailed],
        repeat: Always,
        ..guarded(
            AnyRight,
            Post,
            "/api/v1/claims/{id}/release",
            "Cancel or release a claim from a step of a build; may be repeated",
            talk!(release::release),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<ConfirmBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: OF_A_GRANT,
        repeat: Always,
        ..guarded(
            AnyRight,
            Post,
            "/api/v1/claims/{id}/confirm",
            "Turn a grant into a hold; may be repeated",
            Do(claims::confirm, claims::confirmed),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<RenewBody>),
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: OF_A_GRANT,
        repeat: Always,
        ..guarded(
            AnyRight,
            Post,
            "/api/v1/claims/{id}/renew",
            "Restart the ttl of a hold; also confirms a grant",
            Do(claims::renew, claims::shown),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<DeliverBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: &[Code::NoSuchClaim, Code::Ended, Code::StoreFailed],
        repeat: Always,
        ..guarded(
            Deed(LookRight),
            Post,
            "/api/v1/claims/{id}/deliver",
            "Record that the resource's `in` has fetched a hold; may be repeated",
            Do(claims::deliver, claims::shown),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<BreakBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<ClaimView>),
        codes: &[Code::NoSuchClaim, Code::NotGranted, Code::Ended, Code::StoreFailed],
        repeat: Always,
        ..guarded(
            AnyRight,
            Post,
            "/api/v1/claims/{id}/break",
            "End a grant or a hold by force",
            Do(claims::break_claim, claims::ended),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<MoveBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchClaim, Code::NotWaiting, Code::Ended, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Break),
            Post,
            "/api/v1/claims/{id}/move",
            "Move a waiting claim to another place in its queue",
            Do(claims::move_claim, done),
        )
    },
    Route {
        query: &[
            parameter("pool", "string", "Only claims that ask for locks of this pool."),
            parameter(
                "state",
                "string",
                "Only claims in this state: waiting, granted, held, or ended (otherwise not listed).",
            ),
            parameter("build", "string", "Only claims of this BUILD_ID; needs `cluster`."),
            CLUSTER,
            AFTER,
            LIMIT,
        ],
        answer: Some(SchemaGenerator::subschema_for::<Page<ClaimView>>),
        ..guarded(
            Sight,
            Get,
            "/api/v1/claims",
            "List claims by id, without their places in the queues",
            talk!(claims::list),
        )
    },
    Route {
        query: &[AFTER, LIMIT],
        answer: Some(SchemaGenerator::subschema_for::<Page<PoolSummary>>),
        ..guarded(Sight, Get, "/api/v1/pools", "List pools by name", talk!(pools::list))
    },
    Route {
        query: &[AFTER, LIMIT],
        answer: Some(SchemaGenerator::subschema_for::<PoolView>),
        codes: &[Code::NoSuchPool],
        ..guarded(POOL, Get, "/api/v1/pools/{pool}", "Get a pool, its locks by name and its queue", talk!(pools::get))
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<PoolBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::PoolInUse, Code::Limit, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Admin),
            Put,
            "/api/v1/pools/{pool}",
            "Declare a pool; replaces its whole policy",
            Do(pools::put, done),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<PoolChangeBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::PoolInUse, Code::Limit, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Admin),
            Patch,
            "/api/v1/pools/{pool}",
            "Change the given rules of a pool; creates the pool if it does not exist",
            Do(pools::patch, done),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<RemoveBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchPool, Code::PoolInUse, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Admin),
            Delete,
            "/api/v1/pools/{pool}",
            "Remove a pool that nobody uses",
            Do(pools::delete, done),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<LockView>),
        codes: &[Code::NoSuchPool, Code::NoSuchLock],
        ..guarded(POOL, Get, "/api/v1/pools/{pool}/locks/{lock}", "Get a lock, with its metadata", Look(locks::get))
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<LockBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[
            Code::LockExists,
            Code::Limit,
            // For the claim that the lock may come with.
            Code::DifferentRequest,
            Code::SupersededRun,
            Code::TooManyRuns,
            Code::Ended,
            Code::Unprocessable,
            Code::UnknownConcourse,
            Code::BuildRefused,
            Code::ConcourseUnavailable,
            Code::StoreFailed,
        ],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Put,
            "/api/v1/pools/{pool}/locks/{lock}",
            "Add a lock, free or claimed; creates the pool if it does not exist",
            talk!(locks::put),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<LockBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchPool, Code::NoSuchLock, Code::LockHeld, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Patch,
            "/api/v1/pools/{pool}/locks/{lock}",
            "Change the given fields of a lock, held or not",
            Do(locks::patch, done),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<RemoveBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[
            Code::DifferentRequest,
            Code::NoSuchPool,
            Code::NoSuchLock,
            Code::LockHeld,
            Code::NotHolder,
            Code::StoreFailed,
        ],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Delete,
            "/api/v1/pools/{pool}/locks/{lock}",
            "Remove a lock from its pool",
            Do(locks::delete, done),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<MoveLockBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[
            Code::NoSuchPool,
            Code::NoSuchLock,
            Code::LockHeld,
            Code::NotHolder,
            Code::LockExists,
            Code::DifferentRequest,
            Code::Limit,
            Code::StoreFailed,
        ],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Post,
            "/api/v1/pools/{pool}/locks/{lock}/move",
            "Move a lock to another pool; a held one only with its holder, whose hold ends",
            talk!(locks::move_lock),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<QuarantineBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchPool, Code::NoSuchLock, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Post,
            "/api/v1/pools/{pool}/locks/{lock}/quarantine",
            "Take a lock out of service; its holder keeps it",
            Do(locks::quarantine, done),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<ReturnBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchPool, Code::NoSuchLock, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Manage),
            Post,
            "/api/v1/pools/{pool}/locks/{lock}/return",
            "Put a lock back into service",
            Do(locks::put_back, done),
        )
    },
    Route {
        query: &[
            AFTER_REVISION,
            FROM,
            LIMIT,
            ORDER,
            VERSIONS,
            NEWEST,
            OF_LOCK,
            OF_CLAIM,
            CHANGES_OF_BUILD,
            CLUSTER,
            WHO,
            KIND,
            SINCE,
            UNTIL,
            WAIT_ENTRY,
        ],
        answer: Some(SchemaGenerator::subschema_for::<ChangePage>),
        codes: &[Code::NoSuchPool],
        ..guarded(POOL, Get, "/api/v1/pools/{pool}/changes", "History of a pool", talk!(changes::of_pool))
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<NoteBody>),
        answer: Some(SchemaGenerator::subschema_for::<DoneView>),
        codes: &[Code::DifferentRequest, Code::NoSuchPool, Code::StoreFailed],
        repeat: WithOp,
        ..guarded(
            Deed(Claim),
            Post,
            "/api/v1/pools/{pool}/changes",
            "Write an entry that changes nothing",
            Do(changes::note, done),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<Page<ChangeView>>),
        codes: &[Code::NoSuchPool, Code::NoSuchRevision],
        ..guarded(
            POOL,
            Get,
            "/api/v1/pools/{pool}/changes/{revision}",
            "All entries of one revision",
            talk!(changes::revision),
        )
    },
    Route {
        query: &[
            AFTER_REVISION,
            FROM,
            LIMIT,
            ORDER,
            VERSIONS,
            NEWEST,
            LIKE,
            OF_LOCK,
            OF_CLAIM,
            CHANGES_OF_BUILD,
            CLUSTER,
            WHO,
            KIND,
            SINCE,
            UNTIL,
            WAIT_ENTRY,
        ],
        answer: Some(SchemaGenerator::subschema_for::<ChangePage>),
        ..guarded(Sight, Get, "/api/v1/changes", "History of all pools, including removed ones", talk!(changes::of_all))
    },
    Route {
        query: &[SPAN_FROM, SPAN_TO, TOP],
        answer: Some(SchemaGenerator::subschema_for::<StatsView>),
        codes: &[Code::NoSuchPool],
        ..guarded(
            POOL,
            Get,
            "/api/v1/pools/{pool}/stats",
            "Waits, holds and use of a pool over a span",
            talk!(stats::of_pool),
        )
    },
    Route {
        query: &[LIKE, SPAN_FROM, SPAN_TO, TOP],
        answer: Some(SchemaGenerator::subschema_for::<StatsView>),
        ..guarded(
            Sight,
            Get,
            "/api/v1/stats",
            "Waits, holds and use by pool and by team over a span",
            talk!(stats::of_all),
        )
    },
    Route {
        query: &[
            parameter("pool", "string", "Only events of this pool."),
            parameter("since", "integer", "Begin with what happened after this revision (default: now)."),
            parameter(
                "entries",
                "boolean",
                "Each entry of the history (default), or only that there is something new.",
            ),
        ],
        answer: Some(SchemaGenerator::subschema_for::<EventView>),
        media: "text/event-stream",
        codes: &[Code::NoSuchPool, Code::Limit],
        ..guarded(
            LookAt(Query("pool")),
            Get,
            "/api/v1/events",
            "Follow what happens, as server-sent events; the schema is that of their data",
            talk!(events::follow),
        )
    },
    Route {
        query: &[
            required("pool", "string", "The name of the pool."),
            required("lock", "string", "The name of the lock."),
            required("fence", "integer", "The fence to check."),
        ],
        answer: Some(SchemaGenerator::subschema_for::<VerifyView>),
        codes: &[Code::NotHeld],
        ..guarded(
            LookAt(Query("pool")),
            Get,
            "/api/v1/verify",
            "Check whether a fence belongs to a current hold",
            Look(locks::verify),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<InfoView>),
        ..guarded(AnyRight, Get, "/api/v1/info", "Get the version, store and time of the server", Look(info::info))
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<info::StatusView>),
        ..public(Get, "/healthz", "Check that the process answers", Look(info::healthz))
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<info::StatusView>),
        codes: &[Code::StoreFailed, Code::Unavailable],
        ..public(Get, "/readyz", "Check that the server can serve", Look(info::readyz))
    },
    Route {
        media: "text/plain",
        ..guarded(
            Everywhere(Metrics),
            Get,
            "/metrics",
            "Get the metrics, as Prometheus text or as OpenMetrics",
            talk!(metrics::get),
        )
    },
    Route {
        body: Some(SchemaGenerator::subschema_for::<TokenBody>),
        body_required: true,
        answer: Some(SchemaGenerator::subschema_for::<NewTokenView>),
        codes: &[Code::TokenExists, Code::Unprocessable, Code::Limit, Code::StoreFailed],
        ..guarded(
            Everywhere(Admin),
            Post,
            "/api/v1/tokens",
            "Make a token; only this answer shows it",
            talk!(tokens::create),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<Page<TokenView>>),
        ..guarded(
            Everywhere(Admin),
            Get,
            "/api/v1/tokens",
            "List the tokens, without their secrets",
            Look(tokens::list),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<TokenView>),
        codes: &[Code::NoSuchToken, Code::StoreFailed],
        ..guarded(
            Everywhere(Admin),
            Delete,
            "/api/v1/tokens/{name}",
            "Revoke a token, which counts at once",
            Do(tokens::revoke, tokens::revoked),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<SessionView>),
        codes: &[Code::Forbidden, Code::Unprocessable],
        ..guarded(
            Identity,
            Post,
            "/api/v1/session",
            "Sign in on the web page: the answer sets a cookie",
            Look(sessions::begin),
        )
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<SessionView>),
        ..public(Get, "/api/v1/session", "Say who is signed in on the web page", Look(sessions::get))
    },
    Route {
        answer: Some(SchemaGenerator::subschema_for::<SessionView>),
        ..guarded(Identity, Delete, "/api/v1/session", "Sign out of the web page", Look(sessions::end))
    },
    open_page("/login", "Web page: the form to sign in", sessions::form),
    page("/", "Web page: all pools", &[], talk!(pages::overview)),
    page("/pools/{pool}", "Web page: a pool", &[], talk!(pages::pool)),
    page("/claims/{id}", "Web page: a claim", &[], talk!(pages::claim)),
    page(
        "/history",
        "Web page: what happened",
        &[LIKE, OF_LOCK, OF_CLAIM, WHO, KIND, SINCE, UNTIL, AFTER_REVISION],
        talk!(pages::history),
    ),
    page(
        "/figures",
        "Web page: figures",
        &[LIKE, parameter("over", "string", "`day` (default), `week` or `90-days`.")],
        talk!(pages::figures),
    ),
    open_page("/assets/locker.css", "Web page: its style", pages::style),
    open_page("/assets/locker.js", "Web page: its script", pages::script),
    open_page("/assets/sign-in.js", "Web page: the script of the form to sign in", pages::sign_in_script),
    open_page("/assets/locker.svg", "Web page: its icon", pages::icon),
    guarded(AnyRight, Get, "/openapi.json", "Get this description", Look(info::openapi)),
    Route {
        contracts: &[Contract::Locker],
        answer: Some(SchemaGenerator::subschema_for::<LocksView>),
        codes: &[Code::NoSuchRoute],
        ..guarded(Sight, Get, "/locks", "locker: list pools by name, with their holders", talk!(locker::list))
    },
    Route {
        contracts: &[Contract::Locker],
        body: Some(SchemaGenerator::subschema_for::<PartyBody>),
        body_required: true,
        max_body: limits::CLAIM_BODY_BYTES,
        answer: Some(SchemaGenerator::subschema_for::<ResponseView>),
        codes: &[
            Code::BadRequest,
            Code::NoSuchRoute,
            Code::NoSuchPool,
            Code::NoSuchLock,
            Code::TooLarge,
            Code::Locked,
            Code::Limit,
            Code::StoreFailed,
        ],
        repeat: Always,
        ..guarded(Deed(Claim), Put, "/lock/{name}", "locker: lock a pool now, or not at all", talk!(locker::put))
    },
    Route {
        contracts: &[Contract::Lockd],
        answer: Some(SchemaGenerator::subschema_for::<EmptyView>),
        codes: &[Code::BadRequest, Code::NoSuchRoute],
        statuses: &[(404, Code::NotHeld)],
        ..guarded(LookAt(Path("name")), Get, "/lock/{name}", "lockd: 200 if it is locked", Look(lockd::get))
    },
    Route {
        contracts: &[Contract::Lockd],
        query: &[
            parameter("wait", "string", "Wait in the queue, for at most this long (60s at most)."),
            parameter("owner", "string", "The client's id, stored with the lock."),
            parameter("ttl", "string", "Unlock automatically after this time (1s to 30 days)."),
        ],
        answer: Some(SchemaGenerator::subschema_for::<EmptyView>),
        codes: &[
            Code::BadRequest,
            Code::NoSuchRoute,
            Code::NoSuchPool,
            Code::NoSuchLock,
            Code::QueueFull,
            Code::Limit,
            Code::StoreFailed,
        ],
        statuses: &[(409, Code::Locked)],
        repeat: Always,
        ..guarded(Deed(Claim), Post, "/lock/{name}", "lockd: lock it", talk!(lockd::post))
    },
    Route {
        contracts: &[Contract::Locker, Contract::Lockd],
        query: &[parameter("owner", "string", "lockd: unlock only if it was locked with this client id.")],
        body: Some(SchemaGenerator::subschema_for::<PartyBody>),
        max_body: limits::CLAIM_BODY_BYTES,
        answer: Some(SchemaGenerator::subschema_for::<UnlockedView>),
        codes: &[Code::BadRequest, Code::NoSuchRoute, Code::TooLarge, Code::Locked, Code::StoreFailed],
        statuses: &[(404, Code::NotHeld), (409, Code::NotHeld)],
        ..guarded(
            DeedAt("name", LookRight),
            Delete,
            "/lock/{name}",
            "Unlock: locker with a body, lockd without one",
            talk!(contracts::delete),
        )
    },
    Route {
        contracts: &[Contract::Latches],
        body: Some(SchemaGenerator::subschema_for::<LatchBody>),
        body_required: true,
        max_body: limits::LATCH_BODY_BYTES,
        answer: Some(SchemaGenerator::subschema_for::<LatchView>),
        codes: &[
            Code::BadRequest,
            Code::NoSuchRoute,
            Code::LatchExists,
            Code::TooLarge,
            Code::Limit,
            Code::StoreFailed,
        ],
        repeat: WithId,
        ..guarded(
            Deed(Claim),
            Post,
            "/lock",
            "latches: create one for a workflow; also served at /lock/",
            Do(latches::create, latches::shown),
        )
    },
    Route {
        contracts: &[Contract::Latches],
        query: &[
            LATCH_ID,
            parameter("status", "string", "List the latches with this status: released, locked or all."),
            parameter(
                "wait",
                "string",
                "Hold the request until the latch (or any) is released, for at most this long (60s at most).",
            ),
            parameter(
                "after",
                "integer",
                "Only latches released after this revision (see the header locker-revision).",
            ),
        ],
        codes: &[Code::BadRequest, Code::NoSuchRoute, Code::NoSuchLatch],
        ..guarded(Sight, Get, "/lock", "latches: get one, or list them", talk!(latches::get))
    },
    Route {
        contracts: &[Contract::Latches],
        query: &[LATCH_ID],
        body: Some(SchemaGenerator::subschema_for::<PatchBody>),
        max_body: limits::LATCH_BODY_BYTES,
        answer: Some(SchemaGenerator::subschema_for::<LatchView>),
        codes: &[
            Code::BadRequest,
            Code::NoSuchRoute,
            Code::NoSuchLatch,
            Code::LatchReleased,
            Code::TooLarge,
            Code::StoreFailed,
        ],
        repeat: Always,
        ..guarded(
            Deed(Claim),
            Patch,
            "/lock",
            "latches: release one; may be repeated",
            Do(latches::release, latches::shown),
        )
    },
    Route {
        contracts: &[Contract::Latches],
        query: &[LATCH_ID],
        answer: Some(SchemaGenerator::subschema_for::<EmptyView>),
        codes: &[Code::BadRequest, Code::NoSuchRoute, Code::NoSuchLatch, Code::StoreFailed],
        ..guarded(
            Deed(Claim),
            Delete,
            "/lock",
            "latches: delete one, released or not",
            Do(latches::delete, latches::gone),
        )
    },
];
