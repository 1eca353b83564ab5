//! Signed deliveries, judged by other people's libraries in three languages (`testground/signing`).
//!
//! A real delivery goes to a real receiver; what arrived is handed to the verifiers, as it is and tampered with.

use super::*;
use routing::sign::{Algorithm, HmacScheme, Scheme, Signing};
use serde_json::{Value, json};
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

const SHARED: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
/// An Ed25519 key that no library of Standard Webhooks may stumble over, and its public half.
const ASYMMETRIC: &str = "whsk_nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A=";
const ASYMMETRIC_PUBLIC: &str = "whpk_11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=";
/// Of RFC 9421, appendix B.1.
const ED25519: (&str, &str) = (
    "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ+DYvh6SEqVTm50DFtMDoQikTmiCqirVv9mWG9qfSnF\n-----END PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=\n-----END PUBLIC KEY-----\n",
);
const P256: (&str, &str) = (
    "-----BEGIN EC PRIVATE KEY-----\nMHcCAQEEIFKbhfNZfpDsW43+0+JjUr9K+bTeuxopu653+hBaXGA7oAoGCCqGSM49\nAwEHoUQDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lfw0EkjqF7xB4FivAxzic30tMM\n4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n-----END EC PRIVATE KEY-----\n",
    "-----BEGIN PUBLIC KEY-----\nMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEqIVYZVLCrPZHGHjP17CTW0/+D9Lf\nw0EkjqF7xB4FivAxzic30tMM4GF+hR6Dxh71Z50VGGdldkkDXZCnTNnoXQ==\n-----END PUBLIC KEY-----\n",
);
/// As long as the strictest of the libraries wants a shared key to be.
const PLAIN: &str = "a shared key of no form, and of sixty-four bytes or more in all its length";

/// A verifier that answers line by line.
struct Verifier {
    name: &'static str,
    process: tokio::process::Child,
    answers: tokio::io::Lines<BufReader<tokio::process::ChildStdout>>,
}

impl Verifier {
    fn start(name: &'static str, program: &str, arguments: &[String]) -> Verifier {
        let mut process = tokio::process::Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap_or_else(|error| panic!("{program}: {error}"));
        let answers = BufReader::new(process.stdout.take().unwrap()).lines();
        Verifier {
            name,
            process,
            answers,
        }
    }

    async fn ask(&mut self, case: &Value) -> String {
        let line = format!("{case}\n");
        let input = self.process.stdin.as_mut().unwrap();
        input.write_all(line.as_bytes()).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(60), self.answers.next_line());
        answer
            .await
            .unwrap_or_else(|_| panic!("{} gave no answer", self.name))
            .unwrap()
            .unwrap_or_else(|| panic!("{} ended", self.name))
    }
}

/// Python, node and Go, installed if they are not yet there.
async fn verifiers() -> [Verifier; 3] {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/../testground");
    let installed = tokio::process::Command::new(format!("{root}/install.sh"))
        .arg("signing")
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&installed.stdout).into_owned();
    let cache = said
        .lines()
        .find_map(|line| line.strip_prefix("signing "))
        .unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&installed.stderr)));
    let script = |name: &str| format!("{root}/signing/{name}");
    [
        Verifier::start(
            "python",
            &format!("{cache}/venv/bin/python"),
            &[script("verify.py")],
        ),
        Verifier::start("node", "node", &[script("verify.js"), cache.to_owned()]),
        Verifier::start("go", &format!("{cache}/verify-go"), &[]),
    ]
}

/// What a receiver gets of a delivery, as the verifiers read it.
async fn delivered(spec: HttpSpec, secrets: &[&str], body: &str) -> Value {
    let mut receiver = Receiver::always(Reply::Status(200)).await;
    let spec = HttpSpec {
        url: format!("http://{}/hooks/7?a=b&c=%20d", receiver.address),
        ..spec
    };
    let secrets: Vec<Secret> = secrets.iter().map(|secret| Secret::new(*secret)).collect();
    let event = event(
        b"Content-Type: application/json; charset=utf-8\r\nSignature: sig1=:b2xk:\r\nSignature-Input: sig1=()\r\nContent-Digest: sha-256=:b2xk:\r\n",
        body.to_owned(),
    );
    let answer = Target::prepare(&spec, &secrets, "shop")
        .unwrap()
        .send(
            &client(),
            Attempt {
                event: &event,
                number: 1,
                // The verifiers look at the clock.
                now: clock::now(),
                set: None,
                bodies: &crate::bodies::NONE,
            },
        )
        .await;
    assert_eq!(answer.outcome, Outcome::Delivered { status: 200 });
    let received = receiver.next().await;
    let headers: serde_json::Map<String, Value> = received
        .headers
        .iter()
        .map(|(name, value)| (name.to_string(), value.to_str().unwrap().into()))
        .collect();
    json!({
        "method": received.method,
        // As a receiver puts it together.
        "url": format!("http://{}{}", received.header("host"), received.target),
        "headers": headers,
        "body": BASE64_STANDARD.encode(&received.body),
    })
}

