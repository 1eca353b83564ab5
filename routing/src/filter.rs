//! Filters: which events a connection takes.
//!
//! A rule is a path, an operator and a value. It is read once, when the resource is compiled ([`Rule::parse`]), and kept
//! in the row in a canonical form: two ways of writing one rule make one row. Matching is total: a path that leads
//! nowhere is never an error, it is a missing value.
//!
//! What holds for every operator:
//! - A path may lead to several values (a header sent twice, `[*]`): the rule holds when it holds for one of them.
//!   `neq` is the inverse of `eq`, so it holds when none is equal, and so when there is none.
//! - Numbers are compared as numbers, exactly: `1` equals `1.0`, and 64-bit integers don't pass through a float.
//! - Headers, query, form fields and the other texts of a request carry no types, so there `10` is also the number ten and
//!   `true` the boolean. In a JSON body, `"10"` is a string and nothing else.
//!
//! One connection's filter is a [`Matcher`]; the [`Index`] of a source finds those of its connections that an event can
//! pass, without asking each.

mod compare;
mod explain;
mod index;
mod look;
mod path;
mod pattern;
#[cfg(test)]
mod tests;

pub use compare::Scalar;
pub use explain::Objection;
pub use index::Index;
pub use path::{Path, Segment};
pub use pattern::Pattern;

use crate::event::EventView;
use compare::{PathKey, Visit};
use index::Gate;
use look::{NO_SLOT, Shared};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::{cell::Cell, cmp::Ordering};

/// The canonical form that a row keeps. Every `all` matches, at least one of `any` unless it is empty, and no `none`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    pub all: Vec<Rule>,
    pub any: Vec<Rule>,
    pub none: Vec<Rule>,
}

/// One rule in canonical form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub path: Path,
    pub test: Test,
}

/// The operator with its value, of the type that the operator needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Test {
    Eq(Scalar),
    Neq(Scalar),
    Contains(String),
    StartsWith(String),
    EndsWith(String),
    Regex(Pattern),
    Gt(serde_json::Number),
    Gte(serde_json::Number),
    Lt(serde_json::Number),
    Lte(serde_json::Number),
    Exists(bool),
    In(Vec<Scalar>),
}

/// Of one `in`. Each is compared with each value that the path leads to, while a sender waits.
const MOST_CHOICES: usize = 256;

/// Bytes of one text to compare with. Longer ones are not what filters are for, and every gateway keeps every rule.
const MOST_TEXT_BYTES: usize = 4096;

/// Patterns of one filter: each keeps its program in the memory of every gateway.
pub const MOST_PATTERNS: usize = 16;

/// The operators by name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    Eq,
    Neq,
    Contains,
    StartsWith,
    EndsWith,
    Regex,
    Gt,
    Gte,
    Lt,
    Lte,
    Exists,
    In,
}

impl Op {
    pub const ALL: [Op; 12] = [
        Op::Eq,
        Op::Neq,
        Op::Contains,
        Op::StartsWith,
        Op::EndsWith,
        Op::Regex,
        Op::Gt,
        Op::Gte,
        Op::Lt,
        Op::Lte,
        Op::Exists,
        Op::In,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Op::Eq => "eq",
            Op::Neq => "neq",
            Op::Contains => "contains",
            Op::StartsWith => "startsWith",
            Op::EndsWith => "endsWith",
            Op::Regex => "regex",
            Op::Gt => "gt",
            Op::Gte => "gte",
            Op::Lt => "lt",
            Op::Lte => "lte",
            Op::Exists => "exists",
            Op::In => "in",
        }
    }

    pub fn parse(text: &str) -> Option<Op> {
        Op::ALL.into_iter().find(|op| op.as_str() == text)
    }
}

/// The member of a rule that a mistake is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    Path,
    Op,
    Value,
}

impl Part {
    pub const fn as_str(self) -> &'static str {
        match self {
            Part::Path => "path",
            Part::Op => "op",
            Part::Value => "value",
        }
    }
}

