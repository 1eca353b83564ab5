//! How manifests say what a sender's signature is: templates, what is written over them, and what is wrong with it.

use super::*;
use expect_test::{Expect, expect};

/// Compiles a source with this verification (and these fields beside it), with a Secret `s` of many keys.
#[track_caller]
fn check(spec: &str, expected: Expect) {
    let jwks = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"snsoFCuzzd6pjsLmHxvl6hPwbyy_mcTim4orW9_uyrE"}]}"#;
    let mut ground = Ground::of(&format!(
        "{{kind: Secret, metadata: {{name: s}}, stringData: {{k: v, email: a@b.c, empty: ' ', jwks: '{jwks}', hex: 00ff, basic: 'a:b',
           ed25519: b27b28142bb3cddea98ec2e61f1be5ea13f06f2cbf99c4e29b8a2b5bdfeecab1}}}}\n---\nkind: Source\nmetadata: {{name: x}}\nspec: {spec}\n"
    ));
    expected.assert_eq(&ground.compile());
}

fn with(verification: &str) -> String {
    format!("{{verification: {verification}}}")
}

#[test]
fn every_template_compiles_with_a_secret_of_its_kind() {
    for template in crate::verify::templates::TEMPLATES {
        let (key, value) = match template.name {
            "custom" => continue,
            "sendgrid" => (
                "k",
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE83T4O/n84iotIvIW4mdBgQ/7dAfSmpqIM8kF9mN1flpVKS3GRqe62gw+2fNNRaINXvVpiglSI8eNEc6wEA3F+g==",
            ),
            "discord" => (
                "k",
                "b27b28142bb3cddea98ec2e61f1be5ea13f06f2cbf99c4e29b8a2b5bdfeecab1",
            ),
            "adyen" | "adyen-platform" => ("k", "00ff"),
            "aws-sns" => ("k", "arn:aws:sns:eu-west-1:1:t"),
            "postmark" => ("k", "user:password"),
            "pubsub" => ("k", "a@b.iam.gserviceaccount.com"),
            "paypal" => ("k", "7VD69585CX5120734"),
            _ => ("k", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
        };
        let mut ground = Ground::of(&format!(
            "{{kind: Secret, metadata: {{name: s}}, stringData: {{{key}: '{value}'}}}}\n---\nkind: Source\nmetadata: {{name: x}}\nspec: {{verification: {{template: {}, secretRefs: [{{name: s, key: k}}]}}}}\n",
            template.name
        ));
        let said = ground.compile();
        assert!(
            !said.contains("Invalid") && !said.contains("nothing"),
            "{}: {said}",
            template.name
        );
    }
}

#[test]
fn what_a_manifest_writes_is_laid_over_its_template() {
    check(
        &with(
            "{template: slack, hmac: {timestamp: {tolerance: 10m}}, secretRefs: [{name: s, key: k}]}",
        ),
        expect![[r#"
            changed Source/shop/x generation 1
        "#]],
    );
    check(
        &with("{template: custom, hmac: {header: X-Sig, pair: v1, algorithm: SHA512, encoding: Base64, secretEncoding: Hex,
           signedContent: '{method} {url} {timestamp} {body}', timestamp: {header: X-Sig, pair: t, unit: Milliseconds}}, secretRefs: [{name: s, key: hex}]}"),
        expect![[r#"
            changed Source/shop/x generation 1
        "#]],
    );
    check(
        &with("{template: pubsub, jwt: {audience: mine}, secretRefs: [{name: s, key: email}]}"),
        expect![[r#"
            changed Source/shop/x generation 1
        "#]],
    );
    check(
        &with("{jwt: {jwksUrl: 'https://a.b/keys', issuer: i}}"),
        expect![[r#"
            changed Source/shop/x generation 1
        "#]],
    );
    check(
        "{methods: [GET, POST], verification: {template: meta, secretRefs: [{name: s, key: k}], verifyTokenRef: {name: s, key: hex}}}",
        expect![[r#"
            changed Source/shop/x generation 1
        "#]],
    );
}

#[test]
fn a_mistake_says_what_to_write() {
    for (spec, expected) in [
        (
            with("{template: githup, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted UnsupportedValue: spec.verification.template: there is no template `githup`; there are stripe, shopify, github, slack, twilio, sendgrid, intercom, linear, clerk, svix, paddle, resend, postmark, typeform, custom, adyen, adyen-platform, aws-sns, bitbucket, calendly, discord, docusign, dropbox, gitlab, hubspot, launchdarkly, mailgun, meta, okta, pagerduty, paypal, pubsub, sentry, square, twitch, vercel, whatsapp, woocommerce, zendesk, zoom, or describe it with one of hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey and jwt
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{template: custom, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.template: the template `custom` knows nothing by itself; write one of hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey and jwt beside it
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{template: gitlab, hmac: {header: X-A}, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.hmac: the template `gitlab` verifies in another way, so `hmac` can't change it; leave one of the two out
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{hmac: {pair: v1, timestamp: {tolerance: 1m}}, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.hmac.pair: `pair` says which part of a header is the signature; write `header` as well
                Source/shop/x Accepted InvalidVerification: spec.verification.hmac.timestamp.header: write the `header` that has the time
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{ed25519: {}, secretRefs: [{name: s, key: k}, {name: s, key: empty}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.ed25519.header: write the `header` that has the signature
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{ecdsa: {header: X-S, timestamp: {header: X-T}}, secretRefs: [{name: s, key: ed25519}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs[0]: the value of key `ed25519` in Secret `s` isn't a P-256 public key; write it as PEM or as the base64 inside of it, as the sender shows it
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{basicAuth: {}, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs[0]: the value of key `k` in Secret `s` isn't `user:password`; write both with a colon between
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{apiKey: {header: A, query: b}, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.apiKey: write exactly one of `header` and `query`
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{jwt: {jwksUrl: 'http://a.b/keys'}}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.jwt.jwksUrl: `http://a.b/keys` can't be fetched; write a URL over https, as `https://login.example.com/.well-known/jwks.json`
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{jwt: {}, secretRefs: [{name: s, key: k}]}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.secretRefs[0]: the value of key `k` in Secret `s` holds no public key; write a JWKS document (`{"keys": […]}`), or a public key in PEM
                Source/shop/x routes nothing
            "#]],
        ),
        (
            "{methods: [POST], verification: {template: dropbox, secretRefs: [{name: s, key: k}], verifyTokenRef: {name: s, key: k}}}".to_owned(),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.verifyTokenRef: only the templates `meta` and `whatsapp` have challenges with a token of yours; leave it out
                Source/shop/x Accepted UnsupportedValue: spec.methods: `dropbox` sends a GET before it sends events, and is refused here; add GET, or leave `methods` out
                Source/shop/x routes nothing
            "#]],
        ),
        (
            with("{template: whatsapp, secretRefs: [{name: s, key: k}], verifyTokenRef: {name: s, key: empty}}"),
            expect![[r#"
                Source/shop/x Accepted InvalidVerification: spec.verification.verifyTokenRef: the value of key `empty` in Secret `s` is empty; write the verify token that the app's settings have
                Source/shop/x routes nothing
            "#]],
        ),
    ] {
        check(&spec, expected);
    }
}
