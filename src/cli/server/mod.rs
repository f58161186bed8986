//! `locker server`: every setting as a flag and an environment variable (docs/operations.md).

use std::net::{IpAddr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;

mod build_watch;

use self::build_watch::WatchArgs;
use super::connection::Connection;
use super::output::CliError;
use super::ready;
use super::values::{parse_duration, parse_size};
use crate::core::names::NamePattern;
#[cfg(feature = "plant")]
use crate::core::settings::Plant;
use crate::core::settings::Settings;
use crate::core::time::Span;
use crate::core::time::WallMs;
use crate::env::{Env, random_bytes, read_file};
use crate::server::build_watch::limits::WATCH_SECRET_BYTES;
use crate::server::door::limits;
use crate::server::door::{ClientAuth, DoorSettings, Pem, TlsSettings};
use crate::server::limits::METRIC_POOLS;
use crate::server::logs::{LogFormat, LogLevel, LogSettings};
use crate::server::{self, MemberSettings, ServerSettings};
use crate::store;
#[cfg(feature = "plant")]
use crate::store::log::plant::Plant as LogPlant;
use crate::wire::contracts::{Contracts, UnlockMissing};
use crate::wire::errors::exit;
use crate::wire::secret::Secret;
use crate::wire::text::show_span;

/// The default address: reachable only from this machine.
const ADDRESS: &str = "127.0.0.1";
/// The default port, as in the BOSH release of the original locker.
const PORT: &str = "8910";

/// The shortest failover: a busy database may take half a second to answer. The longest: nothing is granted meanwhile.
const FAILOVER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));
/// The longest name of a server, bytes: the longest host name with a port.
const NAME_BYTES: usize = 260;

/// Settings of the server. If an option is given twice, the later one counts, so that a wrapper's options can be
/// overridden.
#[derive(Debug, Clone, Args)]
#[command(
    args_override_self = true,
    after_help = "\
Examples:
  locker server                                              on 127.0.0.1:8910, with ./locker.db
  AUTH_USER=ci AUTH_PASS=... locker server --listen 0.0.0.0:8910 --store sqlite:/var/lib/locker/locker.db
  locker server --store memory:                              to try it out: forgets everything when it ends

  locker server --listen unix:/run/locker/locker.sock        for this machine's users only

