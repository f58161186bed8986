//! The fields of a line of text, as `tracing-subscriber` writes them, in less time: it looks at each character of a text as
//! if that might have to be escaped.

use std::fmt::{self, Debug};

use tracing::field::{Field, Visit};
use tracing_subscriber::field::{RecordFields, VisitOutput as _};
use tracing_subscriber::fmt::FormatFields;
use tracing_subscriber::fmt::format::{DefaultVisitor, Writer};

pub(super) struct Fields;

impl<'w> FormatFields<'w> for Fields {
    fn format_fields<R: RecordFields>(&self, writer: Writer<'w>, fields: R) -> fmt::Result {
        let mut visitor = Visitor(DefaultVisitor::new(writer, true));
        fields.record(&mut visitor);
        visitor.0.finish()
    }
}

struct Visitor<'w>(DefaultVisitor<'w>);

impl Visit for Visitor<'_> {
    fn record_str(&mut self, field: &Field, value: &str) {
        if is_plain(value) && field.name() != MESSAGE {
            self.0.record_debug(field, &format_args!("\"{value}\""));
        } else {
            self.0.record_str(field, value);
        }
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.0.record_error(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.record_debug(field, value);
    }
}

/// The field that is written without its name and without quotes.
const MESSAGE: &str = "message";

/// Whether `{:?}` would write this as it is, in quotes.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|byte| matches!(byte, b' '..=b'~') && byte != b'"' && byte != b'\\')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_text_is_what_debug_makes_of_it() {
        for byte in 0..=127_u8 {
            let text = format!("a{}b'", char::from(byte));
            let debug = format!("{text:?}");
            assert_eq!(is_plain(&text), debug == format!("\"{text}\""), "{debug}");
        }
        assert!(!is_plain("\u{e9}"));
    }
}
