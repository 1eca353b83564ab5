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
//! A `template` puts the service's JSON in the body's place. What is signed is the request as it goes out, so signing comes last.
//!
//! **A body that is an object** is streamed out of its store, with its `Content-Length`, unless something has to look into
//! it (a template, what is signed over it): then it is read into memory first. What the store fails to give is our fault,
//! `Internal`, whatever the request has come to.
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
mod oauth2;

use super::{Answer, Attempt};
use crate::{
    bodies::{Loaded, Lost, Streamed},
    egress::{self, Client, ConnectError, Identity, Opened, Outgoing, Steps},
};
use ::http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, Uri, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use jiff::Timestamp;
use oauth2::{Failure, Tokens};
use routing::{
    cloudevents,
    ids::{self, Prefix},
    payload::{self, Template},
    retry::{self, Outcome},
    row::{Auth, HttpSpec, SecretIndex},
    secret::Secret,
    sign::{self, Signer, sigv4},
    url,
};
use service::clock;
use std::{error::Error, sync::Arc, time::Duration};
use store::{events::Event, outcomes::Timings};

/// Kept of a response's body, and of its headers.
pub const KEPT: usize = 16 * 1024;

/// Read beyond what is kept, so that the connection of a slightly larger answer can be used again.
const SKIPPED: usize = 48 * 1024;