Historic variables: PORT changes the port of --listen; AUTH_USER and AUTH_PASS (or AUTH_PASS_FILE, a file with the
password) belong together, and so do SSL_CERT and SSL_KEY;
LOCKER_CONFIG is the state file of an original locker, which is imported if the store is empty.
On SIGTERM and SIGINT the server answers the requests that it has, then ends."
)]
pub struct ServerArgs {
    /// Address to listen on; port 0 takes any free port
    ///
    /// Without a port, PORT is used, else 8910. unix:PATH listens on a Unix socket that the user and the group may use;
    /// systemd listens on the socket of a .socket unit.
    #[arg(long, env = "LOCKER_LISTEN", value_name = "HOST:PORT")]
    pub listen: Option<String>,
    /// Where to store everything: sqlite:FILE or memory:, or etcd:... or postgres:... to share it with other servers
    ///
    /// docs/cluster.md explains how several servers share an etcd or a PostgreSQL, and what their addresses look like.
    #[arg(long, env = "LOCKER_STORE", value_name = "STORE", default_value = "sqlite:locker.db")]
    pub store: String,
    /// Claims do not create pools: only declared pools exist
    #[arg(long, env = "LOCKER_DECLARED_ONLY")]
    pub declared_only: bool,
    /// Names of pools that claims may create, with * and ?; separate several with commas; any name by default
    #[arg(
        long,
        env = "LOCKER_CLAIMS_MAKE",
        value_name = "PATTERN",
        value_delimiter = ',',
        conflicts_with = "declared_only"
    )]
    pub claims_make: Vec<NamePattern>,
    /// A file that says who may do what with which pools (docs/access.md); without one, everybody who may connect may do
    /// everything
    #[arg(long, env = "LOCKER_ACCESS", value_name = "FILE", conflicts_with = "no_auth")]
    pub access: Option<PathBuf>,
    /// Let anybody who can connect do anything
    #[arg(long, env = "LOCKER_NO_AUTH")]
    pub no_auth: bool,
    /// Another name of this server, such as that of a proxy in front of it; separate several with commas
    ///
    /// Pages of other sites may not use the server through a browser. Without authentication, a server on a loopback
    /// address answers only to loopback names and to these.
    #[arg(long, env = "LOCKER_ALLOWED_HOST", value_name = "NAME", value_delimiter = ',')]
    pub allowed_host: Vec<String>,
    /// Do not run a server, but ask the one that runs with these settings whether it is ready; exit code 0 or 6
    ///
    /// For health checks of containers. If the server requires client certificates, give --client-cert and
    /// --client-key.
    #[arg(long)]
    pub ask_ready: bool,
    /// Ignored: the server no longer has a private socket. Accepted for one release, so that units for 0.1 still start.
    #[arg(long, env = "LOCKER_RUNTIME_DIR", value_name = "DIR", hide = true)]
    pub runtime_dir: Option<PathBuf>,
    /// Other APIs to serve, separated by commas: locker, lockd, latches; or none
    #[arg(long, env = "LOCKER_CONTRACTS", value_name = "LIST", default_value_t)]
    pub contracts: Contracts,
    /// Status of lockd's DELETE for a lock that is not locked: 409 as documented, or 404 as lockd itself answers
    #[arg(long, env = "LOCKER_LOCKD_UNLOCK_MISSING", value_name = "STATUS", default_value = "409")]
    pub lockd_unlock_missing: UnlockMissing,
    /// Time that requests have to finish after SIGTERM; a second signal cuts them off
    #[arg(long, env = "LOCKER_SHUTDOWN_GRACE", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub shutdown_grace: Duration,
    /// Format of log lines: text or json
    #[arg(long, env = "LOCKER_LOG", value_name = "FORMAT", default_value = "text")]
    pub log: LogFormat,
    /// Which log lines to write: error, warn, info (one for each request) or debug
    #[arg(long, env = "LOCKER_LOG_LEVEL", value_name = "LEVEL", default_value = "info")]
    pub log_level: LogLevel,
    /// Maximum number of pools with metrics of their own; those of all other pools are summed
    #[arg(long, env = "LOCKER_METRIC_POOLS", value_name = "N", default_value_t = METRIC_POOLS)]
    pub metric_pools: usize,
    #[command(flatten)]
    pub member: MemberArgs,
    #[command(flatten)]
    pub tls: TlsArgs,
    #[command(flatten)]
    pub watch: WatchArgs,
    /// File with the targets that are notified of what happens: webhooks, chats, resources of Concourse
    ///
    /// docs/notifications.md explains it. It is read again on SIGHUP and when it changes; `locker notify test` tries it.
    #[arg(long, env = "LOCKER_NOTIFY", value_name = "FILE")]
    pub notify: Option<PathBuf>,
    #[command(flatten)]
    pub limits: LimitArgs,
    /// Remove history entries older than this
    #[arg(long, env = "LOCKER_HISTORY_AGE", value_name = "TIME", default_value = "90d", value_parser = parse_duration)]
    pub history_age: Duration,
    /// Size of the history of all pools, such as 512MiB; beyond it, the pool with the most loses entries, details first
    #[arg(long, env = "LOCKER_HISTORY_SIZE", value_name = "SIZE", default_value = "512MiB", value_parser = parse_size)]
    pub history_size: u64,
    /// Ignored: pools no longer have a number of entries each. Accepted for one release, so that units for 0.1 still
    /// start.
    #[arg(long, env = "LOCKER_HISTORY", value_name = "N", hide = true)]
    pub history: Option<String>,
    #[command(flatten)]
    pub timing: TimingArgs,
    /// Testing only: run with this planted bug
    #[cfg(feature = "plant")]
    #[arg(long, env = "LOCKER_PLANT", value_name = "BUG", hide = true)]
    pub plant: Option<String>,
}