/// `case` joins what was received. All verifiers that know the scheme must say ok, and not once anything that is signed
/// was changed.
async fn check(
    verifiers: &mut [Verifier],
    received: &Value,
    case: Value,
    knowing: usize,
    covered: &[&str],
) {
    let mut case = case;
    for (name, value) in received.as_object().unwrap() {
        case[name] = value.clone();
    }
    let mut tampered = vec![("body", case.clone())];
    tampered[0].1["body"] = BASE64_STANDARD.encode(r#"{"amount":1000}"#).into();
    for &header in covered {
        let mut changed = case.clone();
        let value = changed["headers"][header].as_str().unwrap().to_owned();
        changed["headers"][header] = match value.parse::<i64>() {
            Ok(number) => (number - 1).to_string().into(),
            Err(_) => format!("{value}x").into(),
        };
        tampered.push((header, changed));
    }
    if case["scheme"] == "http-signature" {
        let mut changed = case.clone();
        changed["method"] = "PUT".into();
        tampered.push(("method", changed));
        let mut changed = case.clone();
        changed["url"] = format!("{}e", case["url"].as_str().unwrap()).into();
        tampered.push(("url", changed));
    }
    let mut knew = 0;
    for verifier in verifiers {
        let answer = verifier.ask(&case).await;
        if answer == "unknown scheme" {
            continue;
        }
        knew += 1;
        assert_eq!(answer, "ok", "{}: {case}", verifier.name);
        for (what, changed) in &tampered {
            let answer = verifier.ask(changed).await;
            assert!(
                answer.starts_with("not ok"),
                "{} accepts another {what}: {answer}: {changed}",
                verifier.name
            );
        }
    }
    assert_eq!(knew, knowing);
}

fn signed(scheme: Scheme, keys: u16) -> HttpSpec {
    HttpSpec {
        signing: Some(Signing {
            scheme,
            keys: (0..keys).map(SecretIndex).collect(),
        }),
        ..spec(String::new())
    }
}

const BODY: &str = r#"{"amount":100,"currency":"€"}"#;

#[tokio::test]
async fn what_is_signed_here_other_peoples_libraries_verify_in_three_languages() {
    let mut verifiers = verifiers().await;

    // Two keys that overlap: who knows only one of them is content, whichever it is.
    let other = "whsec_AAECAwQFBgcICQoLDA0ODxAREhMUFRYX";
    let received = delivered(
        signed(Scheme::StandardWebhooks {}, 3),
        &[other, SHARED, ASYMMETRIC],
        BODY,
    )
    .await;
    let covered = ["webhook-id", "webhook-timestamp"];
    for secret in [SHARED, other] {
        let case = json!({ "scheme": "standard-webhooks", "secret": secret });
        check(&mut verifiers, &received, case, 3, &covered).await;
    }
    let case = json!({ "scheme": "standard-webhooks-ed25519", "public": ASYMMETRIC_PUBLIC });
    check(&mut verifiers, &received, case, 3, &covered).await;

    for (algorithm, name, timestamp_header) in [
        (Algorithm::Sha256, "sha256", None),
        (Algorithm::Sha1, "sha1", Some("x-hookstream-timestamp")),
    ] {
        let scheme = Scheme::Hmac(HmacScheme {
            algorithm,
            header: "x-hookstream-signature".to_owned(),
            prefix: format!("{name}="),
            timestamp_header: timestamp_header.map(str::to_owned),
        });
        let received = delivered(signed(scheme, 1), &[PLAIN], BODY).await;
        let before = timestamp_header.map_or(String::new(), |name| {
            format!("{}.", received["headers"][name].as_str().unwrap())
        });
        let case = json!({
            "scheme": "hmac", "secret": PLAIN, "algorithm": name, "before": before,
            "header": "x-hookstream-signature", "prefix": format!("{name}="),
        });
        check(
            &mut verifiers,
            &received,
            case,
            3,
            &["x-hookstream-signature"],
        )
        .await;
    }

    for (algorithm, key, public) in [
        ("ed25519", ED25519.0, Some(ED25519.1)),
        ("ecdsa-p256-sha256", P256.0, Some(P256.1)),
        ("hmac-sha256", PLAIN, None),
    ] {
        let scheme = Scheme::HttpSignature {
            key_id: "orders 2026".to_owned(),
        };
        for body in [BODY, ""] {
            let received = delivered(signed(scheme.clone(), 1), &[key], body).await;
            let mut case = json!({ "scheme": "http-signature", "algorithm": algorithm, "key_id": "orders 2026" });
            match public {
                Some(public) => case["public"] = public.into(),
                None => case["secret"] = key.into(),
            }
            let covered = ["webhook-id", "content-type"];
            check(&mut verifiers, &received, case, 3, &covered).await;
        }
    }

    let auth = Auth::AwsSigV4 {
        region: "eu-west-1".to_owned(),
        service: "execute-api".to_owned(),
        access_key_id: SecretIndex(0),
        secret_access_key: SecretIndex(1),
        session_token: Some(SecretIndex(2)),
    };
    let spec = HttpSpec {
        auth: Some(auth),
        ..spec(String::new())
    };
    let keys = [
        "AKIDEXAMPLE",
        "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY",
        "token",
    ];
    let received = delivered(spec, &keys, BODY).await;
    let case = json!({
        "scheme": "sigv4", "region": "eu-west-1", "service": "execute-api",
        "access_key_id": keys[0], "secret_access_key": keys[1],
    });
    let covered = ["x-amz-security-token", "content-type"];
    check(&mut verifiers, &received, case, 1, &covered).await;
}
