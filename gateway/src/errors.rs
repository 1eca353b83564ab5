//! The error envelope, and every reason for which the public port refuses a request.
//!
//! `{"error": …, "status": …, "request_id": …, "code": …, "details"?: …}`; `code` is what clients match on. One enum, one
//! exhaustive match per question (status, code, metric word, what else the answer carries), so a new reason cannot be
//! half-added. A 503 means that sending again is safe, and that nothing was recorded where its sentence says so: all but
//! [`Refusal::DatabaseAway`] do. There the commit's answer may have been lost, and sending again may make a second event.

use crate::ingest::answer::whole_seconds;
use bytes::Bytes;
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::Full;
use routing::schema::Misfit;
use routing::{admission::Blocked, verify};
use serde::Serialize;
use serde_json::{Value, json};
use std::{net::IpAddr, sync::Arc, time::Duration};

/// The header with the request's id, on every answer.
pub const REQUEST_ID: header::HeaderName = header::HeaderName::from_static("x-request-id");

/// Why a request was refused. `Display` is the envelope's `error`: a sentence for the sender.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("Source not found")]
    SourceNotFound,
    #[error("Nothing is served at this path; events go to /v1/ingest/… or /v1/topics/…/publish")]
    PathNotFound,
    #[error("Topic not found")]
    TopicNotFound,
    #[error(
        "Topics of this name in several namespaces have this publish key; name the topic by its id, as top_…"
    )]
    TopicAmbiguous,
    #[error(
        "No scheduled event of this topic has this id: it was published or cancelled, or never was"
    )]
    ScheduledNotFound,
    #[error("{}", .0.message())]
    NotAPublisher(Publisher),
    /// A sentence that says what to change.
    #[error("{0}")]
    Unpublishable(String),
    #[error("{}", type_not_allowed(.event_type.as_deref()))]
    EventTypeNotAllowed {
        event_type: Option<String>,
        event_types: Vec<String>,
    },
    #[error("This idempotency key came with another request; use a new key for a new request")]
    IdempotencyMismatch,
    #[error("Method not allowed here; allowed: {allow}")]
    MethodNotAllowed { allow: String },
    #[error("Source is archived; nothing was recorded")]
    SourceArchived,
    #[error("Source is paused; nothing was recorded")]
    SourcePaused,
    #[error("Address {sender} may not send to this source")]
    AddressBlocked { sender: IpAddr, why: Blocked },
    #[error("Pages of this origin may not send to this source")]
    OriginNotAllowed,
    #[error("Content-Type not allowed here; allowed: {}", .content_types.join(", "))]
    UnsupportedMediaType { content_types: Vec<String> },
    #[error("Too many requests to this source; nothing was recorded, send again later")]
    RateLimited {
        source_id: String,
        /// How many may come at once, and how many of those came.
        limit: u32,
        current: u32,
        retry_after: Duration,
    },
    #[error("Body doesn't fit the JSON Schema; nothing was recorded")]
    SchemaInvalid(Vec<Misfit>),
    #[error("Duplicate of {first}; it was recorded as such and goes nowhere")]
    Duplicate { first: String },
    #[error("{}", .0.message())]
    Unauthorized(verify::Refused, Option<Arc<str>>),
    #[error("Body is larger than {limit_bytes} bytes")]
    PayloadTooLarge { limit_bytes: u64 },
    #[error("Headers are larger than {max_bytes} bytes or more than {max_count}")]
    HeadersTooLarge { max_bytes: usize, max_count: usize },
    #[error("The request's target is longer than {max_bytes} bytes")]
    UriTooLong { max_bytes: usize },
    #[error("Not a valid HTTP request")]
    Malformed,
    #[error("The request's head did not arrive in time")]
    HeadTimeout,
    #[error("The request's body did not arrive in time")]
    BodyTimeout,
    #[error("The body ended before it was complete")]
    BodyAborted,
    #[error("This request holds something that cannot be stored")]
    NotStorable,
    #[error("Too many connections; nothing was recorded, it is safe to send again")]
    TooManyConnections,
    #[error("Too many requests in flight; nothing was recorded, it is safe to send again")]
    TooManyRequests,
    #[error("Too many bytes in flight; nothing was recorded, it is safe to send again")]
    TooManyBytes,
    #[error("The queue to the database is full; nothing was recorded, it is safe to send again")]
    QueueFull,
    #[error("The database cannot be reached; it is safe to send again")]
    DatabaseAway,
    #[error(
        "The keys that this request is verified with can't be fetched now; nothing was recorded, it is safe to send again"
    )]
    KeysAway,
    #[error("Starting; nothing was recorded, it is safe to send again")]
    NotReady,
}

