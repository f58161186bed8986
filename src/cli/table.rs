//! Tables for people. Each column is as wide as its widest cell, and every cell is escaped.

use crate::wire::escape::escape;

/// How a cell is shown on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Busy,
    Head,
}

/// One cell.
pub(super) struct Cell(String, Tone);

/// A plain cell.
pub(super) fn cell(text: impl AsRef<str>) -> Cell {
    toned(text, Tone::Plain)
}

/// A cell with a tone.
pub(super) fn toned(text: impl AsRef<str>, tone: Tone) -> Cell {
    Cell(escape(text.as_ref()), tone)
}

/// The text of a table: a head, then one line for each row.
pub(super) fn text<const N: usize>(head: [&str; N], rows: Vec<[Cell; N]>, coloured: bool) -> String {
    let rows: Vec<[Cell; N]> = std::iter::once(head.map(|text| toned(text, Tone::Head))).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].0.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..N).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, Cell(content, tone)) in row.iter().enumerate() {
            let pad = if column + 1 == N { 0 } else { widths[column] - content.chars().count() + 2 };
            text += &paint(content, *tone, coloured);
            text += &" ".repeat(pad);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

fn paint(text: &str, tone: Tone, coloured: bool) -> String {
    let code = match tone {
        _ if !coloured => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Head => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}
