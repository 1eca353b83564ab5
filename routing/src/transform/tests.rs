use super::*;
use http::HeaderMap;
use std::net::{IpAddr, Ipv4Addr};

fn roots(names: &[&str]) -> Input {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    Input::of_roots(&names)
}

#[test]
fn a_root_that_an_envelope_has_decides_for_the_envelope() {
    assert_eq!(roots(&["data", "id"]), Input::Body);
    assert_eq!(roots(&[]), Input::Body);
    assert_eq!(roots(&["event", "id"]), Input::Body);
    for name in ENVELOPE {
        assert_eq!(roots(&["data", name]), Input::Envelope, "{name}");
    }
}

fn head_of(content_type: &str, query: &str, body: &str, input: Input) -> Value {
    let mut headers = HeaderMap::new();
    headers.append("content-type", content_type.parse().expect("a value"));
    headers.append("x-a", HeaderValue::from_static("1"));
    headers.append("x-a", HeaderValue::from_static("2"));
    let event = EventView::new(
        &Method::PUT,
        "/a/b",
        query,
        &headers,
        body.as_bytes(),
        IpAddr::V4(Ipv4Addr::LOCALHOST),
    );
    serde_json::from_slice(&head(&event, input)).expect("JSON")
}

#[test]
fn the_head_says_what_stands_beside_the_body() {
    assert_eq!(
        head_of(
            "application/json; charset=utf-8",
            "a=1&b=x%20y&a=2",
            "{}",
            Input::Envelope
        ),
        serde_json::json!({
            "method": "PUT", "path": "/a/b", "query": {"a": ["1", "2"], "b": "x y"},
            "headers": {"content-type": "application/json; charset=utf-8", "x-a": "1, 2"},
            "content_type": "application/json", "source_ip": "127.0.0.1",
        })
    );
    assert_eq!(
        head_of("application/json", "a=1", "{}", Input::Body),
        serde_json::json!({})
    );
    let form = head_of(
        "application/x-www-form-urlencoded",
        "",
        "a=1&c=%C3%A9",
        Input::Body,
    );
    assert_eq!(form, serde_json::json!({"body": {"a": "1", "c": "é"}}));
}

#[test]
fn a_filter_passes_on_true_alone() {
    assert_eq!(passes(Some(b"true")), Ok(true));
    assert_eq!(passes(Some(b"false")), Ok(false));
    assert_eq!(passes(None), Ok(false));
    for other in [&b"1"[..], b"\"true\"", b"{}", b"[true]", b"null"] {
        assert!(passes(Some(other)).is_err());
    }
}

#[test]
fn a_body_is_the_result_as_it_is() {
    let shaped = shaped(Output::Body, br#"{"headers": 1}"#).expect("any value will do");
    assert_eq!(
        shaped,
        Shaped {
            body: Some((br#"{"headers": 1}"#.to_vec(), JSON)),
            ..Shaped::default()
        }
    );
}

#[test]
fn an_envelope_sets_what_it_names() {
    let all = shaped(
        Output::Envelope,
        br#"{"body": {"a": 1}, "headers": {"X-Tenant": "t", "x-n": 2}, "method": "PUT", "path": "/x/y", "query": {"a b": ["1", 2], "c": "&"}}"#,
    )
    .expect("an envelope");
    assert_eq!(all.body, Some((br#"{"a":1}"#.to_vec(), JSON)));
    assert_eq!(all.method, Some(Method::PUT));
    assert_eq!(all.path.as_deref(), Some("/x/y"));
    assert_eq!(all.query.as_deref(), Some("a%20b=1&a%20b=2&c=%26"));
    let names: Vec<_> = all.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["x-tenant", "x-n"]);

    let text = shaped(
        Output::Envelope,
        br#"{"body": "<a/>", "headers": {"content-type": "text/xml"}}"#,
    )
    .expect("an envelope");
    assert_eq!(text.body.map(|(body, _)| body), Some(b"<a/>".to_vec()));
    let text = shaped(Output::Envelope, br#"{"body": "<a/>"}"#).expect("an envelope");
    assert_eq!(text.body.map(|(body, _)| body), Some(br#""<a/>""#.to_vec()));
    assert_eq!(
        shaped(Output::Envelope, b"{}"),
        Ok(Shaped::default()),
        "as it came"
    );
}

#[test]
fn what_is_no_envelope_is_told_to_its_author() {
    for (result, word) in [
        (r#"[1]"#, "a list"),
        (r#"{"status": 200}"#, "`status`"),
        (r#"{"headers": []}"#, "`headers`"),
        (r#"{"headers": {"host": "evil"}}"#, "`host`"),
        (
            r#"{"headers": {"X-Hookstream-Event-Id": "1"}}"#,
            "hookstream",
        ),
        (r#"{"headers": {"Webhook-Signature": "1"}}"#, "hookstream"),
        (r#"{"headers": {"a b": "1"}}"#, "name"),
        (r#"{"headers": {"a": "x\r\ny: 1"}}"#, "character"),
        (r#"{"headers": {"a": {}}}"#, "`a`"),
        (r#"{"method": "TRACE"}"#, "TRACE"),
        (r#"{"path": "x"}"#, "begin it with /"),
        (r#"{"path": "/a?b"}"#, "encode"),
        (r#"{"path": "/a b"}"#, "encode"),
        (r#"{"query": "a#b"}"#, "encode"),
        (r#"{"query": {"a": {}}}"#, "`a`"),
    ] {
        let error = shaped(Output::Envelope, result.as_bytes()).expect_err(result);
        assert!(error.contains(word), "{result}: {error}");
    }
}