/// Why somebody may not publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Publisher {
    /// No key came.
    KeyMissing,
    KeyWrong,
    /// The topic names none.
    NoKeys,
}

impl Publisher {
    fn message(self) -> &'static str {
        match self {
            Publisher::KeyMissing => {
                "No publish key; send the topic's in the header X-API-Key, or as Authorization: Bearer"
            }
            Publisher::KeyWrong => "This is no publish key of the topic",
            Publisher::NoKeys => {
                "Nobody may publish to this topic: its spec.publishKeyRefs names no key"
            }
        }
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Publisher::KeyMissing => "publish_key_missing",
            Publisher::KeyWrong => "publish_key_wrong",
            Publisher::NoKeys => "no_publish_keys",
        }
    }
}

fn type_not_allowed(event_type: Option<&str>) -> String {
    match event_type {
        Some(event_type) => format!("The topic takes no events of the type {event_type}"),
        None => "The topic takes events of certain types, and this one has no `type`".to_owned(),
    }
}

impl Refusal {
    pub fn status(&self) -> StatusCode {
        match self {
            Refusal::SourceNotFound
            | Refusal::SourceArchived
            | Refusal::PathNotFound
            | Refusal::TopicNotFound
            | Refusal::ScheduledNotFound => StatusCode::NOT_FOUND,
            Refusal::TopicAmbiguous | Refusal::IdempotencyMismatch => StatusCode::CONFLICT,
            Refusal::NotAPublisher(_) => StatusCode::UNAUTHORIZED,
            Refusal::Unpublishable(_) => StatusCode::BAD_REQUEST,
            Refusal::EventTypeNotAllowed { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::AddressBlocked { .. } | Refusal::OriginNotAllowed => StatusCode::FORBIDDEN,
            Refusal::UnsupportedMediaType { .. } => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Refusal::RateLimited { .. } => StatusCode::TOO_MANY_REQUESTS,
            Refusal::MethodNotAllowed { .. } => StatusCode::METHOD_NOT_ALLOWED,
            Refusal::SourcePaused | Refusal::Duplicate { .. } => StatusCode::CONFLICT,
            Refusal::SchemaInvalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Refusal::Unauthorized(..) => StatusCode::UNAUTHORIZED,
            Refusal::PayloadTooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Refusal::HeadersTooLarge { .. } => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            Refusal::UriTooLong { .. } => StatusCode::URI_TOO_LONG,
            Refusal::Malformed | Refusal::BodyAborted | Refusal::NotStorable => {
                StatusCode::BAD_REQUEST
            }
            Refusal::HeadTimeout | Refusal::BodyTimeout => StatusCode::REQUEST_TIMEOUT,
            Refusal::TooManyConnections
            | Refusal::TooManyRequests
            | Refusal::TooManyBytes
            | Refusal::QueueFull
            | Refusal::DatabaseAway
            | Refusal::KeysAway
            | Refusal::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        }
    }

    /// The word that clients match on.
    pub fn code(&self) -> &'static str {
        match self {
            Refusal::SourceNotFound => "SOURCE_NOT_FOUND",
            Refusal::PathNotFound => "NOT_FOUND",
            Refusal::TopicNotFound => "TOPIC_NOT_FOUND",
            Refusal::TopicAmbiguous => "TOPIC_AMBIGUOUS",
            Refusal::ScheduledNotFound => "SCHEDULED_EVENT_NOT_FOUND",
            Refusal::NotAPublisher(_) => "UNAUTHORIZED",
            Refusal::Unpublishable(_) => "INVALID_REQUEST",
            Refusal::EventTypeNotAllowed { .. } => "EVENT_TYPE_NOT_ALLOWED",
            Refusal::IdempotencyMismatch => "IDEMPOTENCY_MISMATCH",
            Refusal::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Refusal::SourceArchived => "SOURCE_ARCHIVED",
            Refusal::SourcePaused => "SOURCE_PAUSED",
            Refusal::SchemaInvalid(_) => "SCHEMA_VALIDATION_FAILED",
            Refusal::Duplicate { .. } => "DUPLICATE_EVENT",
            Refusal::AddressBlocked { .. } | Refusal::OriginNotAllowed => "FORBIDDEN",
            Refusal::UnsupportedMediaType { .. } => "UNSUPPORTED_MEDIA_TYPE",
            Refusal::RateLimited { .. } => "BURST_LIMIT_EXCEEDED",
            Refusal::Unauthorized(..) => "UNAUTHORIZED",
            Refusal::PayloadTooLarge { .. } => "PAYLOAD_TOO_LARGE",
            Refusal::HeadersTooLarge { .. } => "HEADERS_TOO_LARGE",
            Refusal::UriTooLong { .. } => "URI_TOO_LONG",
            Refusal::Malformed | Refusal::BodyAborted | Refusal::NotStorable => "INVALID_REQUEST",
            Refusal::HeadTimeout | Refusal::BodyTimeout => "REQUEST_TIMEOUT",
            Refusal::TooManyConnections
            | Refusal::TooManyRequests
            | Refusal::TooManyBytes
            | Refusal::QueueFull
            | Refusal::DatabaseAway
            | Refusal::NotReady => "UNAVAILABLE",
            Refusal::KeysAway => "KEYS_UNAVAILABLE",
        }
    }