/// The time-out's words when it was not the receiver that was waited for.
const STORE_TOO_SLOW: &str = "the object store didn't give the event's body within the timeout";

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
    #[error(transparent)]
    Signing(#[from] sign::Unusable),
    #[error(transparent)]
    Identity(#[from] egress::InvalidIdentity),
}

/// Where a delivery goes.
#[derive(Debug)]
enum Url {
    Fixed(Uri),
    /// Has a place for what followed the source's key in the ingest URL.
    Template(url::Template),
}

/// What of the authentication differs between attempts.
#[derive(Debug)]
enum PerAttempt {
    Nothing,
    Token(Box<Tokens>),
    AwsSigV4(Box<sigv4::Credentials>),
}

/// An HTTP destination made ready.
#[derive(Debug)]
pub struct Target {
    url: Url,
    method: Method,
    /// The destination's own, in order, the authentication last.
    headers: Vec<(HeaderName, HeaderValue)>,
    timeout: Duration,
    auth: PerAttempt,
    identity: Option<Identity>,
    /// With the key that the payload holds, if it holds one.
    template: Option<(Template, Secret)>,
    /// `None`: an event goes as it was published.
    cloud_events: Option<cloudevents::Mode>,
    signer: Option<Signer>,
    /// Whose egress policy holds.
    namespace: Arc<str>,
}

impl Target {
    pub fn prepare(
        spec: &HttpSpec,
        secrets: &[Secret],
        namespace: &str,
    ) -> Result<Target, Unusable> {
        let template = url::Template::parse(&spec.url).map_err(|_| Unusable::Url)?;
        let url = if template.is_fixed() {
            Url::Fixed(uri(&spec.url)?)
        } else {
            Url::Template(template)
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
        let identity = spec
            .tls
            .as_ref()
            .map(|tls| {
                let pem = |index: &Option<SecretIndex>| match index {
                    Some(index) => secret(secrets, index).map(Some),
                    None => Ok(None),
                };
                let certificate = pem(&tls.certificate)?.zip(pem(&tls.key)?);
                Ok::<_, Unusable>(Identity::new(pem(&tls.ca)?, certificate)?)
            })
            .transpose()?;
        let auth = match &spec.auth {
            None => PerAttempt::Nothing,
            Some(auth) => match per_attempt(auth, secrets, identity.as_ref())? {
                PerAttempt::Nothing => {
                    let (name, value) = authentication(auth, secrets)?;
                    headers.retain(|(other, _)| *other != name);
                    headers.push((name, value));
                    PerAttempt::Nothing
                }
                other => other,
            },
        };
        let template = spec.template.clone().map(|template| {
            let key = match &template {
                Template::Pagerduty { routing_key } => secret(secrets, routing_key)?,
                _ => b"",
            };
            Ok::<_, Unusable>((template, Secret::new(key)))
        });
        let signer = spec
            .signing
            .as_ref()
            .map(|signing| Signer::new(signing, secrets));
        Ok(Target {
            url,
            method,
            headers,
            timeout: spec.timeout,
            auth,
            identity,
            template: template.transpose()?,
            cloud_events: spec.cloud_events,
            signer: signer.transpose()?,
            namespace: namespace.into(),
        })
    }

    /// Makes one attempt; returns within the timeout, to which only what a body takes comes that has to be read into
    /// memory first.
    pub async fn send(&self, client: &Client, attempt: Attempt<'_>) -> Answer {
        let loaded: Loaded;
        let attempt = if attempt.event.object_bytes.is_some() && self.looks_into_bodies() {
            match attempt.bodies.load(attempt.event).await {
                Ok(found) => loaded = found,
                Err(lost) => return Answer::internal(lost.to_string()),
            }
            Attempt {
                event: &loaded.event,
                ..attempt
            }
        } else {
            attempt
        };
        let started = clock::instant();
        let deadline = tokio::time::Instant::from_std(started) + self.timeout;
        let mut answer = match &self.auth {
            PerAttempt::Token(tokens) => self.with_token(tokens, client, attempt, deadline).await,
            _ => self.request(client, attempt, None, deadline).await,
        };
        answer.timings.total_us = Some(micros(started.elapsed()));
        answer
    }

    fn looks_into_bodies(&self) -> bool {
        self.template.is_some()
            || self.signer.is_some()
            || matches!(self.auth, PerAttempt::AwsSigV4(_))
    }

    /// The object that is to be sent, if the body is one.
    async fn object(
        attempt: Attempt<'_>,
        deadline: tokio::time::Instant,
    ) -> Result<Option<Streamed>, Answer> {
        if attempt.event.object_bytes.is_none() {
            return Ok(None);
        }
        match tokio::time::timeout_at(deadline, attempt.bodies.open(attempt.event)).await {
            Ok(Ok(body)) => Ok(Some(body)),
            Ok(Err(lost)) => Err(Answer::internal(lost.to_string())),
            Err(_) => Err(Answer::internal(STORE_TOO_SLOW)),
        }
    }

    /// A receiver that says 401 may have ended the token early: then the request is sent once more with a new one, in the
    /// same attempt.
    async fn with_token(
        &self,
        tokens: &Tokens,
        client: &Client,
        attempt: Attempt<'_>,
        deadline: tokio::time::Instant,
    ) -> Answer {
        let get = || tokio::time::timeout_at(deadline, tokens.get(client, &self.namespace));
        let token = match get().await {
            Ok(Ok(token)) => token,
            Ok(Err(Failure { outcome, error })) => return Answer::without_response(outcome, error),
            Err(_) => {
                let error = format!("no OAuth 2 token within {} s", self.timeout.as_secs_f32());
                return Answer::without_response(Outcome::TimedOut, error);
            }
        };
        let authorization = Some(&token.authorization);
        let answer = self.request(client, attempt, authorization, deadline).await;
        if !matches!(answer.outcome, Outcome::Refused { status: 401, .. }) {
            return answer;
        }
        tokens.spent(&token);
        match get().await {
            Ok(Ok(token)) => {
                let authorization = Some(&token.authorization);
                self.request(client, attempt, authorization, deadline).await
            }
            // The receiver's answer is what is known.
            Ok(Err(_)) | Err(_) => answer,
        }
    }

    /// One request, or two where a kept connection had died.
    async fn request(
        &self,
        client: &Client,
        attempt: Attempt<'_>,
        authorization: Option<&HeaderValue>,
        deadline: tokio::time::Instant,
    ) -> Answer {
        let started = clock::instant();
        let route = client.route(&self.namespace, self.identity.as_ref());
        let object = match Self::object(attempt, deadline).await {
            Ok(object) => object,
            Err(answer) => return answer,
        };
        let mut waiting = object.as_ref().map(Streamed::waiting);
        let request = match self.build(attempt, authorization, object) {
            Ok(request) => request,
            Err(unusable) => return Answer::internal(unusable.to_string()),
        };
        let mut sent = tokio::time::timeout_at(deadline, route.request(request)).await;
        if let Ok(Err(error)) = &sent
            && egress::met_closed_connection(error, started)
            && let Ok(object) = Self::object(attempt, deadline).await
        {
            waiting = object.as_ref().map(Streamed::waiting);
            let request = match self.build(attempt, authorization, object) {
                Ok(request) => request,
                Err(unusable) => return Answer::internal(unusable.to_string()),
            };
            tracing::debug!(%error, "a kept connection had been closed; sending on a new one");
            sent = tokio::time::timeout_at(deadline, route.request_anew(request)).await;
        }
        match sent {
            Err(_) if waiting.is_some_and(|waiting| waiting.on_the_store()) => {
                Answer::internal(STORE_TOO_SLOW)
            }
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
        }
    }

    /// `authorization` is the attempt's token, `object` the body if it isn't with the event.
    fn build(
        &self,
        attempt: Attempt<'_>,
        authorization: Option<&HeaderValue>,
        object: Option<Streamed>,
    ) -> Result<Request<Outgoing>, Unusable> {
        let event = attempt.event;
        let method = attempt
            .set
            .and_then(|set| set.method.as_ref())
            .unwrap_or(&self.method);
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
        for (name, value) in attempt.set.iter().flat_map(|set| &set.headers) {
            if !headers::is_ours(name.as_str()) {
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
        if let Some(authorization) = authorization {
            map.insert(header::AUTHORIZATION, authorization.clone());
        }
        let uri = match &self.url {
            Url::Fixed(uri) => uri.clone(),
            Url::Template(template) => uri(&template.fill(&event.path, &event.query))?,
        };
        let body = match (&self.template, self.cloud_events) {
            (Some(template), _) => shaped(template, event, &uri, &mut map),
            (None, Some(mode)) => cloud_event(mode, event, &mut map),
            (None, None) => event.body.clone(),
        };
        if let Some(signer) = &self.signer {
            let message = sign::Message {
                method,
                uri: &uri,
                body: &body,
                timestamp: attempt.now.as_second(),
            };
            signer.sign(message, &mut map);
        }
        if let PerAttempt::AwsSigV4(credentials) = &self.auth {
            credentials.sign(method, &uri, &body, attempt.now, &mut map);
        }
        let mut request = Request::new(match object {
            None => Outgoing::Whole(Full::new(body)),
            Some(object) => Outgoing::streamed(object),
        });
        *request.method_mut() = method.clone();
        *request.uri_mut() = uri;
        *request.headers_mut() = map;
        Ok(request)
    }
}

/// The service's body, and no header that describes the sender's.
fn shaped(
    (template, key): &(Template, Secret),
    event: &Event,
    uri: &Uri,
    headers: &mut HeaderMap,
) -> Bytes {
    let said = payload::Said {
        event: event.id,
        source: event.source_id,
        namespace: &event.namespace,
        received_at: event.received_at,
        headers,
        body: &event.body,
    };
    let key = std::str::from_utf8(key.expose()).unwrap_or_default();
    let body = template.shape(said, uri.path(), key);
    for name in ["content-digest", "digest"] {
        headers.remove(name);
    }
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LANGUAGE);
    let json = HeaderValue::from_static("application/json");
    headers.insert(header::CONTENT_TYPE, json);
    body.into()
}

/// The event as a CloudEvent, and no header that describes another body.
fn cloud_event(mode: cloudevents::Mode, event: &Event, headers: &mut HeaderMap) -> Bytes {
    let known = cloudevents::Known {
        id: &ids::format(Prefix::Event, event.id),
        // Of what the event was sent to, whatever kind that is.
        source: &format!("urn:uuid:{}", event.source_id),
        received_at: event.received_at,
    };
    let encoded = headers.contains_key(header::CONTENT_ENCODING);
    let content_type = match encoded {
        // Bytes that only the receiver can read.
        true => Some(HeaderValue::from_static("application/octet-stream")),
        false => headers.get(header::CONTENT_TYPE).cloned(),
    };
    let written = cloudevents::write(known, content_type.as_ref(), &event.body, mode);
    cloudevents::remove_attributes(headers);
    let same = written.body.as_ptr() == event.body.as_ptr();
    if !same {
        for name in ["content-digest", "digest"] {
            headers.remove(name);
        }
        headers.remove(header::CONTENT_ENCODING);
        headers.remove(header::CONTENT_TYPE);
    }
    if let Some(content_type) = written.content_type.filter(|_| !encoded || !same) {
        headers.insert(header::CONTENT_TYPE, content_type);
    }
    headers.extend(written.attributes);
    written.body
}

fn uri(text: &str) -> Result<Uri, Unusable> {
    let uri: Uri = text.parse().map_err(|_| Unusable::Url)?;
    if uri.host().is_some_and(|host| !host.is_empty()) {
        Ok(uri)
    } else {
        Err(Unusable::Url)
    }
}

fn ascii(text: String) -> HeaderValue {
    HeaderValue::from_maybe_shared(Bytes::from(text)).expect("ids and times are ASCII")
}

fn secret<'s>(secrets: &'s [Secret], index: &SecretIndex) -> Result<&'s [u8], Unusable> {
    secrets
        .get(usize::from(index.0))
        .map(Secret::expose)
        .ok_or(Unusable::SecretMissing)
}

fn text<'s>(secrets: &'s [Secret], index: &SecretIndex) -> Result<&'s str, Unusable> {
    std::str::from_utf8(secret(secrets, index)?).map_err(|_| Unusable::Secret)
}