/// Settings of a server that shares its store with others.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Several servers on one store (docs/cluster.md)")]
pub struct MemberArgs {
    /// Address on which to listen for servers that follow, which pass the requests of their clients on to this one
    #[arg(long, env = "LOCKER_LINK", value_name = "HOST:PORT")]
    pub link: Option<String>,
    /// Address at which other servers reach --link; the address of --link by default
    #[arg(long, env = "LOCKER_ADVERTISE", value_name = "HOST:PORT")]
    pub advertise: Option<String>,
    /// Time without a sign of the leader after which another server takes over; between 1s and 1m
    #[arg(long, env = "LOCKER_FAILOVER", value_name = "TIME", default_value = "5s", value_parser = parse_duration)]
    pub failover: Duration,
    /// Directory for this server's copy of the store, which is made again at each start; the system's directory for
    /// temporary files by default
    #[arg(long, env = "LOCKER_CACHE", value_name = "DIR")]
    pub cache: Option<PathBuf>,
    /// Compact the etcd of --store every 5 minutes: for one that nobody else uses, and that does not compact itself
    #[arg(long, env = "LOCKER_ETCD_COMPACT")]
    pub etcd_compact: bool,
}

impl MemberArgs {
    fn settings(
        &self,
        env: &Env<'_>,
        #[cfg(feature = "plant")] plant: Option<LogPlant>,
    ) -> Result<MemberSettings, String> {
        if !(FAILOVER.0..=FAILOVER.1).contains(&self.failover) {
            return Err("--failover must be between 1s and 1m".to_owned());
        }
        self.check_addresses()?;
        Ok(MemberSettings {
            link: self.link.clone(),
            advertise: self.advertise.clone(),
            failover: span(self.failover),
            etcd_compact: self.etcd_compact,
            cache: self.cache.clone().unwrap_or_else(|| env.var("TMPDIR").unwrap_or("/tmp").into()),
            #[cfg(feature = "plant")]
            plant,
        })
    }

    /// Checks where this server listens for others, and where they are told to reach it.
    fn check_addresses(&self) -> Result<(), String> {
        let is_any = |link: &str| link.parse::<SocketAddr>().is_ok_and(|link| link.ip().is_unspecified());
        let is_address = |name: &str| name.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
        let error = match (self.link.as_deref(), self.advertise.as_deref()) {
            (_, Some(name)) if name.is_empty() || name.len() > NAME_BYTES => {
                return Err(format!("--advertise must have 1 to {NAME_BYTES} bytes"));
            }
            (Some(link), _) if !link.contains(':') => "--link must be HOST:PORT",
            (Some(link), None) if is_any(link) => {
                "--link listens on all addresses: say with --advertise HOST:PORT at which one other servers reach this one"
            }
            (Some(_), Some(name)) if !is_address(name) => {
                "--advertise must be HOST:PORT, as other servers reach --link"
            }
            _ => return Ok(()),
        };
        Err(error.to_owned())
    }
}

/// Certificates. Files are read again on SIGHUP and when they change.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "TLS")]
pub struct TlsArgs {
    /// Certificate of the server and its intermediates: a PEM file, or PEM text; needs --ssl-key
    #[arg(long, env = "SSL_CERT", value_name = "PEM", allow_hyphen_values = true)]
    pub ssl_cert: Option<Pem>,
    /// Key of that certificate, unencrypted: a PEM file, or PEM text
    #[arg(long, env = "SSL_KEY", value_name = "PEM", allow_hyphen_values = true)]
    pub ssl_key: Option<Pem>,
    /// Authority that issues client certificates: a PEM file, or PEM text
    #[arg(long, env = "LOCKER_CLIENT_CA", value_name = "PEM", allow_hyphen_values = true)]
    pub client_ca: Option<Pem>,
    /// Whether clients must show a certificate in addition to a password, if one is set (required), or may show one
    /// instead (optional)
    #[arg(long, env = "LOCKER_CLIENT_AUTH", value_name = "HOW", default_value = "required")]
    pub client_auth: ClientAuth,
}

