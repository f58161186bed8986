//! The language of the scenarios. One line is one operation; the text after `=>` is how the answer must begin:
//!
//! ```text
//! - settings declared_only listen=20s history=5       (first line only; any setting by its name)
//!     a  ask env*2,db/main confirm build=7  => granted db/main env/1 env/2
//!     b  ask env[gpu=yes] key=k who=w       => waiting 1
//! +5s c  ask env try                        => busy
//! ```
//!
//! | operation | |
//! |---|---|
//! | `ID ask WANT..` | `PUT`; `env` any lock of a pool, `env*3` three, `env[gpu=yes]` with a label, `env/1+2` these; several pools with `,` |
//! | .. `confirm try park=N over=N run=R key=K who=W build=B ttl=D give_up=D` | words about the request |
//! | .. `priority=N supersede=NAME ci=URL job=J vars=V scope=S if_empty` | more words about the request |
//! | `ID again ..` | the same `PUT` again; `park`, `over`, `run` and `try` are given again |
//! | `ID confirm [wrong\|first] [run=R]` | with its present fence, with a fence of no claim, with the first fence that it had |
//! | `ID renew [wrong\|first\|unnamed] [run=R]`, `ID deliver [wrong] [own\|unsaid]` | the same for renewals; an `in` has fetched it, of another build, its own, or who knows |
//! | `ID break [drain]`, `ID cancel`, `ID move first\|last\|ID` | by hand, by somebody else |
//! | `- quarantine P/L [for=D]`, `- return P/L` | out of service and back |
//! | `ID left?` | how long the hold lasts |
//! | `- over B HOW [ago=D]`, `- suspect B [WHY]`, `- watched` | build B is over, or not known to be alive; the builds to ask about |
//! | `ID found B`, `- seeking` | the build that claim ID names by its place (`ask .. place=N`) is B; the claims without its id |
//! | `- past` | the builds of ended claims to ask about |
//! | `ID end [run=R] [by=P]` | `DELETE` |
//! | `ID release [build=B] [plain]` | a step of build B releases it, on a Concourse that runs builds again (`plain`: on another) |
//! | `- alive B`, `- reruns URL on\|off`, `- marked` | build B is running; what a Concourse says; the claims with a marked hold |
//! | `ID left N` | the client of park N disconnects |
//! | `ID ?` | look: phase, then locks, or place and presence, then `self_wait P/L=ID..` or `deadlock BUILD..` |
//! | `- pool P capacity=N order=O overtaking=backfill[:N] pick=P scope=S drain=D max_hold=D max_queue=N when_empty=W cut_short=keep op=O`, `- unpool P` | declare, remove; `- change P ..` with the same words changes what is named |
//! | `- add\|update P/L meta=M LABEL=V op=O [for=ID] [if_free]`, `- remove P/L claim=ID op=O`, `- move P/L to=P claim=ID ..`, `- note P[/L]` | locks |
//! | `- tick`, `- reconcile`, `- restart [now]` | time, repair, a new life of the server (with a check that nothing has changed) |
//! | `- queue P`, `- free P`, `- lock P/L`, `- history P [N]`, `- count P` (entries), `- notices`, `- stuck` | look |
//!
//! Time stands still except for `+D` at the start of a line. Within that time every timer gets its own step, as in the
//! engine; `+D!` leaps instead (a server that was stopped). After every line the harness checks the invariants, that no
//! fence was given twice, and that the store was told everything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use crate::core::claim::{
    Ask, BuildEnd, BuildOver, BuildRef, Claim, Concern, Labels, Owner, Part, Phase, Presence, Priority, Scope, Terms,
    Want,
};
use crate::core::command::{AskClaim, By, Command, MoveTo, Refusal, Reply, Wait};
use crate::core::history::{Change, ChangeKind};
use crate::core::invariants;
use crate::core::names::{ClaimId, Digest, Fence, LockName, OpId, ParkId, PoolName, Reason, Revision, Text};
use crate::core::pool::{CutShort, Order, Overtaking, Pick, Policy, PolicyChange, Rule, WhenEmpty};
use crate::core::restart::restarted;
use crate::core::settings::Settings;
use crate::core::state::Stuck;
use crate::core::state::{Notice, State};
use crate::core::test_store::{TestStore, standing};
use crate::core::time::{Now, Span, WallMs};

/// Plays a scenario.
///
/// # Panics
/// At the first line whose answer is another one, or after which something is broken.
pub(super) fn play(text: &str) {
    play_checked(text, |_| true);
}

/// Plays a large scenario: the whole state is checked after every thousandth line and at the end.
///
/// # Panics
/// As [`play`].
pub(super) fn play_at_scale(text: &str) {
    let last = text.lines().count() - 1;
    play_checked(text, |number| number % 1_000 == 999 || number == last);
}

