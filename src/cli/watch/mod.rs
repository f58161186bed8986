//! `locker watch`: a live view. On a terminal it redraws a picture at each change; elsewhere it prints one line for
//! each change.
//!
//! - `feed`: asks the server in its own thread, and delivers what is new.
//! - `screen`: the terminal, which is restored at the end.

mod feed;
mod screen;

use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use clap::Args;

use self::feed::{News, Seen};
use self::screen::Screen;
use super::output::{CliError, print_line, say};
use super::status;
use super::table::Look;
use crate::client::acquire::Timing;
use crate::client::{Client, who};
use crate::core::names::{NameError, PoolName};
use crate::env::Env;
use crate::wire::api::ChangeView;
use crate::wire::errors::exit;
use crate::wire::escape::escape;

/// The time between two looks at the size of the terminal.
const LOOK: Duration = Duration::from_millis(500);

/// Arguments of `watch`.
#[derive(Debug, Args)]
#[command(after_help = "\
On a terminal, q or Ctrl-C ends it. Elsewhere it prints the current state, then one line for each change.

Examples:
  locker watch
  locker watch staging
  locker watch staging | grep --line-buffered lost")]
pub(super) struct WatchArgs {
    /// Watch the locks and the queue of this pool (default: the list of pools)
    pool: Option<PoolName>,
}

impl WatchArgs {
    /// To watch this pool, or the list of pools.
    pub(super) fn of(pool: Option<&str>) -> Result<Self, CliError> {
        let pool = pool.map(str::parse).transpose().map_err(|error: NameError| CliError::usage(error.to_string()))?;
        Ok(Self { pool })
    }
}

/// What the display reacts to.
enum Event {
    News(News),
    Key(u8),
    Signal(crate::env::Signal),
}

pub(super) fn run(args: &WatchArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    let timing = Timing::of(env).map_err(CliError::usage)?;
    let (tell, events) = mpsc::channel();
    let (news, signals) = (tell.clone(), tell.clone());
    env.signals.on_signal(move |signal| drop(signals.send(Event::Signal(signal))));
    let pool = args.pool.as_ref().map(|pool| pool.as_str().to_owned());
    feed::start(client.clone(), pool, timing.retry_max, move |what| news.send(Event::News(what)).is_ok())?;
    if env.is_terminal {
        let keys = move |key| tell.send(Event::Key(key)).is_ok();
        let _as_it_was = Screen::enter(keys)?;
        draw_until_ended(&events, &title(args, client), env)
    } else {
        write_until_ended(&events, env)
    }
}

fn title(args: &WatchArgs, client: &Client) -> String {
    let what = args.pool.as_ref().map_or("all pools".to_owned(), |pool| format!("pool {:?}", pool.as_str()));
    escape(&format!("locker watch: {what} at {}  (q ends)", client.server()))
}

/// Draws the picture until a key, a signal or a refusal ends it.
fn draw_until_ended(events: &Receiver<Event>, title: &str, env: &mut Env<'_>) -> Result<u8, CliError> {
    let (mut body, mut as_of, mut away, mut drawn) = (String::new(), String::new(), String::new(), String::new());
    loop {
        let picture = screen::picture(title, &format!("{as_of}{away}"), &body, screen::rows());
        if picture != drawn {
            env.stdout.write_all(picture.as_bytes())?;
            env.stdout.flush()?;
            drawn = picture;
        }
        match events.recv_timeout(LOOK) {
            Ok(Event::News(News::Now { seen, .. })) => {
                as_of = format!("as of {}", time_now(env));
                away.clear();
                body = match seen {
                    Seen::Pool(view) => status::pool_text(&view, &status::Shown::default(), Look::of(env)),
                    Seen::Pools(pools) => status::pools_text(&pools, Look::of(env)),
                };
            }
            Ok(Event::News(News::Away(why))) => away = format!(" {}", escape(&why)),
            Ok(Event::News(News::Refused(error))) => return Err(error.into()),
            Ok(Event::Key(b'q' | b'Q')) => return Ok(exit::OK),
            Ok(Event::Key(_)) | Err(RecvTimeoutError::Timeout) => {}
            // Ctrl-C is a normal way to end it. Other signals give their usual exit code.
            Ok(Event::Signal(crate::env::Signal::Int)) => return Ok(exit::OK),
            Ok(Event::Signal(signal)) => return Ok(signal.exit_code()),
            Err(RecvTimeoutError::Disconnected) => return Ok(exit::FAILED),
        }
    }
}

/// Prints lines until a signal or a refusal ends it.
fn write_until_ended(events: &Receiver<Event>, env: &mut Env<'_>) -> Result<u8, CliError> {
    let (mut first, mut away) = (true, false);
    while let Ok(event) = events.recv() {
        match event {
            Event::News(News::Now { seen, changes }) => {
                away = false;
                if std::mem::take(&mut first) {
                    let text = match &seen {
                        Seen::Pool(view) => status::pool_text(view, &status::Shown::default(), Look::of(env)),
                        Seen::Pools(pools) => status::pools_text(pools, Look::of(env)),
                    };
                    env.stdout.write_all(text.as_bytes())?;
                    env.stdout.flush()?;
                }
                for change in &changes {
                    print_line(env, &line(change))?;
                }
            }
            Event::News(News::Away(why)) => {
                if !std::mem::replace(&mut away, true) {
                    say(env, &format!("{why}; retrying"));
                }
            }
            Event::News(News::Refused(error)) => return Err(error.into()),
            Event::Key(_) => {}
            Event::Signal(signal) => return Ok(signal.exit_code()),
        }
    }
    Ok(exit::FAILED)
}

/// One entry of the history in one line.
fn line(change: &ChangeView) -> String {
    let mut words = vec![change.at.clone(), change.kind.word().to_owned()];
    let locks = change.locks.iter().map(|lock| format!("{:?} of pool {:?}", lock.lock, lock.pool));
    let what = locks.collect::<Vec<_>>().join(", ");
    let pools = || format!("pool {}", change.pools.iter().map(|p| format!("{p:?}")).collect::<Vec<_>>().join(", "));
    words.push(if what.is_empty() { pools() } else { what });
    words.extend(Some(who::owner(&change.owner, "")).filter(|owner| !owner.is_empty()).map(|o| format!("by {o}")));
    words.extend(change.how.as_ref().map(|how| format!("({how})")));
    words.extend(change.claim.as_ref().map(|claim| format!("claim {claim}")));
    words.extend(change.reason.as_ref().map(|reason| format!("because {reason:?}")));
    words.join(" ")
}

fn time_now(env: &Env<'_>) -> String {
    crate::wire::text::time(crate::core::time::WallMs(env.clock.wall_ms()))
}