impl TlsArgs {
    /// Certificate and key, which belong together; `None` means plain HTTP.
    fn settings(&self) -> Result<Option<TlsSettings>, String> {
        match (&self.ssl_cert, &self.ssl_key) {
            (Some(cert), Some(key)) => {
                let client_ca = self.client_ca.clone().map(|ca| (ca, self.client_auth));
                Ok(Some(TlsSettings { client_ca, ..TlsSettings::new(cert.clone(), key.clone()) }))
            }
            (None, None) if self.client_ca.is_some() => Err("--client-ca needs SSL_CERT and SSL_KEY".to_owned()),
            (None, None) => Ok(None),
            (Some(_), None) => Err("SSL_CERT is set without SSL_KEY".to_owned()),
            (None, Some(_)) => Err("SSL_KEY is set without SSL_CERT".to_owned()),
        }
    }
}

/// Limits on what clients may use. The defaults are in [`limits`].
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Limits (the defaults are good)")]
pub struct LimitArgs {
    /// Maximum number of client connections at once
    #[arg(long, env = "LOCKER_MAX_CONNECTIONS", value_name = "N", default_value_t = limits::DOOR_CONNECTIONS)]
    pub max_connections: usize,
    /// Maximum number of connections from one client address at once; no limit by default
    #[arg(long, env = "LOCKER_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// Maximum number of requests per second from one client address; no limit by default
    #[arg(long, env = "LOCKER_MAX_REQUESTS_PER_SECOND", value_name = "N")]
    pub max_requests_per_second: Option<NonZeroU32>,
    /// Maximum number of requests that wait at once
    #[arg(long, env = "LOCKER_MAX_PARKED", value_name = "N", default_value_t = limits::DOOR_PARKED)]
    pub max_parked: usize,
    /// Largest request line and headers, in bytes
    #[arg(long, env = "LOCKER_MAX_HEAD", value_name = "BYTES", default_value_t = limits::DOOR_HEAD_BYTES)]
    pub max_head: usize,
    /// Largest request body, in bytes
    #[arg(long, env = "LOCKER_MAX_BODY", value_name = "BYTES", default_value_t = limits::DOOR_BODY_BYTES)]
    pub max_body: usize,
    /// Time for a TLS handshake
    #[arg(long, env = "LOCKER_HANDSHAKE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub handshake_timeout: Duration,
    /// Time in which a client must send one whole request
    #[arg(long, env = "LOCKER_SEND_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub send_timeout: Duration,
    /// Time that a connection may be idle between two requests
    #[arg(long, env = "LOCKER_IDLE_TIMEOUT", value_name = "TIME", default_value = "75s", value_parser = parse_duration)]
    pub idle_timeout: Duration,
    /// Time in which a client must take each 64 KiB of an answer
    #[arg(long, env = "LOCKER_WRITE_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub write_timeout: Duration,
    /// Time that a request may take inside the server, not counting the wait for a lock
    #[arg(long, env = "LOCKER_REQUEST_TIMEOUT", value_name = "TIME", default_value = "45s", value_parser = parse_duration)]
    pub request_timeout: Duration,
}

impl LimitArgs {
    fn settings(&self) -> DoorSettings {
        DoorSettings {
            connections: self.max_connections,
            connections_per_address: self.max_connections_per_address.map(NonZeroUsize::get),
            requests_per_second: self.max_requests_per_second,
            parked: self.max_parked,
            head_bytes: self.max_head,
            body_bytes: self.max_body,
            handshake: self.handshake_timeout,
            send: self.send_timeout,
            idle: self.idle_timeout,
            write: self.write_timeout,
            total: self.request_timeout,
            ..DoorSettings::default()
        }
    }
}

