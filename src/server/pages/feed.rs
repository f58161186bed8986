//! What other pages and programs embed: the badge of a pool (SVG) and its feed (Atom, RFC 4287).
//!
//! Both are XML, made from text that anybody may have written: `xml` is the only way for such text to get in.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use crate::client::http::encode;
use crate::client::who;
use crate::server::http::{Request, Response};
use crate::wire::api::{ChangeView, PoolSummary};
use crate::wire::escape::{cut, escape};

/// How long a badge may be kept without asking again, seconds.
const BADGE_AGE: u32 = 10;
/// The width of a character of a badge, in pixels: that of a wide one, so that every text fits.
const CHARACTER: usize = 7;
/// Longest name of a pool on a badge, bytes.
const BADGE_NAME: usize = 40;

/// Text as the content of an element or the value of an attribute.
fn xml(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in escape(text).chars() {
        match c {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\'' => safe.push_str("&apos;"),
            // Not a character of XML.
            '\u{fffe}' | '\u{ffff}' => safe.push('\u{fffd}'),
            c => safe.push(c),
        }
    }
    safe
}

/// The answer with such a document, or that the client already has it.
fn document(request: &Request, status: u16, media: &str, caching: String, body: String) -> Response {
    let digest = Sha256::digest(&body);
    let tag = format!("\"{}\"", URL_SAFE_NO_PAD.encode(&digest[..16]));
    let known = request.header("if-none-match").unwrap_or_default();
    let is_known = known.split(',').any(|known| known.trim().trim_start_matches("W/") == tag);
    let headers = vec![
        ("content-type", media.to_owned()),
        ("cache-control", caching),
        ("etag", tag),
        ("content-security-policy", "default-src 'none'; style-src 'unsafe-inline'; sandbox".to_owned()),
        ("x-content-type-options", "nosniff".to_owned()),
    ];
    let (status, body) = if is_known && status == 200 { (304, Vec::new()) } else { (status, body.into_bytes()) };
    Response { headers, ..Response::new(status, body) }
}

/// The badge of a pool: its name, and how many of its locks can be taken.
#[must_use]
pub fn badge(request: &Request, name: &str, pool: Option<&PoolSummary>) -> Response {
    let (state, colour) = match pool {
        None => ("no such pool".to_owned(), "#6b7280"),
        Some(pool) if pool.locks == 0 => ("empty".to_owned(), "#6b7280"),
        Some(pool) if pool.waiting > 0 => (format!("{} waiting", pool.waiting), "#b91c1c"),
        Some(pool) if pool.free == 0 => ("held".to_owned(), "#b45309"),
        Some(pool) if pool.locks == 1 => ("free".to_owned(), "#15803d"),
        Some(pool) => (format!("{} of {} free", pool.free, pool.locks), "#15803d"),
    };
    let short = cut(name, BADGE_NAME);
    let name = if short.len() < name.len() { format!("{short}…") } else { name.to_owned() };
    let width = |text: &str| escape(text).chars().count() * CHARACTER + 12;
    let (left, right) = (width(&name), width(&state));
    let (name, whole) = (xml(&name), left + right);
    let body = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{whole}\" height=\"20\" role=\"img\" \
         aria-label=\"{name}: {state}\"><title>{name}: {state}</title>\
         <rect width=\"{left}\" height=\"20\" fill=\"#374151\"/>\
         <rect x=\"{left}\" width=\"{right}\" height=\"20\" fill=\"{colour}\"/>\
         <g fill=\"#fff\" text-anchor=\"middle\" font-family=\"Verdana,DejaVu Sans,sans-serif\" font-size=\"11\">\
         <text x=\"{}\" y=\"14\">{name}</text><text x=\"{}\" y=\"14\">{state}</text></g></svg>\n",
        left / 2,
        left + right / 2,
    );
    let status = if pool.is_some() { 200 } else { 404 };
    document(request, status, "image/svg+xml", format!("private, max-age={BADGE_AGE}"), body)
}

/// The feed of a pool, the newest of `entries` first.
#[must_use]
pub fn feed(request: &Request, store: &str, pool: &str, entries: &[ChangeView]) -> Response {
    let id = format!("urn:locker:{}:{}", xml(store), xml(&encode(pool)));
    let page = format!("/pools/{}", xml(&encode(pool)));
    let updated = entries.first().map_or("1970-01-01T00:00:00.000Z", |entry| entry.at.as_str());
    let mut body = format!(
        "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<feed xmlns=\"http://www.w3.org/2005/Atom\">\n<id>{id}</id>\n\
         <title>Locks of pool {}</title>\n<updated>{}</updated>\n<author><name>locker</name></author>\n\
         <link rel=\"alternate\" type=\"text/html\" href=\"{page}\"/>\n\
         <link rel=\"self\" type=\"application/atom+xml\" href=\"{page}.atom\"/>\n",
        xml(pool),
        xml(updated),
    );
    for (n, entry) in entries.iter().enumerate() {
        // Several entries may have one revision; the place among them, from the oldest on, never changes.
        let later = entries[n + 1..].iter().take_while(|other| other.revision == entry.revision).count();
        let link = entry.claim.as_ref().map_or(page.clone(), |claim| format!("/claims/{}", xml(&encode(claim))));
        let by = who::owner(&entry.owner, "somebody");
        body += &format!(
            "<entry>\n<id>{id}:{}.{later}</id>\n<title>{}</title>\n<updated>{}</updated>\n\
             <author><name>{}</name></author>\n<link href=\"{link}\"/>\n<content type=\"text\">{}</content>\n</entry>\n",
            entry.revision,
            xml(&title(entry)),
            xml(&entry.at),
            xml(&by),
            xml(&content(entry, &by)),
        );
    }
    body += "</feed>\n";
    document(request, 200, "application/atom+xml; charset=utf-8", "private, no-cache".to_owned(), body)
}

fn title(entry: &ChangeView) -> String {
    let locks: Vec<&str> = entry.locks.iter().map(|lock| lock.lock.as_str()).collect();
    format!("{}: {}", entry.kind.word(), locks.join(", "))
}

fn content(entry: &ChangeView, by: &str) -> String {
    let mut words = vec![format!("{} by {by}", title(entry))];
    words.extend(entry.held.as_ref().map(|held| format!("held for {held}")));
    words.extend(entry.waited.as_ref().map(|waited| format!("waited for {waited}")));
    words.extend(entry.reason.as_ref().map(|reason| format!("because {reason:?}")));
    words.join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        assert_eq!(xml("<a b='\"'>&\u{1b}\u{ffff}"), "&lt;a b=&apos;&quot;&apos;&gt;&amp;\\u{1b}\u{fffd}");
    }
}