/// A rule that can't be compiled; the message says what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRule {
    pub part: Part,
    pub message: String,
}

impl InvalidRule {
    fn new(part: Part, message: impl Into<String>) -> InvalidRule {
        let message = message.into();
        InvalidRule { part, message }
    }
}

impl Rule {
    /// Compiles one rule as a manifest has it.
    pub fn parse(path: &str, op: Op, value: Option<&Value>) -> Result<Rule, InvalidRule> {
        let path = Path::parse(path).map_err(|message| InvalidRule::new(Part::Path, message))?;
        let test = Test::parse(&path, op, value)?;
        Ok(Rule { path, test })
    }

    fn matches(&self, event: &EventView<'_>) -> bool {
        self.test.holds(|holds| self.path.any(event, holds))
    }

    fn matches_shared<'e>(&self, event: &'e EventView<'_>, slot: u8, shared: &Shared<'e>) -> bool {
        self.test
            .holds(|holds| shared.any(slot, &self.path, event, holds))
    }
}

impl Test {
    /// `any` says whether something holds for one of the values that the path leads to.
    fn holds(&self, any: impl FnOnce(Visit<'_>) -> bool) -> bool {
        match self {
            Test::Eq(value) => any(&|found| found.equals(value)),
            Test::Neq(value) => !any(&|found| found.equals(value)),
            Test::In(values) => any(&|found| values.iter().any(|value| found.equals(value))),
            Test::Contains(part) => any(&|found| found.text(|text| text.contains(part))),
            Test::StartsWith(part) => any(&|found| found.text(|text| text.starts_with(part))),
            Test::EndsWith(part) => any(&|found| found.text(|text| text.ends_with(part))),
            Test::Regex(pattern) => {
                let left = Cell::new(pattern::MOST_TEXT_BYTES);
                any(&|found| found.text(|text| is_in(pattern, text, &left)))
            }
            Test::Exists(wanted) => any(&|found| !found.is_null()) == *wanted,
            Test::Gt(bound) => any(&|found| found.order(bound) == Some(Ordering::Greater)),
            Test::Gte(bound) => any(&|found| found.order(bound).is_some_and(Ordering::is_ge)),
            Test::Lt(bound) => any(&|found| found.order(bound) == Some(Ordering::Less)),
            Test::Lte(bound) => any(&|found| found.order(bound).is_some_and(Ordering::is_le)),
        }
    }

    fn parse(path: &Path, op: Op, value: Option<&Value>) -> Result<Test, InvalidRule> {
        let scalar = || Scalar::parse(path, op, value);
        let number = || compare::parse_number(path, op, value);
        Ok(match op {
            Op::Eq => Test::Eq(scalar()?),
            Op::Neq => Test::Neq(scalar()?),
            Op::Gt => Test::Gt(number()?),
            Op::Gte => Test::Gte(number()?),
            Op::Lt => Test::Lt(number()?),
            Op::Lte => Test::Lte(number()?),
            Op::Contains => Test::Contains(text_part(op, value)?.to_owned()),
            Op::StartsWith => Test::StartsWith(text_part(op, value)?.to_owned()),
            Op::EndsWith => Test::EndsWith(text_part(op, value)?.to_owned()),
            Op::Regex => Pattern::parse(text_part(op, value)?)
                .map(Test::Regex)
                .map_err(|message| InvalidRule::new(Part::Value, message))?,
            Op::Exists => match value {
                None => Test::Exists(true),
                Some(Value::Bool(wanted)) => Test::Exists(*wanted),
                other => {
                    let message = format!(
                        "`exists` needs true or false, not {}",
                        compare::described(other)
                    );
                    return Err(InvalidRule::new(Part::Value, message));
                }
            },
            Op::In => match value {
                Some(Value::Array(values)) if values.len() > MOST_CHOICES => {
                    let message = format!(
                        "`in` takes at most {MOST_CHOICES} values; there are {}",
                        values.len()
                    );
                    return Err(InvalidRule::new(Part::Value, message));
                }
                Some(Value::Array(values)) if !values.is_empty() => {
                    let each = values
                        .iter()
                        .map(|value| Scalar::parse(path, op, Some(value)));
                    Test::In(each.collect::<Result<_, _>>()?)
                }
                other => {
                    let message = format!(
                        "`in` needs a list with at least one value, as [a, b], not {}",
                        compare::described(other)
                    );
                    return Err(InvalidRule::new(Part::Value, message));
                }
            },
        })
    }
}

/// The value of an operator that looks at texts only.
fn text_part(op: Op, value: Option<&Value>) -> Result<&str, InvalidRule> {
    if let Some(Value::String(part)) = value {
        return compare::bounded(part);
    }
    let name = op.as_str();
    let described = compare::described(value);
    let message = match op {
        Op::Contains => format!(
            "`{name}` looks for a part of a text and needs a text, not {described}; to look for an element of a list, \
             write `path: \"…[*]\"` with `op: eq`"
        ),
        _ => format!("`{name}` looks at texts and needs one, not {described}; write it in quotes"),
    };
    Err(InvalidRule::new(Part::Value, message))
}

/// Whether the text has the pattern, and is not beyond the bytes that are `left` to look at.
fn is_in(pattern: &Pattern, text: &str, left: &Cell<usize>) -> bool {
    let Some(rest) = left.get().checked_sub(text.len()) else {
        left.set(0);
        return false;
    };
    left.set(rest);
    pattern.is_in(text)
}

/// A filter compiled once, when the table is built. The default takes every event.
#[derive(Debug, Clone, Default)]
pub struct Matcher {
    all: Vec<Rule>,
    any: Vec<Rule>,
    none: Vec<Rule>,
    /// How the index can find it.
    gates: Vec<Gate>,
    /// The paths of all rules, in their order.
    paths: Vec<PathKey>,
}

impl Matcher {
    pub fn new(filter: &Filter) -> Matcher {
        // Rules are independent, so the cheap ones go first: most events are told apart by a header, without parsing a body.
        let cheap_first = |rules: &[Rule]| {
            let mut rules = rules.to_vec();
            rules.sort_by_key(|rule| rule.path.cost());
            rules
        };
        let (all, any, none) = (
            cheap_first(&filter.all),
            cheap_first(&filter.any),
            cheap_first(&filter.none),
        );
        let rules = all.iter().chain(&any).chain(&none);
        Matcher {
            paths: rules.map(|rule| PathKey::of(&rule.path)).collect(),
            gates: Gate::of(&all, &any),
            all,
            any,
            none,
        }
    }

