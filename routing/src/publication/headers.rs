//! The headers of a publication: the publish key, the key of the request as a whole, and what an event keeps of the others.

use crate::cloudevents;
use http::{HeaderMap, HeaderName, HeaderValue, header};

const API_KEY: HeaderName = HeaderName::from_static("x-api-key");
pub const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// The publish key: `X-API-Key`, or `Authorization: Bearer`.
pub fn publish_key(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(key) = headers.get(API_KEY) {
        return Some(key.as_bytes());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes();
    let (scheme, key) = value.split_at_checked("Bearer ".len())?;
    scheme
        .eq_ignore_ascii_case(b"Bearer ")
        .then(|| key.trim_ascii())
}

/// Leaves what an event's headers are: no credentials, no key of the request as a whole, and nothing that was said of a body
/// that is another now.
pub fn keep(headers: &mut HeaderMap, cloud_events: bool, changed: bool) {
    for name in [
        API_KEY,
        header::AUTHORIZATION,
        header::COOKIE,
        header::PROXY_AUTHORIZATION,
        IDEMPOTENCY_KEY,
    ] {
        headers.remove(name);
    }
    if changed {
        for name in [
            "content-digest",
            "digest",
            "content-length",
            "signature",
            "signature-input",
        ] {
            headers.remove(name);
        }
    }
    if !cloud_events {
        // `curl -d` calls everything a form, and an event is JSON.
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        return;
    }
    cloudevents::remove_attributes(headers);
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(cloudevents::STRUCTURED),
    );
}
