//! The CustomResourceDefinitions, made of the types and the rules.
//!
//! What a derived schema lacks is put right here: rules, columns, bounds on whatever has none, the documentation of the
//! whole kind; and what it has too much of is taken away: `nullable` (a null would pass `has()` in CEL), unsigned
//! formats (the API server warns), `additionalProperties: false` (structural schemas prune instead).

use crate::{
    AlertRule, Collection, Connection, Destination, Kind, NotificationChannel, Source,
    Subscription, Topic, rules,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceColumnDefinition, CustomResourceDefinition,
};
use kube::CustomResourceExt;
use serde_json::{Map, Value, json};

pub use crate::rules::Rule;

/// The rules that the definitions carry.
pub fn rules() -> Vec<Rule> {
    rules::all()
}

/// A string that says nothing else may be this long.
const MAX_STRING: u64 = 1024;
/// A list that says nothing else may be this long.
const MAX_ITEMS: u64 = 64;

/// The definition of each kind, in the order of [`Kind::ALL`].
pub fn all() -> Vec<CustomResourceDefinition> {
    Kind::ALL.into_iter().map(definition).collect()
}

fn definition(kind: Kind) -> CustomResourceDefinition {
    let mut crd = match kind {
        Kind::Source => Source::crd(),
        Kind::Destination => Destination::crd(),
        Kind::Connection => Connection::crd(),
        Kind::Topic => Topic::crd(),
        Kind::Subscription => Subscription::crd(),
        Kind::AlertRule => AlertRule::crd(),
        Kind::NotificationChannel => NotificationChannel::crd(),
        Kind::Collection => Collection::crd(),
    };
    let version = &mut crd.spec.versions[0];
    version.additional_printer_columns = Some(columns(kind));
    let schema = version
        .schema
        .take()
        .expect("a derived definition has a schema");
    let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
    let root = &mut schema["openAPIV3Schema"];
    tidy(root);
    for rule in rules::all().into_iter().filter(|rule| rule.kind == kind) {
        let place = at(root, rule.path).unwrap_or_else(|| panic!("{kind} has no {}", rule.path));
        let place = place.as_object_mut().expect("a schema is an object");
        let list = place
            .entry("x-kubernetes-validations")
            .or_insert_with(|| json!([]));
        list.as_array_mut()
            .expect("just made")
            .push(json!({"rule": rule.expression, "message": rule.message}));
    }
    version.schema = Some(serde_json::from_value(schema).expect("what was a schema still is one"));
    crd
}

/// The schema of the value at a path such as `spec.http.auth`.
fn at<'s>(root: &'s mut Value, path: &str) -> Option<&'s mut Value> {
    path.split('.')
        .filter(|step| !step.is_empty())
        .try_fold(root, |schema, step| {
            schema.get_mut("properties")?.get_mut(step)
        })
}

fn tidy(schema: &mut Value) {
    let Some(schema) = schema.as_object_mut() else {
        return;
    };
    schema.remove("nullable");
    if schema.get("additionalProperties") == Some(&Value::Bool(false)) {
        schema.remove("additionalProperties");
    }
    if schema
        .get("format")
        .and_then(Value::as_str)
        .is_some_and(|format| format.starts_with("uint"))
    {
        schema.remove("format");
    }
    if let Some(values) = schema.get_mut("enum").and_then(Value::as_array_mut) {
        values.retain(|value| !value.is_null());
    }
    if let Some(Value::String(text)) = schema.get_mut("description") {
        *text = flowing(text);
    }
    bound(schema);
    for key in ["properties"] {
        for child in schema
            .get_mut(key)
            .and_then(Value::as_object_mut)
            .into_iter()
            .flat_map(Map::values_mut)
        {
            tidy(child);
        }
    }
    for key in ["items", "additionalProperties"] {
        if let Some(child) = schema.get_mut(key) {
            tidy(child);
        }
    }
}

/// The text with a source file's line ends gone: `kubectl explain` breaks lines itself.
fn flowing(text: &str) -> String {
    let paragraphs: Vec<String> = text
        .split("\n\n")
        .map(|paragraph| paragraph.replace('\n', " "))
        .collect();
    paragraphs.join("\n\n")
}

/// CEL's cost is bounded only where sizes are.
fn bound(schema: &mut Map<String, Value>) {
    match schema.get("type").and_then(Value::as_str) {
        Some("string") if !schema.contains_key("enum") && !schema.contains_key("format") => {
            schema.entry("maxLength").or_insert(MAX_STRING.into());
        }
        Some("array") => {
            schema.entry("maxItems").or_insert(MAX_ITEMS.into());
        }
        Some("object") if schema.contains_key("additionalProperties") => {
            schema.entry("maxProperties").or_insert(MAX_ITEMS.into());
        }
        _ => {}
    }
}

/// What `kubectl get` shows.
fn columns(kind: Kind) -> Vec<CustomResourceColumnDefinition> {
    let own: &[(&str, &str, i32)] = match kind {
        Kind::Source => &[("URL", ".status.url", 0), ("Suspended", ".spec.suspend", 1)],
        Kind::Destination => &[
            ("URL", ".spec.http.url", 0),
            ("Circuit", ".status.circuit", 0),
            ("Suspended", ".spec.suspend", 1),
        ],
        Kind::Connection => &[
            ("From", ".spec.source.name", 0),
            ("To", ".spec.destination.name", 0),
            ("Suspended", ".spec.suspend", 1),
        ],
        Kind::Subscription => &[
            ("Topic", ".spec.topic.name", 0),
            ("To", ".spec.destination.name", 0),
            ("Suspended", ".spec.suspend", 1),
        ],
        Kind::Collection => &[
            ("From", ".spec.source.name", 0),
            ("Key", ".spec.primaryKey", 0),
        ],
        Kind::Topic => &[("URL", ".status.url", 0)],
        Kind::AlertRule | Kind::NotificationChannel => &[],
    };
    let common = [
        (
            "Ready",
            r#".status.conditions[?(@.type=="Ready")].status"#,
            0,
        ),
        (
            "Reason",
            r#".status.conditions[?(@.type=="Ready")].reason"#,
            0,
        ),
    ];
    let column =
        |(name, path, priority): (&str, &str, i32), type_: &str| CustomResourceColumnDefinition {
            name: name.to_owned(),
            json_path: path.to_owned(),
            type_: type_.to_owned(),
            priority: (priority != 0).then_some(priority),
            ..Default::default()
        };
    let typed = |entry: &(&str, &str, i32)| {
        column(
            *entry,
            if entry.0 == "Suspended" {
                "boolean"
            } else {
                "string"
            },
        )
    };
    own.iter()
        .chain(&common)
        .map(typed)
        .chain([column(("Age", ".metadata.creationTimestamp", 0), "date")])
        .collect()
}

#[cfg(test)]
mod tests;
