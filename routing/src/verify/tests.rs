//! Each scheme by itself: what it takes, and each reason for which it refuses.

use super::{encoding::BASE64, header::MOST_SIGNATURES, *};
use base64::Engine;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

mod credentials;
mod handshakes;
mod tokens;
mod vectors;

const GITHUB_SECRET: &str = "It's a Secret to Everybody";
const GITHUB_SIGNATURE: &str =
    "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
const WHSEC: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(seconds).expect("a time")
}

fn template(name: &str) -> Scheme {
    let template = templates::Template::named(name).expect("there");
    template.scheme().expect("it says all")
}

fn standard(tolerance_ms: u64) -> Scheme {
    Scheme::StandardWebhooks(StandardWebhooksScheme {
        tolerance_ms,
        svix: false,
    })
}

fn verification(scheme: Scheme, secrets: &[&str]) -> (Verification, Vec<Secret>) {
    let verification = Verification {
        scheme,
        secrets: (0..).take(secrets.len()).map(SecretIndex).collect(),
        handshake: None,
        verify_token: None,
    };
    let secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    (verification, secrets)
}

fn verifier(scheme: Scheme, secrets: &[&str]) -> Verifier {
    let (verification, secrets) = verification(scheme, secrets);
    Verifier::new(&verification, &secrets)
}

fn headers(list: &[(&str, &str)]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in list {
        let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
        map.append(
            name,
            HeaderValue::from_bytes(value.as_bytes()).expect("a value"),
        );
    }
    map
}

fn verify(
    verifier: &Verifier,
    list: &[(&str, &str)],
    body: &str,
    now: Timestamp,
) -> Result<(), Refused> {
    let map = headers(list);
    let ip = [127, 0, 0, 1].into();
    let event = EventView::new(&Method::POST, "", "", &map, body.as_bytes(), ip);
    verifier.verify(&event, now, None).map(drop)
}

fn tag(secret: &str, content: &str) -> Vec<u8> {
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret.as_bytes());
    ring::hmac::sign(&key, content.as_bytes()).as_ref().to_vec()
}

fn sign(secret: &str, content: &str) -> String {
    ::hex::encode(tag(secret, content))
}

fn scheme() -> HmacScheme {
    HmacScheme {
        algorithm: Algorithm::Sha256,
        signatures: vec![Place::header("x-signature")],
        encoding: Encoding::Hex,
        prefix: String::new(),
        content: vec![Piece::Body],
        timestamp: None,
        id: None,
        secret: SecretEncoding::Text,
        twilio: false,
    }
}

#[test]
fn the_example_of_githubs_documents_verifies() {
    let github = verifier(template("github"), &[GITHUB_SECRET]);
    let check = |signature: &str, body: &str| {
        verify(&github, &[("X-Hub-Signature-256", signature)], body, at(0))
    };

    assert_eq!(check(GITHUB_SIGNATURE, "Hello, World!"), Ok(()));
    assert_eq!(
        check(
            &GITHUB_SIGNATURE.to_uppercase().replace("SHA256", "sha256"),
            "Hello, World!"
        ),
        Ok(())
    );
    assert_eq!(
        check(GITHUB_SIGNATURE, "Hello, World?"),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check(&GITHUB_SIGNATURE.replace('7', "8"), "Hello, World!"),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check(&GITHUB_SIGNATURE["sha256=".len()..], "Hello, World!"),
        Err(Refused::SignatureMalformed)
    );
    assert_eq!(
        check(&GITHUB_SIGNATURE[..60], "Hello, World!"),
        Err(Refused::SignatureMalformed)
    );
    assert_eq!(check("", "Hello, World!"), Err(Refused::SignatureMalformed));
    assert_eq!(
        verify(&github, &[], "Hello, World!", at(0)),
        Err(Refused::SignatureMissing)
    );
}

