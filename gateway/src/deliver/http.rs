//! HTTP destinations: the event's body, byte for byte, to a URL.
//!
//! **What a receiver gets.** The body as it came, with its `content-type` and `content-encoding`;
//! `x-hookstream-event-id`, `x-hookstream-delivery-attempt` (1, 2, 3 …), `x-hookstream-timestamp` (RFC 3339, of this
//! attempt), `webhook-id` (the event's id) and `webhook-timestamp` (Unix seconds); `user-agent: hookstream/<version>`.
//!
//! Of the sender's other headers those that a receiver dispatches or verifies by (`headers::is_forwarded`): `x-…`,
//! `…-signature`, CloudEvents' `ce-…` and a few providers' own. Not forwarded: what names the sender's credentials (tokens,
//! keys, cookies, authorization), what proxies say of the way here (`x-forwarded-…`, `x-real-ip`), what makes frameworks
//! change the request (`x-http-method-override`, `x-original-url`), hop-by-hop headers and the sender's `webhook-…`,
//! which sign an id and a time that are not this attempt's.
//!
//! The destination's own headers win over all of these but the `x-hookstream-…` and `webhook-…` ones; its `auth` wins over its headers.
//!
//! **What is known afterwards.** Once the response's head is here the status decides, whatever the body does: a receiver
//! that said 200 has the event, and a retry because its body stalls would only send it twice. Redirects are not followed.
//! No answer in time is `TimedOut`; no connection, a connection closed early and an answer that is not HTTP are `Unreachable`.
//!
//! **A connection that died while it was kept** costs no attempt. When a request fails because a connection that had been
//! open before was closed, and no byte of the answer came, the same request is sent once more, at once, on a new
//! connection, within the same attempt and its timeout. It has the same attempt number and counts as that attempt;
//! whatever the second sending meets is its outcome. A receiver that had taken the first one and died before it could
//! answer gets the event twice, which at-least-once delivery allows and the event's id tells.

mod headers;

use super::{Answer, Attempt};
use crate::egress::{self, Client, ConnectError, Opened, Steps};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use routing::{
    ids::{self, Prefix},
    retry::{self, Outcome},
    row::{Auth, HttpSpec, SecretIndex},
    secret::Secret,
};
use service::clock;
use std::{borrow::Cow, error::Error, time::Duration};
use store::outcomes::Timings;

/// Kept of a response's body, and of its headers.
pub const KEPT: usize = 16 * 1024;

/// Read beyond what is kept, so that the connection of a slightly larger answer can be used again.
const SKIPPED: usize = 48 * 1024;

const USER_AGENT: &str = concat!("hookstream/", env!("CARGO_PKG_VERSION"));

const EVENT_ID: HeaderName = HeaderName::from_static("x-hookstream-event-id");
const ATTEMPT: HeaderName = HeaderName::from_static("x-hookstream-delivery-attempt");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-hookstream-timestamp");
const WEBHOOK_ID: HeaderName = HeaderName::from_static("webhook-id");
const WEBHOOK_TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");

/// What the compiler should have refused.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("the destination's URL can't be used")]
    Url,
    #[error("the destination's method can't be used")]
    Method,
    #[error("the destination's header `{0}` can't be sent")]
    Header(String),
    #[error("the destination's secret has bytes that no header may hold")]
    Secret,
    #[error("the destination's row names a secret that it doesn't hold")]
    SecretMissing,
}

/// Where a delivery goes.
#[derive(Debug)]
enum Url {
    Fixed(Uri),
    /// Has `{path}`, which is what followed the source's key in the ingest URL.
    Template(String),
}

/// An HTTP destination made ready.
#[derive(Debug)]
pub struct Target {
    url: Url,
    method: Method,
    /// The destination's own, in order, the authentication last.
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
}

impl Target {
    pub fn prepare(spec: &HttpSpec, secrets: &[Secret]) -> Result<Target, Unusable> {
        let url = if spec.url.contains("{path}") {
            Url::Template(spec.url.clone())
        } else {
            Url::Fixed(uri(&spec.url)?)
        };
        let method = match &spec.method {
            Some(method) => Method::from_bytes(method.as_bytes()).map_err(|_| Unusable::Method)?,
            None => Method::POST,
        };
        let mut headers = Vec::with_capacity(spec.headers.len() + 1);
        for (name, value) in &spec.headers {
            let unusable = || Unusable::Header(name.clone());
            let parsed = HeaderName::from_bytes(name.as_bytes()).map_err(|_| unusable())?;
            if !headers::is_ours(parsed.as_str()) {
                headers.push((
                    parsed,
                    HeaderValue::from_str(value).map_err(|_| unusable())?,
                ));
            }
        }
        if let Some(auth) = &spec.auth {
            let (name, value) = authentication(auth, secrets)?;
            headers.retain(|(other, _)| *other != name);
            headers.push((name, value));
        }
        Ok(Target {
            url,
            method,
            headers,
            timeout: spec.timeout,
        })
    }

