mod suite;

use super::*;
use std::fmt::Write as _;

fn schema(schema: Value) -> Schema {
    Schema::new(&schema).expect("a schema")
}

fn refused(schema: Value) -> String {
    Schema::new(&schema).expect_err("no schema")
}

fn misfits(schema: &Schema, body: Value) -> Vec<String> {
    let misfits = schema.misfits(Some(&body));
    misfits
        .iter()
        .map(|one| format!("{} {}", one.path, one.keyword))
        .collect()
}

#[test]
fn each_misfit_is_told_with_its_place_and_keyword() {
    let order = schema(json!({
        "type": "object", "required": ["type", "data"],
        "properties": {"type": {"type": "string"}, "data": {"properties": {"n": {"minimum": 1}}}}
    }));
    assert_eq!(
        misfits(&order, json!({"type": "a", "data": {"n": 1}})),
        Vec::<String>::new()
    );
    assert_eq!(
        misfits(&order, json!({"type": 1, "data": {"n": 0}})),
        ["/data/n minimum", "/type type"]
    );
    assert_eq!(misfits(&order, json!({"type": "a"})), [" required"]);
    let message = &order.misfits(Some(&json!([])))[0].message;
    assert_eq!(message, r#"[] is not of type "object""#);
}

#[test]
fn a_body_that_is_not_json_fits_no_schema() {
    assert_eq!(schema(json!({})).misfits(None)[0].keyword, "json");
}

#[test]
fn a_thousand_misfits_are_told_in_twenty_short_lines() {
    let strings = schema(json!({"items": {"type": "integer"}}));
    let body = Value::Array(vec![Value::String("x".repeat(10_000)); 1_000]);
    let misfits = strings.misfits(Some(&body));
    assert_eq!(misfits.len(), MOST_MISFITS);
    assert!(
        misfits
            .iter()
            .all(|misfit| misfit.message.chars().count() <= MOST_TEXT + 1)
    );
}

#[test]
fn the_draft_is_the_one_that_the_schema_names() {
    let exclusive = |draft: &str, schema_of: Value| {
        let mut schema = schema_of;
        schema["$schema"] = json!(draft);
        self::schema(schema)
    };
    // A boolean in draft 4, a number since draft 6.
    let four = exclusive(
        "http://json-schema.org/draft-04/schema#",
        json!({"minimum": 1, "exclusiveMinimum": true}),
    );
    assert_eq!(misfits(&four, json!(1)).len(), 1);
    for draft in [
        "http://json-schema.org/draft-06/schema#",
        "http://json-schema.org/draft-07/schema",
        "https://json-schema.org/draft/2019-09/schema",
        "https://json-schema.org/draft/2020-12/schema",
    ] {
        let later = exclusive(draft, json!({"exclusiveMinimum": 1}));
        assert_eq!(misfits(&later, json!(1)).len(), 1, "{draft}");
    }
    let prefixed = schema(json!({"prefixItems": [{"type": "string"}]}));
    assert_eq!(
        misfits(&prefixed, json!([1])).len(),
        1,
        "without `$schema` it is 2020-12"
    );
    assert!(refused(json!({"$schema": "https://example.com/mine"})).contains("no draft"));
}

#[test]
fn what_is_no_schema_is_refused_with_the_place() {
    assert!(refused(json!({"type": "strin"})).contains("/type"));
    assert!(refused(json!({"properties": {"a": {"pattern": "("}}})).contains("no JSON Schema"));
    assert!(refused(json!({"x": "x".repeat(MOST_SCHEMA_BYTES)})).contains("larger than 64 Ki"));
}

#[test]
fn nothing_is_fetched() {
    for address in [
        "http://169.254.169.254/latest",
        "https://example.com/a.json",
        "file:///etc/passwd",
    ] {
        refused(json!({"$ref": address}));
    }
}

#[test]
fn references_that_multiply_are_refused() {
    let mut text = r##"{"$ref": "#/$defs/d0", "$defs": {"##.to_owned();
    for n in 0..22 {
        let next = n + 1;
        write!(text, r##""d{n}": {{"allOf": [{{"$ref": "#/$defs/d{next}"}}, {{"$ref": "#/$defs/d{next}"}}]}}, "##).expect("text");
    }
    text.push_str(r#""d22": {"type": "string"}}}"#);
    let doubled: Value = serde_json::from_str(&text).expect("JSON");
    assert!(refused(doubled).contains("multiply"));
}

#[test]
fn a_schema_that_never_ends_is_refused() {
    for endless in [
        json!({"$ref": "#"}),
        json!({"allOf": [{"$ref": "#"}]}),
        json!({"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#/$defs/b"}]}, "b": {"not": {"$ref": "#/$defs/a"}}}}),
        json!({"$anchor": "me", "if": {"$ref": "#me"}}),
        json!({"$id": "http://x/y", "oneOf": [{"$ref": "http://x/y"}]}),
        json!({"$dynamicAnchor": "me", "allOf": [{"$dynamicRef": "#me"}]}),
    ] {
        assert!(refused(endless.clone()).contains("never ends"), "{endless}");
    }
}

#[test]
fn trees_and_lists_of_lists_are_followed_to_their_end() {
    let tree = schema(json!({"type": "object", "properties": {
        "left": {"$ref": "#"}, "right": {"$ref": "#"}, "children": {"items": {"$ref": "#"}}
    }}));
    let nested = (0..100).fold(json!({}), |below, _| json!({"left": below}));
    assert_eq!(misfits(&tree, nested), Vec::<String>::new());
    let wrong = (0..100).fold(json!(1), |below, _| json!({"children": [below]}));
    assert_eq!(misfits(&tree, wrong).len(), 1);
}

#[test]
fn a_schema_that_looks_at_the_same_place_again_and_again_bounds_the_depth() {
    let twice = schema(json!({"properties": {"a": {"allOf": [{"$ref": "#"}, {"$ref": "#"}]}}}));
    let nested = |levels| (0..levels).fold(json!({}), |below, _| json!({"a": below}));
    assert_eq!(misfits(&twice, nested(10)), Vec::<String>::new());
    assert_eq!(misfits(&twice, nested(100)), [" depth"]);
    // Two alternatives that go on with the same field do it too.
    let either = schema(json!({"anyOf": [
        {"properties": {"next": {"$ref": "#"}, "k": {"const": 1}}, "required": ["k"]},
        {"properties": {"next": {"$ref": "#"}, "k": {"const": 2}}}
    ]}));
    let list = |levels| (0..levels).fold(json!({"k": 3}), |next, _| json!({"k": 2, "next": next}));
    assert_eq!(misfits(&either, list(100)), [" depth"]);
    assert!(!misfits(&either, list(5)).contains(&" depth".to_owned()));
}

#[test]
fn a_pattern_that_backtracks_for_ever_gives_up() {
    let hostile = schema(json!({"pattern": "^(?=(a+)+$)(a|aa)+\\1$"}));
    let body = json!("a".repeat(5_000) + "b");
    assert_eq!(hostile.misfits(Some(&body)).len(), 1);
}
