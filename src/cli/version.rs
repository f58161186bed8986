//! `locker version`: which release this is, and whether it can use the settings of a server (before an upgrade, or when a
//! package is installed).

use clap::Args;

use super::output::{CliError, print_line, say};
use super::server::ServerArgs;
use crate::env::Env;
use crate::server;
use crate::wire::errors::exit;

/// Arguments of `version`.
#[derive(Debug, Args)]
#[command(after_help = "\
--check-config reads what a server reads when it starts: flags and variables, certificates, the access file, the file of
targets and the password files of --concourse. It opens neither address nor store, so it may run beside a server; `locker
store check` checks the store. Every fault is named; exit code 1.

Examples:
  locker version
  env $(cat /etc/locker.env) locker version --check-config
  locker version --check-config -- --listen 0.0.0.0:8910 --access access.yml --notify notify.yml")]
pub(super) struct VersionArgs {
    /// Check the settings of a server: those in the environment, and the flags after --
    #[arg(long)]
    check_config: bool,
    /// Flags of `locker server`
    #[arg(last = true, requires = "check_config", value_name = "FLAGS")]
    flags: Vec<String>,
}

impl VersionArgs {
    /// The flags of the server whose settings are to be checked, if they are.
    pub(super) fn checked(&self) -> Option<&[String]> {
        self.check_config.then_some(&self.flags)
    }
}

/// Prints the release, and checks the settings of a server.
pub(super) fn run(server: Option<&ServerArgs>, env: &mut Env<'_>) -> Result<u8, CliError> {
    print_line(env, &format!("locker {}", env!("CARGO_PKG_VERSION")))?;
    let Some(args) = server else { return Ok(exit::OK) };
    let mut faults = Vec::new();
    match args.settings(env) {
        Err(fault) => faults.push(fault),
        Ok(settings) => {
            let (mut found, warnings) = server::check(&settings, env);
            faults.append(&mut found);
            warnings.iter().for_each(|warning| say(env, &format!("warning: {warning}")));
        }
    }
    faults.iter().for_each(|fault| say(env, fault));
    match faults.len() {
        0 => {
            print_line(env, "the settings can be used")?;
            Ok(exit::OK)
        }
        1 => Err(CliError::Failed(exit::FAILED, "a server would not start with these settings".to_owned())),
        n => Err(CliError::Failed(exit::FAILED, format!("a server would not start with these settings: {n} faults"))),
    }
}