    /// Makes one attempt; returns within the timeout.
    pub async fn send(&self, client: &Client, attempt: Attempt<'_>) -> Answer {
        let started = clock::instant();
        let request = match self.build(attempt) {
            Ok(request) => request,
            Err(unusable) => return Answer::internal(unusable.to_string()),
        };
        let deadline = tokio::time::Instant::from_std(started) + self.timeout;
        let mut sent = tokio::time::timeout_at(deadline, client.request(request)).await;
        if let Ok(Err(error)) = &sent
            && egress::met_closed_connection(error, started)
            && let Ok(request) = self.build(attempt)
        {
            tracing::debug!(%error, "a kept connection had been closed; sending on a new one");
            sent = tokio::time::timeout_at(deadline, client.request_anew(request)).await;
        }
        let mut answer = match sent {
            Err(_) => Answer::without_response(
                Outcome::TimedOut,
                format!("no answer within {} s", self.timeout.as_secs_f32()),
            ),
            Ok(Err(error)) => classify_failure(&error),
            Ok(Ok(response)) => {
                let head = started.elapsed();
                let steps = response
                    .extensions()
                    .get::<Opened>()
                    .and_then(Opened::first_use);
                let mut answer = receive(response, deadline, attempt.now).await;
                answer.timings = timings(steps, head);
                answer
            }
        };
        answer.timings.total_us = Some(micros(started.elapsed()));
        answer
    }