/// The durations in the rules. The defaults are good; tests shorten them.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Timing (the defaults are good)")]
pub struct TimingArgs {
    /// A waiter counts as listening for this long after its last request was answered
    #[arg(long, env = "LOCKER_LISTEN_WINDOW", value_name = "TIME", default_value = "20s", value_parser = parse_duration)]
    pub listen_window: Duration,
    /// A waiter whose connection was cut keeps its turn for this long
    #[arg(long, env = "LOCKER_GRACE", value_name = "TIME", default_value = "3s", value_parser = parse_duration)]
    pub grace: Duration,
    /// A waiter that does not listen keeps its place for this long
    #[arg(long, env = "LOCKER_PLACE", value_name = "TIME", default_value = "10m", value_parser = parse_duration)]
    pub place: Duration,
    /// A grant must be confirmed within this time; at least the listening window and 15 s
    #[arg(long, env = "LOCKER_CONFIRM", value_name = "TIME", default_value = "45s", value_parser = parse_duration)]
    pub confirm: Duration,
    /// A lock stays out of use for this long after its holder is lost
    #[arg(long, env = "LOCKER_DRAIN", value_name = "TIME", default_value = "30s", value_parser = parse_duration)]
    pub drain: Duration,
    /// A lease without its own ttl is lost this long after its last renewal
    #[arg(long, env = "LOCKER_LEASE", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub lease: Duration,
    /// Ended claims and the answers to repeated calls are remembered for this long
    #[arg(long, env = "LOCKER_MEMORY", value_name = "TIME", default_value = "24h", value_parser = parse_duration)]
    pub memory: Duration,
}

