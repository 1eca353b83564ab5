use super::*;
use expect_test::{Expect, expect};
use http::{HeaderMap, HeaderValue, Method};
use proptest::prelude::*;
use serde_json::json;

/// A push by an order service, with what senders do: a header twice, an encoded query, nested lists.
struct Sample {
    headers: HeaderMap,
    body: String,
    query: &'static str,
    address: &'static str,
}

impl Sample {
    fn new() -> Sample {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("x-github-event", "push"),
            ("x-shard", "12"),
            ("x-fraction", "0.5"),
            ("x-flag", "true"),
            ("x-tag", "old"),
            ("x-tag", "vip"),
            ("content-type", "application/json; charset=utf-8"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        headers.append(
            "x-raw",
            HeaderValue::from_bytes(b"caf\xe9").expect("obs-text is allowed"),
        );
        let body = json!({
            "type": "order.created",
            "test": false,
            "nothing": null,
            "a.b": "dotted",
            "it's": "quoted",
            "big": u64::MAX,
            "float": 1.0,
            "text_number": "10",
            "order": {
                "amount": 1000,
                "country": "NL",
                "tags": ["new", "vip"],
                "lines": [{"sku": "a", "price": 5}, {"sku": "b", "price": 50}],
            },
            "matrix": [[1, 2], [3, 4]],
            "0": "zero",
        });
        Sample {
            headers,
            body: body.to_string(),
            query: "page=2&name=J%C3%BCrgen+B&empty=&bare&tag=a&tag=b&%70ct=100%&bad=%ff&items[]=7",
            address: "203.0.113.7",
        }
    }

    fn matches(&self, matcher: &Matcher) -> bool {
        let address = self.address.parse().expect("an address");
        let body = self.body.as_bytes();
        matcher.matches(&EventView::new(
            &Method::POST,
            "/refunds/7",
            self.query,
            &self.headers,
            body,
            address,
        ))
    }
}

fn rule(path: &str, op: &str, value: Value) -> Rule {
    let op = Op::parse(op).expect("an operator");
    Rule::parse(path, op, Some(&value)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn one(rule: Rule) -> Matcher {
    Matcher::new(&Filter {
        all: vec![rule],
        ..Filter::default()
    })
}

#[track_caller]
fn holds(cases: &[(&str, &str, Value)]) {
    check(cases, true);
}

#[track_caller]
fn fails(cases: &[(&str, &str, Value)]) {
    check(cases, false);
}

#[track_caller]
fn check(cases: &[(&str, &str, Value)], expected: bool) {
    let sample = Sample::new();
    for (path, op, value) in cases {
        let matcher = one(rule(path, op, value.clone()));
        assert_eq!(sample.matches(&matcher), expected, "{path} {op} {value}");
    }
}

#[track_caller]
fn refused(path: &str, op: &str, value: Value, expected: Expect) {
    let error =
        Rule::parse(path, Op::parse(op).expect("an operator"), Some(&value)).expect_err(path);
    expected.assert_eq(&format!("{}: {error}", error.part.as_str()));
}

#[test]
fn body_paths_reach_fields_elements_and_each_element() {
    holds(&[
        ("body.type", "eq", json!("order.created")),
        ("payload.type", "eq", json!("order.created")),
        ("body.order.amount", "eq", json!(1000)),
        ("body.order.tags[1]", "eq", json!("vip")),
        ("body.order.tags.1", "eq", json!("vip")),
        ("body.order.tags[*]", "eq", json!("vip")),
        ("body.order.lines[*].price", "gt", json!(10)),
        ("body.matrix[*][*]", "eq", json!(4)),
        ("body[\"a.b\"]", "eq", json!("dotted")),
        ("body[\"it's\"]", "eq", json!("quoted")),
        ("body['a.b']", "eq", json!("dotted")),
        ("body['order'].country", "in", json!(["BE", "NL"])),
        ("body.0", "eq", json!("zero")),
        ("body", "exists", json!(true)),
    ]);
    fails(&[
        ("body.order.tags[2]", "exists", json!(true)),
        ("body.order.tags[*]", "eq", json!("gone")),
        ("body.order.lines[*].price", "gt", json!(50)),
        ("body.Type", "eq", json!("order.created")),
        ("body.type[*]", "exists", json!(true)),
        ("body[0]", "exists", json!(true)),
    ]);
}

#[test]
fn a_missing_path_is_never_an_error() {
    let missing = [
        "body.no",
        "body.type.no",
        "body.order.tags[9]",
        "headers.no",
        "query.no",
        "body.nothing.no",
        "body.order[*]",
    ];
    for path in missing {
        holds(&[(path, "exists", json!(false)), (path, "neq", json!("x"))]);
        fails(&[
            (path, "exists", json!(true)),
            (path, "eq", json!("x")),
            (path, "eq", json!(0)),
            (path, "in", json!(["x", false])),
            (path, "contains", json!("")),
            (path, "gt", json!(-1)),
            (path, "gte", json!(0)),
            (path, "lt", json!(1)),
            (path, "lte", json!(0)),
        ]);
    }
}

#[test]
fn null_is_there_for_eq_and_not_for_exists() {
    holds(&[
        ("body.nothing", "eq", json!(null)),
        ("body.nothing", "exists", json!(false)),
    ]);
    fails(&[
        ("body.nothing", "neq", json!(null)),
        ("body.no", "eq", json!(null)),
    ]);
}

#[test]
fn numbers_are_compared_as_numbers() {
    holds(&[
        ("body.float", "eq", json!(1)),
        ("body.float", "in", json!([1])),
        ("body.order.amount", "eq", json!(1000.0)),
        ("body.order.amount", "gte", json!(1000)),
        ("body.order.amount", "gt", json!(999.5)),
        ("body.order.amount", "lt", json!(1e300)),
        ("body.order.amount", "gt", json!(-1e300)),
        ("body.order.amount", "lte", json!(1000.0)),
        ("body.big", "eq", json!(u64::MAX)),
        ("body.big", "gt", json!(u64::MAX - 1)),
        ("body.big", "neq", json!(u64::MAX - 1)),
    ]);
    fails(&[
        ("body.big", "eq", json!(u64::MAX - 1)),
        ("body.big", "eq", json!(18_446_744_073_709_551_616.0)),
        ("body.order.amount", "gt", json!(1000)),
        ("body.text_number", "eq", json!(10)),
        ("body.text_number", "gt", json!(1)),
        ("body.type", "gt", json!(0)),
        ("body.test", "eq", json!(0)),
    ]);
}

#[test]
fn texts_without_types_are_numbers_and_booleans_where_a_rule_names_one() {
    holds(&[
        ("headers.x-shard", "eq", json!(12)),
        ("headers.x-shard", "eq", json!("12")),
        ("headers.x-shard", "gte", json!(12.0)),
        ("headers.x-shard", "in", json!([1, 12])),
        ("headers.x-fraction", "lt", json!(1)),
        ("headers.x-flag", "eq", json!(true)),
        ("query.page", "gt", json!(1)),
        ("query.items[]", "eq", json!(7)),
    ]);
    fails(&[
        ("headers.x-shard", "eq", json!("12.0")),
        ("headers.x-flag", "eq", json!(false)),
        ("headers.x-github-event", "gt", json!(0)),
        ("query.empty", "eq", json!(0)),
    ]);
}

#[test]
fn headers_are_found_in_any_case_and_by_any_of_their_values() {
    holds(&[
        ("headers.X-GitHub-Event", "eq", json!("push")),
        ("headers[\"x-github-event\"]", "eq", json!("push")),
        ("headers.x-tag", "eq", json!("vip")),
        ("headers.x-tag", "eq", json!("old")),
        ("headers.x-tag", "neq", json!("new")),
        ("headers.content-type", "contains", json!("charset")),
    ]);
    fails(&[("headers.x-tag", "neq", json!("vip"))]);
}

#[test]
fn a_header_that_is_not_utf8_is_missing() {
    holds(&[
        ("headers.x-raw", "exists", json!(false)),
        ("headers.x-raw", "neq", json!("café")),
    ]);
    fails(&[("headers.x-raw", "contains", json!("caf"))]);
}

#[test]
fn query_values_are_decoded_before_they_are_compared() {
    holds(&[
        ("query.name", "eq", json!("Jürgen B")),
        ("query.empty", "eq", json!("")),
        ("query.bare", "exists", json!(true)),
        ("query.tag", "eq", json!("b")),
        ("query.pct", "eq", json!("100%")),
        ("query[\"page\"]", "eq", json!("2")),
        ("query.bad", "exists", json!(false)),
    ]);
}

#[test]
fn the_rest_of_a_request_can_be_asked_for() {
    holds(&[
        ("method", "eq", json!("post")),
        ("method", "in", json!(["PUT", "POST"])),
        ("path", "eq", json!("/refunds/7")),
        ("path", "contains", json!("refunds")),
        ("content_type", "eq", json!("application/json")),
        ("source_ip", "eq", json!("203.0.113.7")),
        ("source_ip", "in", json!(["::ffff:203.0.113.7"])),
        ("source_ip", "neq", json!("2001:0db8::1")),
        ("source_ip", "contains", json!("203.0.")),
    ]);
}

#[test]
fn an_ipv6_address_has_one_spelling() {
    let mut sample = Sample::new();
    sample.address = "2001:db8:1111:2222:3333:4444:5555:6666";
    assert!(sample.matches(&one(rule(
        "source_ip",
        "eq",
        json!("2001:0DB8:1111:2222:3333:4444:5555:6666")
    ))));
    sample.address = "::ffff:10.1.2.3";
    assert!(sample.matches(&one(rule("source_ip", "eq", json!("10.1.2.3")))));
}

#[test]
fn parts_and_patterns_are_of_texts_only() {
    holds(&[
        ("body.type", "startsWith", json!("order.")),
        ("body.type", "startsWith", json!("")),
        ("body.type", "endsWith", json!(".created")),
        ("body.type", "regex", json!(r"^order\.(created|paid)$")),
        ("body.order.tags[*]", "startsWith", json!("vi")),
        ("body.order.lines[*].sku", "regex", json!("^b$")),
        ("headers.x-tag", "endsWith", json!("ip")),
        ("headers.x-tag", "regex", json!("^o")),
        ("headers.x-shard", "regex", json!("^[0-9]+$")),
        ("query.name", "startsWith", json!("Jürgen")),
        ("path", "startsWith", json!("/refunds/")),
        ("source_ip", "startsWith", json!("203.0.113.")),
        ("method", "regex", json!("^(POST|PUT)$")),
    ]);
    fails(&[
        ("body.type", "startsWith", json!("created")),
        ("body.type", "endsWith", json!("order")),
        ("body.type", "regex", json!("^created")),
        ("body.order.amount", "startsWith", json!("1")),
        ("body.order.amount", "regex", json!(".*")),
        ("body.test", "regex", json!("false")),
        ("body.order", "regex", json!("")),
        ("body.nothing", "regex", json!("")),
        ("body.no", "regex", json!("")),
        ("body.no", "startsWith", json!("")),
    ]);
}

#[test]
fn a_pattern_looks_at_a_bounded_part_of_an_event() {
    let bound = pattern::MOST_TEXT_BYTES;
    let mut sample = Sample::new();
    let starts = one(rule("body.a", "regex", json!("^x")));
    for (length, expected) in [(bound, true), (bound + 1, false)] {
        sample.body = json!({ "a": "x".repeat(length) }).to_string();
        assert_eq!(sample.matches(&starts), expected, "{length}");
    }
    let ends = one(rule("body.a[*]", "regex", json!("^last$")));
    for (length, expected) in [(bound - 4, true), (bound - 3, false)] {
        sample.body = json!({ "a": ["x".repeat(length), "last"] }).to_string();
        assert_eq!(sample.matches(&ends), expected, "{length}");
    }
}

/// The sample with a form in place of its JSON.
fn form(body: &str) -> Sample {
    let mut sample = Sample::new();
    sample.headers.insert(
        "content-type",
        HeaderValue::from_static("application/x-www-form-urlencoded; charset=UTF-8"),
    );
    sample.body = body.to_owned();
    sample
}

#[test]
fn the_fields_of_a_form_are_texts_and_lists_at_once() {
    let sample = form(
        "type=charge.paid&amount=1000&live=true&tag=new&tag=vip&data%5Bid%5D=7&name=J%C3%BCrgen+B",
    );
    for (path, op, value, expected) in [
        ("body.type", "eq", json!("charge.paid"), true),
        ("payload.type", "startsWith", json!("charge."), true),
        ("body.amount", "eq", json!("1000"), true),
        ("body.amount", "eq", json!(1000), true),
        ("body.amount", "gte", json!(999.5), true),
        ("body.live", "eq", json!(true), true),
        ("body.tag", "eq", json!("vip"), true),
        ("body.tag", "neq", json!("vip"), false),
        ("body.tag[*]", "eq", json!("new"), true),
        ("body.tag[1]", "eq", json!("vip"), true),
        ("body.tag.0", "eq", json!("vip"), false),
        ("body.tag[2]", "exists", json!(true), false),
        ("body.type[0]", "eq", json!("charge.paid"), true),
        ("body[\"data[id]\"]", "eq", json!(7), true),
        ("body.name", "eq", json!("Jürgen B"), true),
        ("body.type.deeper", "exists", json!(false), true),
        ("body[0]", "exists", json!(false), true),
        ("body.no", "exists", json!(false), true),
        ("body", "exists", json!(true), true),
        ("body", "eq", json!("type"), false),
        ("headers.x-github-event", "eq", json!("push"), true),
    ] {
        let matcher = one(rule(path, op, value.clone()));
        assert_eq!(sample.matches(&matcher), expected, "{path} {op} {value}");
    }
}

#[test]
fn a_form_that_is_json_is_json_and_a_form_elsewhere_is_none() {
    let json = form(r#"{"type": "x", "amount": "10"}"#);
    assert!(json.matches(&one(rule("body.type", "eq", json!("x")))));
    assert!(!json.matches(&one(rule("body.amount", "eq", json!(10)))));
    let empty = form("");
    assert!(empty.matches(&one(rule("body", "exists", json!(false)))));
    let mut text = Sample::new();
    text.headers
        .insert("content-type", HeaderValue::from_static("text/plain"));
    text.body = "type=x".to_owned();
    assert!(text.matches(&one(rule("body.type", "exists", json!(false)))));
    assert!(text.matches(&one(rule("content_type", "eq", json!("text/plain")))));
    assert!(text.matches(&one(rule("query.page", "eq", json!(2)))));
}

#[test]
fn all_any_and_none_join_as_the_manifest_says() {
    let yes = || rule("method", "eq", json!("POST"));
    let no = || rule("method", "eq", json!("GET"));
    let sample = Sample::new();
    let matches = |all: Vec<Rule>, any: Vec<Rule>, none: Vec<Rule>| {
        sample.matches(&Matcher::new(&Filter { all, any, none }))
    };

    assert!(matches(vec![], vec![], vec![]));
    assert!(matches(
        vec![yes(), yes()],
        vec![no(), yes()],
        vec![no(), no()]
    ));
    assert!(!matches(vec![yes(), no()], vec![], vec![]));
    assert!(!matches(vec![], vec![no(), no()], vec![]));
    assert!(!matches(vec![], vec![], vec![no(), yes()]));
    assert!(sample.matches(&Matcher::default()));
}

#[test]
fn a_body_that_is_no_json_has_no_fields() {
    let mut sample = Sample::new();
    for body in [
        "",
        " ",
        "not json",
        "{\"type\":",
        "{\"type\": \"order.created\"} x",
        &"[".repeat(10_000),
    ] {
        sample.body = body.to_owned();
        assert!(sample.matches(&one(rule("body.type", "exists", json!(false)))));
        assert!(!sample.matches(&one(rule("body", "exists", json!(true)))));
    }
    sample.body = format!("{}1{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(sample.matches(&one(rule("body[0]", "exists", json!(false)))));
}

#[test]
fn a_body_of_one_value_or_with_a_byte_order_mark_is_json() {
    let mut sample = Sample::new();
    sample.body = "7".to_owned();
    assert!(sample.matches(&one(rule("body", "eq", json!(7)))));
    sample.body = "\u{feff}[{\"a\": 1}]".to_owned();
    assert!(sample.matches(&one(rule("body[0].a", "eq", json!(1)))));
}

#[test]
fn a_mistake_in_a_path_says_what_to_write() {
    let eq = |path: &str, expected: Expect| refused(path, "eq", json!("x"), expected);
    eq(
        "",
        expect![
            "path: the path is empty or begins with a separator; a path is body.…, headers.…, query.…, method, path, content_type or source_ip"
        ],
    );
    eq(
        "type",
        expect![
            "path: `type` begins with none of the parts of a request; for a field of the JSON body write `body.type`; a path is body.…, headers.…, query.…, method, path, content_type or source_ip"
        ],
    );
    eq("header.x", expect!["path: write `headers.x` (with an s)"]);
    eq(
        "headers",
        expect!["path: `headers` names nothing; write `headers.x-github-event`"],
    );
    eq(
        "headers.x y",
        expect!["path: `x y` can't be the name of a header; write `headers.x-github-event`"],
    );
    eq(
        "query.",
        expect!["path: `query.` names nothing; write `query.page`"],
    );
    eq(
        "method.x",
        expect!["path: `method.x`: nothing can follow `method`"],
    );
    eq(
        "body..x",
        expect!["path: `body..x` has an empty name; write `body.order.id`"],
    );
    eq(
        "body.items.*.id",
        expect![
            "path: write `[*]` for each element of a list, as `body.items[*].id`, in `body.items.*.id`"
        ],
    );
    eq(
        "body.items[-1]",
        expect![[
            r#"path: `body.items[-1]` is wrong at `[-1]`; write `[0]`, `[*]` or `["a name"]`, and a dot before a plain name"#
        ]],
    );
    eq(
        "body.items[0",
        expect![[
            r#"path: `body.items[0` is wrong at `[0`; write `[0]`, `[*]` or `["a name"]`, and a dot before a plain name"#
        ]],
    );
    eq(
        "body.items[99999999999]",
        expect![[
            r#"path: `body.items[99999999999]` is wrong at `[99999999999]`; write `[0]`, `[*]` or `["a name"]`, and a dot before a plain name"#
        ]],
    );
    eq(
        "body[0]x",
        expect![[
            r#"path: `body[0]x` is wrong at `x`; write `[0]`, `[*]` or `["a name"]`, and a dot before a plain name"#
        ]],
    );
    eq(
        &format!("body{}", ".a".repeat(33)),
        expect!["path: the path is more than 32 levels deep"],
    );
    eq(
        &format!("body.{}", "a".repeat(600)),
        expect!["path: the path is longer than 512 bytes"],
    );
}

#[test]
fn a_text_to_compare_with_is_bounded() {
    let long = "x".repeat(4097);
    for (op, value) in [
        ("eq", json!(long)),
        ("contains", json!(long)),
        ("in", json!(["a", long])),
    ] {
        refused(
            "body.a",
            op,
            value,
            expect![
                "value: the text has 4097 bytes, and a filter compares with at most 4096; compare with less, or with another field"
            ],
        );
    }
    let most = json!("x".repeat(4096));
    assert!(Rule::parse("body.a", Op::Contains, Some(&most)).is_ok());
}

#[test]
fn a_mistake_in_a_value_says_what_to_write() {
    refused(
        "body.a",
        "in",
        json!("x"),
        expect!["value: `in` needs a list with at least one value, as [a, b], not a text"],
    );
    refused(
        "body.a",
        "in",
        json!([]),
        expect!["value: `in` needs a list with at least one value, as [a, b], not an empty list"],
    );
    refused(
        "body.a",
        "in",
        json!([[1]]),
        expect![
            "value: `in` compares with a text, a number, true, false or null, not a list; name the field inside, as `body.order.id`"
        ],
    );
    refused(
        "body.a",
        "eq",
        json!([1]),
        expect!["value: `eq` compares with one value; for one of several write `op: in`"],
    );
    refused(
        "body.a",
        "neq",
        json!({"b": 1}),
        expect![
            "value: `neq` compares with a text, a number, true, false or null, not an object; name the field inside, as `body.order.id`"
        ],
    );
    refused(
        "body.a",
        "gt",
        json!("10"),
        expect!["value: `gt` compares numbers; write 10 without quotes"],
    );
    refused(
        "body.a",
        "lte",
        json!("ten"),
        expect!["value: `lte` compares numbers and needs one, not a text"],
    );
    refused(
        "body.a",
        "exists",
        json!("yes"),
        expect!["value: `exists` needs true or false, not a text"],
    );
    refused(
        "body.a",
        "contains",
        json!(1),
        expect![[
            r#"value: `contains` looks for a part of a text and needs a text, not a number; to look for an element of a list, write `path: "…[*]"` with `op: eq`"#
        ]],
    );
    refused(
        "method",
        "gt",
        json!(1),
        expect![
            "op: `gt` compares numbers, and this path is never one; write `op: eq`, `in` or `contains`"
        ],
    );
    refused(
        "source_ip",
        "eq",
        json!("10.0.0.0/8"),
        expect![
            "value: `10.0.0.0/8` is not an address; write one as `203.0.113.7` or `2001:db8::1` (ranges: `spec.ipFilter` of the source)"
        ],
    );
    refused(
        "headers.a",
        "eq",
        json!(null),
        expect![
            "value: null is found in a JSON body only; to ask whether it is there, write `op: exists`"
        ],
    );
    refused(
        "body.a",
        "startsWith",
        json!(1),
        expect![
            "value: `startsWith` looks at texts and needs one, not a number; write it in quotes"
        ],
    );
    refused(
        "body.a",
        "regex",
        json!(["a"]),
        expect!["value: `regex` looks at texts and needs one, not a list; write it in quotes"],
    );
    refused(
        "body.a",
        "regex",
        json!("a("),
        expect![[
            r#"value: the pattern `a(` is wrong at character 2: unclosed group; the syntax is that of https://docs.rs/regex, without look-around and back-references, and a `\` in double quotes of YAML is written twice"#
        ]],
    );
    let error = Rule::parse("body.a", Op::Eq, None).expect_err("no value");
    expect!["`eq` compares with a text, a number, true, false or null, not nothing (there is no `value`); name the field inside, as `body.order.id`"].assert_eq(&error.to_string());
}

#[test]
fn two_spellings_of_a_rule_are_one_rule() {
    let same = [
        (
            rule("body.a", "eq", json!(1.0)),
            rule("payload.a", "eq", json!(1)),
        ),
        (
            rule("body.a", "eq", json!(true)),
            rule("body[\"a\"]", "eq", json!(true)),
        ),
        (
            rule("headers.X-A", "eq", json!("v")),
            rule("headers.x-a", "eq", json!("v")),
        ),
        (
            rule("method", "eq", json!("put")),
            rule("method", "eq", json!("PUT")),
        ),
    ];
    for (one, other) in same {
        let bytes = |rule: &Rule| serde_json::to_string(rule).expect("a rule serialises");
        assert_eq!(bytes(&one), bytes(&other));
    }
}

#[test]
fn the_row_form_is_fixed() {
    let filter = Filter {
        all: vec![rule(
            "body.order.items[0][*]",
            "in",
            json!(["a", 1, true, null]),
        )],
        any: vec![rule("headers.x-a", "exists", json!(true))],
        none: vec![rule("query.q", "lt", json!(1.5))],
    };
    let text = serde_json::to_string(&filter).expect("a filter serialises");
    expect![[r#"{"all":[{"path":{"body":[{"key":"order"},{"key":"items"},{"index":0},"each"]},"test":{"in":["a",1,true,null]}}],"any":[{"path":{"header":"x-a"},"test":{"exists":true}}],"none":[{"path":{"query":"q"},"test":{"lt":1.5}}]}"#]].assert_eq(&text);
    assert_eq!(
        serde_json::from_str::<Filter>(&text).expect("it reads back"),
        filter
    );
}

fn any_scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (-1e20..1e20_f64).prop_map(Value::from),
        (-3..3_i64).prop_map(|n| Value::from(n as f64)),
        "[a-c]{0,2}".prop_map(Value::from),
    ]
}

proptest! {
    #[test]
    fn no_path_makes_parsing_panic(text in "(body|headers|query|method|)[\\PC.\\[\\]\"'*0-9]{0,20}") {
        let _ = Path::parse(&text);
    }

    #[test]
    fn neq_is_the_inverse_of_eq_and_in_of_one_is_eq(found in any_scalar(), expected in any_scalar()) {
        let mut sample = Sample::new();
        sample.body = json!({ "a": found }).to_string();
        let matches = |op: &str, value: Value| sample.matches(&one(rule("body.a", op, value)));
        let eq = matches("eq", expected.clone());
        prop_assert_eq!(eq, !matches("neq", expected.clone()));
        prop_assert_eq!(eq, matches("in", json!([expected])));
        prop_assert!(matches("eq", found.clone()));
    }

    #[test]
    fn of_two_numbers_exactly_one_order_holds(a in any_scalar(), b in any_scalar()) {
        prop_assume!(a.is_number() && b.is_number());
        let mut sample = Sample::new();
        sample.body = json!({ "a": a }).to_string();
        let matches = |op: &str| sample.matches(&one(rule("body.a", op, b.clone())));
        let (lt, eq, gt) = (matches("lt"), matches("eq"), matches("gt"));
        prop_assert_eq!(u8::from(lt) + u8::from(eq) + u8::from(gt), 1);
        prop_assert_eq!(matches("lte"), lt || eq);
        prop_assert_eq!(matches("gte"), gt || eq);
    }

    #[test]
    fn no_body_and_no_query_makes_matching_panic(body in prop::collection::vec(any::<u8>(), 0..80), query in "\\PC{0,40}") {
        let address = [127, 0, 0, 1].into();
        let headers = HeaderMap::new();
        let event = EventView::new(&Method::GET, "", &query, &headers, &body, address);
        for path in ["body", "body.a[*].b", "body[0]", "query.a", "headers.a", "content_type"] {
            let _ = one(rule(path, "contains", json!("a"))).matches(&event);
        }
        let mut headers = HeaderMap::new();
        headers.insert("content-type", HeaderValue::from_static("application/x-www-form-urlencoded"));
        let event = EventView::new(&Method::GET, "", &query, &headers, &body, address);
        for path in ["body", "body.a", "body.a[0]", "body.a[*].b", "body[*]"] {
            let _ = one(rule(path, "regex", json!("a.*b"))).matches(&event);
        }
    }
}