/// Plays a scenario without expectations; the locks of all `claimed` entries, in their order.
pub(super) fn locks_taken(text: &str) -> Vec<String> {
    let mut server = Server::new();
    for line in text.lines() {
        let said = line.split("=>").next().unwrap_or_default();
        server.line(said.trim()).unwrap_or_else(|bad| panic!("{line}: {bad}"));
    }
    let claimed = server.store.history().filter(|entry| entry.listed.kind == ChangeKind::Claimed);
    claimed.flat_map(|entry| entry.locks).map(|(_, lock)| lock.to_string()).collect()
}

/// Plays a scenario without expectations; the entries that it writes, in their order.
pub(in crate::core) fn entries_of(text: &str) -> Vec<Change> {
    let mut server = Server::new();
    for line in text.lines() {
        server.line(line.trim()).unwrap_or_else(|bad| panic!("{line}: {bad}"));
    }
    server.store.entries().cloned().collect()
}

/// Plays a scenario without expectations; whether a deadline then goes on over a restart.
pub(super) fn has_long_deadline(text: &str) -> bool {
    let mut server = Server::new();
    for line in text.lines() {
        server.line(line.trim()).unwrap_or_else(|bad| panic!("{line}: {bad}"));
    }
    server.state.has_long_deadline(server.now)
}

fn play_checked(text: &str, is_checked: impl Fn(usize) -> bool) {
    let mut server = Server::new();
    for (number, line) in text.lines().enumerate() {
        let words = line.split(" #").next().unwrap_or_default().trim();
        let (said, expected) = words.split_once("=>").unwrap_or((words, ""));
        let answer = server.line(said.trim()).unwrap_or_else(|bad| panic!("line {number}: {line}\n{bad}"));
        let expected: Vec<&str> = expected.split_whitespace().collect();
        let answered: Vec<&str> = answer.split_whitespace().collect();
        let looks = ["- queue", "- free", "- notices", "- count", "- stuck", "- watched", "- past", "- marked"]
            .iter()
            .any(|look| said.contains(look));
        let fits = if looks { answered == expected } else { answered.starts_with(&expected) };
        assert!(fits, "line {number}: {line}\nanswered {answer:?}\n{:#?}", standing(&server.state));
        if is_checked(number) {
            server.check().unwrap_or_else(|broken| panic!("line {number}: {line}\nbroken: {broken}"));
        }
    }
}

/// The core with a store and a clock.
struct Server {
    state: State,
    store: TestStore,
    now: Now,
    asked: BTreeMap<String, AskClaim>,
    fences: BTreeMap<ClaimId, Vec<Fence>>,
    newest_fence: Fence,
    answers: BTreeMap<OpId, Revision>,
    notices: BTreeSet<Notice>,
}

type Args<'t> = BTreeMap<&'t str, &'t str>;
type Answer = Result<String, String>;

fn parse<T: std::str::FromStr>(text: &str) -> Result<T, String>
where
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|error| format!("{text:?}: {error}"))
}

fn span(text: &str) -> Result<Span, String> {
    let split = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(|| format!("{text:?} has no unit"))?;
    let count: u64 = parse(&text[..split])?;
    match &text[split..] {
        "ms" => Ok(Span(count)),
        "s" => Ok(Span::secs(count)),
        "m" => Ok(Span::mins(count)),
        "h" => Ok(Span::hours(count)),
        unit => Err(format!("unknown unit {unit:?}")),
    }
}

fn arg<T: std::str::FromStr>(args: &Args, name: &str) -> Result<Option<T>, String>
where
    T::Err: std::fmt::Display,
{
    args.get(name).map(|text| parse(text)).transpose()
}

fn span_arg(args: &Args, name: &str) -> Result<Option<Span>, String> {
    args.get(name).map(|text| span(text)).transpose()
}

impl Server {
    fn new() -> Self {
        let mut server = Self {
            state: State::default(),
            store: TestStore::default(),
            now: Now { wall: WallMs(1_800_000_000_000), ..Now::default() },
            asked: BTreeMap::new(),
            fences: BTreeMap::new(),
            newest_fence: Fence(0),
            answers: BTreeMap::new(),
            notices: BTreeSet::new(),
        };
        server.start(Settings::default());
        server
    }

    fn start(&mut self, settings: Settings) {
        self.state = restarted(self.store.load(), self.store.ended(), self.store.history(), settings, 7, self.now);
        self.settle();
    }

    /// What the engine does after each step: commit, then tell.
    fn settle(&mut self) {
        let changes = self.state.take_changes(self.now);
        self.store.commit(&changes);
        self.notices.extend(self.state.take_notices());
    }

    fn step(&mut self, command: Command) -> Result<Reply, Refusal> {
        let result = self.store.step(&mut self.state, command, self.now);
        self.settle();
        result
    }

