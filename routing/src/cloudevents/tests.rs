use super::*;
use expect_test::{Expect, expect};
use serde_json::json;

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let line = |(name, value): &(&'static str, &str)| {
        (
            HeaderName::from_static(name),
            value.parse::<HeaderValue>().unwrap(),
        )
    };
    lines.iter().map(line).collect()
}

const REQUIRED: [(&str, &str); 4] = [
    ("ce-specversion", "1.0"),
    ("ce-id", "A1"),
    ("ce-source", "/shop"),
    ("ce-type", "order.paid"),
];

fn binary(more: &[(&'static str, &str)], body: &[u8], expected: Expect) {
    let all = [&REQUIRED[..], more].concat();
    let read = from_binary(&headers(&all), body);
    let text = match &read {
        Ok(json) => std::str::from_utf8(json).unwrap().to_owned(),
        Err(problem) => format!("! {problem}"),
    };
    if let Ok(json) = &read {
        check(&serde_json::from_slice(json).unwrap()).unwrap();
    }
    expected.assert_eq(&text);
}

#[test]
fn binary_mode_becomes_the_json_format() {
    binary(
        &[
            ("content-type", "application/json"),
            ("ce-mykey", "Euro%20%E2%82%AC%20%F0%9F%98%80"),
        ],
        br#" {"n": 1.00, "big": 12345678901234567890123} "#,
        expect![[
            r#"{"specversion":"1.0","id":"A1","source":"/shop","type":"order.paid","mykey":"Euro € 😀","datacontenttype":"application/json","data":{"n": 1.00, "big": 12345678901234567890123}}"#
        ]],
    );
    binary(
        &[("content-type", "text/plain; charset=utf-8")],
        "a \"line\"\n".as_bytes(),
        expect![[
            r#"{"specversion":"1.0","id":"A1","source":"/shop","type":"order.paid","datacontenttype":"text/plain; charset=utf-8","data":"a \"line\"\n"}"#
        ]],
    );
    binary(
        &[("content-type", "image/png")],
        b"\x89PNG\xff",
        expect![[
            r#"{"specversion":"1.0","id":"A1","source":"/shop","type":"order.paid","datacontenttype":"image/png","data_base64":"iVBOR/8="}"#
        ]],
    );
    binary(
        &[],
        b"",
        expect![[r#"{"specversion":"1.0","id":"A1","source":"/shop","type":"order.paid"}"#]],
    );
    binary(
        &[("content-type", "application/vnd.shop+json")],
        b"{",
        expect![
            "! the body is not the JSON that `Content-Type` says it is: EOF while parsing an object at line 1 column 1"
        ],
    );
    binary(
        &[("ce-my_key", "1")],
        b"1",
        expect!["! `my_key` can't be the name of an attribute: that is a-z and 0-9"],
    );
    binary(
        &[("ce-datacontenttype", "text/plain")],
        b"1",
        expect![
            "! the header `ce-datacontenttype` means nothing: the body is the data, and `Content-Type` says what it is"
        ],
    );
    binary(
        &[("ce-subject", "%ff")],
        b"1",
        expect!["! the header `ce-subject` is not UTF-8, percent-encoded"],
    );
}

#[test]
fn what_is_no_event_says_why() {
    let good = json!({"specversion": "1.0", "id": "1", "source": "/s", "type": "t", "data": null, "n": 3, "b": true});
    check(&good).unwrap();
    for (change, expected) in [
        (
            json!({"specversion": "0.3"}),
            "`specversion` must be \"1.0\"",
        ),
        (
            json!({"id": ""}),
            "the attribute `id` is required, as a text that is not empty",
        ),
        (
            json!({"type": null}),
            "the attribute `type` is required, as a text that is not empty",
        ),
        (
            json!({"subject": 1}),
            "the attribute `subject` is a text that is not empty, or left out",
        ),
        (
            json!({"time": "yesterday"}),
            "the attribute `time` is a time as RFC 3339 writes it, as `2026-11-21T12:00:00Z`",
        ),
        (
            json!({"x": {}}),
            "the attribute `x` is a text, a whole number or a boolean",
        ),
        (
            json!({"X": "1"}),
            "`X` can't be the name of an attribute: that is a-z and 0-9",
        ),
        (
            json!({"data_base64": "YQ=="}),
            "an event has `data` or `data_base64`, not both",
        ),
    ] {
        let mut event = good.as_object().unwrap().clone();
        event.extend(change.as_object().unwrap().clone());
        assert_eq!(check(&Value::Object(event)).unwrap_err(), expected);
    }
    assert_eq!(
        check(&json!([])).unwrap_err(),
        "a CloudEvent is a JSON object"
    );
}

#[test]
fn a_request_says_which_mode_it_is_in() {
    for (content_type, expected) in [
        ("application/json", Said::Nothing),
        (
            "Application/CloudEvents+JSON; charset=utf-8",
            Said::One(Mode::Structured),
        ),
        ("application/cloudevents-batch+json", Said::Batch),
        ("application/cloudevents+avro", Said::Unknown),
    ] {
        assert_eq!(
            said(&headers(&[("content-type", content_type)])),
            expected,
            "{content_type}"
        );
    }
    assert_eq!(said(&headers(&REQUIRED)), Said::One(Mode::Binary));
}

fn written(content_type: &'static str, body: &'static [u8], mode: Mode, expected: Expect) {
    let known = Known {
        id: "evt_1",
        source: "urn:x",
        received_at: "2026-11-21T12:00:00Z".parse().unwrap(),
    };
    let content_type = HeaderValue::from_static(content_type);
    let written = write(known, Some(&content_type), &Bytes::from_static(body), mode);
    let mut text = String::new();
    for (name, value) in &written.attributes {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    text += &format!("content-type: {:?}\n", written.content_type.unwrap());
    text += &String::from_utf8_lossy(&written.body);
    expected.assert_eq(&text);
}

#[test]
fn what_was_no_cloudevent_becomes_one() {
    let body = br#"{"type":"order.paid","n":1.0}"#;
    written(
        "application/json",
        body,
        Mode::Binary,
        expect![[r#"
        ce-specversion: 1.0
        ce-id: evt_1
        ce-source: urn:x
        ce-type: order.paid
        ce-time: 2026-11-21T12:00:00Z
        content-type: "application/json"
        {"type":"order.paid","n":1.0}"#]],
    );
    written(
        "application/json",
        body,
        Mode::Structured,
        expect![[r#"
            content-type: "application/cloudevents+json; charset=utf-8"
            {"specversion":"1.0","id":"evt_1","source":"urn:x","type":"order.paid","time":"2026-11-21T12:00:00Z","datacontenttype":"application/json","data":{"type":"order.paid","n":1.0}}"#]],
    );
    written(
        "application/json",
        b"no json",
        Mode::Structured,
        expect![[r#"
            content-type: "application/cloudevents+json; charset=utf-8"
            {"specversion":"1.0","id":"evt_1","source":"urn:x","type":"hookstream.event","time":"2026-11-21T12:00:00Z","datacontenttype":"application/octet-stream","data":"no json"}"#]],
    );
}

#[test]
fn a_cloudevent_keeps_its_attributes_in_either_mode() {
    let body = br#"{"specversion":"1.0","id":"A 1","source":"/s","type":"t\u20ac","n":3,"gone":null,"data":{"n": 1.00}}"#;
    written(
        "application/cloudevents+json",
        body,
        Mode::Binary,
        expect![[r#"
        ce-specversion: 1.0
        ce-id: A%201
        ce-source: /s
        ce-type: t%E2%82%AC
        ce-n: 3
        content-type: "application/json"
        {"n": 1.00}"#]],
    );
    written(
        "application/cloudevents+json",
        body,
        Mode::Structured,
        expect![[r#"
            content-type: "application/cloudevents+json; charset=utf-8"
            {"specversion":"1.0","id":"A 1","source":"/s","type":"t\u20ac","n":3,"gone":null,"data":{"n": 1.00}}"#]],
    );
    let text = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"text/plain","data":"a\nb"}"#;
    written(
        "application/cloudevents+json",
        text,
        Mode::Binary,
        expect![[r#"
            ce-specversion: 1.0
            ce-id: 1
            ce-source: /s
            ce-type: t
            content-type: "text/plain"
            a
            b"#]],
    );
    let bytes = br#"{"specversion":"1.0","id":"1","source":"/s","type":"t","datacontenttype":"image/png","data_base64":"iVBOR/8="}"#;
    written(
        "application/cloudevents+json",
        bytes,
        Mode::Binary,
        expect![[r#"
            ce-specversion: 1.0
            ce-id: 1
            ce-source: /s
            ce-type: t
            content-type: "image/png"
            �PNG�"#]],
    );
}