#[test]
fn the_example_of_the_standard_webhooks_specification_verifies() {
    let scheme = standard(DEFAULT_TOLERANCE_MS);
    let signature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";
    let sent = 1_614_265_330;
    let check = |secret: &str, signature: &str, now: i64| {
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ];
        verify(
            &verifier(scheme.clone(), &[secret]),
            &headers,
            "{\"test\": 2432232314}",
            at(now),
        )
    };

    assert_eq!(check(WHSEC, signature, sent), Ok(()));
    assert_eq!(check(WHSEC, signature, sent + 300), Ok(()));
    assert_eq!(check(WHSEC, signature, sent - 300), Ok(()));
    assert_eq!(
        check(WHSEC, signature, sent + 301),
        Err(Refused::TimestampOutsideTolerance)
    );
    assert_eq!(
        check(WHSEC, signature, sent - 301),
        Err(Refused::TimestampOutsideTolerance)
    );
    assert_eq!(check(&WHSEC["whsec_".len()..], signature, sent), Ok(()));
    assert_eq!(check(&format!("{WHSEC}\n"), signature, sent), Ok(()));
    assert_eq!(
        check(WHSEC, &format!("v1a,AAAA v1,AAAA {signature} v2,x"), sent),
        Ok(())
    );
    assert_eq!(
        check(WHSEC, &signature.replace("v1,", "v2,"), sent),
        Err(Refused::SignatureMalformed)
    );
    assert_eq!(
        check(WHSEC, &signature.replace('g', "h"), sent),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check("whsec_AAAA", signature, sent),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check("whsec_!!!!", signature, sent),
        Err(Refused::SignatureMismatch)
    );
}

#[test]
fn standard_webhooks_needs_all_three_headers() {
    let verifier = verifier(standard(1_000), &[WHSEC]);
    let all = [
        ("webhook-id", "a"),
        ("webhook-timestamp", "5"),
        ("webhook-signature", "v1,AAAA"),
    ];
    let without = |name: &str| {
        let headers: Vec<_> = all.into_iter().filter(|(n, _)| *n != name).collect();
        verify(&verifier, &headers, "", at(5))
    };
    assert_eq!(without("webhook-id"), Err(Refused::SignatureMissing));
    assert_eq!(without("webhook-signature"), Err(Refused::SignatureMissing));
    assert_eq!(without("webhook-timestamp"), Err(Refused::TimestampMissing));
}

#[test]
fn stripe_verifies_any_of_its_v1_signatures() {
    let stripe = verifier(template("stripe"), &["whsec_test"]);
    let body = "{\"id\":\"evt_1\",\"object\":\"event\"}";
    let signature = sign("whsec_test", &format!("1700000000.{body}"));
    let other = sign("another", &format!("1700000000.{body}"));
    let check =
        |header: &str, now: i64| verify(&stripe, &[("Stripe-Signature", header)], body, at(now));

    assert_eq!(
        check(&format!("t=1700000000,v1={signature}"), 1_700_000_000),
        Ok(())
    );
    assert_eq!(
        check(
            &format!("t=1700000000,v1={other},v1={signature},v0=abc"),
            1_700_000_299
        ),
        Ok(())
    );
    assert_eq!(
        check(&format!("t=1700000000, v1={signature}"), 1_699_999_701),
        Ok(())
    );
    assert_eq!(
        check(&format!("t=1700000000,v1={other}"), 1_700_000_000),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check(&format!("t=1700000000,v0={signature}"), 1_700_000_000),
        Err(Refused::SignatureMalformed)
    );
    assert_eq!(
        check(&format!("t=1700000001,v1={signature}"), 1_700_000_000),
        Err(Refused::SignatureMismatch)
    );
    assert_eq!(
        check(&format!("t=1700000000,v1={signature}"), 1_700_000_301),
        Err(Refused::TimestampOutsideTolerance)
    );
    for header in [
        "",
        "v1=abc",
        "t=,v1=abc",
        "t=-5,v1=abc",
        "t=1e9,v1=abc",
        "t=99999999999999999999,v1=a",
        "t",
    ] {
        assert_eq!(check(header, 0), Err(Refused::TimestampMissing), "{header}");
    }
    assert_eq!(
        verify(&stripe, &[], body, at(0)),
        Err(Refused::SignatureMissing)
    );
}