    fn check(&mut self) -> Result<(), String> {
        invariants::check(&self.state)?;
        self.store.check_has_all_of(&self.state)?;
        let newest = self.newest_fence;
        for claim in self.state.snapshot.claims.values() {
            let Some(fence) = claim.fence() else { continue };
            let known = self.fences.entry(claim.id.clone()).or_default();
            if known.last() == Some(&fence) {
                continue;
            }
            if fence <= newest {
                return Err(format!("I2: claim {} got fence {fence} after {newest} was given", claim.id));
            }
            known.push(fence);
        }
        let all: Vec<Fence> = self.fences.values().flatten().copied().collect();
        let distinct: BTreeSet<Fence> = all.iter().copied().collect();
        if distinct.len() != all.len() {
            return Err("I2: two grants share a fence".into());
        }
        self.newest_fence = distinct.last().copied().unwrap_or(newest);
        Ok(())
    }

    fn line(&mut self, line: &str) -> Answer {
        let mut words = line.split_whitespace().peekable();
        if let Some(time) = words.next_if(|word| word.starts_with('+')) {
            self.advance(&time[1..])?;
        }
        let Some(who) = words.next() else { return Ok(String::new()) };
        let verb = words.next().ok_or("nothing to do")?;
        let rest: Vec<&str> = words.collect();
        let args: Args = rest.iter().map(|word| word.split_once('=').unwrap_or((*word, ""))).collect();
        let first = rest.first().copied().unwrap_or_default();
        match (who, verb) {
            ("-", "settings") => self.settings(&args),
            (
                "-",
                "pool" | "change" | "unpool" | "add" | "update" | "remove" | "move" | "note" | "quarantine" | "return",
            ) => self.declare(verb, first, &args),
            ("-", "tick") => self.command(Command::Tick),
            ("-", "reconcile") => self.command(Command::Reconcile),
            ("-", "restart") => self.restart(),
            ("-", "stuck") => Ok(self.stuck()),
            (id, "ask" | "again") => self.ask(id, verb, first, &args),
            (id, "confirm") => {
                let (id, fence) = (parse(id)?, self.fence(&parse(id)?, &args));
                self.command(Command::Confirm { id, run: arg(&args, "run")?, fence })
            }
            (id, "renew") => {
                let fence = (!args.contains_key("unnamed")).then(|| self.fence(&parse(id).unwrap(), &args));
                self.command(Command::Renew { id: parse(id)?, run: arg(&args, "run")?, fence })
            }
            (id, "deliver") => self.deliver(parse(id)?, &args),
            (id, "left?") => Ok(self.time_left(&parse(id)?)),
            ("-", "over") => {
                let how = build_end_of(rest.get(1).copied().unwrap_or_default())?;
                let ago = span_arg(&args, "ago")?;
                let at = ago.map(|ago| WallMs(self.now.wall.0 - ago.0));
                self.command(Command::BuildOver { build: build_of(first)?, how, at })
            }
            (id, "found") => self.command(Command::BuildFound { id: parse(id)?, build_id: parse(first)? }),
            ("-", "seeking") => {
                Ok(self.state.snapshot.seeking.iter().map(ClaimId::as_str).collect::<Vec<_>>().join(" "))
            }
            ("-", "suspect") => {
                let why = rest.get(1).map(|why| parse(why)).transpose()?;
                self.command(Command::Suspect { build: build_of(first)?, why })
            }
            ("-", "alive") => self.command(Command::Alive { build: build_of(first)? }),
            ("-", "reruns") => self.command(Command::Reruns { concourse: parse(first)?, on: args.contains_key("on") }),
            ("-", "marked") => Ok(self.marked()),
            (id, "release") => {
                let build = args.get("build").map(|id| build_of(id)).transpose()?;
                self.command(Command::Release {
                    id: parse(id)?,
                    build,
                    by: None,
                    may_mark: !args.contains_key("plain"),
                })
            }
            ("-", "watched") => Ok(self.watched()),
            ("-", "past") => {
                let ids: Vec<&str> = self.state.snapshot.past_builds.iter().map(|build| build.id.as_str()).collect();
                Ok(ids.join(" "))
            }
            ("-", _) => self.look_around(verb, first, &args),
            (id, "end") => {
                let (run, person) = (arg(&args, "run")?, arg(&args, "by")?);
                let by = person.map(|person| Arc::new(Owner { person: Some(person), ..Owner::default() }));
                self.command(Command::End { id: parse(id)?, run, by, reason: Reason::parse("done").ok() })
            }
            (id, "break") => {
                let (by, reason) = (Arc::new(person("Ada")), parse("why")?);
                self.command(Command::Break { id: parse(id)?, drains: args.contains_key("drain"), by, reason })
            }
            (id, "cancel") => {
                let (by, reason) = (Arc::new(person("Ada")), Reason::parse("why").ok());
                self.command(Command::Cancel { id: parse(id)?, by, reason })
            }
            (id, "move") => {
                let to = match first {
                    "first" => MoveTo::First,
                    "last" => MoveTo::Last,
                    before => MoveTo::Before(parse(before)?),
                };
                let by = By { reason: arg(&args, "reason")?, ..By::default() };
                self.command(Command::Move { id: parse(id)?, to, by })
            }
            (_, "left") => self.command(Command::Left { park: ParkId(parse(first)?) }),
            (id, "?") => Ok(self.look(&parse(id)?)),
            _ => Err(format!("unknown verb {verb:?}")),
        }
    }