impl ServerArgs {
    /// Where to listen: the flag or variable, else the default. An address without a port gets the one in `PORT`.
    #[must_use]
    pub fn listen(&self, env: &Env<'_>) -> String {
        let listen = self.listen.as_deref().unwrap_or(ADDRESS);
        let port = env.var("PORT").unwrap_or(PORT);
        match listen.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(IpAddr::V4(address)) => format!("{address}:{port}"),
            Ok(IpAddr::V6(address)) => format!("[{address}]:{port}"),
            Err(_) => listen.to_owned(),
        }
    }

    /// The credentials that clients must present: `AUTH_USER` and `AUTH_PASS` (or the content of `AUTH_PASS_FILE`),
    /// which belong together. `None` means that anybody may connect.
    ///
    /// # Errors
    /// One is set without the other, the file cannot be read, both are set with `--no-auth`, or HTTP Basic cannot carry
    /// the user name.
    pub fn auth(&self, env: &Env<'_>) -> Result<Option<(String, Secret)>, String> {
        let password = match (env.var("AUTH_PASS"), env.var("AUTH_PASS_FILE")) {
            (Some(_), Some(_)) => return Err("AUTH_PASS and AUTH_PASS_FILE are both set: unset one".to_owned()),
            (Some(password), None) => Some(password.to_owned()),
            (None, Some(file)) => Some(password_in(file)?),
            (None, None) => None,
        };
        match (env.var("AUTH_USER"), password) {
            (None, None) => Ok(None),
            (Some(_), Some(_)) if self.no_auth => Err("--no-auth contradicts AUTH_USER and AUTH_PASS".to_owned()),
            (Some(user), Some(_)) if user.contains(':') => {
                Err("AUTH_USER must not contain a colon: HTTP Basic cannot carry it".to_owned())
            }
            (Some(user), Some(password)) => Ok(Some((user.to_owned(), Secret::new(password)))),
            (Some(_), None) => Err("AUTH_USER is set without AUTH_PASS".to_owned()),
            (None, Some(_)) => Err("AUTH_PASS is set without AUTH_USER".to_owned()),
        }
    }

    /// Settings that are allowed, but that somebody should look at.
    fn warnings(&self, auth: Option<&(String, Secret)>, env: &Env<'_>) -> Vec<String> {
        let Some((_, password)) = auth else { return Vec::new() };
        let mut warnings = Vec::new();
        if password.expose().ends_with(['\n', '\r']) {
            warnings.push("AUTH_PASS ends in a newline, which is part of the password".to_owned());
        }
        if password.expose().trim() == "change-me" {
            warnings.push("the password is the one from the examples (change-me): everybody knows it".to_owned());
        }
        let listen = self.listen(env);
        if self.tls.ssl_cert.is_none() && listen.parse::<SocketAddr>().is_ok_and(|at| is_public(at.ip())) {
            warnings.push(format!(
                "the password is sent unencrypted to {listen}: set SSL_CERT and SSL_KEY, or let only a private network \
                 reach it"
            ));
        }
        warnings
    }

    /// All settings of the server.
    ///
    /// # Errors
    /// The settings contradict each other or are incomplete, or the planted bug is unknown.
    pub fn settings(&self, env: &Env<'_>) -> Result<ServerSettings, String> {
        let auth = self.auth(env)?;
        let membership = self.member.settings(
            env,
            #[cfg(feature = "plant")]
            self.plant.as_deref().and_then(LogPlant::named),
        )?;
        let mut rules = self.rules()?;
        let mut warnings = self.warnings(auth.as_ref(), env);
        if membership.etcd_compact && !self.store.starts_with("etcd:") {
            return Err("--etcd-compact is for a store in etcd: leave it out".to_owned());
        }
        if store::is_shared(&self.store) && membership.link.is_none() {
            warnings.push("without --link, servers that follow this one cannot pass requests on to it".to_owned());
        }
        if store::is_shared(&self.store) && rules.lease < membership.least_lease() {
            let [asked, least, failover] = [rules.lease, membership.least_lease(), membership.failover].map(show_span);
            rules.lease = membership.least_lease();
            warnings.push(format!(
                "a lease without a ttl gets {least} instead of {asked} (--lease): it must outlast a change of leaders \
                 (--failover {failover})"
            ));
        }
        Ok(ServerSettings {
            warnings,
            listen: self.listen(env),
            store: self.store.clone(),
            membership,
            rules,
            door: self.limits.settings(),
            grace: self.shutdown_grace,
            auth,
            no_auth: self.no_auth,
            access: self.access.clone(),
            allowed_hosts: self.allowed_host.clone(),
            contracts: self.contracts.clone(),
            lockd_unlock_missing: self.lockd_unlock_missing,
            locker_config: env.var("LOCKER_CONFIG").map(Into::into),
            tls: self.tls.settings()?,
            log: LogSettings { format: self.log, level: self.log_level },
            metric_pools: self.metric_pools,
            watch: self.watch.settings(env)?,
            notify: self.notify.clone(),
        })
    }

    /// The rules, as the core takes them.
    ///
    /// # Errors
    /// The planted bug is unknown.
    pub fn rules(&self) -> Result<Settings, String> {
        Ok(Settings {
            listen: span(self.timing.listen_window),
            grace: span(self.timing.grace),
            place: span(self.timing.place),
            confirm: span(self.timing.confirm),
            drain: span(self.timing.drain),
            lease: span(self.timing.lease),
            memory: span(self.timing.memory),
            history_age: span(self.history_age),
            history_bytes: self.history_size,
            declared_only: self.declared_only,
            claims_make: self.claims_make.clone(),
            seed: u64::from_ne_bytes(random_bytes()),
            #[cfg(feature = "plant")]
            plant: self.plant()?,
            ..Settings::default()
        })
    }

    #[cfg(feature = "plant")]
    fn plant(&self) -> Result<Plant, String> {
        match self.plant.as_deref() {
            // A bug of the client (`client::connect`), and the release after this one (`store::sqlite::replica`).
            None | Some("client-panic" | "next-format") => Ok(Plant::None),
            Some("answer-before-commit") => Ok(Plant::AnswerBeforeCommit),
            Some("release-unchecked") => Ok(Plant::ReleaseUnchecked),
            Some("fence-in-memory") => Ok(Plant::FenceInMemory),
            Some("earlier-run") => Ok(Plant::EarlierRun),
            Some("lost-notice") => Ok(Plant::LostNotice),
            // Bugs of a shared log and of its servers.
            Some(name) if LogPlant::named(name).is_some() => Ok(Plant::None),
            Some(other) => Err(format!("there is no planted bug {other:?}")),
        }
    }
}