#[test]
fn any_secret_verifies_so_that_a_sender_can_rotate() {
    let rotating = verifier(Scheme::Hmac(scheme()), &["current", "previous"]);
    for secret in ["current", "previous"] {
        assert_eq!(
            verify(
                &rotating,
                &[("x-signature", &sign(secret, "b"))],
                "b",
                at(0)
            ),
            Ok(()),
            "{secret}"
        );
    }
    let refused = verify(
        &rotating,
        &[("x-signature", &sign("older", "b"))],
        "b",
        at(0),
    );
    assert_eq!(refused, Err(Refused::SignatureMismatch));
}

#[test]
fn a_signature_is_found_among_several_in_one_header_or_in_many() {
    let one = verifier(
        Scheme::Hmac(HmacScheme {
            prefix: "v1=".to_owned(),
            ..scheme()
        }),
        &["s"],
    );
    let (right, wrong) = (
        format!("v1={}", sign("s", "b")),
        format!("v1={}", sign("t", "b")),
    );
    assert_eq!(
        verify(
            &one,
            &[("x-signature", &format!("{wrong},{right}"))],
            "b",
            at(0)
        ),
        Ok(())
    );
    assert_eq!(
        verify(
            &one,
            &[("x-signature", &format!("{wrong} {right}"))],
            "b",
            at(0)
        ),
        Ok(())
    );
    assert_eq!(
        verify(
            &one,
            &[("x-signature", &wrong), ("x-signature", &right)],
            "b",
            at(0)
        ),
        Ok(())
    );
    let many = format!("{}{right}", format!("{wrong},").repeat(MOST_SIGNATURES));
    assert_eq!(
        verify(&one, &[("x-signature", &many)], "b", at(0)),
        Err(Refused::SignatureMismatch)
    );
}

#[test]
fn base64_is_read_in_either_alphabet_with_padding_or_without() {
    // Its HMAC has both characters in which the alphabets differ.
    let body = (0..).map(|n| n.to_string()).find(|body| {
        let encoded = BASE64.encode(tag("s", body));
        encoded.contains('+') && encoded.contains('/')
    });
    let body = body.expect("there is one");
    let tag = tag("s", &body);
    let base64 = verifier(
        Scheme::Hmac(HmacScheme {
            encoding: Encoding::Base64,
            ..scheme()
        }),
        &["s"],
    );
    for encoded in [
        BASE64.encode(&tag),
        encoding::BASE64_URL.encode(&tag),
        BASE64.encode(&tag).replace('=', ""),
    ] {
        assert_eq!(
            verify(&base64, &[("x-signature", &encoded)], &body, at(0)),
            Ok(()),
            "{encoded}"
        );
    }
    for wrong in ["AAAA", "!", &"A".repeat(44), &"A".repeat(4_000)] {
        assert!(
            verify(&base64, &[("x-signature", wrong)], &body, at(0)).is_err(),
            "{wrong}"
        );
    }
}

#[test]
fn a_prefix_with_a_comma_is_taken_whole() {
    let scheme = HmacScheme {
        prefix: "v1,".to_owned(),
        ..scheme()
    };
    let one = verifier(Scheme::Hmac(scheme), &["s"]);
    assert_eq!(
        verify(
            &one,
            &[("x-signature", &format!("v1,{}", sign("s", "b")))],
            "b",
            at(0)
        ),
        Ok(())
    );
}

#[test]
fn sha256_in_front_is_taken_off_where_no_prefix_is_named() {
    let one = verifier(Scheme::Hmac(scheme()), &["s"]);
    assert_eq!(
        verify(
            &one,
            &[("x-signature", &format!("sha256={}", sign("s", "b")))],
            "b",
            at(0)
        ),
        Ok(())
    );
}

