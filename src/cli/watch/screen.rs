//! The terminal of `locker watch`: the alternate screen, keys without Enter, and everything restored at the end.

use std::io::{IsTerminal as _, Read as _, Write as _};

use rustix::termios::{LocalModes, OptionalActions, SpecialCodeIndex, Termios, tcgetattr, tcgetwinsize, tcsetattr};

/// Switches to the alternate screen, hides the cursor, and turns off the wrapping of long lines.
const ENTER: &str = "\x1b[?1049h\x1b[?25l\x1b[?7l";
/// Undoes all of that.
const LEAVE: &str = "\x1b[?7h\x1b[?25h\x1b[?1049l";
/// The number of rows to assume if the terminal does not tell.
const ROWS: usize = 24;
/// A key that does nothing.
const NO_KEY: u8 = 0;

/// The terminal while it shows a picture. Dropping this restores it.
pub(super) struct Screen {
    /// The terminal's original settings; `None` if stdin is not a terminal.
    before: Option<Termios>,
}

impl Screen {
    /// Takes over the terminal. Each key goes to `keys`, until `keys` returns false because nobody listens any more.
    pub(super) fn enter(keys: impl Fn(u8) -> bool + Send + 'static) -> std::io::Result<Self> {
        let stdin = std::io::stdin();
        let before = if stdin.is_terminal() { tcgetattr(&stdin).ok() } else { None };
        if let Some(before) = &before {
            let mut now = before.clone();
            now.local_modes.remove(LocalModes::ICANON | LocalModes::ECHO);
            now.special_codes[SpecialCodeIndex::VMIN] = 1;
            now.special_codes[SpecialCodeIndex::VTIME] = 0;
            // If a key suspended or killed this process, the terminal would not be restored. Ctrl-C arrives as a key.
            now.special_codes[SpecialCodeIndex::VSUSP] = NO_KEY;
            now.special_codes[SpecialCodeIndex::VQUIT] = NO_KEY;
            tcsetattr(&stdin, OptionalActions::Now, &now)?;
        }
        let screen = Self { before };
        print(ENTER)?;
        if screen.before.is_some() {
            // This thread ends with the process, because a read from a terminal cannot be cancelled.
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
        // If the terminal is gone, there is nothing to restore.
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

/// The current number of rows of the terminal.
pub(super) fn rows() -> usize {
    match tcgetwinsize(std::io::stdout()) {
        Ok(size) if size.ws_row > 0 => usize::from(size.ws_row),
        _ => ROWS,
    }
}

/// As much of title, note and body as fits, drawn over the previous picture. The terminal itself cuts long lines.
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
    // Each line clears the rest of its row, and the last line clears everything below.
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
