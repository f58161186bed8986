//! Bars, as SVG made on the server. They stretch with their cell; their colours are those of the style.

use maud::{Markup, html};

use crate::core::figures::Spread;
use crate::core::time::Span;

/// The width of each plot in its own units.
const WIDTH: f64 = 1_000.0;

/// From spans to places on an axis: logarithmic, because waits of seconds and of days are on one plot.
pub(super) struct Scale {
    longest: f64,
}

impl Scale {
    pub fn up_to(longest: Span) -> Self {
        Self { longest: log(longest).max(log(Span::secs(1))) }
    }

    /// The place of a span, from 0 to [`WIDTH`].
    fn place(&self, span: Span) -> f64 {
        (log(span) / self.longest * WIDTH).min(WIDTH)
    }

    /// The times that are marked.
    fn marks(&self) -> impl Iterator<Item = (f64, &'static str)> {
        const MARKS: [(u64, &str); 6] =
            [(1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3_600, "1 h"), (86_400, "1 day")];
        let marks = MARKS.map(|(seconds, name)| (self.place(Span::secs(seconds)), name));
        let mut last = -f64::INFINITY;
        marks.into_iter().filter(move |(place, _)| {
            let fits = *place < WIDTH && place - last > WIDTH / 7.0;
            if fits {
                last = *place;
            }
            fits
        })
    }

    /// The axis: where some times are.
    pub fn axis(&self) -> Markup {
        html! {
            svg.axis viewBox="0 0 250 14" width="100%" height="14" focusable="false" {
                @for (place, name) in self.marks() {
                    text x=(units(place / 4.0)) y="11" { (name) }
                }
            }
        }
    }
}

/// A bar to the 95th percentile, a line to the longest, and a mark at the median.
pub(super) fn spread_bar(scale: &Scale, spread: Spread) -> Markup {
    let [p50, p95, longest] = [spread.p50, spread.p95, spread.longest].map(|span| scale.place(span));
    html! {
        svg viewBox="0 0 1000 14" width="100%" height="14" preserveAspectRatio="none" focusable="false" {
            @for (place, _) in scale.marks() { rect.mark x=(units(place)) y="0" width="2" height="14" {} }
            rect.longest x="0" y="6" width=(units(longest.max(3.0))) height="2" {}
            rect.p95 x="0" y="3" width=(units(p95.max(3.0))) height="8" {}
            rect.p50 x=(units((p50 - 4.0).max(0.0))) y="0" width="8" height="14" {}
        }
    }
}

/// A bar for a share from 0 to 1.
pub(super) fn share_bar(share: f64) -> Markup {
    html! {
        svg viewBox="0 0 1000 14" width="100%" height="14" preserveAspectRatio="none" focusable="false" {
            rect.longest x="0" y="6" width="1000" height="2" {}
            rect.p95 x="0" y="3" width=(units(share * WIDTH)) height="8" {}
        }
    }
}

/// A number of an SVG.
fn units(number: f64) -> String {
    format!("{number:.0}")
}

#[allow(clippy::cast_precision_loss, reason = "a place on a plot")]
fn log(span: Span) -> f64 {
    (span.0 as f64 / 1_000.0).ln_1p()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_grow_with_spans_and_stay_on_the_plot() {
        let scale = Scale::up_to(Span::hours(2));
        let places: Vec<f64> = [0, 1, 60, 3_600, 7_200, 90_000].map(|s| scale.place(Span::secs(s))).to_vec();
        assert!(places.is_sorted() && places[0] < 1.0 && places[5] > WIDTH - 1.0, "{places:?}");
        let marks: Vec<&str> = scale.marks().map(|(_, name)| name).collect();
        assert_eq!(marks, ["1 s", "10 s", "1 min", "10 min", "1 h"]);
        let nothing = Scale::up_to(Span(0));
        assert!(nothing.place(Span(0)) < 1.0);
        let bar = spread_bar(&nothing, Spread::default()).0;
        assert!(!bar.contains("NaN") && !bar.contains("=\"-"), "{bar}");
    }
}
