//! The notifications themselves: their ids, their parts, and one line for people.

use std::sync::Arc;

use crate::client::http::encode;
use crate::client::{when, who};
use crate::core::claim::{BuildRef, Claim, Suspect};
use crate::core::history::Change;
use crate::core::names::PoolName;
use crate::core::time::{Span, WallMs};
use crate::server::views;
use crate::wire::api::{LockRef, Owner, locks_text};
use crate::wire::notification::{Event, Notification};
use crate::wire::text::{show_span, time};

/// About an entry of the history.
#[must_use]
pub fn entry(event: Event, entry: &Change) -> Notification {
    let mut made = of_entry(event, entry, entry.at);
    made.id = format!("{}-{}-{}", entry.key.revision.0, entry.key.seq, event.word());
    made.reason = entry.reason.as_ref().map(ToString::to_string);
    let where_ = place(&made);
    let who = who::owner(&made.owner, "");
    let held = entry.held.map(|held| format!(", held for {}", span(held))).unwrap_or_default();
    let by = |word: &str| if who.is_empty() { String::new() } else { format!(" {word} {who}") };
    let reason = made.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    let how = made.how.as_ref().filter(|how| *how != event.word()).map(|how| format!(" ({how})")).unwrap_or_default();
    made.text = match event {
        Event::Lost => format!("Hold lost{how}: {where_}{held}{}{reason}", by("by")),
        Event::Broken => format!("Hold broken{}: {where_}{held}{reason}", by("by")),
        Event::Deadlock => format!("Deadlock: {where_}{}{reason}", by("wanted by")),
        Event::SelfWait => format!("A build waits for itself: {where_}{}{reason}", by("wanted by")),
        Event::Quarantined => format!("Lock out of service: {where_}{}{reason}", by("by")),
        _ => format!("Lock back in service: {where_}{}{reason}", by("by")),
    };
    made
}

/// About a wait or hold that passed a limit before the entry of the history that ended it.
#[must_use]
pub fn ended(event: Event, entry: &Change, since: WallMs, due: WallMs, limit: Span) -> Notification {
    let mut made = of_entry(event, entry, due);
    let lasted = Span(entry.at.0.saturating_sub(since.0));
    let who = who::owner(&made.owner, "somebody");
    let (where_, over) = (place(&made), made.how.as_deref().unwrap_or("served").to_owned());
    made.text = match event {
        Event::LongWait => format!("Long wait, now over ({over}): {where_}, for {} by {who}", span(lasted)),
        _ => format!("Long hold, now over ({over}): {where_}, for {}; ended by {who}", span(lasted)),
    };
    past_limit(made, since, limit)
}

/// About a wait or hold that goes on.
#[must_use]
pub fn overdue(
    event: Event,
    claim: &Claim,
    pools: &[PoolName],
    since: WallMs,
    due: WallMs,
    limit: Span,
) -> Notification {
    let mut made = Notification {
        locks: views::locks(claim.locks()),
        claim: Some(claim.id.to_string()),
        owner: views::owner(&claim.terms.owner),
        reason: claim.terms.reason.as_ref().map(ToString::to_string),
        ..blank(event, due, pools.iter().map(ToString::to_string).collect())
    };
    let who = who::owner(&made.owner, &format!("claim {}", claim.id));
    let reason = made.reason.as_ref().map(|reason| format!(", because {reason:?}")).unwrap_or_default();
    let (word, where_) = match event {
        Event::LongWait => ("wait", made.pools.join(", ")),
        _ => ("hold", place(&made)),
    };
    made.text = format!("Long {word}: {where_}, for more than {} by {who}{reason}", span(limit));
    past_limit(made, since, limit)
}

/// About a build that nobody can see, and its claims.
#[must_use]
pub fn suspect(build: &BuildRef, suspect: &Suspect, claims: &[Arc<Claim>], due: WallMs, limit: Span) -> Notification {
    let mut pools: Vec<String> =
        claims.iter().flat_map(|claim| claim.terms.ask.parts.iter().map(|part| part.pool.to_string())).collect();
    pools.sort();
    pools.dedup();
    let locks: Vec<LockRef> = claims.iter().flat_map(|claim| views::locks(claim.locks())).collect();
    let owner = claims.first().map(|claim| views::owner(&claim.terms.owner)).unwrap_or_default();
    let claim = claims.first().map(|claim| claim.id.to_string());
    let mut made = Notification {
        // It becomes the value of a header, and a build's id is any text.
        id: format!("suspect-{}-{}-{}", encode(build.id.as_str()), suspect.since.0, limit.0),
        locks,
        claim,
        owner,
        reason: Some(suspect.why.to_string()),
        ..blank(Event::Suspect, due, pools)
    };
    made.text = format!(
        "Nobody knows whether a build is alive, for more than {}: {}, {}: {}",
        span(limit),
        who::owner(&made.owner, "a build"),
        place(&made),
        suspect.why
    );
    made.since = Some(time(suspect.since));
    made.longer_than = Some(show_span(limit));
    made
}

