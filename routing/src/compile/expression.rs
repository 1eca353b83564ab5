//! A JSONata expression of an object. Whether it compiles is found out elsewhere and told ([`super::Compiler::set_expression`]),
//! as Secrets are: the engine is not to be trusted within this process.

use super::findings::{Findings, Reason};
use crate::transform::{Expression, Input, envelope_root};
use std::{collections::BTreeMap, sync::Arc};

/// What is known of an expression.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It compiles; the names that its paths begin with where they look at the input.
    Roots(Vec<String>),
    /// What is wrong with it, and where.
    Wrong(String),
}

pub(super) type Expressions = BTreeMap<Arc<str>, Checked>;

/// `input` is what the author has fixed.
pub(super) fn compile(
    text: &str,
    input: Option<Input>,
    known: &Expressions,
    wrong: Reason,
    path: &str,
    findings: &mut Findings,
) -> Option<Expression> {
    match known.get_key_value(text) {
        Some((text, Checked::Roots(roots))) => {
            let decided = Input::of_roots(roots);
            let why = match (input, envelope_root(roots)) {
                (Some(_), _) => "as `input` says".to_owned(),
                (None, Some(root)) => format!("since a path begins with `{root}`"),
                (None, None) => "since no path begins with a name of the envelope".to_owned(),
            };
            let input = input.unwrap_or(decided);
            let sees = match input {
                Input::Body => "the body",
                Input::Envelope => "the whole event",
            };
            findings.notes.push(format!(
                "`{path}` sees {sees} (input {}), {why}",
                input.as_str()
            ));
            Some(Expression {
                text: text.clone(),
                input,
            })
        }
        Some((_, Checked::Wrong(message))) => {
            findings.add(wrong, path, format!("it is no JSONata: {message}"));
            None
        }
        None => {
            let message = "the expression is not checked yet; if this stays, the operator's log says what keeps its sandbox from working";
            findings.add(Reason::ExpressionNotChecked, path, message);
            None
        }
    }
}
