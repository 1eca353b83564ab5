//! What providers ask before they send events, or in between, and what they are answered.
//!
//! A challenge comes from whoever calls the URL: it is bounded and plain, its answer is text or JSON that no browser takes
//! for a page, and where the provider signs it the signature has been checked before.

use super::{Refused, encoding::Digest};
use crate::event::{EventView, form};
use http::Method;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::borrow::Cow;

/// Of a challenge; those of the providers have some dozen characters.
const LONGEST_CHALLENGE: usize = 512;

/// A provider's way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Handshake {
    /// A signed `{"type": "url_verification", "challenge": …}`.
    Slack,
    /// A signed `{"event": "endpoint.url_validation", "payload": {"plainToken": …}}`, answered with the token's HMAC.
    Zoom,
    /// An unsigned GET with `hub.mode=subscribe`, `hub.verify_token` and `hub.challenge`.
    Meta,
    /// An unsigned GET with `challenge`.
    Dropbox,
    /// A GET with the header `X-Okta-Verification-Challenge` and the secret.
    Okta,
    /// A signed message of the type `webhook_callback_verification`.
    Twitch,
    /// A signed `{"type": 1}`, or `{"type": 0}` for webhook events.
    Discord,
    /// An unsigned form `webhook_id=…` when a webhook is saved.
    #[serde(rename = "woocommerce")]
    WooCommerce,
}

/// What the sender of a challenge gets. Nothing of it is recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The metric's `kind`.
    pub kind: &'static str,
    pub status: u16,
    pub content_type: Option<&'static str>,
    pub body: String,
}

impl Handshake {
    pub const ALL: [Handshake; 8] = [
        Handshake::Slack,
        Handshake::Zoom,
        Handshake::Meta,
        Handshake::Dropbox,
        Handshake::Okta,
        Handshake::Twitch,
        Handshake::Discord,
        Handshake::WooCommerce,
    ];

