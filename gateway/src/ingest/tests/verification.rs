//! Verification as senders meet it: challenges that are answered and not recorded, keys that are fetched, and what the
//! public URL is for.

use super::*;
use crate::{
    deliver::receiver::{Receiver, Reply},
    egress,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use routing::{
    row::{SecretIndex, SourceSpec},
    secret::Secret,
    verify::{Scheme, Verification, templates::Template},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

fn verified(name: &str, scheme: Scheme, template: Option<&Template>, secrets: &[&str]) -> Row {
    let mut row = source_row(Uuid::now_v7(), name, None);
    row.secrets = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    if let Spec::Source(spec) = &mut row.spec {
        *spec = SourceSpec {
            verification: Some(Verification {
                scheme,
                secrets: (0..).take(secrets.len()).map(SecretIndex).collect(),
                handshake: template.and_then(|template| template.handshake),
                verify_token: None,
            }),
            ..spec.clone()
        };
    }
    row
}

fn by_template(name: &str, secrets: &[&str]) -> Row {
    let template = Template::named(name).expect("it is there");
    let scheme = template.scheme().expect("it says all");
    verified(name, scheme, Some(template), secrets)
}

fn tag(secret: &str, text: &str) -> Vec<u8> {
    let mut mac = Hmac::<sha2::Sha256>::new_from_slice(secret.as_bytes()).unwrap();
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

fn request(method: &str, target: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("{method} /v1/ingest/{target} HTTP/1.1\r\nHost: h\r\n{headers}Content-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

#[tokio::test]
async fn a_challenge_is_answered_and_nothing_is_recorded() {
    let rows = [by_template("slack", &["s"]), by_template("dropbox", &["s"])];
    let test = Test::start(&rows, |_| {}).await;
    let now = service::clock::now().as_second();
    let body = r#"{"type":"url_verification","challenge":"abc-1"}"#;
    let signed = |secret: &str| {
        let signature = hex::encode(tag(secret, &format!("v0:{now}:{body}")));
        format!("X-Slack-Request-Timestamp: {now}\r\nX-Slack-Signature: v0={signature}\r\n")
    };
    let answer = send(
        test.address(),
        &request("POST", "slack", &signed("s"), body),
    )
    .await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"abc-1"[..]));
    assert_eq!(
        answer.header("content-type"),
        Some("text/plain; charset=utf-8")
    );
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));

    let answer = send(
        test.address(),
        &request("POST", "slack", &signed("t"), body),
    )
    .await;
    assert_eq!(answer.code(), "UNAUTHORIZED");
    assert_eq!(answer.json()["details"]["reason"], "signature_mismatch");

    let answer = send(
        test.address(),
        &request("GET", "dropbox?challenge=x1", "", ""),
    )
    .await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"x1"[..]));
    let answer = send(
        test.address(),
        &request("GET", "dropbox?challenge=%3Cb%3E", "", ""),
    )
    .await;
    assert_eq!(answer.json()["details"]["reason"], "challenge_refused");

    assert_eq!(test.count("events").await, 0);
    let metrics = test.gateway.metrics();
    for kind in ["slack", "dropbox"] {
        let line = format!(
            "hookstream_ingest_replied_total{{kind=\"{kind}\",namespace=\"default\",source=\"{kind}\"}} 1"
        );
        assert!(metrics.contains(&line), "{metrics}");
    }
}

#[tokio::test]
async fn a_refusal_of_credentials_says_how_to_bring_them() {
    let rows = [by_template("postmark", &["user:password"])];
    let test = Test::start(&rows, |_| {}).await;
    let answer = send(test.address(), &request("POST", "postmark", "", "{}")).await;
    assert_eq!(answer.code(), "UNAUTHORIZED");
    assert_eq!(answer.json()["details"]["reason"], "credentials_missing");
    let realm = r#"Basic realm="webhooks", charset="UTF-8""#;
    assert_eq!(answer.header("www-authenticate"), Some(realm));
    let credentials = STANDARD.encode("user:password");
    let header = format!("Authorization: Basic {credentials}\r\n");
    send(test.address(), &request("POST", "postmark", &header, "{}"))
        .await
        .event_id();
}

