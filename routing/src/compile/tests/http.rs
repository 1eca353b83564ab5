//! Of HTTP destinations: signing, the ways to authenticate, certificates, templates, placeholders.

use super::*;
use expect_test::{Expect, expect};

const SECRETS: &str = "
kind: Secret
metadata: {name: s}
stringData:
  whsec: whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX
  plain: hunter2hunter2hunter2
  empty: ''
  line: \"a\\nb\"
  client_id: me
  client_secret: pw
  access_key_id: AKIDEXAMPLE
  secret_access_key: key
  tls.crt: \"-----BEGIN CERTIFICATE-----\\nMAA=\\n-----END CERTIFICATE-----\\n\"
  tls.key: \"-----BEGIN PRIVATE KEY-----\\nMAA=\\n-----END PRIVATE KEY-----\\n\"
---
kind: Secret
metadata: {name: temporary}
stringData: {access_key_id: A, secret_access_key: k, session_token: t}
---
";

fn ground(spec: &str) -> Ground {
    Ground::of(&format!(
        "{SECRETS}kind: Destination\nmetadata: {{name: x}}\nspec: {spec}\n"
    ))
}

#[track_caller]
fn refused(spec: &str, expected: Expect) {
    expected.assert_eq(&ground(spec).compile());
}

/// The part of the row that is about HTTP.
#[track_caller]
fn accepted(spec: &str, part: &str, expected: Expect) {
    let mut ground = ground(spec);
    let said = ground.compile();
    let row = ground
        .row("Destination/shop/x")
        .unwrap_or_else(|| panic!("{said}"));
    assert_eq!(
        crate::row::parse_payload(&row.payload()).expect("readable"),
        row.spec
    );
    let payload: serde_json::Value = serde_json::from_slice(&row.payload()).expect("JSON");
    let http = &payload["spec"]["destination"]["provider"]["http"];
    expected.assert_eq(&http[part].to_string());
}

