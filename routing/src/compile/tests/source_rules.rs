//! A source's rules for requests, written and mistaken.

use super::*;
use crate::admission::{CorsSpec, IpFilterSpec, RateLimit, ResponseSpec};
use expect_test::{Expect, expect};
use std::time::Duration;

fn compiled(spec: &str) -> SourceSpec {
    let mut ground = Ground::of(&format!(
        "{{kind: Source, metadata: {{name: x}}, spec: {spec}}}"
    ));
    assert_eq!(
        ground.compile(),
        "changed Source/shop/x generation 1\n",
        "{spec}"
    );
    let Spec::Source(spec) = ground.row("Source/shop/x").expect("it compiled").spec else {
        unreachable!("it is a source")
    };
    spec
}

#[track_caller]
fn check(spec: &str, expected: Expect) {
    let mut ground = Ground::of(&format!(
        "{{kind: Source, metadata: {{name: x}}, spec: {spec}}}"
    ));
    expected.assert_eq(&ground.compile());
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

#[test]
fn what_is_written_is_in_the_row_and_what_is_not_has_its_default() {
    let spec = compiled(
        "{archived: true, contentTypes: [Text/Plain, application/json, text/plain],
          ipFilter: {deny: [203.0.113.7], allow: [10.0.0.0/8, '2001:db8::/32']},
          rateLimit: {requests: 1000, per: 1m, burst: 2000},
          cors: {allowOrigins: ['https://*.example.com'], allowHeaders: [X-Id, content-type], allowMethods: [PUT, POST], maxAge: 1h},
          response: {status: 202, headers: {X-Served-By: us}, body: '{\"ok\": true}'}}",
    );
    assert!(spec.archived);
    assert_eq!(
        spec.content_types,
        owned(&["application/json", "text/plain"])
    );
    assert_eq!(
        spec.ip_filter,
        Some(IpFilterSpec {
            deny: owned(&["203.0.113.7"]),
            allow: owned(&["10.0.0.0/8", "2001:db8::/32"]),
        })
    );
    assert_eq!(
        spec.rate_limit,
        Some(RateLimit {
            requests: 1000,
            per: Duration::from_secs(60),
            burst: 2000
        })
    );
    assert_eq!(
        spec.cors,
        Some(CorsSpec {
            allow_origins: owned(&["https://*.example.com"]),
            allow_headers: owned(&["content-type", "x-id"]),
            allow_methods: owned(&["POST", "PUT"]),
            max_age_seconds: 3600,
        })
    );
    let header = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(
        spec.response,
        Some(ResponseSpec {
            status: 202,
            headers: vec![
                header("x-served-by", "us"),
                header("content-type", "application/json")
            ],
            body: Some(r#"{"ok": true}"#.to_owned()),
        })
    );

    let spec = compiled(
        "{rateLimit: {requests: 5}, cors: {allowOrigins: ['*']}, response: {body: 'thank you'}}",
    );
    assert_eq!(
        spec.rate_limit,
        Some(RateLimit {
            requests: 5,
            per: Duration::from_secs(1),
            burst: 5
        })
    );
    assert_eq!(
        spec.cors,
        Some(CorsSpec {
            allow_origins: owned(&["*"]),
            allow_headers: owned(&["content-type"]),
            allow_methods: owned(&["POST"]),
            max_age_seconds: 600,
        })
    );
    assert_eq!(
        spec.response.map(|response| response.headers),
        Some(vec![header("content-type", "text/plain; charset=utf-8")])
    );
    let spec = compiled("{response: {status: 204}}");
    assert_eq!(
        spec.response
            .map(|response| (response.headers, response.body)),
        Some((Vec::new(), Some(String::new())))
    );
}

#[test]
fn a_rule_that_is_not_used_is_not_in_the_payload() {
    let mut ground = Ground::of("{kind: Source, metadata: {name: x}, spec: {path: x}}");
    ground.compile();
    let payload = String::from_utf8(ground.row("Source/shop/x").expect("it compiled").payload())
        .expect("JSON");
    for field in [
        "archived",
        "ip_filter",
        "content_types",
        "rate_limit",
        "cors",
        "response",
    ] {
        assert!(!payload.contains(field), "{payload}");
    }
}

#[test]
fn a_wrong_address_is_told_with_its_place() {
    check(
        "{ipFilter: {deny: [203.0.113.7, 203.0.113.256], allow: [10.0.0.0/8, 10.0.0.0/33, '::1/', '::/129']}}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.ipFilter.deny[1]: `203.0.113.256` is no address and no CIDR range; write one as `203.0.113.7`, `10.0.0.0/8` or `2001:db8::/32`
            Source/shop/x Accepted UnsupportedValue: spec.ipFilter.allow[1]: `10.0.0.0/33` has a prefix that is too long; IPv4 has up to /32, IPv6 up to /128
            Source/shop/x Accepted UnsupportedValue: spec.ipFilter.allow[2]: `::1/` is no address and no CIDR range; write one as `203.0.113.7`, `10.0.0.0/8` or `2001:db8::/32`
            Source/shop/x Accepted UnsupportedValue: spec.ipFilter.allow[3]: `::/129` has a prefix that is too long; IPv4 has up to /32, IPv6 up to /128
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "{ipFilter: {deny: [], allow: []}}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.ipFilter: a filter of nothing lets everything in; name addresses in `deny` or `allow`, or leave `ipFilter` out
        Source/shop/x routes nothing
    "#]],
    );
}

#[test]
fn a_limit_or_type_that_makes_no_sense_is_told() {
    check(
        "{rateLimit: {requests: 0, per: 500ms, burst: -1}, contentTypes: [json, 'application/json; charset=utf-8', text/*]}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.contentTypes[0]: `json` is no media type; write one as `application/json`, without parameters, or several as `text/*` or `application/*+json`
            Source/shop/x Accepted UnsupportedValue: spec.contentTypes[1]: `application/json; charset=utf-8` is no media type; write one as `application/json`, without parameters, or several as `text/*` or `application/*+json`
            Source/shop/x Accepted UnsupportedValue: spec.rateLimit.per: `500ms` is out of range; write `1s` to `1d`
            Source/shop/x Accepted UnsupportedValue: spec.rateLimit.requests: 0 is less than 1; to take no requests at all write `suspend: true`
            Source/shop/x Accepted UnsupportedValue: spec.rateLimit.burst: -1 is less than 1; to take no requests at all write `suspend: true`
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "{rateLimit: {requests: 1, per: 2d}, contentTypes: []}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.contentTypes: an empty list takes nothing; name a media type, as [application/json], or leave it out for any
            Source/shop/x Accepted UnsupportedValue: spec.rateLimit.per: `2d` is out of range; write `1s` to `1d`
            Source/shop/x routes nothing
        "#]],
    );
}

#[test]
fn an_origin_that_no_browser_sends_is_told() {
    check(
        "{cors: {allowOrigins: [app.example.com, 'https://app.example.com/', 'null'], allowHeaders: ['X Y'], maxAge: 2d}}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.cors.allowOrigins[0]: `app.example.com` is no origin as browsers send it; write scheme, host and, unless it is the usual one, port in lower case, as `https://app.example.com` or `https://*.example.com`, or `*` for all
            Source/shop/x Accepted UnsupportedValue: spec.cors.allowOrigins[1]: `https://app.example.com/` is no origin as browsers send it; write scheme, host and, unless it is the usual one, port in lower case, as `https://app.example.com` or `https://*.example.com`, or `*` for all
            Source/shop/x Accepted UnsupportedValue: spec.cors.allowOrigins[2]: `null` is no origin as browsers send it; write scheme, host and, unless it is the usual one, port in lower case, as `https://app.example.com` or `https://*.example.com`, or `*` for all
            Source/shop/x Accepted UnsupportedValue: spec.cors.allowHeaders[0]: `X Y` can't be the name of a header; write one as `X-Request-Id`
            Source/shop/x Accepted UnsupportedValue: spec.cors.maxAge: `2d` is out of range; write `0s` to `1d`
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "{cors: {allowOrigins: []}}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.cors.allowOrigins: CORS without an origin allows nothing; name one, as `https://app.example.com`, or leave `cors` out
        Source/shop/x routes nothing
    "#]],
    );
}

#[test]
fn an_answer_that_cannot_be_given_is_told() {
    check(
        "{response: {status: 204, headers: {Content-Length: '3', Access-Control-Allow-Origin: '*', 'X Y': a, X-Lines: \"a\\nb\"}, body: hello}}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.response.body: an answer with status 204 has no body; leave `body` out, or answer 200
            Source/shop/x Accepted UnsupportedValue: spec.response.headers.Access-Control-Allow-Origin: these headers depend on the page that asks; write `spec.cors`
            Source/shop/x Accepted UnsupportedValue: spec.response.headers.Content-Length: the gateway writes this header itself; leave it out
            Source/shop/x Accepted UnsupportedValue: spec.response.headers.X Y: this can't be the name of a header; write one as `X-Served-By`
            Source/shop/x Accepted UnsupportedValue: spec.response.headers.X-Lines: the value can't be that of a header; write visible ASCII on one line
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "{response: {status: 302}}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.response.status: 302 says that the event wasn't taken, but it was; write 200 to 299
        Source/shop/x routes nothing
    "#]],
    );
}