    fn build(&self, attempt: Attempt<'_>) -> Result<Request<Full<Bytes>>, Unusable> {
        let event = attempt.event;
        let mut map = HeaderMap::with_capacity(16 + self.headers.len());
        headers::forward(&event.headers, &mut map);
        map.insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
        for (n, (name, value)) in self.headers.iter().enumerate() {
            // The first of a name replaces the sender's; the next ones of the same name join it.
            if self.headers[..n].iter().any(|(earlier, _)| earlier == name) {
                map.append(name.clone(), value.clone());
            } else {
                map.insert(name.clone(), value.clone());
            }
        }
        let id = ascii(ids::format(Prefix::Event, event.id));
        map.insert(EVENT_ID, id.clone());
        map.insert(WEBHOOK_ID, id);
        map.insert(ATTEMPT, HeaderValue::from(attempt.number));
        map.insert(TIMESTAMP, ascii(format!("{:.3}", attempt.now)));
        map.insert(
            WEBHOOK_TIMESTAMP,
            HeaderValue::from(attempt.now.as_second()),
        );
        let mut request = Request::new(Full::new(event.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = match &self.url {
            Url::Fixed(uri) => uri.clone(),
            Url::Template(template) => uri(&template.replace("{path}", &below(&event.path)))?,
        };
        *request.headers_mut() = map;
        Ok(request)
    }
}

fn uri(text: &str) -> Result<Uri, Unusable> {
    let uri: Uri = text.parse().map_err(|_| Unusable::Url)?;
    if uri.host().is_some_and(|host| !host.is_empty()) {
        Ok(uri)
    } else {
        Err(Unusable::Url)
    }
}

/// The sender's path without its leading slash and without segments that would climb out of the destination's URL.
fn below(path: &str) -> Cow<'_, str> {
    let path = path.trim_start_matches('/');
    let climbs = |segment: &str| {
        matches!(
            segment.to_ascii_lowercase().replace("%2e", ".").as_str(),
            "." | ".."
        )
    };
    if path.split('/').any(climbs) {
        Cow::Owned(
            path.split('/')
                .filter(|segment| !climbs(segment))
                .collect::<Vec<_>>()
                .join("/"),
        )
    } else {
        Cow::Borrowed(path)
    }
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("ids and times are ASCII")
}

fn authentication(auth: &Auth, secrets: &[Secret]) -> Result<(HeaderName, HeaderValue), Unusable> {
    let secret = |index: &SecretIndex| {
        secrets
            .get(usize::from(index.0))
            .map(Secret::expose)
            .ok_or(Unusable::SecretMissing)
    };
    let (name, bytes) = match auth {
        Auth::Basic { username, password } => {
            let pair = [secret(username)?, b":", secret(password)?].concat();
            (
                header::AUTHORIZATION,
                format!("Basic {}", BASE64_STANDARD.encode(pair)).into_bytes(),
            )
        }
        Auth::Bearer { token } => (header::AUTHORIZATION, [b"Bearer ", secret(token)?].concat()),
        Auth::ApiKey { header, key } => {
            let name = HeaderName::from_bytes(header.as_bytes())
                .map_err(|_| Unusable::Header(header.clone()))?;
            (name, secret(key)?.to_vec())
        }
    };
    let mut value =
        HeaderValue::from_maybe_shared(Bytes::from(bytes)).map_err(|_| Unusable::Secret)?;
    value.set_sensitive(true);
    Ok((name, value))
}

/// The status decides; of the body the first [`KEPT`] bytes are kept. A body that is not through by the deadline, or
/// that breaks off, leaves what came so far and a word about it.
async fn receive(
    response: Response<Incoming>,
    deadline: tokio::time::Instant,
    now: Timestamp,
) -> Answer {
    let (head, mut body) = response.into_parts();
    let status = head.status.as_u16();
    let outcome = if head.status.is_success() {
        Outcome::Delivered { status }
    } else {
        Outcome::Refused {
            status,
            retry_after: head
                .headers
                .get(header::RETRY_AFTER)
                .and_then(|value| retry::parse_retry_after(value.as_bytes(), now)),
        }
    };
    let mut kept = BytesMut::new();
    let mut read = 0;
    let reading = async {
        // Past the bound the body is dropped, and its connection with it.
        while !body.is_end_stream() && read <= KEPT + SKIPPED {
            let Some(frame) = body.frame().await else {
                break;
            };
            let Ok(data) = frame?.into_data() else {
                continue;
            };
            read += data.len();
            kept.extend_from_slice(&data[..data.len().min(KEPT - kept.len())]);
        }
        Ok::<(), hyper::Error>(())
    };
    let error = match tokio::time::timeout_at(deadline, reading).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => Some(format!("the answer's body broke off: {}", chain(&error))),
        Err(_) => Some("the answer's body did not end in time".to_owned()),
    };
    Answer {
        outcome,
        error,
        timings: Timings::default(),
        headers: Some(headers::lines(&head.headers)),
        body: Some(kept.freeze()),
    }
}

fn classify_failure(error: &hyper_util::client::legacy::Error) -> Answer {
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = source {
        match current.downcast_ref::<ConnectError>() {
            Some(ConnectError::Blocked(blocked)) => {
                return Answer::without_response(Outcome::Blocked, blocked.to_string());
            }
            Some(failed @ ConnectError::TimedOut { .. }) => {
                return Answer::without_response(Outcome::TimedOut, failed.to_string());
            }
            Some(failed) => return Answer::without_response(Outcome::Unreachable, chain(failed)),
            None => {}
        }
        if let Some(hyper) = current.downcast_ref::<hyper::Error>() {
            let text = if hyper.is_parse() {
                format!("the answer is not HTTP: {}", chain(hyper))
            } else if hyper.is_incomplete_message() {
                "the connection was closed before the answer".to_owned()
            } else {
                chain(hyper)
            };
            return Answer::without_response(Outcome::Unreachable, text);
        }
        source = current.source();
    }
    Answer::without_response(Outcome::Unreachable, chain(error))
}

/// An error and its causes, at most 500 bytes.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text.truncate(text.floor_char_boundary(500));
    text
}

fn timings(steps: Option<Steps>, head: Duration) -> Timings {
    let Some(steps) = steps else {
        return Timings {
            first_byte_us: Some(micros(head)),
            ..Timings::default()
        };
    };
    let opening = steps.dns.unwrap_or_default() + steps.connect + steps.tls.unwrap_or_default();
    Timings {
        dns_us: steps.dns.map(micros),
        connect_us: Some(micros(steps.connect)),
        tls_us: steps.tls.map(micros),
        first_byte_us: Some(micros(head.saturating_sub(opening))),
        total_us: None,
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
