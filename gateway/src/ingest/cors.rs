//! Cross-origin requests: which web pages' scripts may send to a source and read the answer.
//!
//! Only the browser enforces it. A page that isn't allowed gets answers without the headers that would let it read them, and
//! its preflight is refused; what a program sends is never judged by its `Origin`.

use super::answer::Reply;
use crate::errors::Refusal;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts};
use routing::admission::Cors;

/// What a page may read besides the usual headers.
pub const EXPOSED: HeaderValue = HeaderValue::from_static(
    "x-request-id, retry-after, ratelimit-limit, ratelimit-remaining, ratelimit-reset",
);

/// The page's origin, if it is allowed.
pub fn allowed_origin(cors: &Cors, headers: &HeaderMap) -> Option<HeaderValue> {
    let origin = headers.get(header::ORIGIN)?;
    cors.allows(origin.as_bytes()).then(|| origin.clone())
}

/// A browser's question whether it may send; of no other request.
pub fn preflight(
    cors: &Cors,
    head: &Parts,
    allowed: Option<&HeaderValue>,
) -> Option<Result<Reply, Refusal>> {
    let asks = |name| head.headers.contains_key(name);
    if head.method != Method::OPTIONS
        || !asks(header::ORIGIN)
        || !asks(header::ACCESS_CONTROL_REQUEST_METHOD)
    {
        return None;
    }
    if allowed.is_none() {
        return Some(Err(Refusal::OriginNotAllowed));
    }
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(
        header::ACCESS_CONTROL_ALLOW_METHODS,
        cors.allow_methods.clone(),
    );
    // Any header: the ones that are asked for, since a `*` would leave out `Authorization`.
    let asked = || head.headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS);
    if let Some(allow) = cors.allow_headers.as_ref().or_else(asked) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allow.clone());
    }
    headers.insert(header::ACCESS_CONTROL_MAX_AGE, cors.max_age.clone());
    headers.append(
        header::VARY,
        HeaderValue::from_static("access-control-request-headers"),
    );
    Some(Ok(Reply {
        kind: "preflight",
        status: StatusCode::NO_CONTENT,
        headers,
        body: Bytes::new(),
    }))
}
