//! How a destination's requests are signed.

use super::{Findings, Reason, Taken, header_name};
use crate::sign::{Algorithm, DEFAULT_HMAC_HEADER, HmacScheme, Scheme, Signing};
use http::HeaderValue;

/// `headers` are the destination's own, in lower case.
pub(super) fn compile(
    written: &crds::Signing,
    headers: &[(String, String)],
    taken: &mut Taken<'_>,
    findings: &mut Findings,
) -> Option<Signing> {
    let path = "spec.signing";
    let ways = [
        written.standard_webhooks.is_some(),
        written.hmac.is_some(),
        written.http_signature.is_some(),
    ];
    if ways.into_iter().filter(|&there| there).count() != 1 {
        let message = "write exactly one of standardWebhooks, hmac and httpSignature";
        findings.add(Reason::UnsupportedValue, path, message);
        return None;
    }
    if written.secret_refs.is_empty() {
        let message = "name at least one key";
        findings.add(Reason::SecretNotFound, "spec.signing.secretRefs", message);
    }
    let scheme = if let Some(hmac) = &written.hmac {
        Scheme::Hmac(hmac_scheme(hmac, findings)?)
    } else if let Some(http) = &written.http_signature {
        let key_id = http.key_id.clone();
        let first = || written.secret_refs.first().map(|first| first.key.clone());
        let key_id = key_id.or_else(first).unwrap_or_default();
        if !key_id.bytes().all(|byte| (0x20..0x7f).contains(&byte)) {
            let message = "a key id is of visible ASCII characters and spaces";
            findings.add(
                Reason::UnsupportedValue,
                "spec.signing.httpSignature.keyId",
                message,
            );
        }
        Scheme::HttpSignature { key_id }
    } else {
        Scheme::StandardWebhooks {}
    };
    for name in scheme.headers() {
        if headers.iter().any(|(other, _)| other == name) {
            let message = format!("`{name}` is set by `signing` as well; leave it out");
            findings.add(
                Reason::UnsupportedValue,
                format!("spec.http.headers[{name}]"),
                message,
            );
        }
    }
    let mut keys = Vec::with_capacity(written.secret_refs.len());
    for (n, reference) in written.secret_refs.iter().enumerate() {
        let path = format!("spec.signing.secretRefs[{n}]");
        let Some((place, secret)) = taken.take(&reference.name, &reference.key, &path, findings)
        else {
            continue;
        };
        keys.push(place);
        if let Err(problem) = scheme.check_key(secret) {
            let message = format!(
                "the value of key `{}` in Secret `{}` {problem}",
                reference.key, reference.name
            );
            findings.add(Reason::UnsupportedValue, path, message);
        }
    }
    Some(Signing { scheme, keys })
}

fn hmac_scheme(written: &crds::HmacSigning, findings: &mut Findings) -> Option<HmacScheme> {
    let path = "spec.signing.hmac";
    let algorithm = match written.algorithm {
        Some(crds::SigningAlgorithm::Sha1) => Algorithm::Sha1,
        Some(crds::SigningAlgorithm::Sha256) | None => Algorithm::Sha256,
    };
    let header = match written.header.as_deref() {
        // The documented name is the one of ours that may be written.
        Some(name) if name.eq_ignore_ascii_case(DEFAULT_HMAC_HEADER) => None,
        other => other,
    };
    let header = match header {
        Some(name) => header_name(name, &format!("{path}.header"), findings),
        None => Some(DEFAULT_HMAC_HEADER.to_owned()),
    };
    let timestamp_header = match written.timestamp_header.as_deref() {
        None => None,
        Some(name) if is_our_timestamp(name) => Some(name.to_ascii_lowercase()),
        Some(name) => Some(header_name(
            name,
            &format!("{path}.timestampHeader"),
            findings,
        )?),
    };
    let header = header?;
    if timestamp_header.as_ref() == Some(&header) {
        let message = "the signature has this header; choose another one for the time";
        findings.add(
            Reason::UnsupportedValue,
            format!("{path}.timestampHeader"),
            message,
        );
    }
    let prefix = written.prefix.clone().unwrap_or_else(|| {
        match algorithm {
            Algorithm::Sha1 => "sha1=",
            Algorithm::Sha256 => "sha256=",
        }
        .to_owned()
    });
    if HeaderValue::from_str(&prefix).is_err() || prefix.starts_with(' ') {
        let message = "a prefix is of visible ASCII characters and begins with no space";
        findings.add(Reason::UnsupportedValue, format!("{path}.prefix"), message);
    }
    Some(HmacScheme {
        algorithm,
        header,
        prefix,
        timestamp_header,
    })
}

/// Two headers of ours that a signature may cover: `webhook-timestamp` holds the same seconds, and the documented
/// `X-hookstream-Timestamp` holds seconds, not a date, when it is signed.
fn is_our_timestamp(name: &str) -> bool {
    ["webhook-timestamp", "x-hookstream-timestamp"]
        .iter()
        .any(|ours| name.eq_ignore_ascii_case(ours))
}
