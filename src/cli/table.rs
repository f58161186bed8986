//! Tables for people. Each column is as wide as its widest cell, and every cell is escaped.

use rustix::termios::tcgetwinsize;

use super::output::is_coloured;
use crate::client::when;
use crate::core::time::WallMs;
use crate::env::Env;
use crate::wire::escape::escape;

/// How a cell is shown on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Good,
    Busy,
    Bad,
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

/// How tables are shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    pub coloured: bool,
    /// The width of the terminal in characters; `None` if lines may be of any length.
    pub width: Option<usize>,
    /// For times that are shown as "so long".
    pub now: WallMs,
}

impl Look {
    /// For standard output.
    pub(super) fn of(env: &Env<'_>) -> Self {
        let size = env.is_terminal.then(|| tcgetwinsize(std::io::stdout()).ok()).flatten();
        let width = size.map(|size| usize::from(size.ws_col)).filter(|width| *width > 0);
        Self { coloured: is_coloured(env), width, now: when::now(&*env.clock) }
    }
}

/// The narrowest that a column is made so that a table fits the terminal.
const NARROWEST: usize = 10;

/// The text of a table: a head, then one line for each row. A column in which no row has anything is left out. If the
/// table is wider than the terminal, the columns named in `elastic` are cut, the widest first.
pub(super) fn text<const N: usize>(head: [&str; N], rows: Vec<[Cell; N]>, elastic: &[usize], look: Look) -> String {
    let is_used = |column: &usize| rows.is_empty() || rows.iter().any(|row| !row[*column].0.is_empty());
    let columns: Vec<usize> = (0..N).filter(is_used).collect();
    let rows: Vec<[Cell; N]> = std::iter::once(head.map(|text| toned(text, Tone::Head))).chain(rows).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].0.chars().count()).max().unwrap_or(0);
    let mut widths: Vec<usize> = (0..N).map(width).collect();
    fit(&mut widths, &columns, elastic, look.width);
    let mut text = String::new();
    for row in &rows {
        for column in &columns {
            let Cell(content, tone) = &row[*column];
            let content = cut(content, widths[*column]);
            let pad = if Some(column) == columns.last() { 0 } else { widths[*column] + 2 - content.chars().count() };
            text += &paint(&content, *tone, look.coloured);
            text += &" ".repeat(pad);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

/// Narrows the widest elastic columns until the table fits, or none can be narrowed further.
fn fit(widths: &mut [usize], columns: &[usize], elastic: &[usize], width: Option<usize>) {
    let Some(most) = width else { return };
    let total = |widths: &[usize]| columns.iter().map(|column| widths[*column] + 2).sum::<usize>().saturating_sub(2);
    while total(widths) > most {
        let wide = elastic.iter().filter(|column| columns.contains(column) && widths[**column] > NARROWEST);
        let Some(widest) = wide.max_by_key(|column| widths[**column]) else { return };
        widths[*widest] -= 1;
    }
}

/// The text, or its beginning and a sign that there is more.
fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn paint(text: &str, tone: Tone, coloured: bool) -> String {
    let code = match tone {
        _ if !coloured => return text.to_owned(),
        Tone::Plain => return text.to_owned(),
        Tone::Good => "32",
        Tone::Busy => "33",
        Tone::Bad => "31",
        Tone::Head => "1",
    };
    format!("\u{1b}[{code}m{text}\u{1b}[0m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_fits_its_terminal() {
        let table = |width| {
            let rows = vec![
                [cell("a"), cell("a rather long text about it"), cell(""), cell("0123456789")],
                [cell("b"), cell("short"), cell(""), cell("x")],
            ];
            text(["N", "WHO", "EMPTY", "ID"], rows, &[1], Look { coloured: false, width, now: WallMs(0) })
        };
        let whole = "N  WHO                          ID\na  a rather long text about it  0123456789\nb  short                        x\n";
        assert_eq!(table(None), whole);
        assert_eq!(table(Some(42)), whole);
        let narrow = table(Some(30));
        assert!(narrow.contains("a  a rather long …  0123456789\n"), "{narrow}");
        assert!(narrow.lines().all(|line| line.chars().count() <= 30), "{narrow}");
        // A column is never cut to nothing.
        assert!(table(Some(1)).contains("a  a rather …  0123456789\n"));
    }
}
