//! JSON Schema: whether a body fits, and what doesn't.
//!
//! Drafts 4, 6, 7, 2019-09 and 2020-12, by the schema's `$schema`; without one 2020-12. Nothing is ever fetched: a `$ref`
//! leads to a place in the schema itself. What a check may cost is known before any body is seen ([`cost`]), since nothing
//! can stop one half-way.

mod cost;
#[cfg(test)]
mod tests;

use cost::Cost;
use jsonschema::{Draft, PatternOptions, Validator};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The largest schema, as JSON text without spaces.
pub const MOST_SCHEMA_BYTES: usize = 64 << 10;

/// Misfits that are told; the first ones that are met.
pub const MOST_MISFITS: usize = 20;

/// Characters of a misfit's message and of its path. Messages repeat what they judge.
const MOST_TEXT: usize = 256;

/// A regular expression with look-around or a back reference gives up after so many steps; others take linear time.
const MOST_BACKTRACKS: usize = 10_000;

/// Bytes of one compiled regular expression.
const MOST_PATTERN_BYTES: usize = 1 << 20;

/// A source's or topic's rule, as its row has it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    pub action: Action,
    pub schema: Value,
}

/// What happens to a body that doesn't fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Reject,
    Warn,
}

/// One thing that doesn't fit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Misfit {
    /// Where in the body, as a JSON Pointer; empty: the body as a whole.
    pub path: String,
    /// Which keyword of the schema says so.
    pub keyword: String,
    pub message: String,
}

/// A rule made ready.
#[derive(Debug)]
pub struct Check {
    pub rule: Rule,
    /// `None`: it didn't compile, which the compiler that wrote the row would have said. Nothing fits then.
    schema: Option<Schema>,
}

impl Check {
    pub fn new(rule: Rule) -> Check {
        let schema = Schema::new(&rule.schema).ok();
        Check { rule, schema }
    }

    /// As [`Schema::misfits`].
    pub fn misfits(&self, body: Option<&Value>) -> Vec<Misfit> {
        match &self.schema {
            Some(schema) => schema.misfits(body),
            None => vec![Misfit {
                path: String::new(),
                keyword: "schema".to_owned(),
                message: "this gateway can't read the schema".to_owned(),
            }],
        }
    }
}

/// A compiled schema.
#[derive(Debug)]
pub struct Schema {
    validator: Validator,
    /// Levels of nesting up to which a check's cost is bounded; only a schema that refers to itself has any.
    most_depth: Option<usize>,
}

impl Schema {
    /// The error is a sentence that says what is wrong with the schema.
    pub fn new(schema: &Value) -> Result<Schema, String> {
        if schema.to_string().len() > MOST_SCHEMA_BYTES {
            return Err(format!(
                "the schema is larger than {} Ki",
                MOST_SCHEMA_BYTES >> 10
            ));
        }
        let draft = draft(schema)?;
        let cost = Cost::of(schema)?;
        let patterns = PatternOptions::fancy_regex()
            .backtrack_limit(MOST_BACKTRACKS)
            .size_limit(MOST_PATTERN_BYTES);
        let validator = jsonschema::options()
            .with_draft(draft)
            .with_pattern_options(patterns)
            .offline()
            .build(schema)
            .map_err(|error| {
                let place = error.instance_path().to_string();
                let message = short(&error.to_string());
                match place.as_str() {
                    "" => format!("this is no JSON Schema: {message}"),
                    place => format!("this is no JSON Schema: at `{}` {message}", short(place)),
                }
            })?;
        Ok(Schema {
            validator,
            most_depth: cost.most_depth(),
        })
    }

    /// What of the body doesn't fit; nothing: it fits. `None` is a body that isn't JSON, and fits no schema.
    pub fn misfits(&self, body: Option<&Value>) -> Vec<Misfit> {
        let whole = |keyword: &str, message: String| Misfit {
            path: String::new(),
            keyword: keyword.to_owned(),
            message,
        };
        let Some(body) = body else {
            let message = "the body is not JSON, and a schema is for JSON";
            return vec![whole("json", message.to_owned())];
        };
        if let Some(most) = self.most_depth
            && !is_flatter(body, most)
        {
            let message = format!(
                "the body is nested more than {most} levels deep, further than this schema, which refers to itself, can be followed"
            );
            return vec![whole("depth", message)];
        }
        // Most bodies fit, and to know only that costs less.
        if self.validator.is_valid(body) {
            return Vec::new();
        }
        let errors = self.validator.iter_errors(body).take(MOST_MISFITS);
        let mut misfits: Vec<_> = errors
            .map(|error| Misfit {
                path: short(error.instance_path().as_str()),
                keyword: error.kind().keyword().to_owned(),
                message: short(&error.to_string()),
            })
            .collect();
        // A schema's keywords have no order; the same body must get the same answer.
        misfits.sort_by(|a, b| (&a.path, &a.keyword).cmp(&(&b.path, &b.keyword)));
        misfits
    }
}

/// The drafts by their addresses; another address is a mistake, or a dialect that nobody here speaks.
fn draft(schema: &Value) -> Result<Draft, String> {
    let Some(named) = schema.get("$schema") else {
        return Ok(Draft::Draft202012);
    };
    let known = [
        ("json-schema.org/draft-04/schema", Draft::Draft4),
        ("json-schema.org/draft-06/schema", Draft::Draft6),
        ("json-schema.org/draft-07/schema", Draft::Draft7),
        ("json-schema.org/draft/2019-09/schema", Draft::Draft201909),
        ("json-schema.org/draft/2020-12/schema", Draft::Draft202012),
    ];
    let address = named.as_str().unwrap_or_default();
    let address = address
        .trim_start_matches("https://")
        .trim_start_matches("http://")
        .trim_end_matches('#');
    let found = known.iter().find(|(known, _)| *known == address);
    found.map(|(_, draft)| *draft).ok_or_else(|| {
        format!(
            "`$schema` is {}, which is no draft that is known here; write `https://json-schema.org/draft/2020-12/schema`, or one of 2019-09, draft-07, draft-06 and draft-04",
            short(&json!(named).to_string())
        )
    })
}

/// Whether no value lies more than `most` levels deep. The walk goes no deeper than that, and JSON is 128 deep at most.
fn is_flatter(value: &Value, most: usize) -> bool {
    let Some(below) = most.checked_sub(1) else {
        return !value.is_array() && !value.is_object();
    };
    match value {
        Value::Array(items) => items.iter().all(|item| is_flatter(item, below)),
        Value::Object(fields) => fields.values().all(|field| is_flatter(field, below)),
        _ => true,
    }
}

fn short(text: &str) -> String {
    match text.char_indices().nth(MOST_TEXT) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}
