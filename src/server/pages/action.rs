//! What people may do on a page: buttons, and what the script needs to do it. The server decides whether it is allowed.

use std::collections::BTreeSet;

use maud::{Markup, html};
use serde_json::{Value, json};

use crate::server::auth::access::Right;

/// Something that a person may do.
pub(super) struct Action {
    /// What the button says.
    pub name: &'static str,
    /// Who may do it.
    pub needs: Needs,
    pub method: &'static str,
    /// Below `/api/v1`, encoded. `{...}` is the value of the field of this name.
    pub path: String,
    /// What will happen, in one or two sentences.
    pub text: String,
    /// How the call carries who acts and why.
    pub by: By,
    /// More of the body.
    pub body: Value,
    /// What else is asked.
    pub fields: Vec<Field>,
}

/// What somebody needs to do something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Needs {
    /// All of these.
    Rights(&'static [Right]),
    /// To own this claim, or else the right `break`.
    Claim(String),
}

/// What somebody may do in a pool. The default may do nothing.
#[derive(Debug, Clone, Default)]
pub struct May {
    pub rights: Vec<Right>,
    /// The claims that are its own; `None` if that does not matter.
    pub own: Option<BTreeSet<String>>,
}

impl May {
    /// Whether this is offered.
    pub(super) fn allows(&self, action: &Action) -> bool {
        match &action.needs {
            Needs::Rights(rights) => rights.iter().all(|right| self.rights.contains(right)),
            Needs::Claim(id) => {
                self.rights.contains(&Right::Break) || self.own.as_ref().is_none_or(|own| own.contains(id))
            }
        }
    }

    /// The buttons of those that are offered.
    pub(super) fn buttons(&self, actions: impl IntoIterator<Item = Action>) -> Markup {
        html! { @for action in actions { @if self.allows(&action) { (action.button()) } } }
    }
}

/// How a call carries who acts and why.
#[derive(Debug, Clone, Copy)]
pub(super) enum By {
    /// As `by` in the body.
    Body,
    /// As `by` and `reason` in the query.
    Query,
    /// As the owner of a new claim, with `reason` beside it.
    Owner,
    /// The same, and the claim goes to the front of the queue. The page asks for it until it is served.
    Next,
}

/// One more thing that a dialog asks for.
pub(super) struct Field {
    /// Where it goes in the body, such as `policy.drain`, or in the path.
    pub name: &'static str,
    pub label: &'static str,
    pub kind: Kind,
    pub value: String,
    pub is_required: bool,
}

/// What can be entered.
#[derive(Debug, Clone)]
pub(super) enum Kind {
    Text,
    /// Text of several lines.
    Lines,
    Number,
    /// Yes or no: `true` is only sent for yes.
    Check,
    /// `NAME=VALUE, ...`.
    Labels,
    /// One of these, or none.
    Choice(&'static [&'static str]),
}

impl Field {
    pub fn new(name: &'static str, label: &'static str, kind: Kind) -> Self {
        Self { name, label, kind, value: String::new(), is_required: false }
    }

    pub fn with(self, value: impl Into<String>) -> Self {
        Self { value: value.into(), ..self }
    }

    pub fn required(self) -> Self {
        Self { is_required: true, ..self }
    }

    fn json(&self) -> Value {
        let (kind, choices): (_, &[&str]) = match self.kind {
            Kind::Text => ("text", &[]),
            Kind::Lines => ("lines", &[]),
            Kind::Number => ("number", &[]),
            Kind::Check => ("check", &[]),
            Kind::Labels => ("labels", &[]),
            Kind::Choice(choices) => ("choice", choices),
        };
        json!({
            "name": self.name, "label": self.label, "kind": kind, "choices": choices, "value": self.value,
            "required": self.is_required,
        })
    }
}

impl Action {
    /// An action whose call says in its body who acts and why, and nothing else.
    pub fn new(needs: Needs, name: &'static str, method: &'static str, path: String, text: String) -> Self {
        Self { name, needs, method, path, text, by: By::Body, body: json!({}), fields: Vec::new() }
    }

    /// The button. What is as usual is left out: a long queue has thousands of buttons.
    pub fn button(&self) -> Markup {
        let mut call = json!({ "method": self.method, "path": self.path, "text": self.text });
        match self.by {
            By::Body => {}
            By::Query => call["by"] = "query".into(),
            By::Owner => call["by"] = "owner".into(),
            By::Next => call["by"] = "next".into(),
        }
        if self.body != json!({}) {
            call["body"] = self.body.clone();
        }
        if !self.fields.is_empty() {
            call["fields"] = self.fields.iter().map(Field::json).collect();
        }
        html! { button type="button" data-action=(call) { (self.name) } }
    }
}