/// The password in a file, without the newline that editors add.
fn password_in(file: &str) -> Result<String, String> {
    let broken = |why: &dyn std::fmt::Display| format!("AUTH_PASS_FILE: cannot read {file:?}: {why}");
    let read = read_file(Path::new(file), WATCH_SECRET_BYTES as u64).map_err(|error| broken(&error))?;
    let text = read.ok_or_else(|| broken(&"it is too long for a password"))?;
    let text = String::from_utf8(text).map_err(|_| broken(&"it is not valid UTF-8"))?;
    let text = text.strip_suffix('\n').unwrap_or(&text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    if text.is_empty() { Err(broken(&"it is empty")) } else { Ok(text.to_owned()) }
}

/// Whether an address may be reachable from outside this machine and its private network.
fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !(ip.is_loopback() || ip.is_private() || ip.is_link_local()),
        IpAddr::V6(ip) => !(ip.is_loopback() || ip.is_unique_local() || ip.is_unicast_link_local()),
    }
}

fn span(duration: Duration) -> Span {
    Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

/// Runs the server until a signal ends it.
pub(super) fn run(args: &ServerArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    if args.ask_ready {
        return ready::ask(&args.listen(env), args.tls.ssl_cert.is_some(), connection, env);
    }
    let (code, text) = match args.settings(env) {
        Err(text) => (exit::USAGE, text),
        Ok(settings) => match server::run(settings, env) {
            Ok(()) => return Ok(exit::OK),
            Err(error) => (exit::FAILED, format!("{error:#}")),
        },
    };
    match args.log {
        LogFormat::Text => Err(CliError::Failed(code, text)),
        LogFormat::Json => {
            // If stderr cannot be written, there is still the exit code.
            let _ = writeln!(env.stderr, "{}", args.log.line("ERROR", &text, WallMs(env.clock.wall_ms())));
            Ok(code)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ServerArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_limits() {
        let line = Line::parse_from(["server"]);
        let (told, usual) = (line.args.limits.settings(), DoorSettings::default());
        let times = |s: &DoorSettings| [s.handshake, s.send, s.idle, s.write, s.total];
        let sizes = |s: &DoorSettings| [s.connections, s.parked, s.head_bytes, s.body_bytes];
        assert_eq!((times(&told), sizes(&told)), (times(&usual), sizes(&usual)));
        assert_eq!((told.connections_per_address, told.requests_per_second), (None, None));
    }

    #[test]
    fn half_a_pair_of_settings_is_refused() {
        let table = [
            (&["--ssl-cert", "c"][..], "SSL_CERT is set without SSL_KEY"),
            (&["--ssl-key", "k"], "SSL_KEY is set without SSL_CERT"),
            (&["--client-ca", "c"], "--client-ca needs SSL_CERT and SSL_KEY"),
        ];
        for (more, expected) in table {
            let line = Line::parse_from(std::iter::once(&"server").chain(more));
            assert_eq!(line.args.tls.settings().unwrap_err(), expected);
        }
        let key = "-----BEGIN PRIVATE KEY-----\nhunter2";
        let line = Line::parse_from(["server", "--ssl-cert", "c", "--ssl-key", key]);
        assert!(!format!("{:?}", line.args).contains("hunter2"));
    }
}
