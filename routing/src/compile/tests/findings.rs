//! What doesn't compile, and what its author is told.

use super::*;
use expect_test::{Expect, expect};

/// Compiles one spec of a kind, with a Secret `s` that has the keys `k`, `empty` and `lines`.
#[track_caller]
fn check(kind: &str, spec: &str, expected: Expect) {
    let secret = "{kind: Secret, metadata: {name: s}, stringData: {k: v, empty: '', lines: \"a\\nb\", username: 'a:b', password: p}}";
    let mut ground = Ground::of(&format!(
        "{secret}\n---\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"
    ));
    expected.assert_eq(&ground.compile());
}

#[test]
fn a_field_whose_behaviour_comes_later_is_refused_by_name() {
    check(
        "Source",
        "{retention: {events: 30d}}",
        expect![[r#"
            Source/shop/x Accepted NotImplemented: spec.retention: `spec.retention` is not implemented yet; a later version brings it. Until then leave it out
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "Destination",
        "{websocket: {}}",
        expect![[r#"
            Destination/shop/x Accepted NotImplemented: spec.websocket: `spec.websocket` is not implemented yet; a later version brings it. Until then leave it out
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn a_payload_is_a_templates_or_a_cloud_event_not_both() {
    check(
        "Destination",
        "{http: {url: 'https://e.com', template: slack, cloudEvents: Binary}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.cloudEvents: the payload is `slack`'s or a CloudEvent; leave `cloudEvents` or `template` out
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn the_three_later_kinds_say_so() {
    for (kind, spec) in [
        (
            "AlertRule",
            "{failureRate: {threshold: 10%, window: 15m}, channels: [{name: ops}]}",
        ),
        (
            "NotificationChannel",
            "{slack: {urlRef: {name: ops-slack, key: url}}}",
        ),
        (
            "Collection",
            "{source: {name: everything}, primaryKey: body.data.id}",
        ),
    ] {
        let said = Ground::of(&format!(
            "{{kind: {kind}, metadata: {{name: x}}, spec: {spec}}}"
        ))
        .compile();
        let expected = format!(
            "{kind}/shop/x Accepted NotImplemented: : the kind {kind} is not implemented yet; a later version brings it. \
             Until then nothing comes of this object\n{kind}/shop/x routes nothing\n"
        );
        assert_eq!(said, expected);
    }
}

#[test]
fn a_mistake_in_a_source_says_what_to_write() {
    check(
        "Source",
        "{path: 'Bad Path', maxBodySize: 10MB, methods: []}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.path: `Bad Path` can't be a path; write segments of a-z, 0-9, `-`, `_` and `.` that begin and end with a letter or digit, as `billing/stripe`
        Source/shop/x Accepted UnsupportedValue: spec.maxBodySize: `10MB` is not a size; write bytes, or a number with Ki, Mi, Gi, k, M or G, as `512Ki` or `10Mi`
        Source/shop/x routes nothing
    "#]],
    );
    check(
        "Source",
        "{path: src_00000000000000000000000000000001/x, maxBodySize: 1025Mi}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.path: a path can't begin with the id of a source; every source has that one by itself
        Source/shop/x Accepted UnsupportedValue: spec.maxBodySize: larger than 1Gi, the most that a gateway takes
        Source/shop/x routes nothing
    "#]],
    );
    check(
        "Source",
        "{maxBodySize: -1}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.maxBodySize: `-1` is not a size; write bytes, or a number with Ki, Mi, Gi, k, M or G, as `512Ki` or `10Mi`
        Source/shop/x routes nothing
    "#]],
    );
    for path in [
        "/a",
        "a/",
        "a//b",
        "a/../b",
        ".",
        "é",
        "a%20b",
        "-a",
        &"a".repeat(129),
    ] {
        let said = Ground::of(&format!(
            "{{kind: Source, metadata: {{name: x}}, spec: {{path: '{path}'}}}}"
        ))
        .compile();
        assert!(
            said.contains("Accepted UnsupportedValue: spec.path: "),
            "{path}: {said}"
        );
    }
}

#[test]
fn a_mistake_in_a_verification_says_what_to_write() {
    check(
        "Source",
        "{verification: {template: github}}",
        expect![[r#"
        Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs: a verification needs a secret; write `secretRefs: [{name: …, key: …}]`
        Source/shop/x routes nothing
    "#]],
    );
    check(
        "Source",
        "{verification: {template: githup, secretRefs: [{name: s, key: k}]}}",
        expect![[r#"
            Source/shop/x Accepted UnsupportedValue: spec.verification.template: there is no template `githup`; there are stripe, shopify, github, slack, twilio, sendgrid, intercom, linear, clerk, svix, paddle, resend, postmark, typeform, custom, adyen, adyen-platform, aws-sns, bitbucket, calendly, discord, docusign, dropbox, gitlab, hubspot, launchdarkly, mailgun, meta, okta, pagerduty, paypal, pubsub, sentry, square, twitch, vercel, whatsapp, woocommerce, zendesk, zoom, or describe it with one of hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey and jwt
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "Source",
        "{verification: {template: github, standardWebhooks: {}, secretRefs: [{name: s, key: k}]}}",
        expect![[r#"
            Source/shop/x Accepted InvalidVerification: spec.verification.standardWebhooks: the template `github` verifies in another way, so `standardWebhooks` can't change it; leave one of the two out
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "Source",
        "{verification: {hmac: {header: 'X Y', signedContent: '{uri}'}, secretRefs: [{name: s, key: k}]}}",
        expect![[r#"
            Source/shop/x Accepted InvalidVerification: spec.verification.hmac.header: `X Y` can't be the name of a header; write one as `X-Signature`
            Source/shop/x Accepted InvalidVerification: spec.verification.hmac.signedContent: `{uri}` is not known here; there are `{body}`, `{form}`, `{timestamp}`, `{id}`, `{url}`, `{method}` and `{path}`
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "Source",
        "{verification: {hmac: {header: X-S, timestamp: {header: X-T, tolerance: 2h}, idHeader: X-Id}, secretRefs: [{name: s, key: k}]}}",
        expect![[r#"
        Source/shop/x Accepted UnsupportedValue: spec.verification.hmac.timestamp.tolerance: `2h` is out of range; write `1s` to `1h`
        Source/shop/x Accepted InvalidVerification: spec.verification.hmac.signedContent: the timestamp isn't part of what is signed, so anybody could change it; write `signedContent: "{timestamp}.{body}"` as the sender signs, or leave `timestamp` out
        Source/shop/x Accepted InvalidVerification: spec.verification.hmac.signedContent: `idHeader` is named, but `{id}` isn't part of `signedContent`; add it, or leave `idHeader` out
        Source/shop/x routes nothing
    "#]],
    );
    check(
        "Source",
        "{verification: {hmac: {header: X-S, signedContent: '{id}.{timestamp}.{body}'}, secretRefs: [{name: s, key: k}]}}",
        expect![[r#"
        Source/shop/x Accepted InvalidVerification: spec.verification.hmac.signedContent: `{timestamp}` needs `timestamp: {header: …}`, which says where the time is
        Source/shop/x Accepted InvalidVerification: spec.verification.hmac.signedContent: `{id}` needs `idHeader`, which says where the id is
        Source/shop/x routes nothing
    "#]],
    );
}

#[test]
fn a_secret_that_is_not_there_or_can_be_no_key_is_said_and_never_shown() {
    check(
        "Source",
        "{verification: {standardWebhooks: {}, secretRefs: [{name: none, key: k}, {name: s, key: none}, {name: s, key: empty}, {name: s, key: lines}]}}",
        expect![[r#"
            Source/shop/x ResolvedRefs SecretNotFound: spec.verification.secretRefs[0]: there is no Secret `none` in namespace `shop`; create it, or name another
            Source/shop/x ResolvedRefs SecretKeyMissing: spec.verification.secretRefs[1]: the Secret `s` has no key `none`; add it, or name another
            Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs[2]: the value of key `empty` in Secret `s` is empty; anybody could sign with it
            Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs[3]: the value of key `lines` in Secret `s` isn't a Standard Webhooks secret; it must be `whsec_` followed by base64 (or `whpk_` and a public key), as the sender shows it
            Source/shop/x routes nothing
        "#]],
    );
    check(
        "Destination",
        "{http: {url: 'https://e.com', auth: {bearer: {secretRef: {name: s, key: lines}}}}}",
        expect![[r#"
        Destination/shop/x Accepted UnsupportedValue: spec.http.auth.bearer.secretRef: the value of key `lines` in Secret `s` has characters that a header can't hold; often that is a line break at its end
        Destination/shop/x routes nothing
    "#]],
    );
    check(
        "Destination",
        "{http: {url: 'https://e.com', auth: {basic: {secretRef: {name: s}}}}}",
        expect![[r#"
        Destination/shop/x Accepted UnsupportedValue: spec.http.auth.basic.secretRef: the value of key `username` in Secret `s` has a colon, which basic authentication can't carry
        Destination/shop/x routes nothing
    "#]],
    );
    check(
        "Destination",
        "{http: {url: 'https://e.com', auth: {basic: {secretRef: {name: none}}}}}",
        expect![[r#"
        Destination/shop/x ResolvedRefs SecretNotFound: spec.http.auth.basic.secretRef: there is no Secret `none` in namespace `shop`; create it, or name another
        Destination/shop/x routes nothing
    "#]],
    );
}

#[test]
fn a_url_that_no_delivery_can_go_to_is_refused_and_not_repeated() {
    for (url, says) in [
        ("ftp://example.com/x", "must begin with"),
        ("example.com/hooks", "must begin with"),
        ("https://", "is no URL"),
        ("https:///path", "is no URL"),
        ("https://user:hunter2@example.com/", "use `auth.basic`"),
        ("https://exa mple.com/", "is no URL"),
        ("https://exämple.com/", "punycode"),
        ("https://example.com/#top", "fragment"),
        ("https://example.com:0/", "port"),
        ("https://example.com:99999/", "port"),
        ("https://example.com:/", "port"),
        ("https://[::1/", "is no URL"),
        ("https://[nonsense]/", "no host"),
        ("https://ex!ample.com/", "no host"),
        ("not a url at all", "must begin with"),
    ] {
        let manifest = serde_json::json!({ "kind": "Destination", "metadata": { "name": "x" }, "spec": { "http": { "url": url } } });
        let said = Ground::of(&manifest.to_string()).compile();
        assert!(
            said.starts_with("Destination/shop/x Accepted InvalidUrl: spec.http.url: "),
            "{url}: {said}"
        );
        assert!(said.contains(says), "{url}: {said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    for url in [
        "https://example.com",
        "http://10.0.0.1:8080/a/b?c=d&e",
        "https://[2001:db8::1]/",
        "https://a_b.example.com:443/%20",
    ] {
        let manifest = serde_json::json!({ "kind": "Destination", "metadata": { "name": "x" }, "spec": { "http": { "url": url } } });
        assert_eq!(
            Ground::of(&manifest.to_string()).compile(),
            "changed Destination/shop/x generation 1\n",
            "{url}"
        );
    }
}

#[test]
fn a_mistake_in_a_destination_says_what_to_write() {
    check(
        "Destination",
        "{}",
        expect![[r#"
        Destination/shop/x Accepted UnsupportedValue: spec: write exactly one of http, sqs, s3, eventbridge, pubsub, kafka, rabbitmq and websocket
        Destination/shop/x routes nothing
    "#]],
    );
    check(
        "Destination",
        "{concurrency: 0, http: {url: 'https://e.com', timeout: 0s, headers: {Host: a, 'b c': d, X-Hookstream-Id: e, webhook-id: f, good: \"a\\nb\", X-A: '1', x-a: '2', Authorization: x},
          auth: {bearer: {secretRef: {name: s, key: k}}}},
          retry: {intervals: [soon, 0s, 31d], maxRetries: -1, maxAge: 1y, retryOn: [410, 200, 6xx, Sometimes]}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.retry.intervals[0]: `soon` is not a duration; write a whole number and a unit (ms, s, m, h, d), as `30s`, `5m`, `24h`, `30d` or `1h30m`
            Destination/shop/x Accepted UnsupportedValue: spec.retry.intervals[1]: `0s` is no time at all; write at least `1ms`
            Destination/shop/x Accepted UnsupportedValue: spec.retry.intervals[2]: `31d` is longer than 30d, the most
            Destination/shop/x Accepted UnsupportedValue: spec.retry.maxRetries: `-1` is out of range; write 0 to 100
            Destination/shop/x Accepted UnsupportedValue: spec.retry.maxAge: `1y` is not a duration; write a whole number and a unit (ms, s, m, h, d), as `30s`, `5m`, `24h`, `30d` or `1h30m`
            Destination/shop/x Accepted UnsupportedValue: spec.retry.retryOn[0]: a 410 always stops at once, since the receiver says that it is gone; leave it out
            Destination/shop/x Accepted UnsupportedValue: spec.retry.retryOn[1]: `200` is no failure: an answer of 2xx is a delivery, and 1xx is never the answer; leave it out
            Destination/shop/x Accepted UnsupportedValue: spec.retry.retryOn[2]: `6xx` is none of a status (`503`), a class (`5xx`), `Timeout` and `Unreachable`
            Destination/shop/x Accepted UnsupportedValue: spec.retry.retryOn[3]: `Sometimes` is none of a status (`503`), a class (`5xx`), `Timeout` and `Unreachable`
            Destination/shop/x Accepted UnsupportedValue: spec.concurrency: `0` is out of range; write 1 to 1000, or `suspend: true` to hold deliveries
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[Host]: `Host` belongs to the connection and is set by the gateway; leave it out
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[X-Hookstream-Id]: `X-Hookstream-Id` is set by hookstream on every delivery; choose another name
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[b c]: `b c` can't be the name of a header
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[good]: a header's value is one line of visible ASCII characters
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[webhook-id]: `webhook-id` is set by hookstream on every delivery; choose another name
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[x-a]: `x-a` is there twice, in another case; write it once
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[authorization]: `authorization` is set by `auth` as well; write it in one place
            Destination/shop/x Accepted UnsupportedValue: spec.http.timeout: `0s` is out of range; write `1ms` to `10m`
            Destination/shop/x routes nothing
        "#]],
    );
    check(
        "Destination",
        "{http: {url: 'https://e.com', auth: {}}}",
        expect![[r#"
        Destination/shop/x Accepted UnsupportedValue: spec.http.auth: write exactly one of basic, bearer, apiKey, oauth2 and awsSigV4
        Destination/shop/x routes nothing
    "#]],
    );
}

#[test]
fn a_mistake_in_a_filter_names_the_rule() {
    let mut ground = Ground::of(&format!(
        "{SHOP}---
kind: Connection
metadata: {{name: con}}
spec:
  source: {{name: src}}
  destination: {{name: dst}}
  transform: {{jsonata: body}}
  retry: {{intervals: []}}
  filter:
    all:
    - {{path: body.a, op: eq, value: 1}}
    - {{path: type, op: eq, value: 1}}
    none:
    - {{path: body.a, op: gt, value: '1'}}
"
    ));
    expect![[r#"
        changed Source/shop/src generation 1
        changed Destination/shop/dst generation 1
        Connection/shop/con Accepted InvalidFilter: spec.filter.all[1].path: `type` begins with none of the parts of a request; for a field of the JSON body write `body.type`; a path is body.…, headers.…, query.…, method, path, content_type or source_ip
        Connection/shop/con Accepted InvalidFilter: spec.filter.none[0].value: `gt` compares numbers; write 1 without quotes
        Connection/shop/con Accepted ExpressionNotChecked: spec.transform.jsonata: the expression is not checked yet; if this stays, the operator's log says what keeps its sandbox from working
        Connection/shop/con Accepted UnsupportedValue: spec.retry.intervals: an empty list says nothing; write at least one interval, as [30s], or leave it out for the default
        Connection/shop/con routes nothing
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn a_wrong_pattern_and_too_many_are_findings_of_the_filter() {
    let patterns = "- {path: body.a, op: regex, value: x}\n    ".repeat(17);
    let mut ground = Ground::of(&format!(
        "{SHOP}---
kind: Connection
metadata: {{name: wrong}}
spec:
  source: {{name: src}}
  destination: {{name: dst}}
  filter:
    any:
    - {{path: body.a, op: startsWith, value: x}}
    - {{path: body.a, op: regex, value: 'x('}}
---
kind: Connection
metadata: {{name: many}}
spec:
  source: {{name: src}}
  destination: {{name: dst}}
  filter:
    all:
    {patterns}
"
    ));
    let said = ground.compile();
    for line in [
        "Connection/shop/wrong Accepted InvalidFilter: spec.filter.any[1].value: the pattern `x(` is wrong at character 2: unclosed group",
        "Connection/shop/many Accepted InvalidFilter: spec.filter: a filter takes at most 16 `regex` rules; there are 17",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn one_bad_object_never_stops_the_rest() {
    let mut ground = Ground::of(&format!(
        "{SHOP}---\n{{kind: Source, metadata: {{name: bad}}, spec: {{path: '/'}}}}"
    ));
    let said = ground.compile();
    for line in [
        "changed Source/shop/src",
        "changed Destination/shop/dst",
        "changed Connection/shop/con",
        "Source/shop/bad routes nothing",
    ] {
        assert!(said.contains(line), "{said}");
    }
}

#[test]
fn an_update_that_does_not_compile_keeps_the_last_good_row() {
    let mut ground = Ground::of(QUICKSTART);
    ground.compile();
    let good = ground.row("Source/shop/github");
    ground.apply(
        "{kind: Source, metadata: {name: github}, spec: {path: github, retention: {events: 30d}}}",
    );
    expect![[r#"
        Source/shop/github Accepted NotImplemented: spec.retention: `spec.retention` is not implemented yet; a later version brings it. Until then leave it out
        Source/shop/github routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(ground.row("Source/shop/github"), good);

    ground.apply("{kind: Source, metadata: {name: github}, spec: {path: github}}");
    expect![[r#"
        changed Source/shop/github generation 3
    "#]]
    .assert_eq(&ground.compile());
}

#[test]
fn a_secret_that_goes_keeps_the_last_good_row_and_one_that_changes_makes_a_new_one() {
    let name = || ("shop".to_owned(), "github-webhook".to_owned());
    let mut ground = Ground::of(QUICKSTART);
    ground.compile();
    ground.compiler.set_secret(name(), None);
    expect![[r#"
        Source/shop/github ResolvedRefs SecretNotFound: spec.verification.secretRefs[0]: there is no Secret `github-webhook` in namespace `shop`; create it, or name another
        Source/shop/github routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    ground.compiler.set_secret(
        name(),
        Some([("secret".to_owned(), Secret::new("rotated"))].into()),
    );
    expect![[r#"
        changed Source/shop/github generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert_eq!(
        ground.row("Source/shop/github").expect("a row").secrets,
        [Secret::new("rotated")]
    );
    ground.compiler.set_secret(
        name(),
        Some([("secret".to_owned(), Secret::new("rotated"))].into()),
    );
    expect![""].assert_eq(&ground.compile());
}

#[test]
fn at_start_what_does_not_compile_keeps_its_published_row_and_what_is_gone_loses_it() {
    let mut before = Ground::of(&format!(
        "{SHOP}---\n{{kind: Source, metadata: {{name: other}}, spec: {{}}}}"
    ));
    before.compile();
    let mut ground = Ground {
        compiler: Compiler::new(before.compiler.rows().cloned()),
        uids: before.uids.clone(),
        generations: before.generations.clone(),
    };
    ground.apply("{kind: Source, metadata: {name: src}, spec: {path: '/'}}");
    let destination = ground.uid("Destination/shop/dst");
    ground.compiler.hold(destination);
    expect![[r#"
        removed Source/shop/other
        removed Connection/shop/con
        Source/shop/src Accepted UnsupportedValue: spec.path: `/` can't be a path; write segments of a-z, 0-9, `-`, `_` and `.` that begin and end with a letter or digit, as `billing/stripe`
        Source/shop/src routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    assert!(ground.row("Destination/shop/dst").is_some());
}

#[test]
fn a_row_too_large_is_refused_and_the_last_good_one_stays() {
    let mut ground = Ground::of(SHOP);
    ground.compile();
    let text = "x".repeat(4000);
    let texts: Vec<String> = (0..66).map(|n| format!("{text}{n:02}")).collect();
    ground.apply(&format!(
        "kind: Connection
metadata: {{name: con}}
spec:
  source: {{name: src}}
  destination: {{name: dst}}
  filter: {{all: [{{path: body.a, op: in, value: [{}]}}]}}",
        texts.join(", ")
    ));
    expect![[r#"
        Connection/shop/con Accepted UnsupportedValue: spec.filter: compiled, this takes 264619 bytes of the routing table, and at most 262144 are possible; give the filter fewer or shorter values, or divide it among several connections
        Connection/shop/con routes generation 1
    "#]]
    .assert_eq(&ground.compile());
    let row = ground
        .row("Connection/shop/con")
        .expect("the last good one");
    assert!(matches!(row.spec, Spec::Connection(spec) if spec.filter.is_none()));
}

#[test]
fn a_destination_that_is_spared_or_ordered_in_a_way_that_makes_no_sense_says_what_to_write() {
    check(
        "Destination",
        "{http: {url: 'http://a.example.com/'}, circuitBreaker: {failures: 0, cooldown: 100ms}, rateLimit: {deliveries: 10, per: 2d}, \
         ordering: {mode: Strict, key: 'body.lines[*].id'}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.circuitBreaker.failures: `0` is out of range; write 1 to 1000
            Destination/shop/x Accepted UnsupportedValue: spec.circuitBreaker.cooldown: `100ms` is out of range; write `1s` to `24h`
            Destination/shop/x Accepted UnsupportedValue: spec.rateLimit.per: `2d` is out of range; write `1s` to `24h`
            Destination/shop/x Accepted UnsupportedValue: spec.ordering.key: `body.lines[*].id` leads to many values and an event has one key; write `[0]` or another field
            Destination/shop/x routes nothing
        "#]],
    );
    check(
        "Destination",
        "{http: {url: 'http://a.example.com/'}, circuitBreaker: {failures: 3, failureRate: {threshold: 0%, window: 5m}}, \
         ordering: {mode: None, key: body.id}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.circuitBreaker: set failures or failureRate, not both
            Destination/shop/x Accepted UnsupportedValue: spec.circuitBreaker.failureRate.threshold: `0%` is no share of failures; write a percentage above 0% and up to 100%, as `50%`
            Destination/shop/x Accepted UnsupportedValue: spec.ordering: key and onHeadBlocked need mode: Strict
            Destination/shop/x routes nothing
        "#]],
    );
}
