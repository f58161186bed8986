//! `locker login` and `locker logout`: a token in the settings of this user, for one server.

use clap::Args;

use super::connection::Connection;
use super::output::{CliError, print_line};
use super::{hidden, kept};
use crate::client::Client;
use crate::client::connect::{Access, Authorization};
use crate::env::Env;
use crate::wire::errors::exit;

/// Arguments of `login` and `logout`.
#[derive(Debug, Args)]
#[command(after_help = "\
The token is kept in $XDG_CONFIG_HOME/locker/tokens.json (~/.config/locker/tokens.json), which only you can read. Commands \
send it to that server and to no other, unless --token, a user name and password, or credentials in the URL are given.

Examples:
  locker --uri https://locker.example.com login
  locker login < token.txt")]
pub(super) struct LoginArgs {}

/// Keeps a token, once the server has accepted it.
pub(super) fn login(_: &LoginArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let server = connection.server()?;
    let token = match connection.token() {
        Some(token) => token.clone(),
        None => hidden::ask("token", env)?,
    };
    connection.warn(env);
    let authorization = Authorization::Bearer(token.clone());
    let access = Access::to(server.clone(), Some(authorization), connection.tls()?);
    let info = Client::open(access, &env.vars).map_err(CliError::usage)?.info()?;
    let Some(identity) = info.identity else {
        let why = format!("{server} asks for no token, so none is kept");
        return Err(CliError::Failed(exit::FAILED, why));
    };
    let file = kept::keep(&server, Some(&token), env)?;
    print_line(env, &format!("{server} knows you as {identity}; the token is kept in {}", file.display()))?;
    Ok(exit::OK)
}

/// Forgets the token of a server. It stays good until somebody revokes it.
pub(super) fn logout(_: &LoginArgs, connection: &Connection, env: &mut Env<'_>) -> Result<u8, CliError> {
    let server = connection.server()?;
    let had = kept::token(&server, env)?.is_some();
    if had {
        kept::keep(&server, None, env)?;
    }
    let text = if had { "the token is forgotten here; `locker token revoke` ends it" } else { "no token was kept" };
    print_line(env, &format!("{server}: {text}"))?;
    Ok(exit::OK)
}
