//! Tokens by OAuth 2 client credentials (RFC 6749, section 4.4).
//!
//! A token is kept with the destination and shared by its attempts. It is fetched when there is none, and again shortly before
//! it ends; of the attempts that want one at the same time one fetches and the others wait for it, or go on with the old
//! one while it lasts. A receiver that answers 401 ends a token early.
//!
//! Requests for tokens go out under the same egress policy as deliveries. No token, secret or answer is in a log or an error.

use crate::egress::{self, Client, ConnectError, Identity};
use ::http::{HeaderValue, Method, Request, Uri, header};
use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use routing::{retry::Outcome, row::ClientAuthentication};
use serde::Deserialize;
use service::clock;
use std::{
    error::Error,
    fmt::{self, Write},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

/// What a token lives if its server doesn't say.
const UNSAID: Duration = Duration::from_secs(300);

/// A server that says more is not believed.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// How long before its end a token is renewed, but never more than a tenth of its life.
const AHEAD: Duration = Duration::from_secs(60);

/// Attempts that come within this time after a failure share it, so that a server that is down isn't asked for each delivery.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// The largest answer. Tokens are a few KiB at most.
const MOST_ANSWER: usize = 64 * 1024;

/// Where the tokens of a destination come from, and the one there is.
pub(super) struct Tokens {
    uri: Uri,
    form: Bytes,
    /// `Authorization`, unless the secret is in the form.
    basic: Option<HeaderValue>,
    identity: Option<Identity>,
    kept: Mutex<Kept>,
    /// Held by the one that fetches.
    fetching: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Kept {
    token: Option<Arc<Token>>,
    failure: Option<(Instant, Failure)>,
}

pub(super) struct Token {
    /// `Bearer …`
    pub(super) authorization: HeaderValue,
    renew_at: Instant,
    ends_at: Instant,
}

/// Why there is no token: what the attempt becomes, in words without secrets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) outcome: Outcome,
    pub(super) error: String,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens")
            .field("uri", &self.uri)
            .finish_non_exhaustive()
    }
}

/// What a request for tokens says.
pub(super) struct Credentials<'a> {
    pub(super) client_id: &'a [u8],
    pub(super) client_secret: &'a [u8],
    pub(super) authentication: ClientAuthentication,
    pub(super) scopes: &'a [String],
    pub(super) audience: Option<&'a str>,
}