#[tokio::test]
async fn a_signed_url_is_the_public_one() {
    let rows = [by_template("square", &["key"])];
    let test = Test::start(&rows, |options| {
        options.public_url = "https://hooks.example.com/in/".to_owned();
    })
    .await;
    let signed = |url: &str| {
        let signature = STANDARD.encode(tag("key", &format!("{url}{{}}")));
        format!("X-Square-HmacSha256-Signature: {signature}\r\n")
    };
    let right = signed("https://hooks.example.com/in/v1/ingest/square/a?b=c");
    send(
        test.address(),
        &request("POST", "square/a?b=c", &right, "{}"),
    )
    .await
    .event_id();
    for other in [
        "http://h/v1/ingest/square/a?b=c",
        "https://hooks.example.com/in/v1/ingest/square/a",
    ] {
        let answer = send(
            test.address(),
            &request("POST", "square/a?b=c", &signed(other), "{}"),
        )
        .await;
        assert_eq!(
            answer.json()["details"]["reason"],
            "signature_mismatch",
            "{other}"
        );
    }
}

/// The tokens and the keys of the vectors, with the keys where the row says they are.
#[tokio::test]
async fn keys_that_are_elsewhere_are_fetched_and_without_them_the_answer_is_503() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/data/verification");
    let file: serde_json::Value =
        serde_json::from_slice(&std::fs::read(format!("{folder}/pubsub.json")).unwrap()).unwrap();
    let vector = &file["vectors"][0];
    let keys = vector["documents"]
        .as_object()
        .unwrap()
        .values()
        .next()
        .unwrap();
    let keys = Bytes::from(keys.as_str().unwrap().to_owned());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![
                CertificateDer::from_pem_slice(include_bytes!(
                    "../../deliver/http/tests/tls/server.pem"
                ))
                .unwrap(),
            ],
            PrivateKeyDer::from_pem_slice(include_bytes!(
                "../../deliver/http/tests/tls/server.key"
            ))
            .unwrap(),
        )
        .unwrap();
    let receiver = Receiver::tls(tls, move |_| Reply::With(200, Vec::new(), keys.clone())).await;

    let row = |name: &str, url: String| {
        let Some(Scheme::Jwt(mut jwt)) = Template::named("pubsub").unwrap().scheme() else {
            panic!("Pub/Sub sends tokens");
        };
        jwt.jwks_url = Some(url);
        let email = vector["secrets"][0].as_str().unwrap();
        verified(name, Scheme::Jwt(jwt), None, &[email])
    };
    let rows = [
        row("shop/orders", receiver.url_by_name()),
        row("away", "https://localhost:1/keys".to_owned()),
    ];
    let authority = include_bytes!("../../deliver/http/tests/tls/ca.pem");
    let test = Test::start(&rows, |options| {
        options.public_url = vector["public_url"].as_str().unwrap().to_owned();
        options.egress = egress::Options {
            policy: egress::Policy::with_private_networks(),
            extra_roots: vec![CertificateDer::from_pem_slice(authority).unwrap()],
            ..egress::Options::default()
        };
    })
    .await;
    let token = vector["headers"][0][1].as_str().unwrap();
    let header = format!("Authorization: {token}\r\n");
    // The vector's time is its own; that it has expired is said after the signature was found right.
    let answer = send(
        test.address(),
        &request("POST", "shop/orders", &header, "{}"),
    )
    .await;
    let said = answer.json()["details"]["reason"]
        .as_str()
        .map(str::to_owned);
    assert!(
        answer.status == 200 || said.as_deref() == Some("token_expired"),
        "{answer:?}"
    );

    let answer = send(test.address(), &request("POST", "away", &header, "{}")).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (503, "KEYS_UNAVAILABLE")
    );
    // What no key would help is refused without a fetch.
    let answer = send(
        test.address(),
        &request("POST", "away", "Authorization: Bearer x\r\n", "{}"),
    )
    .await;
    assert_eq!(answer.json()["details"]["reason"], "token_malformed");
    let metrics = test.gateway.metrics();
    for result in ["ok", "error"] {
        let line =
            format!("hookstream_ingest_key_fetches_total{{kind=\"jwks\",result=\"{result}\"}} 1");
        assert!(metrics.contains(&line), "{result}: {metrics}");
    }
}
