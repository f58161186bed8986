//! The only way for text from outside to reach a terminal, a build log or a log line.

use std::fmt::{self, Write as _};

/// Whether a terminal may act on this character or show it in a misleading way: control characters, line and paragraph
/// separators, and marks that change the direction of text.
fn is_unsafe(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{feff}')
        || ('\u{202a}'..='\u{202e}').contains(&c)
        || ('\u{2066}'..='\u{2069}').contains(&c)
}

/// Text shown with every unsafe character as `\u{..}`, newlines and tabs included.
#[derive(Debug, Clone, Copy)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            c if is_unsafe(c) => write!(f, "\\u{{{:x}}}", u32::from(c)),
            c => f.write_char(c),
        })
    }
}

/// `text` on one line and harmless to a terminal.
#[must_use]
pub fn escape(text: &str) -> String {
    if text.bytes().all(|byte| matches!(byte, b' '..=b'~')) { text.to_owned() } else { Escaped(text).to_string() }
}

/// JSON text with every unsafe character as `\uXXXX`, which parses to the same value. Such characters occur only inside
/// strings; line breaks between values stay.
#[must_use]
pub fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len());
    for c in json.chars() {
        if is_unsafe(c) && c != '\n' {
            // All unsafe characters fit in 16 bits. Writing to a String cannot fail.
            let _ = write!(escaped, "\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

/// A name as one word of a command that people may copy into a shell: a shell finds nothing to carry out in it. Somebody
/// else may have chosen the name.
#[must_use]
pub fn shell_word(name: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "-_./@:%+".contains(c);
    if !name.is_empty() && name.chars().all(is_plain) {
        return name.to_owned();
    }
    format!("'{}'", name.replace('\'', r"'\''"))
}

/// The longest prefix of `text` that has at most `max` bytes and does not split a character.
#[must_use]
pub fn cut(text: &str, max: usize) -> &str {
    let mut end = max.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_shell_reads_a_word_as_it_is() {
        for plain in ["staging", "cf/fresh-1", "größe", "a@b:c+d%e"] {
            assert_eq!(shell_word(plain), plain);
        }
        for name in ["", "my pool", "$(touch x)", "`id`", "a'b", "'; id; '", "\"$HOME\"", "a\\", "~", "*", "#x", "!!"] {
            let script = format!("printf %s {}", shell_word(name));
            let read = Command::new("sh").args(["-c", &script]).output().unwrap();
            assert_eq!(String::from_utf8(read.stdout).unwrap(), name, "{script}");
        }
    }

    #[test]
    fn nothing_that_a_terminal_acts_on_gets_through() {
        let cases = [
            ("plain ä 🔒 a\\b", "plain ä 🔒 a\\b"),
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nb\tc", "a\\u{d}\\u{a}b\\u{9}c"),
            ("\u{9b}1m\0", "\\u{9b}1m\\u{0}"),
            ("\u{202e}gpj", "\\u{202e}gpj"),
        ];
        for (text, shown) in cases {
            assert_eq!(escape(text), shown);
            let json = serde_json::to_string_pretty(&[text]).unwrap();
            let escaped = escape_json(&json);
            assert!(!escaped.chars().any(|c| is_unsafe(c) && c != '\n'), "{escaped}");
            assert_eq!(serde_json::from_str::<[String; 1]>(&escaped).unwrap(), [text]);
        }
    }
}
