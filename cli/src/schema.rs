//! What the API server would refuse in a spec by the definition's schema: types, ranges, lengths, words.
//!
//! Reading a manifest into its type is laxer in places (a list can pass for an object, a number knows no range), and
//! what runs on a laptop must be taken by a cluster. Patterns and CEL rules are not judged here: what they say, the
//! compiler says too.

use serde_json::Value;
use std::{collections::BTreeMap, sync::LazyLock};

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// As `spec.filter.all[0].op`.
    pub(crate) path: String,
    /// What to change.
    pub(crate) message: String,
}

/// The schema of each kind's manifests.
static SCHEMAS: LazyLock<BTreeMap<String, Value>> = LazyLock::new(|| {
    let definitions = crds::definitions::all().into_iter();
    let schema = |definition: &Value| {
        definition
            .pointer("/spec/versions/0/schema/openAPIV3Schema")
            .cloned()
    };
    definitions
        .filter_map(|definition| {
            let kind = definition.spec.names.kind.clone();
            Some((kind, schema(&serde_json::to_value(definition).ok()?)?))
        })
        .collect()
});

/// What is wrong with the spec of a manifest of this kind.
pub(crate) fn check(kind: &str, manifest: &Value) -> Vec<Violation> {
    let mut found = Vec::new();
    let schema = SCHEMAS
        .get(kind)
        .and_then(|schema| schema.pointer("/properties/spec"));
    if let (Some(schema), Some(spec)) = (schema, manifest.get("spec")) {
        walk(spec, schema, "spec", &mut found);
    }
    found
}

/// As deep as the schema is: the depth of what was written doesn't matter.
fn walk(value: &Value, schema: &Value, path: &str, found: &mut Vec<Violation>) {
    // The API server drops a null before it looks.
    if value.is_null() || schema.get("x-kubernetes-int-or-string") == Some(&Value::Bool(true)) {
        return;
    }
    let mut wrong = |message: String| {
        found.push(Violation {
            path: path.to_owned(),
            message,
        })
    };
    let words = schema.get("enum").and_then(Value::as_array);
    if let Some(words) = words.filter(|words| !words.contains(value)) {
        let words: Vec<String> = words.iter().map(Value::to_string).collect();
        return wrong(format!("must be one of {}", words.join(", ")));
    }
    let bound = |name: &str| schema.get(name).and_then(Value::as_f64);
    match (schema.get("type").and_then(Value::as_str), value) {
        (Some("object"), Value::Object(fields)) => {
            let known = schema.get("properties");
            let others = schema.get("additionalProperties");
            for (name, field) in fields {
                if let Some(schema) = known.and_then(|known| known.get(name)).or(others) {
                    walk(field, schema, &format!("{path}.{name}"), found);
                }
            }
        }
        (Some("array"), Value::Array(items)) => {
            outside(
                items.len() as f64,
                bound("minItems"),
                bound("maxItems"),
                "entries",
            )
            .into_iter()
            .for_each(&mut wrong);
            if let Some(schema) = schema.get("items") {
                for (n, item) in items.iter().enumerate() {
                    walk(item, schema, &format!("{path}[{n}]"), found);
                }
            }
        }
        (Some("string"), Value::String(text)) => {
            outside(
                text.chars().count() as f64,
                bound("minLength"),
                bound("maxLength"),
                "characters",
            )
            .into_iter()
            .for_each(&mut wrong);
        }
        (Some("integer"), Value::Number(number))
            if number.as_f64().is_some_and(|n| n.fract() == 0.0) =>
        {
            outside(
                number.as_f64().unwrap_or_default(),
                bound("minimum"),
                bound("maximum"),
                "",
            )
            .into_iter()
            .for_each(&mut wrong);
        }
        (Some("number"), Value::Number(number)) => {
            outside(
                number.as_f64().unwrap_or_default(),
                bound("minimum"),
                bound("maximum"),
                "",
            )
            .into_iter()
            .for_each(&mut wrong);
        }
        (Some("boolean"), Value::Bool(_)) | (None, _) => {}
        (Some(expected), _) => wrong(match expected {
            "object" => "must be a mapping: write its fields under it".to_owned(),
            "array" => "must be a list: begin each entry with '- '".to_owned(),
            "string" => "must be text: put it in quotes".to_owned(),
            "integer" => "must be a whole number, without quotes".to_owned(),
            "boolean" => "must be true or false, without quotes".to_owned(),
            other => format!("must be a {other}"),
        }),
    }
}

fn outside(n: f64, least: Option<f64>, most: Option<f64>, unit: &str) -> Option<String> {
    let unit = if unit.is_empty() {
        String::new()
    } else {
        format!(" {unit}")
    };
    match (least, most) {
        (Some(1.0), _) if n < 1.0 && !unit.is_empty() => Some("must not be empty".to_owned()),
        (Some(least), _) if n < least => Some(format!("must be at least {least}{unit}")),
        (_, Some(most)) if n > most => Some(format!("must be at most {most}{unit}")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn said(kind: &str, spec: Value) -> Vec<String> {
        let violations = check(kind, &json!({ "spec": spec })).into_iter();
        violations
            .map(|violation| format!("{}: {}", violation.path, violation.message))
            .collect()
    }

    #[test]
    fn every_kind_has_a_schema() {
        for kind in crds::Kind::ALL {
            assert!(
                SCHEMAS[kind.as_str()]
                    .pointer("/properties/spec/properties")
                    .is_some(),
                "{kind:?}"
            );
        }
    }

    #[test]
    fn a_list_does_not_pass_for_an_object() {
        assert_eq!(
            said("Source", json!([])),
            ["spec: must be a mapping: write its fields under it"]
        );
        assert_eq!(
            said(
                "Connection",
                json!({"source": ["github"], "destination": {"name": "ci"}})
            ),
            ["spec.source: must be a mapping: write its fields under it"]
        );
    }

    #[test]
    fn a_number_has_its_range_and_a_text_its_length() {
        let retry = json!({"retry": {"maxRetries": 101}});
        assert_eq!(
            said("Connection", retry),
            ["spec.retry.maxRetries: must be at most 100"]
        );
        let source = json!({"source": {"name": ""}});
        assert_eq!(
            said("Connection", source),
            ["spec.source.name: must not be empty"]
        );
    }

    #[test]
    fn what_the_contract_shows_passes() {
        let yaml = include_str!("../../examples/quickstart/quickstart.yaml");
        for document in serde_yaml::Deserializer::from_str(yaml) {
            let manifest: Value = serde::Deserialize::deserialize(document).expect("YAML");
            assert_eq!(
                check(manifest["kind"].as_str().unwrap_or_default(), &manifest),
                []
            );
        }
    }
}
