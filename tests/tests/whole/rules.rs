//! Every rule between a sender and a destination, at once.

use crate::Rules;
use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use tests::receiver::Received;

const INBOUND: &str = "a secret that the sender has as well";
const OUTBOUND: &str = "wi4sBp0mvupCDkmxEbBrN3cVfQGB2E/Nizx47dO9ZDk=";

/// The circuit opens now and then: eight failures in a row are more than five. The others are alone.
fn fails(before: usize) -> bool {
    before % 10 == 9 || (990..998).contains(&(before % 1000))
}

pub(crate) const ALL: Rules = Rules {
    manifests: r#"
apiVersion: v1
kind: Secret
metadata: {name: keys}
stringData:
  inbound: a secret that the sender has as well
  outbound: whsec_wi4sBp0mvupCDkmxEbBrN3cVfQGB2E/Nizx47dO9ZDk=
---
apiVersion: hookstream.io/v1alpha1
kind: Source
metadata: {name: shop}
spec:
  path: shop
  methods: [POST]
  contentTypes: [application/json]
  ipFilter: {deny: [192.0.2.0/24], allow: [127.0.0.0/8]}
  rateLimit: {requests: 100000, per: 1s}
  verification:
    hmac: {header: x-signature, algorithm: SHA256, encoding: Hex, prefix: "sha256="}
    secretRefs: [{name: keys, key: inbound}]
  schema:
    action: Reject
    jsonSchema: {type: object, required: ["n", key], properties: {"n": {type: integer, minimum: 0}}}
  dedup: {strategy: HeaderField, field: x-id, window: 1h}
  response: {status: 202}
---
apiVersion: hookstream.io/v1alpha1
kind: Destination
metadata: {name: orders}
spec:
  http: {url: "URL", timeout: 5s, headers: {x-env: test}, auth: {bearer: {secretRef: {name: keys, key: inbound}}}}
  signing: {standardWebhooks: {}, secretRefs: [{name: keys, key: outbound}]}
  retry: {backoff: Fixed, intervals: [250ms], maxRetries: 30}
  circuitBreaker: {failures: 5, cooldown: 1s}
  rateLimit: {deliveries: 5000, per: 1s}
  concurrency: 8
  ordering: {mode: Strict, key: body.key, onHeadBlocked: Wait}
---
apiVersion: hookstream.io/v1alpha1
kind: Connection
metadata: {name: shop-to-orders}
spec:
  source: {name: shop}
  destination: {name: orders}
  filter: {all: [{path: body.n, op: gte, value: 0}], none: [{path: headers.x-test, op: exists, value: true}], expression: n >= 0}
  transform: {jsonata: '{"n": body.n, "twice": body.n * 2, "id": headers.`x-id`}'}
"#,
    headers: |n, body| {
        let mut mac =
            Hmac::<Sha256>::new_from_slice(INBOUND.as_bytes()).expect("a key of any length");
        mac.update(body.as_bytes());
        let signature = hex::encode(mac.finalize().into_bytes());
        vec![
            ("x-id", format!("id-{n}")),
            ("x-signature", format!("sha256={signature}")),
        ]
    },
    fails,
    repeats: true,
    check,
};

/// Shaped, signed and in the name of whom it should be.
fn check(received: &Received) -> anyhow::Result<()> {
    let body: serde_json::Value = serde_json::from_slice(&received.body)?;
    let n = body["n"].as_u64().context("no number")?;
    ensure!(body == serde_json::json!({"n": n, "twice": 2 * n, "id": format!("id-{n}")}));
    let header = |name: &str| {
        let value = received.headers.get(name).context(name.to_owned())?;
        anyhow::Ok(value.to_str()?)
    };
    ensure!(header("authorization")? == format!("Bearer {INBOUND}"));
    ensure!(header("x-env")? == "test");
    let key = BASE64_STANDARD.decode(OUTBOUND)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).expect("a key of any length");
    let signed = format!(
        "{}.{}.",
        header("webhook-id")?,
        header("webhook-timestamp")?
    );
    mac.update(signed.as_bytes());
    mac.update(&received.body);
    let signature = BASE64_STANDARD.encode(mac.finalize().into_bytes());
    ensure!(header("webhook-signature")? == format!("v1,{signature}"));
    Ok(())
}