    /// Lets time go by, with a step at each moment at which one is due; with `!` in one leap.
    fn advance(&mut self, time: &str) -> Result<(), String> {
        let (time, leaps) = time.strip_suffix('!').map_or((time, false), |time| (time, true));
        let span = span(time)?;
        let end = self.now.engine.plus(span);
        let wall = WallMs(self.now.wall.0 + span.0);
        while let Some(at) = self.state.next_timer().filter(|at| !leaps && *at <= end) {
            self.now.engine = at.max(self.now.engine);
            self.command(Command::Tick)?;
            self.check()?;
        }
        self.now = Now { engine: end, wall };
        Ok(())
    }

    fn settings(&mut self, args: &Args) -> Answer {
        let s = &mut self.state.settings;
        for (name, value) in args {
            match *name {
                "declared_only" => s.declared_only = true,
                "claims_make" => s.claims_make.push(parse(value)?),
                "history_bytes" => s.history_bytes = parse(value)?,
                "changes" => s.changes = parse(value)?,
                "ended" => s.ended_claims = parse(value)?,
                "ops" => s.ops = parse(value)?,
                "listen" => s.listen = span(value)?,
                "memory" => s.memory = span(value)?,
                "lease" => s.lease = span(value)?,
                "build_memory" => s.build_memory = span(value)?,
                "stuck_look" => s.stuck_look = span(value)?,
                "place" => s.place = span(value)?,
                "confirm" => s.confirm = span(value)?,
                name => return Err(format!("unknown setting {name:?}")),
            }
        }
        Ok(String::new())
    }

    fn command(&mut self, command: Command) -> Answer {
        let result = self.step(command);
        Ok(self.show(&result))
    }

    fn ask(&mut self, id: &str, verb: &str, wants: &str, args: &Args) -> Answer {
        let mut ask = match self.asked.get(id) {
            Some(before) if verb == "again" => AskClaim { run: None, wait: Wait::No, queue: true, ..before.clone() },
            _ => first_ask(id, wants, args)?,
        };
        ask.run = arg(args, "run")?;
        ask.queue = !args.contains_key("try");
        let (park, over) = (arg(args, "park")?.map(ParkId), arg(args, "over")?.map(ParkId));
        ask.wait = park.map(Wait::Park).or(over.map(Wait::Over)).unwrap_or(Wait::No);
        self.asked.insert(id.to_owned(), ask.clone());
        self.command(Command::Ask(Box::new(ask)))
    }

    fn fence(&self, id: &ClaimId, args: &Args) -> Fence {
        let known = self.fences.get(id);
        match known.and_then(|f| if args.contains_key("first") { f.first() } else { f.last() }) {
            Some(fence) if !args.contains_key("wrong") => *fence,
            _ => Fence(1),
        }
    }

    fn deliver(&mut self, id: ClaimId, args: &Args) -> Answer {
        let revision = match self.state.claim(&id).map(|claim| &claim.phase) {
            Some(Phase::Held { claimed, .. }) if !args.contains_key("wrong") => claimed.revision,
            _ => Revision(1),
        };
        let own = self.state.claim(&id).and_then(|claim| claim.terms.owner.build());
        let build = if args.contains_key("own") {
            own
        } else {
            own.map(|build| BuildRef { id: Text::parse("another").unwrap(), ..build })
                .filter(|_| !args.contains_key("unsaid"))
        };
        self.command(Command::Delivered { id, revision, build })
    }

    /// How long a hold lasts.
    fn time_left(&self, id: &ClaimId) -> String {
        let until = self.state.claim(id).and_then(|claim| claim.held_until());
        until.map_or("for ever".into(), |until| format!("{}s", (until.at.0 - self.now.engine.0) / 1_000))
    }

