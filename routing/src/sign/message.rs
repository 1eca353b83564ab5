//! HTTP Message Signatures (RFC 9421) over the body's digest (RFC 9530).
//!
//! Covered: the method, the whole URL, the body by its `content-digest`, `content-type` if there is one, and `webhook-id`.
//! The URL is written as the receiver sees it: the host in lower case and no default port, as it has no other way to know.

use super::{Key, Message, WEBHOOK_ID, visible};
use base64::{Engine, prelude::BASE64_STANDARD};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header::CONTENT_TYPE};
use sha2::{Digest, Sha256};
use std::fmt::Write;

const CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");
const SIGNATURE: HeaderName = HeaderName::from_static("signature");
const SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// The label of our signature; the sender's own are replaced with it.
const LABEL: &str = "sig1";

pub(super) fn sign(key: &Key, key_id: &str, message: Message<'_>, headers: &mut HeaderMap) {
    let digest = BASE64_STANDARD.encode(Sha256::digest(message.body));
    let digest = visible(format!("sha-256=:{digest}:"));
    headers.insert(CONTENT_DIGEST, digest);

    let mut base = Vec::with_capacity(512);
    let mut covered = String::with_capacity(160);
    let mut cover = |name: &str, value: &[u8]| {
        if !covered.is_empty() {
            covered.push(' ');
        }
        let _ = write!(covered, "\"{name}\"");
        let _ = std::io::Write::write_fmt(&mut base, format_args!("\"{name}\": "));
        base.extend_from_slice(value);
        base.push(b'\n');
    };
    cover("@method", message.method.as_str().as_bytes());
    cover("@target-uri", target_uri(message.uri).as_bytes());
    for name in [CONTENT_DIGEST, CONTENT_TYPE, WEBHOOK_ID] {
        if headers.contains_key(&name) {
            cover(name.as_str(), &field(headers, &name));
        }
    }
    let parameters = format!(
        "({covered});created={};keyid=\"{}\";alg=\"{}\"",
        message.timestamp,
        key_id.replace('\\', "\\\\").replace('"', "\\\""),
        key.algorithm(),
    );
    base.extend_from_slice(b"\"@signature-params\": ");
    base.extend_from_slice(parameters.as_bytes());

    let signature = BASE64_STANDARD.encode(key.sign(&[&base]));
    headers.insert(SIGNATURE_INPUT, visible(format!("{LABEL}={parameters}")));
    headers.insert(SIGNATURE, visible(format!("{LABEL}=:{signature}:")));
}

/// A field as section 2.1 reads it: its lines, trimmed and joined by a comma.
fn field(headers: &HeaderMap, name: &HeaderName) -> Vec<u8> {
    let lines = headers.get_all(name).iter();
    let lines: Vec<&[u8]> = lines
        .map(HeaderValue::as_bytes)
        .map(<[u8]>::trim_ascii)
        .collect();
    lines.join(&b", "[..])
}

fn target_uri(uri: &Uri) -> String {
    let scheme = uri.scheme_str().unwrap_or("https");
    let host = uri.host().unwrap_or_default().to_ascii_lowercase();
    let default = if scheme == "http" { 80 } else { 443 };
    let port = uri.port_u16().filter(|&port| port != default);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let rest = uri.path_and_query().map_or("/", |rest| rest.as_str());
    // A URL that ends with its host or goes on with its query has `/` as its path on the wire.
    let slash = if rest.starts_with('/') { "" } else { "/" };
    format!("{scheme}://{host}{port}{slash}{rest}")
}