#[test]
fn a_signed_timestamp_must_be_near_now_and_be_the_signed_one() {
    let timestamp = SignedTimestamp {
        at: Place::header("x-timestamp"),
        unit: TimeUnit::Seconds,
        tolerance_ms: Some(60_000),
    };
    let content = parse_content("{timestamp}.{body}").expect("a template");
    let signed = HmacScheme {
        content,
        timestamp: Some(timestamp),
        ..scheme()
    };
    let one = verifier(Scheme::Hmac(signed), &["s"]);
    let signature = sign("s", "1000.b");
    let check = |timestamp: &str, now: i64| {
        verify(
            &one,
            &[("x-signature", &signature), ("x-timestamp", timestamp)],
            "b",
            at(now),
        )
    };
    assert_eq!(check("1000", 1_060), Ok(()));
    assert_eq!(check("1000", 940), Ok(()));
    assert_eq!(
        check("1000", 1_061),
        Err(Refused::TimestampOutsideTolerance)
    );
    assert_eq!(check("1000", 939), Err(Refused::TimestampOutsideTolerance));
    assert_eq!(check("1001", 1_000), Err(Refused::SignatureMismatch));
    assert_eq!(check("soon", 1_000), Err(Refused::TimestampMissing));
    assert_eq!(
        check(&i64::MAX.to_string(), 1_000),
        Err(Refused::TimestampOutsideTolerance)
    );
    assert_eq!(
        verify(&one, &[("x-signature", &signature)], "b", at(0)),
        Err(Refused::TimestampMissing)
    );
}

#[test]
fn a_template_of_signed_content_names_body_and_timestamp() {
    let literal = |text: &str| Piece::Literal(text.to_owned());
    assert_eq!(parse_content("{body}"), Ok(vec![Piece::Body]));
    assert_eq!(
        parse_content("v0:{timestamp}:{body}!"),
        Ok(vec![
            literal("v0:"),
            Piece::Timestamp,
            literal(":"),
            Piece::Body,
            literal("!")
        ])
    );
    assert_eq!(
        parse_content("{id}{body}"),
        Ok(vec![Piece::Id, Piece::Body])
    );
    for (template, says) in [
        ("", "must be part"),
        ("{timestamp}", "must be part"),
        ("{uri}.{body}", "`{uri}` is not known"),
        ("{}{body}", "`{}` is not known"),
        ("{body", "isn't closed"),
    ] {
        let error = parse_content(template).expect_err(template);
        assert!(error.contains(says), "{template}: {error}");
    }
}

#[test]
fn a_signed_id_is_taken_from_its_header() {
    let content = parse_content("{id}.{body}").expect("a template");
    let signed = HmacScheme {
        content,
        id: Some(Place::header("x-id")),
        ..scheme()
    };
    let one = verifier(Scheme::Hmac(signed), &["s"]);
    let signature = sign("s", "msg_1.b");
    let check = |id: &str| {
        verify(
            &one,
            &[("x-signature", &signature), ("x-id", id)],
            "b",
            at(0),
        )
    };
    assert_eq!(check("msg_1"), Ok(()));
    assert_eq!(check("msg_2"), Err(Refused::SignatureMismatch));
    assert_eq!(
        verify(&one, &[("x-signature", &signature)], "b", at(0)),
        Err(Refused::SignatureMissing)
    );
}

#[test]
fn without_a_usable_secret_nothing_verifies() {
    let body = "Hello, World!";
    let empty_key = sign("", body);
    let github = template("github");
    for secrets in [vec![], vec![""]] {
        let none = verifier(github.clone(), &secrets);
        for signature in [format!("sha256={empty_key}"), GITHUB_SIGNATURE.to_owned()] {
            let refused = verify(&none, &[("x-hub-signature-256", &signature)], body, at(0));
            assert_eq!(refused, Err(Refused::SignatureMismatch));
        }
    }
    let (mut verification, _) = verification(github, &[]);
    verification.secrets = vec![SecretIndex(9)];
    let dangling = Verifier::new(&verification, &[]);
    let refused = verify(
        &dangling,
        &[("x-hub-signature-256", GITHUB_SIGNATURE)],
        body,
        at(0),
    );
    assert_eq!(refused, Err(Refused::SignatureMismatch));
}