/// That something was left out: so many that were too old, or entries that were gone.
#[must_use]
pub fn missed(too_old: u64, gone: bool, since: WallMs, now: WallMs) -> Notification {
    let mut made = blank(Event::Missed, now, Vec::new());
    made.id = format!("missed-{}-{}", since.0, now.0);
    let gone = if gone { "entries left the history before this target was told of them" } else { "" };
    let old = match too_old {
        0 => String::new(),
        1 => "one message was more than a day old".to_owned(),
        _ => format!("{too_old} messages were more than a day old"),
    };
    let and = if old.is_empty() || gone.is_empty() { "" } else { ", and " };
    let from = if since == WallMs::default() { String::new() } else { format!(" since {}", time(since)) };
    made.text = format!("Not everything{from} was told here: {old}{and}{gone}; see `locker history`");
    made.since = (since != WallMs::default()).then(|| time(since));
    made
}

/// What `locker notify test` sends.
#[must_use]
pub fn test(id: &str, now: WallMs) -> Notification {
    let text = "This is a test of the notifications of Locker: nothing has happened".to_owned();
    Notification { id: format!("test-{id}"), text, ..blank(Event::Test, now, Vec::new()) }
}

/// The page about it: that of the claim, else that of its pool.
#[must_use]
pub fn link(server: &str, made: &Notification) -> Option<String> {
    match (&made.claim, &made.pools[..]) {
        (Some(claim), _) => Some(format!("{server}/claims/{}", encode(claim))),
        (None, [pool, ..]) => Some(format!("{server}/pools/{}", encode(pool))),
        (None, []) => None,
    }
}

fn blank(event: Event, at: WallMs, pools: Vec<String>) -> Notification {
    Notification {
        id: String::new(),
        event,
        at: time(at),
        text: String::new(),
        link: None,
        pools,
        locks: Vec::new(),
        claim: None,
        how: None,
        owner: Owner::default(),
        reason: None,
        since: None,
        longer_than: None,
        revision: None,
    }
}

fn of_entry(event: Event, entry: &Change, at: WallMs) -> Notification {
    Notification {
        locks: views::locks(&entry.locks),
        claim: entry.claim.as_ref().map(ToString::to_string),
        how: entry.end.map(|end| end.word().to_owned()),
        owner: entry.who.as_deref().map(views::owner).unwrap_or_default(),
        revision: Some(entry.key.revision.0),
        ..blank(event, at, entry.pools.iter().map(ToString::to_string).collect())
    }
}

/// The id does not depend on whether the wait or hold goes on, so both ways to learn of it make the same message.
fn past_limit(made: Notification, since: WallMs, limit: Span) -> Notification {
    let claim = made.claim.as_deref().unwrap_or_default();
    let id = format!("{}-{claim}-{}-{}", made.event.word(), since.0, limit.0);
    Notification { id, since: Some(time(since)), longer_than: Some(show_span(limit)), ..made }
}

fn place(made: &Notification) -> String {
    if made.locks.is_empty() { made.pools.join(", ") } else { locks_text(&made.locks, ", ") }
}

fn span(span: Span) -> String {
    when::span(std::time::Duration::from_millis(span.0))
}

/// The text for chats that read `text` as Slack does: one line for each notification.
#[must_use]
pub fn chat(notifications: &[&Notification]) -> String {
    let line = |made: &&Notification| match &made.link {
        Some(link) => format!("{} {link}", chat_text(&made.text)),
        None => chat_text(&made.text),
    };
    notifications.iter().map(line).collect::<Vec<_>>().join("\n")
}

/// Text that people wrote, such that no chat takes it for a mention, a link or markup of its own.
fn chat_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in crate::wire::escape::escape(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            // A space of no width: `@channel` would wake everybody, and `](` would hide where a link leads.
            '@' => safe.push_str("@\u{200b}"),
            ']' => safe.push_str("]\u{200b}"),
            c => safe.push(c),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_of_a_user_is_markup() {
        let table = [
            ("staging: env-1", "staging: env-1"),
            ("<!channel> & co", "&lt;!channel&gt; &amp; co"),
            ("@here [x](http://evil)", "@\u{200b}here [x]\u{200b}(http://evil)"),
            ("a\nb\u{1b}[31m", "a\\u{a}b\\u{1b}[31m"),
        ];
        for (given, expected) in table {
            assert_eq!(chat_text(given), expected);
        }
    }

    #[test]
    fn what_was_left_out_is_told() {
        let none = WallMs::default();
        assert_eq!(
            missed(3, false, none, WallMs(5)).text,
            "Not everything was told here: 3 messages were more than a day old; see `locker history`"
        );
        let both = missed(1, true, WallMs(1_000), WallMs(5)).text;
        assert!(both.contains("since 1970-01-01T00:00:01.000Z"), "{both}");
        assert!(both.contains("one message was more than a day old, and entries left the history"), "{both}");
    }
}
