//! How the senders of a Source are verified.

use super::super::{
    findings::{Findings, Reason},
    secrets::Taken,
};
use crate::{
    duration,
    row::SecretIndex,
    verify::{
        self, DEFAULT_TOLERANCE_MS, Encoding, HmacScheme, Piece, Scheme, SignedTimestamp,
        Verification,
    },
};
use http::HeaderName;
use std::time::Duration;

/// A replay within an hour is a replay.
const LONGEST_TOLERANCE: Duration = Duration::from_secs(60 * 60);

/// Templates of the documents that join later; any other name is a mistake.
const LATER_TEMPLATES: [&str; 13] = [
    "shopify", "slack", "twilio", "sendgrid", "intercom", "linear", "clerk", "svix", "paddle",
    "resend", "postmark", "typeform", "custom",
];

pub(super) fn compile(
    written: &crds::Verification,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Verification> {
    let scheme = scheme(written, findings);
    let secrets = match written.secret_refs.is_empty() {
        true => {
            let message = "a verification needs a secret; write `secretRefs: [{name: …, key: …}]`";
            findings.add(
                Reason::InvalidVerification,
                "spec.verification.secretRefs",
                message,
            );
            Vec::new()
        }
        false => secrets(written, scheme.as_ref(), taken, findings),
    };
    scheme.map(|scheme| Verification { scheme, secrets })
}

fn secrets(
    written: &crds::Verification,
    scheme: Option<&Scheme>,
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Vec<SecretIndex> {
    let mut places = Vec::with_capacity(written.secret_refs.len());
    for (place, reference) in written.secret_refs.iter().enumerate() {
        let path = format!("spec.verification.secretRefs[{place}]");
        let Some((index, secret)) = taken.take(&reference.name, &reference.key, &path, findings)
        else {
            continue;
        };
        places.push(index);
        if let Some(Err(problem)) = scheme.map(|scheme| scheme.check_secret(secret)) {
            let message = format!(
                "the value of key `{}` in Secret `{}` {problem}",
                reference.key, reference.name
            );
            findings.add(Reason::InvalidVerification, path, message);
        }
    }
    places
}

fn scheme(written: &crds::Verification, findings: &mut Findings) -> Option<Scheme> {
    let ways = [
        written.template.is_some(),
        written.hmac.is_some(),
        written.standard_webhooks.is_some(),
        written.ed25519.is_some(),
        written.ecdsa.is_some(),
        written.basic_auth.is_some(),
        written.api_key.is_some(),
        written.jwt.is_some(),
    ];
    if ways.into_iter().filter(|&there| there).count() != 1 {
        let message = "write exactly one of template, hmac, standardWebhooks, ed25519, ecdsa, basicAuth, apiKey and jwt";
        findings.add(Reason::InvalidVerification, "spec.verification", message);
        return None;
    }
    findings.not_implemented(written.ed25519.is_some(), "spec.verification.ed25519");
    findings.not_implemented(written.ecdsa.is_some(), "spec.verification.ecdsa");
    findings.not_implemented(written.basic_auth.is_some(), "spec.verification.basicAuth");
    findings.not_implemented(written.api_key.is_some(), "spec.verification.apiKey");
    findings.not_implemented(written.jwt.is_some(), "spec.verification.jwt");
    if let Some(name) = &written.template {
        return template(name, findings);
    }
    if let Some(standard) = &written.standard_webhooks {
        let path = "spec.verification.standardWebhooks.tolerance";
        return Some(Scheme::StandardWebhooks {
            tolerance_ms: tolerance_ms(standard.tolerance.as_ref(), path, findings),
        });
    }
    written
        .hmac
        .as_ref()
        .and_then(|hmac| hmac_scheme(hmac, findings))
        .map(Scheme::Hmac)
}

fn template(name: &str, findings: &mut Findings) -> Option<Scheme> {
    let path = "spec.verification.template";
    let scheme = Scheme::template(name);
    if scheme.is_none() {
        match LATER_TEMPLATES.contains(&name) {
            true => {
                let message = format!(
                    "the template `{name}` is not implemented yet; a later version brings it. Until then describe it with `hmac`"
                );
                findings.add(Reason::NotImplemented, path, message);
            }
            false => {
                let message = format!(
                    "there is no template `{name}`; there are `github` and `stripe`, or describe it with `hmac`"
                );
                findings.add(Reason::UnsupportedValue, path, message);
            }
        }
    }
    scheme
}

fn hmac_scheme(hmac: &crds::HmacVerification, findings: &mut Findings) -> Option<HmacScheme> {
    let path = |field: &str| format!("spec.verification.hmac.{field}");
    let other = !matches!(hmac.algorithm, None | Some(crds::HmacAlgorithm::Sha256));
    if other {
        let message = "only SHA256 is implemented yet; a later version brings SHA1 and SHA512";
        findings.add(Reason::NotImplemented, path("algorithm"), message);
    }
    let header = header(&hmac.header, &path("header"), findings);
    let id_header = hmac
        .id_header
        .as_ref()
        .map(|name| header_name(name, &path("idHeader"), findings));
    let timestamp = hmac.timestamp.as_ref().map(|timestamp| SignedTimestamp {
        header: header_name(&timestamp.header, &path("timestamp.header"), findings),
        tolerance_ms: tolerance_ms(
            timestamp.tolerance.as_ref(),
            &path("timestamp.tolerance"),
            findings,
        ),
    });
    let written = hmac.signed_content.as_deref().unwrap_or("{body}");
    let content = verify::parse_content(written);
    let content = findings.value(content, Reason::InvalidVerification, &path("signedContent"))?;
    check_content(&content, timestamp.is_some(), id_header.is_some(), findings);
    Some(HmacScheme {
        header: header?,
        encoding: match hmac.encoding {
            None | Some(crds::SignatureEncoding::Hex) => Encoding::Hex,
            Some(crds::SignatureEncoding::Base64) => Encoding::Base64,
        },
        prefix: hmac.prefix.clone().unwrap_or_default(),
        content,
        timestamp,
        id_header,
    })
}

/// What is named must be signed, and what is signed must be named.
fn check_content(content: &[Piece], timestamp: bool, id: bool, findings: &mut Findings) {
    let problem = match (content.contains(&Piece::Timestamp), timestamp) {
        (true, false) => {
            Some("`{timestamp}` needs `timestamp: {header: …}`, which says where the time is")
        }
        (false, true) => Some(
            "the timestamp isn't part of what is signed, so anybody could change it; write `signedContent: \"{timestamp}.{body}\"` as the sender signs, or leave `timestamp` out",
        ),
        _ => None,
    };
    let id_problem = match (content.contains(&Piece::Id), id) {
        (true, false) => Some("`{id}` needs `idHeader`, which says where the id is"),
        (false, true) => Some(
            "`idHeader` is named, but `{id}` isn't part of `signedContent`; add it, or leave `idHeader` out",
        ),
        _ => None,
    };
    for problem in problem.into_iter().chain(id_problem) {
        findings.add(
            Reason::InvalidVerification,
            "spec.verification.hmac.signedContent",
            problem,
        );
    }
}

fn header(name: &str, path: &str, findings: &mut Findings) -> Option<String> {
    match HeaderName::from_bytes(name.as_bytes()) {
        Ok(name) => Some(name.as_str().to_owned()),
        Err(_) => {
            let message =
                format!("`{name}` can't be the name of a header; write one as `X-Signature`");
            findings.add(Reason::InvalidVerification, path, message);
            None
        }
    }
}

/// As [`header`]; the empty name never reaches a row, since the finding keeps the whole object out.
fn header_name(name: &str, path: &str, findings: &mut Findings) -> String {
    header(name, path, findings).unwrap_or_default()
}

fn tolerance_ms(written: Option<&crds::Duration>, path: &str, findings: &mut Findings) -> u64 {
    let Some(written) = written else {
        return DEFAULT_TOLERANCE_MS;
    };
    let parsed = findings.value(duration::parse(&written.0), Reason::UnsupportedValue, path);
    match parsed {
        Some(tolerance) if tolerance < Duration::from_secs(1) || tolerance > LONGEST_TOLERANCE => {
            let message = format!("`{}` is out of range; write `1s` to `1h`", written.0);
            findings.add(Reason::UnsupportedValue, path, message);
            DEFAULT_TOLERANCE_MS
        }
        Some(tolerance) => u64::try_from(tolerance.as_millis()).unwrap_or(DEFAULT_TOLERANCE_MS),
        None => DEFAULT_TOLERANCE_MS,
    }
}