    /// The builds to be asked about, with a `?` for those of which nobody knows, and a `~` for those whose end is only
    /// shown.
    fn watched(&self) -> String {
        let snapshot = &self.state.snapshot;
        let mark = |build: &BuildRef| if snapshot.suspects.contains_key(build) { "?" } else { "" };
        let how = |concern| if concern == Concern::Shows { "~" } else { "" };
        let words = snapshot.builds_to_watch();
        let words: Vec<String> =
            words.map(|(build, concern)| format!("{}{}{}", build.id, mark(build), how(concern))).collect();
        words.join(" ")
    }

    /// The claims with a marked hold, with the number of their aliases, and the installations that run builds again.
    fn marked(&self) -> String {
        let snapshot = &self.state.snapshot;
        let claims = snapshot.marked.iter().filter_map(|(_, id)| snapshot.claims.get(id));
        let claims = claims.map(|claim| format!("{}+{}", claim.id, claim.aliases.len()));
        let words: Vec<String> = claims.chain(snapshot.reruns.iter().map(ToString::to_string)).collect();
        words.join(" ")
    }

    fn declare(&mut self, verb: &str, what: &str, args: &Args) -> Answer {
        let (pool, lock) = what.split_once('/').map_or((what, None), |(pool, lock)| (pool, Some(lock)));
        let pool: PoolName = parse(pool)?;
        let lock: Option<LockName> = lock.map(parse).transpose()?;
        let by = By { op: arg(args, "op")?, reason: arg(args, "reason")?, ..By::default() };
        let labels = Arc::new(if matches!(verb, "add" | "update" | "move") { labels_of(args)? } else { Labels::new() });
        let meta: Option<Arc<[u8]>> = args.get("meta").map(|text| Arc::from(text.as_bytes()));
        let need = || lock.clone().ok_or_else(|| format!("{what:?} names no lock"));
        let command = match verb {
            "pool" | "change" => {
                let (drain, max_hold) = (span_arg(args, "drain")?, span_arg(args, "max_hold")?);
                let order = match args.get("order") {
                    None | Some(&"fifo") => Order::Fifo,
                    Some(&"priority") => Order::Priority,
                    Some(&"lifo") => Order::Lifo,
                    Some(other) => return Err(format!("unknown order {other:?}")),
                };
                let scope = args.get("scope").map(|word| scope_of(word)).transpose()?;
                let overtaking = match args.get("overtaking") {
                    None => Overtaking::Strict,
                    Some(how) => Overtaking::Backfill(how.strip_prefix("backfill:").map(parse).transpose()?),
                };
                let pick = match args.get("pick") {
                    None => Pick::LeastRecent,
                    Some(&"name") => Pick::Name,
                    Some(_) => Pick::Random,
                };
                let when_empty = match args.get("when_empty") {
                    None => None,
                    Some(&"wait") => Some(WhenEmpty::Wait),
                    Some(_) => Some(WhenEmpty::Fail),
                };
                let policy = Policy {
                    order,
                    overtaking,
                    pick,
                    drain,
                    max_hold,
                    max_queue: arg(args, "max_queue")?,
                    scope,
                    when_empty,
                    cut_short: if args.contains_key("cut_short") { CutShort::Keep } else { CutShort::End },
                };
                let capacity = arg(args, "capacity")?;
                if verb == "pool" {
                    Command::SetPool { pool, policy, capacity, by }
                } else {
                    let rules = args.keys().filter_map(|name| rule_of(name)).collect();
                    Command::ChangePool { pool, change: PolicyChange { rules, to: policy }, capacity, by }
                }
            }
            "unpool" => Command::RemovePool { pool, by },
            "add" => {
                let claim = args.get("for").map(|id| first_ask(id, what, &Args::new())).transpose()?.map(Box::new);
                Command::AddLock { pool, lock: need()?, metadata: meta.unwrap_or_default(), labels, claim, by }
            }
            "update" => {
                let labels = (!labels.is_empty()).then_some(labels);
                let labels = if args.contains_key("unlabelled") { Some(Arc::default()) } else { labels };
                let if_free = args.contains_key("if_free");
                Command::UpdateLock { pool, lock: need()?, metadata: meta, labels, if_free, by }
            }
            "move" => {
                let labels = (!labels.is_empty()).then_some(labels);
                let to = parse(args.get("to").copied().unwrap_or_default())?;
                Command::MoveLock { pool, lock: need()?, to, claim: arg(args, "claim")?, metadata: meta, labels, by }
            }
            "quarantine" => Command::Quarantine { pool, lock: need()?, span: span_arg(args, "for")?, by },
            "return" => Command::Return { pool, lock: need()?, by },
            "remove" => Command::RemoveLock { pool, lock: need()?, claim: arg(args, "claim")?, by },
            _ => Command::Note { pool, lock, by },
        };
        let op: Option<OpId> = arg(args, "op")?;
        let result = self.step(command);
        if let (Some(op), Ok(Reply::Done { revision })) = (op, &result) {
            let before = self.answers.insert(op, *revision);
            match before {
                Some(before) if before == *revision => return Ok("done again".into()),
                Some(before) => return Ok(format!("done anew {revision}, before {before}")),
                None => {}
            }
        }
        Ok(self.show(&result))
    }