    /// The metric's `reason`.
    pub fn reason(&self) -> &'static str {
        match self {
            Refusal::SourceNotFound => "source_not_found",
            Refusal::PathNotFound => "path_not_found",
            Refusal::TopicNotFound => "topic_not_found",
            Refusal::TopicAmbiguous => "topic_ambiguous",
            Refusal::ScheduledNotFound => "scheduled_not_found",
            Refusal::NotAPublisher(why) => why.as_str(),
            Refusal::Unpublishable(_) => "unpublishable",
            Refusal::EventTypeNotAllowed { .. } => "event_type",
            Refusal::IdempotencyMismatch => "idempotency_mismatch",
            Refusal::MethodNotAllowed { .. } => "method_not_allowed",
            Refusal::SourceArchived => "source_archived",
            Refusal::SourcePaused => "source_paused",
            Refusal::SchemaInvalid(_) => "schema_invalid",
            Refusal::Duplicate { .. } => "duplicate",
            Refusal::AddressBlocked { why, .. } => match why {
                Blocked::Denied => "ip_denied",
                Blocked::NotAllowed => "ip_not_allowed",
            },
            Refusal::OriginNotAllowed => "origin_not_allowed",
            Refusal::UnsupportedMediaType { .. } => "unsupported_media_type",
            Refusal::RateLimited { .. } => "rate_limited",
            Refusal::Unauthorized(refused, _) => refused.as_str(),
            Refusal::PayloadTooLarge { .. } => "payload_too_large",
            Refusal::HeadersTooLarge { .. } => "headers_too_large",
            Refusal::UriTooLong { .. } => "uri_too_long",
            Refusal::Malformed => "malformed",
            Refusal::HeadTimeout => "head_timeout",
            Refusal::BodyTimeout => "body_timeout",
            Refusal::BodyAborted => "body_aborted",
            Refusal::NotStorable => "not_storable",
            Refusal::TooManyConnections => "too_many_connections",
            Refusal::TooManyRequests => "too_many_requests",
            Refusal::TooManyBytes => "too_many_bytes",
            Refusal::QueueFull => "queue_full",
            Refusal::DatabaseAway => "database_away",
            Refusal::KeysAway => "keys_away",
            Refusal::NotReady => "not_ready",
        }
    }

    fn details(&self) -> Option<Value> {
        match self {
            Refusal::SchemaInvalid(misfits) => Some(json!({ "validation_errors": misfits })),
            Refusal::Duplicate { first } => Some(json!({ "event_id": first })),
            Refusal::NotAPublisher(why) => Some(json!({ "reason": why.as_str() })),
            Refusal::EventTypeNotAllowed {
                event_type,
                event_types,
            } => Some(json!({ "event_type": event_type, "event_types": event_types })),
            Refusal::Unauthorized(refused, _) => Some(json!({ "reason": refused.as_str() })),
            Refusal::AddressBlocked { sender, .. } => {
                Some(json!({ "reason": self.reason(), "address": sender }))
            }
            Refusal::OriginNotAllowed => Some(json!({ "reason": self.reason() })),
            Refusal::UnsupportedMediaType { content_types } => {
                Some(json!({ "content_types": content_types }))
            }
            Refusal::RateLimited { retry_after, .. } => {
                let milliseconds = retry_after.as_nanos().div_ceil(1_000_000);
                Some(json!({ "retry_after_ms": u64::try_from(milliseconds).unwrap_or(u64::MAX) }))
            }
            Refusal::PayloadTooLarge { limit_bytes } => Some(json!({ "limit_bytes": limit_bytes })),
            Refusal::UriTooLong { max_bytes } => Some(json!({ "max_bytes": max_bytes })),
            Refusal::HeadersTooLarge {
                max_bytes,
                max_count,
            } => Some(json!({ "max_bytes": max_bytes, "max_count": max_count })),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Some(json!({ "retry_after_ms": RETRY_AFTER_SECONDS * 1000 }))
            }
            _ => None,
        }
    }

    /// Seconds until sending again may help.
    fn retry_after(&self) -> Option<u64> {
        match self {
            // At least one, or a sender would be back at once.
            Refusal::RateLimited { retry_after, .. } => Some(whole_seconds(*retry_after).max(1)),
            _ if self.status() == StatusCode::SERVICE_UNAVAILABLE => {
                Some(u64::from(RETRY_AFTER_SECONDS))
            }
            _ => None,
        }
    }

    /// What a quota error says at the top of the envelope.
    fn quota(&self) -> Option<Quota<'_>> {
        let Refusal::RateLimited {
            source_id,
            limit,
            current,
            ..
        } = self
        else {
            return None;
        };
        Some(Quota {
            scope: "source",
            scope_id: source_id,
            quota: "ingestRate",
            limit: *limit,
            current: *current,
            attempted_delta: 1,
            retry_after_sec: self.retry_after().unwrap_or_default(),
        })
    }

    /// The envelope as a response. The body of a request that wasn't read is nobody's: the server closes such a connection.
    pub fn response(&self, request_id: &str) -> Response<Full<Bytes>> {
        self.envelope(request_id).map(Full::new)
    }

    /// The same, for where HTTP/2's frames are made by hand.
    pub fn envelope(&self, request_id: &str) -> Response<Bytes> {
        let mut response = Response::new(self.body(request_id));
        *response.status_mut() = self.status();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/json"),
        );
        headers.insert(
            REQUEST_ID,
            HeaderValue::from_str(request_id).expect("a request id is ASCII"),
        );
        if let Refusal::MethodNotAllowed { allow } = self
            && let Ok(value) = HeaderValue::from_str(allow)
        {
            headers.insert(header::ALLOW, value);
        }
        if let Refusal::Unauthorized(_, Some(authenticate)) = self
            && let Ok(value) = HeaderValue::from_str(authenticate)
        {
            headers.insert(header::WWW_AUTHENTICATE, value);
        }
        if let Some(seconds) = self.retry_after() {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The envelope as the bytes of a whole HTTP/1.1 answer that ends its connection, for where there is no request.
    pub fn raw_response(&self, request_id: &str) -> Bytes {
        let body = self.body(request_id);
        let status = self.status();
        let retry_after = self.retry_after();
        let retry_after = retry_after.map_or(String::new(), |seconds| {
            format!("retry-after: {seconds}\r\n")
        });
        let mut raw = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: application/json\r\ncontent-length: {}\r\nx-request-id: {request_id}\r\n{retry_after}connection: close\r\n\r\n",
            status.as_u16(),
            status.canonical_reason().unwrap_or_default(),
            body.len()
        )
        .into_bytes();
        raw.extend_from_slice(&body);
        raw.into()
    }

    fn body(&self, request_id: &str) -> Bytes {
        #[derive(Serialize)]
        struct Envelope<'a> {
            error: String,
            status: u16,
            request_id: &'a str,
            code: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            details: Option<Value>,
            #[serde(flatten)]
            quota: Option<Quota<'a>>,
        }
        let envelope = Envelope {
            error: self.to_string(),
            status: self.status().as_u16(),
            request_id,
            code: self.code(),
            details: self.details(),
            quota: self.quota(),
        };
        serde_json::to_vec(&envelope)
            .expect("strings and numbers serialise")
            .into()
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Quota<'a> {
    scope: &'static str,
    scope_id: &'a str,
    quota: &'static str,
    limit: u32,
    current: u32,
    attempted_delta: u32,
    retry_after_sec: u64,
}

