//! A body against a schema with all that costs: references to itself, patterns, uniqueness, conditions.

use routing::schema::Schema;
use serde_json::{Value, json};
use std::sync::LazyLock;

static SCHEMA: LazyLock<Schema> = LazyLock::new(|| {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": "#/$defs/node",
        "$defs": {"node": {
            "type": ["object", "array", "string", "number", "null"],
            "properties": {
                "name": {"type": "string", "pattern": "^(a|b)*c$", "maxLength": 20},
                "children": {"type": "array", "items": {"$ref": "#/$defs/node"}, "maxItems": 10},
                "kind": {"enum": ["a", "b", 1]}
            },
            "if": {"required": ["kind"]}, "then": {"required": ["name"]},
            "additionalProperties": {"anyOf": [{"type": "integer"}, {"format": "email"}]}
        }}
    });
    Schema::new(&schema).expect("the schema compiles")
});

pub fn run(data: &[u8]) {
    let body: Option<Value> = serde_json::from_slice(data).ok();
    let misfits = SCHEMA.misfits(body.as_ref());
    assert!(misfits.len() <= 20);
    assert!(
        body.is_some() || !misfits.is_empty(),
        "no JSON fits nothing"
    );
    assert_eq!(
        misfits,
        SCHEMA.misfits(body.as_ref()),
        "the same body, the same answer"
    );
}