#[test]
fn a_secret_that_cannot_be_a_key_is_told_so_without_repeating_it() {
    let standard = standard(1);
    let github = template("github");
    assert!(standard.check_secret(&Secret::new(WHSEC)).is_ok());
    assert!(github.check_secret(&Secret::new("anything at all")).is_ok());
    for secret in ["not base64!", "whsec_", "whsec_%%%"] {
        let said = standard
            .check_secret(&Secret::new(secret))
            .expect_err(secret);
        assert!(!said.contains(secret) || secret == "whsec_", "{said}");
    }
    assert!(github.check_secret(&Secret::new("")).is_err());
}

#[test]
fn a_verifier_prints_no_key() {
    let printed = format!("{:?}", verifier(template("github"), &[GITHUB_SECRET]));
    assert!(
        printed.contains("[key]") && !printed.contains("Secret"),
        "{printed}"
    );
}

#[test]
fn the_row_form_is_fixed() {
    let (mut verification, _) = verification(
        Scheme::Hmac(HmacScheme {
            content: parse_content("{timestamp}.{body}").expect("a template"),
            timestamp: Some(SignedTimestamp {
                at: Place::pair("x-signature", "t"),
                unit: TimeUnit::Seconds,
                tolerance_ms: Some(300_000),
            }),
            ..scheme()
        }),
        &["a", "b"],
    );
    verification.handshake = Some(Handshake::Slack);
    let text = serde_json::to_string(&verification).expect("it serialises");
    expect_test::expect![[r#"{"scheme":{"hmac":{"algorithm":"sha256","signatures":[{"header":"x-signature"}],"encoding":"hex","prefix":"","content":["timestamp",{"literal":"."},"body"],"timestamp":{"at":{"pair":{"header":"x-signature","key":"t"}},"unit":"seconds","tolerance_ms":300000},"id":null,"secret":"text","twilio":false}},"secrets":[0,1],"handshake":"slack"}"#]].assert_eq(&text);
    assert_eq!(
        serde_json::from_str::<Verification>(&text).expect("it reads back"),
        verification
    );
}

#[test]
fn every_template_is_a_row_that_reads_back() {
    for template in templates::TEMPLATES {
        let scheme = (template.name != "custom").then(|| template.scheme().expect(template.name));
        let text = serde_json::to_string(&scheme).expect("it serialises");
        let read: Option<Scheme> = serde_json::from_str(&text).expect(template.name);
        assert_eq!(read, scheme, "{text}");
        let again = templates::TEMPLATES
            .iter()
            .filter(|other| other.name == template.name);
        assert_eq!(again.count(), 1, "{}", template.name);
    }
}

/// A scheme, and secrets that it takes.
fn any_scheme() -> impl Strategy<Value = (Scheme, &'static [&'static str])> {
    let templates: Vec<_> = templates::TEMPLATES
        .iter()
        .filter_map(|t| t.scheme())
        .collect();
    let scheme = prop_oneof![
        prop::sample::select(templates),
        Just(standard(u64::MAX)),
        ("[,= a-z]{0,4}", any::<bool>()).prop_map(|(prefix, hex)| {
            let encoding = if hex { Encoding::Hex } else { Encoding::Base64 };
            Scheme::Hmac(HmacScheme {
                signatures: vec![
                    Place::pair("x-signature", "t"),
                    Place::header("x-signature"),
                ],
                encoding,
                prefix,
                ..scheme()
            })
        }),
    ];
    scheme.prop_map(|scheme| {
        let secrets: &[&str] = match &scheme {
            Scheme::Adyen => &["00ff"],
            Scheme::PublicKey(_) => {
                &["b27b28142bb3cddea98ec2e61f1be5ea13f06f2cbf99c4e29b8a2b5bdfeecab1"]
            }
            _ => &[WHSEC, "whpk_snsoFCuzzd6pjsLmHxvl6hPwbyy/mcTim4orW9/uyrE="],
        };
        (scheme, secrets)
    })
}

const HEADERS: &[&str] = &[
    "webhook-signature",
    "webhook-id",
    "webhook-timestamp",
    "svix-signature",
    "svix-id",
    "svix-timestamp",
    "stripe-signature",
    "x-signature",
    "x-timestamp",
    "authorization",
    "x-hub-signature",
    "x-hub-signature-256",
    "x-slack-signature",
    "x-slack-request-timestamp",
    "x-signature-ed25519",
    "x-signature-timestamp",
    "paddle-signature",
    "x-twilio-signature",
    "x-twilio-email-event-webhook-signature",
    "x-twilio-email-event-webhook-timestamp",
    "paypal-cert-url",
    "paypal-transmission-sig",
    "twitch-eventsub-message-timestamp",
    "twitch-eventsub-message-signature",
    "content-type",
];

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    let text = |strategy: &'static str| strategy.prop_map(String::into_bytes);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        text("(t|ts|v1|v1a|v0|h1|sha256|sha1)[=,][0-9a-f]{0,64}([,; ](v1|h1)=[0-9a-f]{64})*"),
        text("v1a?,[A-Za-z0-9+/]{43}=( v1a?,[A-Za-z0-9+/]{86}==)?"),
        text("(Bearer|Basic) [A-Za-z0-9_-]{0,40}(\\.[A-Za-z0-9_-]{0,40}){0,3}"),
        any::<i64>().prop_map(|n| n.to_string().into_bytes()),
        text("https://(api.paypal.com|sns.us-east-1.amazonaws.com)/[ -~]{0,40}"),
    ]
}