    /// The metric's `kind`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Handshake::Slack => "slack",
            Handshake::Zoom => "zoom",
            Handshake::Meta => "meta",
            Handshake::Dropbox => "dropbox",
            Handshake::Okta => "okta",
            Handshake::Twitch => "twitch",
            Handshake::Discord => "discord",
            Handshake::WooCommerce => "woocommerce",
        }
    }

    /// For people, as in `docs/verification.md`.
    pub const fn describe(self) -> &'static str {
        match self {
            Handshake::Slack => "`url_verification`",
            Handshake::Zoom => "`endpoint.url_validation`",
            Handshake::Meta => "GET with `hub.challenge`",
            Handshake::Dropbox => "GET with `challenge`",
            Handshake::Okta => "GET with `X-Okta-Verification-Challenge`",
            Handshake::Twitch => "`webhook_callback_verification`",
            Handshake::Discord => "PING",
            Handshake::WooCommerce => "form `webhook_id=…`",
        }
    }

    /// Whether the provider asks by GET, so that a source must not refuse it.
    pub const fn by_get(self) -> bool {
        matches!(self, Handshake::Meta | Handshake::Dropbox | Handshake::Okta)
    }

    /// Whether its challenge carries a token that the source's author chose.
    pub const fn by_token(self) -> bool {
        matches!(self, Handshake::Meta)
    }

    /// Of a challenge that its provider doesn't sign. `None`: this is none.
    pub(super) fn unsigned(
        self,
        event: &EventView<'_>,
        token: Option<&Digest>,
    ) -> Option<Result<Answer, Refused>> {
        match self {
            Handshake::Meta => {
                let mode = query(event, "hub.mode")?;
                if event.method != Method::GET || mode != "subscribe" {
                    return None;
                }
                let presented = query(event, "hub.verify_token").unwrap_or_default();
                let is_ours =
                    token.is_some_and(|token| bool::from(token.equals(presented.as_bytes())));
                Some(match is_ours {
                    true => self.text(&query(event, "hub.challenge").unwrap_or_default()),
                    false => Err(Refused::ChallengeRefused),
                })
            }
            Handshake::Dropbox if event.method == Method::GET => {
                Some(self.text(&query(event, "challenge")?))
            }
            // Only before the first event, and only this: whoever else sends it gets an empty 200 and nothing happens.
            Handshake::WooCommerce if event.method == Method::POST => {
                let signed = event.headers.contains_key("x-wc-webhook-signature");
                let id = event.body.strip_prefix(b"webhook_id=")?;
                let is_ping =
                    !signed && (1..=20).contains(&id.len()) && id.iter().all(u8::is_ascii_digit);
                is_ping.then(|| Ok(self.answer(200, None, String::new())))
            }
            _ => None,
        }
    }

    /// Of a challenge whose signature has been checked. `sign` gives the HMAC of a text by the key that verified.
    pub(super) fn signed(
        self,
        event: &EventView<'_>,
        sign: impl FnOnce(&[u8]) -> Option<String>,
    ) -> Option<Result<Answer, Refused>> {
        let text = |pointer: &str| event.json()?.pointer(pointer)?.as_str();
        match self {
            // A message to a channel begins with other fields; one that is large is no challenge, and isn't parsed for it.
            Handshake::Slack if small(event) && text("/type") == Some("url_verification") => {
                Some(self.text(text("/challenge").unwrap_or_default()))
            }
            Handshake::Zoom
                if small(event) && text("/event") == Some("endpoint.url_validation") =>
            {
                let answer = || {
                    let token = text("/payload/plainToken").filter(|token| plain(token))?;
                    let encrypted = sign(token.as_bytes())?;
                    Some(self.json(json!({ "plainToken": token, "encryptedToken": encrypted })))
                };
                Some(answer().ok_or(Refused::ChallengeRefused))
            }
            Handshake::Okta if event.method == Method::GET => {
                let value = event.headers.get("x-okta-verification-challenge")?;
                let challenge = super::header::text(value);
                Some(match plain(challenge) {
                    true => Ok(self.json(json!({ "verification": challenge }))),
                    false => Err(Refused::ChallengeRefused),
                })
            }
            Handshake::Twitch => {
                let kind = event.headers.get("twitch-eventsub-message-type")?;
                (kind == "webhook_callback_verification")
                    .then(|| self.text(text("/challenge").unwrap_or_default()))
            }
            Handshake::Discord if small(event) => {
                let body = event.json()?;
                match body.get("type").and_then(Value::as_u64)? {
                    // An interaction; a webhook event has the type 1 as well, and an `event` with it.
                    1 if body.get("event").is_none() => Some(Ok(self.json(json!({ "type": 1 })))),
                    0 => Some(Ok(self.answer(
                        204,
                        Some("application/json"),
                        String::new(),
                    ))),
                    _ => None,
                }
            }
            _ => None,
        }
    }

    fn text(self, challenge: &str) -> Result<Answer, Refused> {
        match plain(challenge) {
            true => Ok(self.answer(200, Some("text/plain; charset=utf-8"), challenge.to_owned())),
            false => Err(Refused::ChallengeRefused),
        }
    }

    fn json(self, body: Value) -> Answer {
        self.answer(200, Some("application/json"), body.to_string())
    }

    fn answer(self, status: u16, content_type: Option<&'static str>, body: String) -> Answer {
        Answer {
            kind: self.as_str(),
            status,
            content_type,
            body,
        }
    }
}

/// What a challenge may be: anything else is sent by no provider, and could be a page in somebody's browser.
fn plain(challenge: &str) -> bool {
    let harmless = |b: u8| b.is_ascii_graphic() && !matches!(b, b'<' | b'>' | b'&' | b'"' | b'\'');
    (1..=LONGEST_CHALLENGE).contains(&challenge.len()) && challenge.bytes().all(harmless)
}

/// Whether the body is worth parsing for a challenge.
fn small(event: &EventView<'_>) -> bool {
    const LARGEST: usize = 16 << 10;
    event.body.len() <= LARGEST
}

fn query<'e>(event: &'e EventView<'_>, name: &'e str) -> Option<Cow<'e, str>> {
    form::query_values(event.query, name).next()
}
