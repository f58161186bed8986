//! The terminal of `locker watch`: another screen, keys without Enter, and everything as it was at the end.

use std::io::{IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// The other screen, no cursor, no wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// All of that back.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// Rows of a terminal that does not say how many it has.
const ROWS: usize = 24;
/// A key that does nothing.
const NO_KEY: u8 = 0;

/// A terminal that shows a picture, until it is dropped.
pub(super) struct Screen {
    /// What the terminal was set to; `None` when stdin is none.
    before: Option<Termios>,
}

impl Screen {
    /// Takes the terminal over; each key goes to `keys`, until that says that nobody listens any more.
    pub(super) fn enter(keys: impl Fn(u8) -> bool + Send + 'static) -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut now = before.clone();
            now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            now.special_codes[SpecialCodeIndex::VMIN] = 1;
            now.special_codes[SpecialCodeIndex::VTIME] = 0;
            // Suspended or killed by a key it would leave the terminal as it is now; Ctrl-C is heard.
            now.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
            now.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
            tcsetattr(&stdin, OptionalActions::Now, &now)?;
        }
        let screen = Self { before };
        print(ENTER)?;
        if screen.before.is_some() {
            // It ends with the process: a read from a terminal cannot be called off.
            std::thread::Builder::new().name("keys".into()).spawn(move || {
                let mut key = [0];
                while matches!(std::io::stdin().read(&mut key), Ok(1)) && keys(key[0]) {}
            })?;
        }
        Ok(screen)
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = print(LEAVE);
        if let Some(before) = &self.before {
            let _ = tcsetattr(std::io::stdin(), OptionalActions::Flush, before);
        }
    }
}

fn print(text: &str) -> std::io::Result<()> {
    let mut stdout = std::io::stdout();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// How many rows the terminal has now.
pub(super) fn rows() -> usize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 => usize::from(size.ws_row),
        _ => ROWS,
    }
}

/// What fits of title, note and body, drawn over the picture before. The terminal cuts long lines itself.
pub(super) fn picture(title: &str, note: &str, body: &str, rows: usize) -> String {
    let head = [title, note, ""];
    let all: Vec<&str> = head.into_iter().chain(body.lines()).collect();
    let mut shown: Vec<String> = all.iter().take(rows).map(|line| (*line).to_owned()).collect();
    let hidden = all.len().saturating_sub(rows);
    if hidden > 0
        && let Some(last) = shown.last_mut()
    {
        *last = format!("... and {} more lines", hidden + 1);
    }
    // Each line clears what is right of it, the last one what is below.
    format!("\x1b[H{}\x1b[K\x1b[J", shown.join("\x1b[K\r\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_fits_its_terminal() {
        assert_eq!(picture("t", "n", "a\nb\n", 24), "\x1b[Ht\x1b[K\r\nn\x1b[K\r\n\x1b[K\r\na\x1b[K\r\nb\x1b[K\x1b[J");
        let cut = picture("t", "n", "a\nb\nc\n", 5);
        assert!(cut.contains("a\x1b[K\r\n... and 2 more lines") && cut.lines().count() == 5, "{cut:?}");
    }
}
