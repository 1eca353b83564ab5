//! What the sender of a request that was not refused gets.

use crate::errors::REQUEST_ID;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use routing::{
    ids::{Prefix, format},
    table::Source,
};
use uuid::Uuid;

/// An answer to a request of which nothing is recorded: a provider's handshake, for one.
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

/// After the commit. Of a duplicate, `event_id` is the first event's.
pub fn recorded(
    source: &Source,
    event_id: Uuid,
    duplicate: bool,
    request_id: &str,
) -> Response<Full<Bytes>> {
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
    json(body.into(), request_id)
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
