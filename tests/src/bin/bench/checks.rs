//! What a source's checks cost a request, in memory: its signature and its schema, each beside the least that could be done.

use crate::{
    filters::{body, nanoseconds},
    report::{Goal, Report},
};
use anyhow::ensure;
use hmac::{Hmac, KeyInit, Mac};
use http::{HeaderMap, HeaderValue, Method};
use routing::{
    EventView,
    schema::{Action, Check, Rule},
    secret::Secret,
    verify::{Verification, Verifier, templates::Template},
};
use serde_json::{Value, json};
use service::clock;

const SECRET: &[u8] = b"a secret of the benchmark's own";

pub(crate) fn run(report: &mut Report) -> anyhow::Result<()> {
    verification(report)?;
    schema(report)
}

fn verification(report: &mut Report) -> anyhow::Result<()> {
    let body = body();
    let bare = || {
        let mut mac =
            Hmac::<sha2::Sha256>::new_from_slice(SECRET).expect("a key of any length will do");
        mac.update(&body);
        mac.finalize().into_bytes()
    };
    let signature = format!("sha256={}", hex::encode(bare()));
    let mut headers = HeaderMap::new();
    headers.insert("x-hub-signature-256", HeaderValue::try_from(signature)?);
    let scheme = Template::named("github")
        .and_then(Template::scheme)
        .ok_or_else(|| anyhow::anyhow!("there is a template for GitHub"))?;
    let verification = Verification {
        scheme,
        secrets: vec![routing::row::SecretIndex(0)],
        handshake: None,
        verify_token: None,
    };
    let verifier = Verifier::new(&verification, &[Secret::new(SECRET)]);
    let now = clock::now();
    let verify = || {
        let address = [192, 0, 2, 1].into();
        let event = EventView::new(&Method::POST, "", "", &headers, &body, address);
        usize::from(verifier.verify(&event, now, None).is_ok())
    };
    ensure!(verify() == 1, "the bench's signature is right");
    let (verify_ns, bare_ns) = (nanoseconds(verify), nanoseconds(|| usize::from(bare()[0])));
    report.add(
        "HMAC verification / the bare HMAC",
        verify_ns / bare_ns,
        "x",
        Goal::AtMost(2.5),
        format!(
            "{verify_ns:.0} ns against {bare_ns:.0} ns of {} bytes",
            body.len()
        ),
    );
    Ok(())
}

fn schema(report: &mut Report) -> anyhow::Result<()> {
    let body = body();
    let check = Check::new(Rule {
        action: Action::Reject,
        schema: json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "required": ["type", "tenant", "data"],
            "properties": {
                "type": {"type": "string", "pattern": "^[a-z]+\\.[a-z]+$"},
                "tenant": {"type": "string", "maxLength": 64},
                "data": {
                    "type": "object",
                    "properties": {
                        "amount": {"type": "number", "minimum": 0},
                        "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}
                    }
                }
            },
            "$defs": {"line": {
                "type": "object", "required": ["sku", "quantity"],
                "properties": {
                    "sku": {"type": "string"}, "quantity": {"type": "integer"},
                    "price": {"type": "number"}, "currency": {"enum": ["EUR", "USD"]}
                }
            }}
        }),
    });
    let headers = HeaderMap::new();
    let fits = || {
        let address = [192, 0, 2, 1].into();
        let event = EventView::new(&Method::POST, "", "", &headers, &body, address);
        usize::from(check.misfits(event.json()).is_empty())
    };
    ensure!(fits() == 1, "the bench's body fits");
    let parse = || usize::from(serde_json::from_slice::<Value>(&body).is_ok());
    let (fits_ns, parse_ns) = (nanoseconds(fits), nanoseconds(parse));
    report.add(
        "JSON Schema, parsing included / parsing alone",
        fits_ns / parse_ns,
        "x",
        Goal::AtMost(2.0),
        format!(
            "{fits_ns:.0} ns against {parse_ns:.0} ns of {} bytes",
            body.len()
        ),
    );
    Ok(())
}