impl Tokens {
    pub(super) fn new(
        uri: Uri,
        credentials: &Credentials<'_>,
        identity: Option<Identity>,
    ) -> Tokens {
        let mut form = "grant_type=client_credentials".to_owned();
        let mut field = |name: &str, value: &[u8]| {
            form.push('&');
            form.push_str(name);
            form.push('=');
            encode(value, &mut form);
        };
        if !credentials.scopes.is_empty() {
            field("scope", credentials.scopes.join(" ").as_bytes());
        }
        if let Some(audience) = credentials.audience {
            field("audience", audience.as_bytes());
        }
        let basic = match credentials.authentication {
            ClientAuthentication::Post => {
                field("client_id", credentials.client_id);
                field("client_secret", credentials.client_secret);
                None
            }
            ClientAuthentication::Basic => {
                let mut pair = String::new();
                encode(credentials.client_id, &mut pair);
                pair.push(':');
                encode(credentials.client_secret, &mut pair);
                let mut value =
                    HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)))
                        .expect("base64 is ASCII");
                value.set_sensitive(true);
                Some(value)
            }
        };
        Tokens {
            uri,
            form: form.into(),
            basic,
            identity: identity.and_then(|identity| identity.for_tokens()),
            kept: Mutex::default(),
            fetching: tokio::sync::Mutex::new(()),
        }
    }

    /// A token that is good for now.
    pub(super) async fn get(
        &self,
        client: &Client,
        namespace: &str,
    ) -> Result<Arc<Token>, Failure> {
        let now = clock::instant();
        let old = match self.look(now, now) {
            Look::Good(token) => return Ok(token),
            Look::Failed(failure) => return Err(failure),
            Look::Renew(token) => Some(token),
            Look::None => None,
        };
        let guard = match &old {
            // Somebody renews it; while it lasts there is no need to wait.
            Some(old) => match self.fetching.try_lock() {
                Ok(guard) => guard,
                Err(_) => return Ok(old.clone()),
            },
            None => self.fetching.lock().await,
        };
        // Who waited finds what the one before has fetched, or why there is none.
        match self.look(clock::instant(), now) {
            Look::Good(token) => return Ok(token),
            Look::Failed(failure) if old.is_none() => return Err(failure),
            _ => {}
        }
        let fetched = self.fetch(client, namespace).await;
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let result = match fetched {
            Ok(token) => {
                let token = Arc::new(token);
                *kept = Kept {
                    token: Some(token.clone()),
                    failure: None,
                };
                Ok(token)
            }
            Err(failure) => {
                kept.failure = Some((clock::instant(), failure.clone()));
                old.ok_or(failure)
            }
        };
        drop(kept);
        drop(guard);
        result
    }

    /// Forgets a token that the receiver refused, unless another one has taken its place.
    pub(super) fn spent(&self, token: &Arc<Token>) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept
            .token
            .as_ref()
            .is_some_and(|kept| Arc::ptr_eq(kept, token))
        {
            kept.token = None;
            kept.failure = None;
        }
    }

    /// `since`: a failure after it is the caller's as well.
    fn look(&self, now: Instant, since: Instant) -> Look {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = kept
            .failure
            .as_ref()
            .filter(|(at, _)| *at >= since || now.duration_since(*at) < FAILURE_HOLDS);
        match (&kept.token, failed) {
            (Some(token), _) if now < token.renew_at => Look::Good(token.clone()),
            // Renewing has just failed, and the old one still holds.
            (Some(token), Some(_)) if now < token.ends_at => Look::Good(token.clone()),
            (Some(token), None) if now < token.ends_at => Look::Renew(token.clone()),
            (_, Some((_, failure))) => Look::Failed(failure.clone()),
            _ => Look::None,
        }
    }

    async fn fetch(&self, client: &Client, namespace: &str) -> Result<Token, Failure> {
        let host = self.uri.host().unwrap_or_default();
        let metrics = client.metrics();
        let fail = |outcome: Outcome, why: String| {
            let word = match outcome {
                Outcome::Refused { .. } => "refused",
                _ => "failed",
            };
            metrics.tokens(word).inc();
            Failure {
                // A destination that can't be asked is one that can't be reached; a status here is not the destination's.
                outcome: match outcome {
                    Outcome::Refused { .. } => Outcome::Unreachable,
                    other => other,
                },
                error: format!("no OAuth 2 token from {host}: {why}"),
            }
        };
        let asked = clock::instant();
        let response = client
            .route(namespace, self.identity.as_ref())
            .request(self.request())
            .await
            .map_err(|error| match egress::connect_error(&error) {
                Some(ConnectError::Blocked(blocked)) => fail(Outcome::Blocked, blocked.to_string()),
                Some(failed) => fail(Outcome::Unreachable, super::chain(failed)),
                None => fail(Outcome::Unreachable, super::chain(&error)),
            })?;
        let status = response.status().as_u16();
        let refused = |why: String| {
            fail(
                Outcome::Refused {
                    status,
                    retry_after: None,
                },
                why,
            )
        };
        let body = Limited::new(response.into_body(), MOST_ANSWER)
            .collect()
            .await
            .map_err(|error| {
                let error: &(dyn Error + 'static) = &*error;
                fail(
                    Outcome::Unreachable,
                    format!("its answer broke off: {error}"),
                )
            })?
            .to_bytes();
        if status != 200 {
            return Err(refused(format!("it answered {status}{}", reason(&body))));
        }
        let answer: Answer = serde_json::from_slice(&body)
            .map_err(|_| refused("its answer is no token in JSON".to_owned()))?;
        if !answer
            .token_type
            .as_ref()
            .is_none_or(|kind| kind.eq_ignore_ascii_case("bearer"))
        {
            return Err(refused("its token is not of the type `bearer`".to_owned()));
        }
        let mut authorization = HeaderValue::try_from(format!("Bearer {}", answer.access_token))
            .map_err(|_| refused("its token can't be sent in a header".to_owned()))?;
        authorization.set_sensitive(true);
        metrics.tokens("fetched").inc();
        let life = answer.expires_in.map_or(UNSAID, |seconds| match seconds {
            Seconds::Number(seconds) => Duration::try_from_secs_f64(seconds).unwrap_or(UNSAID),
            Seconds::Text(text) => text.parse().map_or(UNSAID, Duration::from_secs),
        });
        let life = life.min(LONGEST);
        Ok(Token {
            authorization,
            renew_at: asked + (life - AHEAD.min(life / 10)),
            ends_at: asked + life,
        })
    }

    fn request(&self) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.form.clone()));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.uri.clone();
        let headers = request.headers_mut();
        let form = HeaderValue::from_static("application/x-www-form-urlencoded");
        headers.insert(header::CONTENT_TYPE, form);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static(super::USER_AGENT),
        );
        if let Some(basic) = &self.basic {
            headers.insert(header::AUTHORIZATION, basic.clone());
        }
        request
    }
}

enum Look {
    Good(Arc<Token>),
    /// Good, and soon over.
    Renew(Arc<Token>),
    Failed(Failure),
    None,
}

#[derive(Deserialize)]
struct Answer {
    access_token: String,
    token_type: Option<String>,
    expires_in: Option<Seconds>,
}

/// Some servers write it as text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Seconds {
    Number(f64),
    Text(String),
}

/// The error's code, as ` (invalid_client)`; nothing else of the answer is repeated, as it may hold what was sent.
fn reason(body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Refusal {
        error: String,
    }
    let code = serde_json::from_slice::<Refusal>(body)
        .ok()
        .map(|r| r.error);
    let plain = |code: &String| {
        code.len() <= 64 && code.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')
    };
    code.filter(plain)
        .map(|code| format!(" ({code})"))
        .unwrap_or_default()
}

/// As `application/x-www-form-urlencoded` has it.
fn encode(bytes: &[u8], out: &mut String) {
    for &byte in bytes {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'*' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests;
