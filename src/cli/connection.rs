//! Which server a command talks to, and how.

use clap::Args;

use super::kept;
use super::output::CliError;
use crate::client::Client;
use crate::client::connect::{Access, Authorization};
use crate::env::Env;
use crate::server::door::Pem;
use crate::wire::secret::Secret;
use crate::wire::server_url::{Credentials, ServerUrl};
use crate::wire::tls::Tls;

/// Which server to talk to.
#[derive(Debug, Args)]
pub(super) struct Connection {
    /// Address of the locker server
    #[arg(
        long,
        global = true,
        help_heading = "Connection",
        env = "LOCKER_URI",
        value_name = "URL",
        default_value = "http://127.0.0.1:8910"
    )]
    pub(super) uri: String,
    /// User name, if the server asks for one
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_USERNAME", value_name = "NAME")]
    username: Option<String>,
    /// Password; safer in the environment, because other users can read command lines
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_PASSWORD", value_name = "TEXT")]
    password: Option<Secret>,
    /// Bearer token, such as the id token of a build, instead of a user name and password; safer in the environment
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_TOKEN", value_name = "TEXT")]
    token: Option<Secret>,
    /// Trust only these certificates and those that they issued: a PEM file, or PEM text
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CA_CERT", value_name = "PEM")]
    ca_cert: Option<Pem>,
    /// Certificate to present to the server: a PEM file, or PEM text; needs --client-key
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CLIENT_CERT", value_name = "PEM")]
    client_cert: Option<Pem>,
    /// Key of that certificate
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_CLIENT_KEY", value_name = "PEM")]
    client_key: Option<Pem>,
    /// Do not check the server's certificate: anybody could pose as the server
    #[arg(long, global = true, help_heading = "Connection", env = "LOCKER_SKIP_SSL_VALIDATION")]
    skip_ssl_validation: bool,
}

impl Connection {
    /// Runs a command with a client of the server.
    pub(super) fn open(
        &self,
        env: &mut Env<'_>,
        run: impl FnOnce(&Client, &mut Env<'_>) -> Result<u8, CliError>,
    ) -> Result<u8, CliError> {
        let client = self.client(env)?;
        run(&client, env)
    }

    pub(super) fn client(&self, env: &mut Env<'_>) -> Result<Client, CliError> {
        let (server, authorization) = self.target(env)?;
        let tls = self.tls()?;
        self.warn(env);
        Client::open(Access::to(server, authorization, tls), &env.vars).map_err(CliError::usage)
    }

    /// Warns about unsafe settings.
    pub(super) fn warn(&self, env: &mut Env<'_>) {
        if self.skip_ssl_validation {
            // If stderr cannot be written, there is nowhere else to warn.
            let _ =
                writeln!(env.stderr, "warning: --skip-ssl-validation: anybody could pose as the server; use --ca-cert");
        }
    }

    /// Which certificates to trust, and which to present.
    pub(super) fn tls(&self) -> Result<Tls, CliError> {
        let read = |pem: &Option<Pem>| pem.as_ref().map(Pem::text).transpose();
        let read = |pem: &Option<Pem>| read(pem).map_err(|error| CliError::usage(format!("{error:#}")));
        let client = match (read(&self.client_cert)?, read(&self.client_key)?) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, Secret::new(key))),
            _ => return Err(CliError::usage("--client-cert and --client-key need each other".to_owned())),
        };
        let skip_verification = self.skip_ssl_validation.then_some("--skip-ssl-validation");
        Ok(Tls { ca_cert: read(&self.ca_cert)?, client, skip_verification })
    }

    /// The server.
    pub(super) fn server(&self) -> Result<ServerUrl, CliError> {
        ServerUrl::parse(&self.uri).map_err(|why| CliError::usage(format!("the server's address {why}")))
    }

    /// The server and what to show it: what is given, else the credentials in its URL, which are not returned here, else
    /// the token that `locker login` has kept for it.
    pub(super) fn target(&self, env: &Env<'_>) -> Result<(ServerUrl, Option<Authorization>), CliError> {
        let server = self.server()?;
        let authorization = match self.given() {
            None if server.credentials().is_none() => kept::token(&server, env)?.map(Authorization::Bearer),
            given => given,
        };
        Ok((server, authorization))
    }

    /// The token that is given. Systems of CI leave a variable empty that they cannot fill.
    pub(super) fn token(&self) -> Option<&Secret> {
        self.token.as_ref().filter(|token| !token.expose().is_empty())
    }

    /// The token if one is given, else the user name and password.
    pub(super) fn given(&self) -> Option<Authorization> {
        match (self.token(), &self.username, &self.password) {
            (Some(token), ..) => Some(Authorization::Bearer(token.clone())),
            (_, None, None) => None,
            (_, username, password) => Some(Authorization::Basic(Credentials {
                username: username.clone().unwrap_or_default(),
                password: password.clone().unwrap_or_else(|| Secret::new("")),
            })),
        }
    }
}