    /// Whether the event passes. Allocates nothing, but for the body's fields once an event, and for a query value that is
    /// percent-encoded.
    pub fn matches(&self, event: &EventView<'_>) -> bool {
        self.passes(|_, rule| rule.matches(event))
    }

    /// The same, with the slots of all rules in their order.
    fn matches_shared<'e>(
        &self,
        event: &'e EventView<'_>,
        slots: &[u8],
        shared: &Shared<'e>,
    ) -> bool {
        self.passes(|place, rule| {
            let slot = slots.get(place).copied().unwrap_or(NO_SLOT);
            rule.matches_shared(event, slot, shared)
        })
    }

    fn passes(&self, holds: impl Fn(usize, &Rule) -> bool) -> bool {
        let places = |rules: &[Rule], from: usize| from..from + rules.len();
        let (any_at, none_at) = (self.all.len(), self.all.len() + self.any.len());
        let mut all = self.all.iter().zip(places(&self.all, 0));
        let mut any = self.any.iter().zip(places(&self.any, any_at));
        let mut none = self.none.iter().zip(places(&self.none, none_at));
        all.all(|(rule, place)| holds(place, rule))
            && (self.any.is_empty() || any.any(|(rule, place)| holds(place, rule)))
            && !none.any(|(rule, place)| holds(place, rule))
    }

    fn rule(&self, place: usize) -> Option<&Rule> {
        let mut rules = self.all.iter().chain(&self.any).chain(&self.none);
        rules.nth(place)
    }
}
