//! `locker token create|list|revoke`: tokens that the server makes for people and tools.

use clap::{Args, Subcommand};

use super::output::{CliError, print_json, print_line, say};
use super::table::{self, Look, Tone, cell, toned};
use crate::client::{Client, when};
use crate::core::names::TokenName;
use crate::env::Env;
use crate::wire::api::{TokenBody, TokenView};
use crate::wire::errors::exit;

/// Arguments of `token`.
#[derive(Debug, Args)]
#[command(after_help = "\
A token proves one name. What it may do is said by the server's access file, with token:NAME in `to`.

Examples:
  locker token create grafana --ttl 365d > token.txt
  locker token list
  locker token revoke grafana")]
pub(super) struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token, and print it: it is never shown again
    Create {
        /// What rules of the access file call it, as token:NAME
        name: TokenName,
        /// For how long it is good, such as 90d; without it, until it is revoked
        #[arg(long, value_name = "TIME")]
        ttl: Option<String>,
    },
    /// List the tokens, without their secrets
    List {
        /// Print the server's own JSON
        #[arg(long)]
        json: bool,
    },
    /// End a token at once
    Revoke {
        /// Its name
        name: TokenName,
    },
}

pub(super) fn run(args: &TokenArgs, client: &Client, env: &mut Env<'_>) -> Result<u8, CliError> {
    match &args.command {
        TokenCommand::Create { name, ttl } => {
            let made = client.create_token(&TokenBody { name: name.to_string(), ttl: ttl.clone() })?;
            print_line(env, &made.token)?;
            let until = made.view.expires.as_deref().map_or_else(
                || "until it is revoked".to_owned(),
                |expires| format!("until {}", when::time(expires, when::now(&*env.clock))),
            );
            say(env, &format!("token {name} is good {until}; keep it now, it is not shown again"));
            if !made.view.has_rights {
                let rule = format!("{{to: token:{name}, may: look, pools: \"*\"}}");
                say(env, &format!("no rule of the access file is for it yet: add one, such as {rule}"));
            }
        }
        TokenCommand::List { json: true } => print_json(env, &client.list_tokens()?)?,
        TokenCommand::List { json: false } => {
            let tokens = client.list_tokens()?;
            let look = Look::of(env);
            let rows = tokens.iter().map(|token| row(token, look)).collect();
            let head = ["TOKEN", "CREATED", "BY", "EXPIRES", "LAST USED", "NOTE"];
            env.stdout.write_all(table::text(head, rows, &[], look).as_bytes())?;
            env.stdout.flush()?;
        }
        TokenCommand::Revoke { name } => {
            client.revoke_token(name.as_str())?;
            print_line(env, &format!("token {name} is revoked"))?;
        }
    }
    Ok(exit::OK)
}

fn row(token: &TokenView, look: Look) -> [table::Cell; 6] {
    let time =
        |at: &Option<String>, none: &str| at.as_deref().map_or_else(|| none.to_owned(), |at| when::time(at, look.now));
    let trouble = match (token.expired, token.has_rights) {
        (true, _) => "expired",
        (false, false) => "no rule is for it",
        (false, true) => "",
    };
    [
        cell(&token.name),
        cell(when::time(&token.created, look.now)),
        cell(token.by.as_deref().unwrap_or_default()),
        cell(time(&token.expires, "never")),
        cell(time(&token.used, "never")),
        toned(trouble, Tone::Busy),
    ]
}