    fn restart(&mut self) -> Answer {
        if self.state.has_long_deadline(self.now) {
            // The engine stores its time every few seconds while there is such a deadline.
            self.state.touch_meta();
            self.settle();
        }
        let before = standing(&self.state);
        self.now.engine = self.store.engine();
        let settings = self.state.settings.clone();
        self.start(settings);
        self.notices.clear();
        let after = standing(&self.state);
        if before != after {
            return Err(format!("a restart changed\n{before:#?}\ninto\n{after:#?}"));
        }
        Ok("same".into())
    }

    /// All stuck claims, as of the last search.
    fn stuck(&self) -> String {
        let ids: Vec<&str> = self.state.snapshot.stuck.keys().map(ClaimId::as_str).collect();
        ids.join(" ")
    }

    fn look_around(&mut self, verb: &str, what: &str, args: &Args) -> Answer {
        if verb == "notices" {
            let parks = std::mem::take(&mut self.notices).into_iter();
            let parks = parks
                .filter_map(|notice| if let Notice::Park(park) = notice { Some(park.0.to_string()) } else { None });
            return Ok(parks.collect::<Vec<_>>().join(" "));
        }
        let (pool_name, lock) = what.split_once('/').unwrap_or((what, ""));
        let Some(pool) = self.state.snapshot.pool(&parse(pool_name)?) else { return Ok("none".into()) };
        let words: Vec<String> = match verb {
            "queue" => pool.waiting.values().map(ToString::to_string).collect(),
            "free" => pool.free.iter().map(|(_, lock)| lock.to_string()).collect(),
            "count" => vec![pool.changes.len().to_string()],
            "history" => {
                let last: usize = args.keys().find_map(|word| word.parse().ok()).unwrap_or(usize::MAX);
                let kinds: Vec<String> = pool.changes.values().map(|c| kind_word(c.kind).to_owned()).collect();
                kinds[kinds.len().saturating_sub(last)..].to_vec()
            }
            "lock" => {
                let Some(lock) = pool.locks.get(&parse::<LockName>(lock)?) else { return Ok("none".into()) };
                let mut words = vec![format!("meta={}", String::from_utf8_lossy(&lock.metadata))];
                words.extend(lock.labels.iter().map(|(name, value)| format!("{name}={value}")));
                words.extend(lock.holders.iter().map(|h| format!("by={}", h.claim)));
                words.extend(lock.drain.map(|_| "draining".to_owned()));
                words.extend(lock.quarantine.as_ref().map(|_| "quarantined".to_owned()));
                words.extend(lock.leaving.then(|| "leaving".to_owned()));
                words.extend(lock.implicit.then(|| "implicit".to_owned()));
                words
            }
            _ => return Err(format!("unknown verb {verb:?}")),
        };
        Ok(words.join(" "))
    }

    fn look(&self, id: &ClaimId) -> String {
        let snapshot = &self.state.snapshot;
        match (snapshot.claim(id), self.store.remembered().get(id)) {
            (Some(claim), _) => self.show_claim(claim),
            (None, Some(ended)) => format!("ended {}", ended.how.word()),
            (None, None) => "unknown".into(),
        }
    }

    fn show(&self, result: &Result<Reply, Refusal>) -> String {
        match result {
            Ok(Reply::Claim { claim, parked }) => {
                let shown = self.show_claim(claim);
                assert!(!parked || shown.contains("parked"), "the answer says parked, the claim does not");
                shown
            }
            Ok(Reply::Busy(_)) => "busy".into(),
            Ok(Reply::Ended { ended, again }) => format!("{}{}", ended.how.word(), if *again { " again" } else { "" }),
            Ok(Reply::Marked { claim, .. }) => self.show_claim(claim),
            Ok(Reply::Done { .. }) => "done".into(),
            Ok(Reply::Latch(_) | Reply::Token(_) | Reply::Nothing) => String::new(),
            Err(refusal) => format!("refused {}", refusal_word(refusal)),
        }
    }