#[test]
fn each_way_to_sign_reaches_the_row_with_all_its_keys() {
    accepted(
        "{http: {url: 'https://e.com'}, signing: {standardWebhooks: {}, secretRefs: [{name: s, key: whsec}, {name: s, key: whsec}]}}",
        "signing",
        expect![[r#"{"scheme":{"standard_webhooks":{}},"keys":[0,1]}"#]],
    );
    accepted(
        "{http: {url: 'https://e.com'}, signing: {hmac: {}, secretRefs: [{name: s, key: plain}]}}",
        "signing",
        expect![[
            r#"{"scheme":{"hmac":{"algorithm":"sha256","header":"x-hookstream-signature","prefix":"sha256=","timestamp_header":null}},"keys":[0]}"#
        ]],
    );
    accepted(
        "{http: {url: 'https://e.com'}, signing: {hmac: {algorithm: SHA1, header: X-Sig, prefix: '', timestampHeader: X-hookstream-Timestamp}, secretRefs: [{name: s, key: plain}]}}",
        "signing",
        expect![[
            r#"{"scheme":{"hmac":{"algorithm":"sha1","header":"x-sig","prefix":"","timestamp_header":"x-hookstream-timestamp"}},"keys":[0]}"#
        ]],
    );
    accepted(
        "{http: {url: 'https://e.com'}, signing: {hmac: {algorithm: SHA1, header: X-Hookstream-Signature}, secretRefs: [{name: s, key: plain}]}}",
        "signing",
        expect![[
            r#"{"scheme":{"hmac":{"algorithm":"sha1","header":"x-hookstream-signature","prefix":"sha1=","timestamp_header":null}},"keys":[0]}"#
        ]],
    );
    accepted(
        "{http: {url: 'https://e.com'}, signing: {httpSignature: {}, secretRefs: [{name: s, key: plain}]}}",
        "signing",
        expect![[r#"{"scheme":{"http_signature":{"key_id":"plain"}},"keys":[0]}"#]],
    );
}

#[test]
fn a_key_that_cant_sign_says_what_it_must_be_and_not_what_it_is() {
    refused(
        "{http: {url: 'https://e.com', headers: {webhook-extra: a, Signature: b}},
          signing: {standardWebhooks: {}, secretRefs: [{name: s, key: plain}, {name: s, key: none}, {name: none, key: k}]}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[webhook-extra]: `webhook-extra` is set by hookstream on every delivery; choose another name
            Destination/shop/x Accepted UnsupportedValue: spec.signing.secretRefs[0]: the value of key `plain` in Secret `s` isn't a Standard Webhooks key; it must be `whsec_` followed by base64 of 24 to 64 bytes (`echo whsec_$(openssl rand -base64 32)` makes one), or `whsk_` followed by base64 of an Ed25519 key; look for a line break at its end too
            Destination/shop/x ResolvedRefs SecretKeyMissing: spec.signing.secretRefs[1]: the Secret `s` has no key `none`; add it, or name another
            Destination/shop/x ResolvedRefs SecretNotFound: spec.signing.secretRefs[2]: there is no Secret `none` in namespace `shop`; create it, or name another
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com', headers: {Signature: b}}, signing: {httpSignature: {keyId: \"a\\nb\"}, secretRefs: [{name: s, key: tls.crt}]}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.signing.httpSignature.keyId: a key id is of visible ASCII characters and spaces
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[signature]: `signature` is set by `signing` as well; leave it out
            Destination/shop/x Accepted UnsupportedValue: spec.signing.secretRefs[0]: the value of key `tls.crt` in Secret `s` holds no private key; the receiver has the public one, this end signs
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com'}, signing: {hmac: {header: Host, prefix: \"a\\nb\", timestampHeader: X-Hookstream-Id}, secretRefs: [{name: s, key: empty}]}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.signing.hmac.header: `Host` belongs to the connection and is set by the gateway; leave it out
            Destination/shop/x Accepted UnsupportedValue: spec.signing.hmac.timestampHeader: `X-Hookstream-Id` is set by hookstream on every delivery; choose another name
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com'}, signing: {hmac: {header: X-A, prefix: \"a\\nb\", timestampHeader: x-a}, secretRefs: [{name: s, key: empty}]}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.signing.hmac.timestampHeader: the signature has this header; choose another one for the time
            Destination/shop/x Accepted UnsupportedValue: spec.signing.hmac.prefix: a prefix is of visible ASCII characters and begins with no space
            Destination/shop/x Accepted UnsupportedValue: spec.signing.secretRefs[0]: the value of key `empty` in Secret `s` is empty; anybody could sign with it
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn oauth2_and_sigv4_reach_the_row_with_their_secrets_by_place() {
    accepted(
        "{http: {url: 'https://e.com', auth: {oauth2: {tokenUrl: 'https://id.e.com/token', scopes: ['a:b', c], audience: x, clientAuthentication: Post, secretRef: {name: s}}}}}",
        "auth",
        expect![[
            r#"{"oauth2":{"token_url":"https://id.e.com/token","scopes":["a:b","c"],"audience":"x","client_authentication":"post","client_id":0,"client_secret":1}}"#
        ]],
    );
    accepted(
        "{http: {url: 'https://e.com', auth: {awsSigV4: {region: eu-west-1, service: execute-api, credentialsRef: {name: s}}}}}",
        "auth",
        expect![[
            r#"{"aws_sig_v4":{"region":"eu-west-1","service":"execute-api","access_key_id":0,"secret_access_key":1,"session_token":null}}"#
        ]],
    );
    accepted(
        "{http: {url: 'https://e.com', auth: {awsSigV4: {region: eu-west-1, service: s3, credentialsRef: {name: temporary}}}}}",
        "auth",
        expect![[
            r#"{"aws_sig_v4":{"region":"eu-west-1","service":"s3","access_key_id":0,"secret_access_key":1,"session_token":2}}"#
        ]],
    );
    refused(
        "{http: {url: 'https://e.com', headers: {X-Amz-Date: a}, auth: {oauth2: {tokenUrl: 'ftp://id.e.com/', scopes: ['a b', ''], secretRef: {name: none}}}}}",
        expect![[r#"
            Destination/shop/x Accepted InvalidUrl: spec.http.auth.oauth2.tokenUrl: the URL must begin with `https://` or `http://`
            Destination/shop/x Accepted UnsupportedValue: spec.http.auth.oauth2.scopes[0]: `a b` is no scope; write one a line, without spaces
            Destination/shop/x Accepted UnsupportedValue: spec.http.auth.oauth2.scopes[1]: `` is no scope; write one a line, without spaces
            Destination/shop/x ResolvedRefs SecretNotFound: spec.http.auth.oauth2.secretRef: there is no Secret `none` in namespace `shop`; create it, or name another
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com', headers: {X-Amz-Date: a}, auth: {awsSigV4: {region: EU, service: s3, credentialsRef: {name: temporary}}}}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.auth.awsSigV4.region: `EU` is no name of Amazon's; write lower-case letters, digits and dashes, as `eu-west-1` or `execute-api`
            Destination/shop/x Accepted UnsupportedValue: spec.http.headers[x-amz-date]: `x-amz-date` is set by `auth` as well; write it in one place
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com', auth: {awsSigV4: {region: eu-west-1, service: s3}}}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.auth.awsSigV4.credentialsRef: credentials are needed: name a Secret with access_key_id and secret_access_key
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn certificates_reach_the_row_and_what_is_none_is_told() {
    accepted(
        "{http: {url: 'https://e.com', tls: {caRef: {name: s, key: tls.crt}, clientCertificateRef: {name: s}}}}",
        "tls",
        expect![[r#"{"ca":0,"certificate":1,"key":2}"#]],
    );
    accepted(
        "{http: {url: 'https://e.com', tls: {}}}",
        "tls",
        expect!["null"],
    );
    refused(
        "{http: {url: 'https://e.com', tls: {caRef: {name: s, key: plain}, clientCertificateRef: {name: temporary}}}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.tls.caRef: the value of key `plain` in Secret `s` holds no certificate; write it as PEM, beginning with -----BEGIN CERTIFICATE-----
            Destination/shop/x ResolvedRefs SecretKeyMissing: spec.http.tls.clientCertificateRef: the Secret `temporary` has no key `tls.crt`; add it, or name another
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn a_template_takes_its_services_key_to_where_the_service_wants_it() {
    let key = "apiKey: {secretRef: {name: s, key: plain}}";
    for (template, auth, row) in [
        ("slack", "null", r#"{"slack":{}}"#),
        (
            "datadog",
            r#"{"api_key":{"header":"dd-api-key","key":0}}"#,
            r#"{"datadog":{}}"#,
        ),
        (
            "linear",
            r#"{"api_key":{"header":"authorization","key":0}}"#,
            r#"{"linear":{}}"#,
        ),
        ("pagerduty", "null", r#"{"pagerduty":{"routing_key":0}}"#),
    ] {
        let auth_written = if template == "slack" {
            String::new()
        } else {
            format!(", auth: {{{key}}}")
        };
        let spec =
            format!("{{http: {{url: 'https://e.com', template: {template}{auth_written}}}}}");
        let mut ground = ground(&spec);
        let said = ground.compile();
        let row_is = ground
            .row("Destination/shop/x")
            .unwrap_or_else(|| panic!("{said}"));
        let payload: serde_json::Value = serde_json::from_slice(&row_is.payload()).expect("JSON");
        let http = &payload["spec"]["destination"]["provider"]["http"];
        assert_eq!(
            (http["auth"].to_string(), http["template"].to_string()),
            (auth.to_owned(), row.to_owned())
        );
    }
    refused(
        "{http: {url: 'https://e.com', template: pagerduty}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.template: pagerduty needs the integration's routing key: name the Secret that holds it in `auth.apiKey.secretRef`; it is sent in the payload
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com', template: teams}}",
        expect![[r#"
            Destination/shop/x Accepted UnsupportedValue: spec.http.template: there is no template `teams`; there are slack, discord, pagerduty, datadog, zapier, linear
            Destination/shop/x routes nothing
        "#]],
    );
}

#[test]
fn placeholders_stand_in_the_path_and_the_query() {
    accepted(
        "{http: {url: 'https://e.com/in/{path}?a=b&{query}'}}",
        "url",
        expect![[r#""https://e.com/in/{path}?a=b&{query}""#]],
    );
    refused(
        "{http: {url: 'https://{path}/'}}",
        expect![[r#"
            Destination/shop/x Accepted InvalidUrl: spec.http.url: a placeholder can't stand in the host: a sender would choose where deliveries go; write `{path}` behind the host's `/`
            Destination/shop/x routes nothing
        "#]],
    );
    refused(
        "{http: {url: 'https://e.com/{body}'}}",
        expect![[r#"
            Destination/shop/x Accepted InvalidUrl: spec.http.url: placeholders are `{path}` and `{query}`; write other braces as `%7B` and `%7D`
            Destination/shop/x routes nothing
        "#]],
    );
}