proptest! {
    #[test]
    fn no_bytes_in_a_header_a_query_or_a_body_panic_or_verify(
        (scheme, secrets) in any_scheme(),
        values in prop::collection::vec((prop::sample::select(HEADERS), any_value()), 0..8),
        body in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..60),
            "\\{\"(Type|signature|notificationItems|webhookTimestamp)\": ?(\"[ -!#-\\[\\]-~]{0,20}\"|[0-9]{1,20}|\\[\\{\\}\\])\\}".prop_map(String::into_bytes),
        ],
        query in "[ -~]{0,40}",
        handshake in prop::option::of(prop::sample::select(&Handshake::ALL[..])),
        url in prop_oneof![Just(""), Just("https://a.b/c"), Just("://"), Just("x"), Just("http://[::1]:80")],
    ) {
        let mut map = HeaderMap::new();
        for (name, value) in &values {
            if let Ok(value) = HeaderValue::from_bytes(value) {
                map.append(*name, value);
            }
        }
        let (mut verification, secrets) = verification(scheme, secrets);
        verification.handshake = handshake.filter(|handshake| !matches!(handshake, Handshake::Dropbox | Handshake::WooCommerce));
        let ip = [127, 0, 0, 1].into();
        let event = EventView::new(&Method::POST, "", &query, &map, &body, ip).called_at(url, "/v1/ingest/x");
        let verifier = Verifier::new(&verification, &secrets);
        let _ = verifier.wants(&event);
        prop_assert!(verifier.verify(&event, at(0), None).is_err());
    }

    #[test]
    fn what_is_signed_verifies_and_a_changed_byte_does_not(body in "\\PC{1,40}", flip in any::<prop::sample::Index>()) {
        let one = verifier(Scheme::Hmac(scheme()), &["s"]);
        let signature = sign("s", &body);
        prop_assert_eq!(verify(&one, &[("x-signature", &signature)], &body, at(0)), Ok(()));
        let place = flip.index(signature.len());
        let other = if signature.as_bytes()[place] == b'0' { "1" } else { "0" };
        let mut forged = signature;
        forged.replace_range(place..=place, other);
        prop_assert_eq!(verify(&one, &[("x-signature", &forged)], &body, at(0)), Err(Refused::SignatureMismatch));
    }
}
