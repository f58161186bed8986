//! The settings of the build watch.

use std::time::Duration;

use clap::Args;

use crate::cli::values::parse_duration;
use crate::env::Env;
use crate::server::build_watch::settings::{Pace, WatchSettings};
use crate::wire::secret::Secret;

/// Which Concourse to ask about the builds behind claims.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Build watch")]
pub struct WatchArgs {
    /// A Concourse whose builds are watched: URL, URL,USER,PASSWORD-FILE or url=URL,KEY=VALUE,...; may be repeated
    ///
    /// Keys: user and password-file, or token-file (each file contains only the secret);
    /// ca (a PEM file: trust only these issuers); alias (another external URL of the same
    /// Concourse; may be repeated). Without a login, only builds of exposed pipelines can be seen.
    /// The variable `LOCKER_CONCOURSE` takes several, separated by spaces or newlines.
    ///
    /// Example:
    ///   url=https://ci.example.com,user=locker,password-file=/run/secrets/ci,ca=/etc/ci.pem
    // Not parsed here, because clap's error would repeat the text, which may contain a password by mistake.
    #[arg(long, value_name = "CONCOURSE", verbatim_doc_comment)]
    pub concourse: Vec<Secret>,
    /// Accept a claim of a build only if its Concourse confirms that the build runs, with that team, pipeline and job
    #[arg(long, env = "LOCKER_VERIFY_BUILDS")]
    pub verify_builds: bool,
    /// Time between two requests about the same build
    #[arg(long, env = "LOCKER_WATCH_PERIOD", value_name = "TIME", default_value = "15s", value_parser = parse_duration)]
    pub watch_period: Duration,
    /// Shortest time between the two 404s after which a build counts as gone
    #[arg(long, env = "LOCKER_WATCH_GONE", value_name = "TIME", default_value = "60s", value_parser = parse_duration)]
    pub watch_gone: Duration,
    /// Time that one request may take
    #[arg(long, env = "LOCKER_WATCH_TIMEOUT", value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    pub watch_timeout: Duration,
}

impl WatchArgs {
    /// The settings as the server takes them. If flags are given, the variable is ignored.
    ///
    /// # Errors
    /// The variable or a flag cannot be parsed.
    pub(super) fn settings(&self, env: &Env<'_>) -> Result<WatchSettings, String> {
        let (from, texts): (_, Vec<&str>) = if self.concourse.is_empty() {
            ("LOCKER_CONCOURSE", env.var("LOCKER_CONCOURSE").unwrap_or_default().split_whitespace().collect())
        } else {
            ("--concourse", self.concourse.iter().map(Secret::expose).collect())
        };
        let read = |text: &str| text.parse().map_err(|why| format!("{from}: {why}"));
        let concourses = texts.into_iter().map(read).collect::<Result<_, _>>()?;
        let pace = Pace { period: self.watch_period, gone: self.watch_gone };
        Ok(WatchSettings { concourses, verify: self.verify_builds, pace, timeout: self.watch_timeout })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    #[command(args_override_self = true)]
    struct Line {
        #[command(flatten)]
        args: WatchArgs,
    }

    #[test]
    fn the_defaults_are_those_of_the_limits_and_concourse_is_repeatable() {
        let line =
            Line::parse_from(["server", "--concourse", "http://a", "--concourse", "url=http://b,alias=http://c"]);
        let args = line.args;
        let usual = WatchSettings::default();
        assert_eq!(Pace { period: args.watch_period, gone: args.watch_gone }, usual.pace);
        assert_eq!((args.watch_timeout, args.verify_builds), (usual.timeout, usual.verify));
        let given: Vec<&str> = args.concourse.iter().map(Secret::expose).collect();
        assert_eq!(given, ["http://a", "url=http://b,alias=http://c"]);
    }
}