/// Long enough that a queue of a few thousand has drained, short enough that a sender's retry policy still has it.
const RETRY_AFTER_SECONDS: u32 = 1;

#[cfg(test)]
mod tests {
    use super::*;
    use http_body_util::BodyExt;

    async fn check(refusal: Refusal, expected: expect_test::Expect) {
        let response = refusal.response("req_1");
        let mut text = format!("{}\n", response.status().as_u16());
        for (name, value) in response.headers() {
            text += &format!("{name}: {}\n", value.to_str().unwrap());
        }
        let body = response.into_body().collect().await.unwrap().to_bytes();
        text += std::str::from_utf8(&body).unwrap();
        expected.assert_eq(&text);
    }

    #[tokio::test]
    async fn a_refusal_is_the_documented_envelope() {
        check(
            Refusal::SourceNotFound,
            expect_test::expect![[r#"
                404
                content-type: application/json
                x-request-id: req_1
                {"error":"Source not found","status":404,"request_id":"req_1","code":"SOURCE_NOT_FOUND"}"#]],
        )
        .await;
    }

    #[tokio::test]
    async fn a_503_says_when_to_come_back_and_that_it_is_safe() {
        check(
            Refusal::QueueFull,
            expect_test::expect![[r#"
                503
                content-type: application/json
                x-request-id: req_1
                retry-after: 1
                {"error":"The queue to the database is full; nothing was recorded, it is safe to send again","status":503,"request_id":"req_1","code":"UNAVAILABLE","details":{"retry_after_ms":1000}}"#]],
        )
        .await;
    }

    #[tokio::test]
    async fn a_429_says_which_limit_and_when_to_come_back() {
        check(
            Refusal::RateLimited {
                source_id: "src_1".into(),
                limit: 20,
                current: 20,
                retry_after: Duration::from_micros(1_200_300),
            },
            expect_test::expect![[r#"
                429
                content-type: application/json
                x-request-id: req_1
                retry-after: 2
                {"error":"Too many requests to this source; nothing was recorded, send again later","status":429,"request_id":"req_1","code":"BURST_LIMIT_EXCEEDED","details":{"retry_after_ms":1201},"scope":"source","scopeId":"src_1","quota":"ingestRate","limit":20,"current":20,"attemptedDelta":1,"retryAfterSec":2}"#]],
        )
        .await;
    }

    /// Every refusal, in the order of the enum: a new one doesn't compile until it has its place here.
    fn all() -> impl Iterator<Item = Refusal> {
        std::iter::successors(Some(Refusal::SourceNotFound), |refusal| {
            Some(match refusal {
                Refusal::SourceNotFound => Refusal::PathNotFound,
                Refusal::PathNotFound => Refusal::TopicNotFound,
                Refusal::TopicNotFound => Refusal::TopicAmbiguous,
                Refusal::TopicAmbiguous => Refusal::ScheduledNotFound,
                Refusal::ScheduledNotFound => Refusal::NotAPublisher(Publisher::KeyWrong),
                Refusal::NotAPublisher(_) => Refusal::Unpublishable("it is empty".into()),
                Refusal::Unpublishable(_) => Refusal::EventTypeNotAllowed {
                    event_type: None,
                    event_types: vec!["order.paid".into()],
                },
                Refusal::EventTypeNotAllowed { .. } => Refusal::IdempotencyMismatch,
                Refusal::IdempotencyMismatch => Refusal::MethodNotAllowed {
                    allow: "POST".into(),
                },
                Refusal::MethodNotAllowed { .. } => Refusal::SourceArchived,
                Refusal::SourceArchived => Refusal::SourcePaused,
                Refusal::SourcePaused => Refusal::AddressBlocked {
                    sender: IpAddr::from([203, 0, 113, 7]),
                    why: Blocked::Denied,
                },
                Refusal::AddressBlocked { .. } => Refusal::OriginNotAllowed,
                Refusal::OriginNotAllowed => Refusal::UnsupportedMediaType {
                    content_types: vec!["application/json".into()],
                },
                Refusal::UnsupportedMediaType { .. } => Refusal::RateLimited {
                    source_id: "src_1".into(),
                    limit: 10,
                    current: 10,
                    retry_after: Duration::from_millis(1200),
                },
                Refusal::RateLimited { .. } => {
                    Refusal::Unauthorized(verify::Refused::SignatureMissing, None)
                }
                Refusal::Unauthorized(..) => Refusal::SchemaInvalid(Vec::new()),
                Refusal::SchemaInvalid(..) => Refusal::Duplicate {
                    first: "evt_1".into(),
                },
                Refusal::Duplicate { .. } => Refusal::PayloadTooLarge { limit_bytes: 1 },
                Refusal::PayloadTooLarge { .. } => Refusal::HeadersTooLarge {
                    max_bytes: 1,
                    max_count: 1,
                },
                Refusal::HeadersTooLarge { .. } => Refusal::UriTooLong { max_bytes: 1 },
                Refusal::UriTooLong { .. } => Refusal::Malformed,
                Refusal::Malformed => Refusal::HeadTimeout,
                Refusal::HeadTimeout => Refusal::BodyTimeout,
                Refusal::BodyTimeout => Refusal::BodyAborted,
                Refusal::BodyAborted => Refusal::NotStorable,
                Refusal::NotStorable => Refusal::TooManyConnections,
                Refusal::TooManyConnections => Refusal::TooManyRequests,
                Refusal::TooManyRequests => Refusal::TooManyBytes,
                Refusal::TooManyBytes => Refusal::QueueFull,
                Refusal::QueueFull => Refusal::DatabaseAway,
                Refusal::DatabaseAway => Refusal::KeysAway,
                Refusal::KeysAway => Refusal::NotReady,
                Refusal::NotReady => return None,
            })
        })
    }

    #[test]
    fn every_503_but_one_says_that_nothing_was_recorded() {
        for refusal in all() {
            let told = refusal.to_string();
            if refusal.status() == StatusCode::SERVICE_UNAVAILABLE {
                assert!(told.contains("it is safe to send again"), "{told}");
                let sure = !matches!(refusal, Refusal::DatabaseAway);
                assert_eq!(told.contains("nothing was recorded"), sure, "{told}");
            }
        }
    }

    #[test]
    fn the_documentation_has_every_code_and_names_a_test_that_provokes_it() {
        let documentation = include_str!("../../docs/errors.md");
        let tests = [
            include_str!("ingest/tests.rs"),
            include_str!("ingest/tests/verification.rs"),
            include_str!("ingest/tests/bad_input.rs"),
            include_str!("ingest/tests/checks.rs"),
            include_str!("ingest/tests/rules.rs"),
            include_str!("ingest/tests/heads.rs"),
            include_str!("ingest/tests/topics.rs"),
            include_str!("recorder/tests.rs"),
        ]
        .concat();
        let rows: Vec<Vec<&str>> = documentation
            .lines()
            .filter(|line| {
                line.strip_prefix("| ")
                    .is_some_and(|row| row.starts_with(|first: char| first.is_ascii_digit()))
            })
            .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
            .collect();
        for refusal in all() {
            let (status, code) = (refusal.status(), format!("`{}`", refusal.code()));
            let row = rows
                .iter()
                .find(|row| row[0] == status.as_str() && row[1] == code)
                .unwrap_or_else(|| panic!("no row for {status} {code}"));
            if let Some(Value::Object(details)) = refusal.details() {
                for name in details.keys() {
                    assert!(row[4].contains(&format!("`{name}`")), "{name}: {row:?}");
                }
            }
        }
        for row in rows {
            let code = row[1].trim_matches('`');
            assert!(all().any(|refusal| refusal.code() == code), "{row:?}");
            let named: Vec<&str> = row[5].split('`').skip(1).step_by(2).collect();
            assert!(!named.is_empty(), "{row:?}");
            for name in named {
                assert!(tests.contains(&format!("fn {name}(")), "{name}");
            }
        }
    }

    #[tokio::test]
    async fn a_405_names_what_is_allowed() {
        check(
            Refusal::MethodNotAllowed { allow: "POST, PUT".into() },
            expect_test::expect![[r#"
                405
                content-type: application/json
                x-request-id: req_1
                allow: POST, PUT
                {"error":"Method not allowed here; allowed: POST, PUT","status":405,"request_id":"req_1","code":"METHOD_NOT_ALLOWED"}"#]],
        )
        .await;
    }
}