    fn show_claim(&self, claim: &Claim) -> String {
        let mut text = match &claim.phase {
            Phase::Waiting { presence, .. } => {
                let pool = claim.terms.ask.parts.first().and_then(|part| self.state.snapshot.pool(&part.pool));
                let place = pool.map_or(0, |pool| pool.waiting.range(..=pool.place(claim)).count());
                let presence = match presence {
                    Presence::Parked => "parked",
                    Presence::Recent(_) => "recent",
                    Presence::Grace(_) => "grace",
                    Presence::Away(_) => "away",
                };
                let stuck = self.state.snapshot.stuck.get(&claim.id).map(|stuck| show_stuck(stuck)).unwrap_or_default();
                format!("waiting {place} {presence}{stuck}")
            }
            Phase::Granted { .. } => "granted".into(),
            Phase::Held { .. } => "held".into(),
        };
        for (pool, lock) in claim.locks() {
            let _ = write!(text, " {pool}/{lock}");
        }
        if claim.is_marked() {
            let _ = write!(text, " marked as {}", claim.id);
        }
        if let Some(BuildOver::Ended { how, at }) = claim.build_over {
            let ago = (self.now.wall.0 - at.0) / 1_000;
            let _ = write!(text, " build={}:{ago}s", how.word());
        }
        if claim.life > 1 {
            let _ = write!(text, " life={}", claim.life);
        }
        for pool in &claim.made {
            let _ = write!(text, " made {pool}");
        }
        text
    }
}

fn show_stuck(stuck: &Stuck) -> String {
    match stuck {
        Stuck::SelfWait { own } => {
            let own: Vec<String> = own.iter().map(|(pool, lock, claim)| format!("{pool}/{lock}={claim}")).collect();
            format!(" self_wait {}", own.join(" "))
        }
        Stuck::Deadlock { builds } => {
            let builds: Vec<String> = builds.iter().map(|owner| owner.build_id.clone().unwrap().to_string()).collect();
            format!(" deadlock {}", builds.join(" "))
        }
    }
}

/// Labels are the words with a value that have no other meaning.
fn labels_of(args: &Args) -> Result<Labels, String> {
    let labels =
        args.iter().filter(|(name, value)| !value.is_empty() && !["meta", "op", "for", "to", "claim"].contains(name));
    labels.map(|(name, value)| Ok((parse(name)?, parse(value)?))).collect()
}

fn first_ask(id: &str, wants: &str, args: &Args) -> Result<AskClaim, String> {
    let mut parts = wants.split(',').map(part).collect::<Result<Vec<_>, _>>()?;
    parts.sort_by(|a, b| a.pool.cmp(&b.pool));
    let build: Option<Text> = arg(args, "build")?;
    let ci = args.get("ci").copied().unwrap_or("https://ci");
    let cluster = build.as_ref().map(|_| parse::<Text>(ci)).transpose()?;
    let place: Option<Text> = arg(args, "place")?;
    let cluster = place.as_ref().map(|_| parse(ci)).transpose()?.or(cluster);
    let in_place = |word: &str| place.as_ref().map(|_| parse::<Text>(word)).transpose();
    let (team, pipeline) = (in_place("main")?, in_place("app")?);
    let (job, instance_vars) = (arg(args, "job")?.or(in_place("deploy")?), arg(args, "vars")?);
    let ask = Ask { parts, key: arg(args, "key")?, requestor: arg(args, "who")? };
    let scope = args.get("scope").map(|word| scope_of(word)).transpose()?;
    let digest = digest_of(&format!("{ask:?} {scope:?} {build:?}"));
    let terms = Terms {
        ask,
        digest,
        owner: Arc::new(Owner {
            cluster,
            team,
            pipeline,
            build_id: build,
            build_name: place,
            job,
            instance_vars,
            ..Owner::default()
        }),
        reason: None,
        confirm: args.contains_key("confirm"),
        ttl: span_arg(args, "ttl")?,
        priority: Priority::new(arg(args, "priority")?.unwrap_or_default()).ok_or("bad priority")?,
        supersede: arg(args, "supersede")?,
        waits_if_empty: args.contains_key("if_empty"),
    };
    let give_up_after = span_arg(args, "give_up")?;
    Ok(AskClaim { id: parse(id)?, terms, scope, run: None, wait: Wait::No, queue: true, give_up_after })
}

fn person(name: &str) -> Owner {
    Owner { person: Text::parse(name).ok(), ..Owner::default() }
}

fn scope_of(word: &str) -> Result<Scope, String> {
    match word {
        "flow" => Ok(Scope::Flow),
        "build" => Ok(Scope::Build),
        "lease" => Ok(Scope::Lease),
        "person" => Ok(Scope::Person),
        other => Err(format!("unknown scope {other:?}")),
    }
}

/// The rule of a policy that a word of a line sets.
fn rule_of(word: &str) -> Option<Rule> {
    Some(match word {
        "order" => Rule::Order,
        "overtaking" => Rule::Overtaking,
        "pick" => Rule::Pick,
        "drain" => Rule::Drain,
        "max_hold" => Rule::MaxHold,
        "max_queue" => Rule::MaxQueue,
        "scope" => Rule::Scope,
        "when_empty" => Rule::WhenEmpty,
        "cut_short" => Rule::CutShort,
        _ => return None,
    })
}

