//! The parameters that several routes share, or that need many words.

use super::route::{Parameter, parameter};

pub(super) const AFTER: Parameter =
    parameter("after", "string", "Continue after this one: the `next` of the previous page.");
pub(super) const LIMIT: Parameter = parameter("limit", "integer", "Most entries to return, 1 to 1000 (default 1000).");
pub(super) const AFTER_REVISION: Parameter = parameter(
    "after",
    "integer",
    "Only entries of later revisions, or of earlier ones if the newest come first: the `next` of the previous page.",
);
pub(super) const FROM: Parameter =
    parameter("from", "integer", "Only entries of this revision, whatever their kind, and of later ones.");
pub(super) const VERSIONS: Parameter =
    parameter("versions", "boolean", "Only entries that the resource's `check` lists.");
pub(super) const LATCH_ID: Parameter = parameter("id", "string", "The id of the latch.");
pub(super) const NEWEST: Parameter = parameter("newest", "boolean", "Only the newest of the matching entries.");
pub(super) const CHANGES_OF_BUILD: Parameter =
    parameter("build", "string", "Only entries about claims of this BUILD_ID.");
pub(super) const ORDER: Parameter =
    parameter("order", "string", "`oldest_first` (the default) or `newest_first`. Not with `from`, `newest`, `wait`.");
pub(super) const LIKE: Parameter =
    parameter("pool", "string", "Only pools with a name like this: `*` is any text, `?` one sign.");
pub(super) const OF_LOCK: Parameter = parameter("lock", "string", "Only entries about locks of this name.");
pub(super) const OF_CLAIM: Parameter = parameter("claim", "string", "Only entries about this claim.");
pub(super) const WHO: Parameter = parameter(
    "who",
    "string",
    "Only entries of somebody whose person, program, team/pipeline/job or proven identity contains this text.",
);
pub(super) const KIND: Parameter = parameter("kind", "string", "Only entries of these kinds, such as `lost,broken`.");
pub(super) const SINCE: Parameter =
    parameter("since", "string", "Only entries of this time or later: RFC 3339, or a span before now such as `24h`.");
pub(super) const UNTIL: Parameter =
    parameter("until", "string", "Only entries before this time, given in the same way.");
pub(super) const SPAN_FROM: Parameter =
    parameter("since", "string", "Where the span begins: RFC 3339, or a span before now (default `24h`).");
pub(super) const SPAN_TO: Parameter =
    parameter("until", "string", "Where the span ends, given in the same way (default: now).");
pub(super) const TOP: Parameter =
    parameter("top", "integer", "How many of the longest waits and holds to list, 0 to 100 (default 10).");
pub(super) const CLUSTER: Parameter = parameter("cluster", "string", "The ATC_EXTERNAL_URL of `build`.");
pub(super) const WAIT_ENTRY: Parameter =
    parameter("wait", "string", "Hold the request until there is an entry, for at most this long (60s at most).");
