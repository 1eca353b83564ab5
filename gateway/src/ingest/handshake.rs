//! What `routing` decided about a provider's challenge, as an answer on the wire.

use super::answer::Reply;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use routing::verify::Answer;

/// Text and JSON only, and no browser is to find anything else in it: part of it is what the caller sent.
pub fn reply(answer: Answer) -> Reply {
    let mut headers = HeaderMap::new();
    if let Some(content_type) = answer.content_type {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Reply {
        kind: answer.kind,
        status: StatusCode::from_u16(answer.status).unwrap_or(StatusCode::OK),
        headers,
        body: answer.body.into(),
    }
}

/// A subscription has been confirmed: all that its sender wants to know is that.
pub fn confirmed() -> Reply {
    Reply {
        kind: "sns",
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: Bytes::new(),
    }
}
