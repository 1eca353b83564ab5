//! What the sender of a request that was not refused gets, and what every answer of a source says besides ([`Marks`]).

use super::{cors, rate::Standing};
use crate::errors::REQUEST_ID;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use jiff::Timestamp;
use routing::{
    ids::{Prefix, format},
    table::Source,
};
use std::time::Duration;
use uuid::Uuid;

/// An answer to a request of which nothing is recorded: a provider's handshake, a browser's preflight.
#[derive(Debug)]
pub struct Reply {
    /// The metric's `kind`.
    pub kind: &'static str,
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Reply {
    pub fn response(self, request_id: &str) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(self.body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        name(&mut response, request_id);
        response
    }
}

/// After the commit: what the source says, or the event's id as JSON. Of a duplicate, `event_id` is the first event's; its
/// sender repeats itself, so a source's own answer is the same as the first time.
pub fn recorded(
    source: &Source,
    event_id: Uuid,
    duplicate: bool,
    request_id: &str,
) -> Response<Full<Bytes>> {
    let Some(own) = &source.response else {
        return json(ids(source, event_id, duplicate), request_id);
    };
    let mut response = match &own.body {
        Some(body) => Response::new(Full::new(body.clone())),
        None => json(ids(source, event_id, duplicate), request_id),
    };
    *response.status_mut() = own.status;
    let mut last = None;
    for (name, value) in &own.headers {
        // The first of a name takes the place of ours, the others join it.
        if last == Some(name) {
            response.headers_mut().append(name, value.clone());
        } else {
            response.headers_mut().insert(name, value.clone());
        }
        last = Some(name);
    }
    name(&mut response, request_id);
    response
}

fn ids(source: &Source, event_id: Uuid, duplicate: bool) -> Bytes {
    let mut body = String::with_capacity(128);
    body.push_str(r#"{"event_id":""#);
    body.push_str(&format(Prefix::Event, event_id));
    body.push_str(r#"","source_id":""#);
    body.push_str(&source.id);
    body.push_str(if duplicate {
        r#"","duplicate":true}"#
    } else {
        r#""}"#
    });
    body.into()
}

/// 200 with this body.
pub fn json(body: Bytes, request_id: &str) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    name(&mut response, request_id);
    response
}

fn name(response: &mut Response<Full<Bytes>>, request_id: &str) {
    response.headers_mut().insert(
        REQUEST_ID,
        HeaderValue::from_str(request_id).expect("a request id is ASCII"),
    );
}

/// What an answer says because of the request's source, whatever came of the request.
#[derive(Debug, Default)]
pub struct Marks {
    /// The source has rules for web pages.
    pub cors: bool,
    /// Of a page that may read the answer.
    pub origin: Option<HeaderValue>,
    /// How the source stands with its rate limit.
    pub standing: Option<Standing>,
}

const HEADERS: [[HeaderName; 3]; 2] = [
    [
        HeaderName::from_static("x-ratelimit-limit"),
        HeaderName::from_static("x-ratelimit-remaining"),
        HeaderName::from_static("x-ratelimit-reset"),
    ],
    [
        HeaderName::from_static("ratelimit-limit"),
        HeaderName::from_static("ratelimit-remaining"),
        HeaderName::from_static("ratelimit-reset"),
    ],
];

impl Marks {
    pub fn put(&self, response: &mut Response<Full<Bytes>>, now: Timestamp) {
        let headers = response.headers_mut();
        if self.cors {
            // Also without an origin: a cache must not hand this answer to a page.
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        if let Some(origin) = &self.origin {
            headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, cors::EXPOSED);
        }
        if let Some(standing) = &self.standing {
            let seconds = whole_seconds(standing.reset);
            // The documents' `X-RateLimit-Reset` is a Unix time, the other a number of seconds, as its draft says.
            let at = now.as_second().saturating_add_unsigned(seconds);
            let counts = [standing.limit, standing.remaining].map(HeaderValue::from);
            for ([limit, remaining, reset], value) in
                HEADERS.into_iter().zip([at.into(), seconds.into()])
            {
                headers.insert(limit, counts[0].clone());
                headers.insert(remaining, counts[1].clone());
                headers.insert(reset, value);
            }
        }
    }
}

/// Never earlier than it is meant.
pub fn whole_seconds(duration: Duration) -> u64 {
    duration
        .as_secs()
        .saturating_add(u64::from(duration.subsec_nanos() > 0))
}