fn build_end_of(word: &str) -> Result<BuildEnd, String> {
    let ends = [BuildEnd::Succeeded, BuildEnd::Failed, BuildEnd::Errored, BuildEnd::Aborted, BuildEnd::Gone];
    ends.into_iter().find(|end| end.word() == word).ok_or_else(|| format!("unknown end {word:?}"))
}

/// A build of the default Concourse.
fn build_of(id: &str) -> Result<BuildRef, String> {
    Ok(BuildRef { cluster: parse("https://ci")?, id: parse(id)? })
}

/// Equal texts have equal digests, which is enough for tests.
fn digest_of(text: &str) -> Digest {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let mut bytes = [0_u8; 32];
    bytes[..8].copy_from_slice(&hasher.finish().to_be_bytes());
    Digest(bytes)
}

fn part(text: &str) -> Result<Part, String> {
    if let Some((pool, names)) = text.split_once('/') {
        let names = names.split('+').map(parse).collect::<Result<_, _>>()?;
        return Ok(Part { pool: parse(pool)?, want: Want::Named(names) });
    }
    let (text, labels) = text.split_once('[').map_or((text, ""), |(text, labels)| (text, labels.trim_end_matches(']')));
    let (pool, count) = text.split_once('*').unwrap_or((text, "1"));
    let pairs = labels.split(';').filter_map(|pair| pair.split_once('='));
    let labels = pairs.map(|(name, value)| Ok((parse(name)?, parse(value)?))).collect::<Result<Labels, String>>()?;
    Ok(Part { pool: parse(pool)?, want: Want::Any { count: parse(count)?, labels } })
}

/// The word of a refusal, including how a claim ended.
fn refusal_word(refusal: &Refusal) -> String {
    let word = match refusal {
        Refusal::NoSuchPool { .. } => "no_such_pool",
        Refusal::MayNotMake { .. } => "may_not_make",
        Refusal::NoSuchLock { .. } => "no_such_lock",
        Refusal::NoSuchClaim { .. } => "no_such_claim",
        Refusal::TooMany { .. } => "too_many",
        Refusal::DifferentRequest { .. } => "different_request",
        Refusal::DifferentOperation { .. } => "different_operation",
        Refusal::SupersededRun { .. } => "superseded_run",
        Refusal::TooManyRuns { .. } => "too_many_runs",
        Refusal::NoBuild { .. } => "no_build",
        Refusal::NotGranted { .. } => "not_granted",
        Refusal::NotWaiting { .. } => "not_waiting",
        Refusal::OrderOfOne { .. } => "order_of_one",
        Refusal::WrongFence { .. } => "wrong_fence",
        Refusal::Ended { ended } => return format!("ended {}", ended.how.word()),
        Refusal::LockExists { .. } => "lock_exists",
        Refusal::LockHeld { .. } => "lock_held",
        Refusal::NotHolder { .. } => "not_holder",
        Refusal::PoolInUse { .. } => "pool_in_use",
        Refusal::MixedOrders { .. } => "mixed_orders",
        Refusal::OrderInUse { .. } => "order_in_use",
        Refusal::TokenExists { .. } => "token_exists",
        Refusal::NoSuchToken { .. } => "no_such_token",
        Refusal::QueueFull { .. } => "queue_full",
        Refusal::NoSuchLatch { .. } => "no_such_latch",
        Refusal::LatchExists { .. } => "latch_exists",
        Refusal::LatchReleased { .. } => "latch_released",
        Refusal::Limit { .. } => "limit",
    };
    word.into()
}

fn kind_word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::TokenCreated => "token_created",
        ChangeKind::TokenRevoked => "token_revoked",
        ChangeKind::LatchCreated => "latch_created",
        ChangeKind::LatchReleased => "latch_released",
        ChangeKind::LatchDeleted => "latch_deleted",
        ChangeKind::LatchExpired => "latch_expired",
        ChangeKind::Waiting => "waiting",
        ChangeKind::SelfWait => "self_wait",
        ChangeKind::Deadlock => "deadlock",
        ChangeKind::Granted => "granted",
        ChangeKind::Claimed => "claimed",
        ChangeKind::Withdrawn => "withdrawn",
        ChangeKind::Released => "released",
        ChangeKind::Lost => "lost",
        ChangeKind::Broken => "broken",
        ChangeKind::Ended => "ended",
        ChangeKind::Added => "added",
        ChangeKind::Removed => "removed",
        ChangeKind::Updated => "updated",
        ChangeKind::PoolSet => "pool",
        ChangeKind::PoolRemoved => "unpool",
        ChangeKind::Noted => "noted",
        ChangeKind::Moved => "moved",
        ChangeKind::Quarantined => "quarantined",
        ChangeKind::Returned => "returned",
    }
}