/// `Nothing` for what is a header that never changes.
fn per_attempt(
    auth: &Auth,
    secrets: &[Secret],
    identity: Option<&Identity>,
) -> Result<PerAttempt, Unusable> {
    Ok(match auth {
        Auth::Oauth2 {
            token_url,
            scopes,
            audience,
            client_authentication,
            client_id,
            client_secret,
        } => {
            let credentials = oauth2::Credentials {
                client_id: secret(secrets, client_id)?,
                client_secret: secret(secrets, client_secret)?,
                authentication: *client_authentication,
                scopes,
                audience: audience.as_deref(),
            };
            let tokens = Tokens::new(uri(token_url)?, &credentials, identity.cloned());
            PerAttempt::Token(Box::new(tokens))
        }
        Auth::AwsSigV4 {
            region,
            service,
            access_key_id,
            secret_access_key,
            session_token,
        } => {
            let session_token = session_token
                .map(|index| {
                    let mut token = HeaderValue::from_bytes(secret(secrets, &index)?)
                        .map_err(|_| Unusable::Secret)?;
                    token.set_sensitive(true);
                    Ok::<_, Unusable>(token)
                })
                .transpose()?;
            PerAttempt::AwsSigV4(Box::new(sigv4::Credentials {
                access_key_id: text(secrets, access_key_id)?.to_owned(),
                secret_access_key: Secret::new(secret(secrets, secret_access_key)?),
                session_token,
                region: region.clone(),
                service: service.clone(),
            }))
        }
        Auth::Basic { .. } | Auth::Bearer { .. } | Auth::ApiKey { .. } => PerAttempt::Nothing,
    })
}

fn authentication(auth: &Auth, secrets: &[Secret]) -> Result<(HeaderName, HeaderValue), Unusable> {
    let secret = |index: &SecretIndex| secret(secrets, index);
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
        // These differ between attempts.
        Auth::Oauth2 { .. } | Auth::AwsSigV4 { .. } => return Err(Unusable::Secret),
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
    match egress::connect_error(error) {
        Some(ConnectError::Blocked(blocked)) => {
            return Answer::without_response(Outcome::Blocked, blocked.to_string());
        }
        Some(failed @ ConnectError::TimedOut { .. }) => {
            return Answer::without_response(Outcome::TimedOut, failed.to_string());
        }
        Some(failed) => return Answer::without_response(Outcome::Unreachable, chain(failed)),
        None => {}
    }
    let mut source: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(current) = source {
        if let Some(lost) = current.downcast_ref::<Lost>() {
            return Answer::internal(lost.to_string());
        }
        source = current.source();
    }
    source = Some(error);
    while let Some(current) = source {
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
