//! Is this request from who it says it is, and does it want an answer by itself?
//!
//! A [`Verification`] is what the compiler made of the resource: a template is already expanded to its scheme. A
//! [`Verifier`] is the same with its keys prepared, so that judging a request costs one HMAC for each secret and allocates
//! nothing where the scheme permits it.
//!
//! - Any of the secrets verifies, so that a sender can rotate; so does any of several signatures.
//! - Comparisons take the same time wherever the first difference is.
//! - A header may hold any bytes: what can't be read refuses the request and never panics.
//! - A verifier without a usable secret refuses everything.
//!
//! Deciding is here, carrying out is the gateway's: a key set or a certificate that has to be fetched is a [`Wanted`], a
//! provider's handshake is a [`Verdict::Answer`], a subscription that is to be confirmed a [`Verdict::Confirm`].

mod adyen;
mod api_key;
mod basic;
mod content;
mod der;
pub mod document;
mod encoding;
pub mod handshake;
mod header;
mod hmac;
mod jwt;
mod paypal;
mod public_key;
mod sns;
mod standard_webhooks;
mod tally;
pub mod templates;
#[cfg(test)]
mod tests;

pub use api_key::ApiKeyScheme;
pub use basic::BasicScheme;
pub use content::{Piece, Place, SignedTimestamp, TimeUnit, parse_content};
pub use document::{Document, DocumentKind, Wanted};
pub use encoding::{Encoding, SecretEncoding};
pub use handshake::{Answer, Handshake};
pub use hmac::{Algorithm, HmacScheme};
pub use jwt::{Audience, JwtScheme};
pub use public_key::{PublicKeyAlgorithm, PublicKeyScheme};
pub use standard_webhooks::StandardWebhooksScheme;
pub use tally::{Begun, Tally};

use crate::{event::EventView, row::SecretIndex, secret::Secret};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What Standard Webhooks and Stripe recommend, and what `timestamp` has unless it says otherwise.
pub const DEFAULT_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// What a row keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    pub scheme: Scheme,
    /// Any of them verifies.
    pub secrets: Vec<SecretIndex>,
    /// What the provider asks before it sends events, or in between.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handshake: Option<Handshake>,
    /// What a challenge that nobody signs must carry.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_token: Option<SecretIndex>,
}

/// How a sender proves who it is. What a secret is differs: see [`Scheme::check_secret`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    Hmac(HmacScheme),
    /// <https://www.standardwebhooks.com>
    StandardWebhooks(StandardWebhooksScheme),
    /// Ed25519 or ECDSA P-256 in a header.
    PublicKey(PublicKeyScheme),
    Basic(BasicScheme),
    ApiKey(ApiKeyScheme),
    Jwt(JwtScheme),
    /// HMAC of some fields of each item in the body; the signature is among them.
    Adyen,
    /// Amazon SNS: RSA over some fields of the body, by a certificate that the body names. The secrets are ARNs of topics.
    Sns,
    /// RSA by a certificate that a header names. The secrets are ids of webhooks.
    Paypal,
}

impl Scheme {
    /// Whether a secret can be a key of this scheme; the error says what it must be, and nothing of what it is.
    pub fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        if secret.expose().trim_ascii().is_empty() {
            return Err("is empty; anybody could sign with it");
        }
        match self {
            Scheme::Hmac(scheme) => scheme.secret.check(secret),
            Scheme::StandardWebhooks(_) => standard_webhooks::check_secret(secret),
            Scheme::PublicKey(scheme) => public_key::check_secret(scheme.algorithm, secret),
            Scheme::Basic(_) => basic::check_secret(secret),
            Scheme::ApiKey(_) => Ok(()),
            Scheme::Jwt(scheme) => jwt::check_secret(scheme, secret),
            Scheme::Adyen => SecretEncoding::Hex.check(secret),
            Scheme::Sns => sns::check_secret(secret),
            Scheme::Paypal => paypal::check_secret(secret),
        }
    }

    /// Whether the scheme can do without secrets: the keys are in a document elsewhere.
    pub fn needs_secrets(&self) -> bool {
        !matches!(self, Scheme::Jwt(scheme) if scheme.jwks_url.is_some() && !scheme.emails)
    }

    /// The words of `WWW-Authenticate` in a refusal.
    pub fn authenticate(&self) -> Option<String> {
        match self {
            Scheme::Basic(scheme) => Some(scheme.authenticate()),
            Scheme::Jwt(scheme) => scheme.authenticate(),
            _ => None,
        }
    }
}

/// What a request that was not refused is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// An event of the sender.
    Genuine,
    /// A handshake: this is its answer, and nothing is recorded.
    Answer(Answer),
    /// A subscription that begins when this URL has been fetched; nothing is recorded.
    Confirm(String),
}

macro_rules! refused {
    ($($name:ident $word:literal $message:literal),* $(,)?) => {
        /// Why a request was refused; `as_str` is the metric's `reason`, `message` what the sender reads (it helps nobody forge).
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Refused {
            $($name),*
        }

        impl Refused {
            pub const ALL: &[Refused] = &[$(Refused::$name),*];

            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Refused::$name => $word),*
                }
            }

            pub const fn message(self) -> &'static str {
                match self {
                    $(Refused::$name => $message),*
                }
            }
        }
    };
}

refused! {
    SignatureMissing "signature_missing" "The request carries no signature where this source expects it",
    SignatureMalformed "signature_malformed" "The signature can't be read: its encoding or its form isn't what this source expects",
    SignatureMismatch "signature_mismatch" "The signature doesn't match the request and any secret of this source",
    TimestampMissing "timestamp_missing" "The signed timestamp is missing or isn't written as this source expects",
    TimestampOutsideTolerance "timestamp_outside_tolerance" "The signed timestamp is too far from now: check the sender's clock",
    CredentialsMissing "credentials_missing" "The request carries no credentials where this source expects them",
    CredentialsMismatch "credentials_mismatch" "The credentials are not those of this source",
    TokenMalformed "token_malformed" "The token can't be read, or it is signed in a way that this source doesn't take",
    TokenExpired "token_expired" "The token has expired, or has no time at which it does",
    TokenNotYetValid "token_not_yet_valid" "The token is not valid yet: check the sender's clock",
    TokenClaims "token_claims" "The token is for another audience, or from another issuer or sender",
    KeyUnknown "key_unknown" "The request is signed by a key that this source doesn't know",
    KeyLocation "key_location" "The request names a certificate that isn't where the provider keeps its own",
    SenderUnknown "sender_unknown" "The request is genuine, but from another topic or webhook than those of this source",
    ChallengeRefused "challenge_refused" "The challenge can't be read, or doesn't carry the verify token of this source",
}

/// A verification with its secrets, ready to judge. Prints no key.
#[derive(Debug, Clone)]
pub struct Verifier {
    keys: Keys,
    handshake: Option<Handshake>,
    verify_token: Option<encoding::Digest>,
    authenticate: Option<Arc<str>>,
}

#[derive(Debug, Clone)]
enum Keys {
    Hmac(hmac::Keys),
    StandardWebhooks(standard_webhooks::Keys),
    PublicKey(public_key::Keys),
    Basic(basic::Keys),
    ApiKey(api_key::Keys),
    Jwt(jwt::Keys),
    Adyen(adyen::Keys),
    Sns(sns::Topics),
    Paypal(paypal::Webhooks),
}

impl Verifier {
    /// `secrets` is what the indices of the verification point into. One that points nowhere or can't be a key never
    /// verifies; the compiler has said so already.
    pub fn new(verification: &Verification, secrets: &[Secret]) -> Verifier {
        let get = |index: &SecretIndex| secrets.get(usize::from(index.0));
        let own: Vec<&Secret> = verification
            .secrets
            .iter()
            .filter_map(get)
            // An empty secret is one that everybody has.
            .filter(|secret| !secret.expose().trim_ascii().is_empty())
            .collect();
        let keys = match &verification.scheme {
            Scheme::Hmac(scheme) => Keys::Hmac(hmac::Keys::new(scheme, &own)),
            Scheme::StandardWebhooks(scheme) => {
                Keys::StandardWebhooks(standard_webhooks::Keys::new(scheme, &own))
            }
            Scheme::PublicKey(scheme) => Keys::PublicKey(public_key::Keys::new(scheme, &own)),
            Scheme::Basic(_) => Keys::Basic(basic::Keys::new(&own)),
            Scheme::ApiKey(scheme) => Keys::ApiKey(api_key::Keys::new(scheme, &own)),
            Scheme::Jwt(scheme) => Keys::Jwt(jwt::Keys::new(scheme, &own)),
            Scheme::Adyen => Keys::Adyen(adyen::Keys::new(&own)),
            Scheme::Sns => Keys::Sns(sns::Topics::new(&own)),
            Scheme::Paypal => Keys::Paypal(paypal::Webhooks::new(&own)),
        };
        Verifier {
            keys,
            handshake: verification.handshake,
            verify_token: verification
                .verify_token
                .as_ref()
                .and_then(get)
                .map(|secret| secret.expose().trim_ascii())
                .filter(|token| !token.is_empty())
                .map(encoding::Digest::of),
            authenticate: verification.scheme.authenticate().map(Arc::from),
        }
    }

    /// The document that this request can't be judged without; `None`: none is needed. A request that no document would
    /// help is refused here, before anybody fetches anything for it.
    pub fn wants(&self, event: &EventView<'_>) -> Result<Option<Wanted>, Refused> {
        match &self.keys {
            Keys::Jwt(keys) => keys.wants(event),
            Keys::Sns(topics) => topics.wants(event).map(Some),
            Keys::Paypal(_) => paypal::wants(event).map(Some),
            _ => Ok(None),
        }
    }

    /// `document` is what [`Verifier::wants`] asked for.
    pub fn verify(
        &self,
        event: &EventView<'_>,
        now: Timestamp,
        document: Option<&Document>,
    ) -> Result<Verdict, Refused> {
        if let Some(handshake) = self.handshake
            && let Some(answered) = handshake.unsigned(event, self.verify_token.as_ref())
        {
            return answered.map(Verdict::Answer);
        }
        let verified = match &self.keys {
            Keys::Hmac(keys) => keys.verify(event, now),
            Keys::StandardWebhooks(keys) => keys.verify(event, now).map(|()| 0),
            Keys::PublicKey(keys) => keys.verify(event, now).map(|()| 0),
            Keys::Basic(keys) => keys.verify(event).map(|()| 0),
            Keys::ApiKey(keys) => keys.verify(event).map(|()| 0),
            Keys::Jwt(keys) => keys.verify(event, now, document).map(|()| 0),
            Keys::Adyen(keys) => keys.verify(event).map(|()| 0),
            Keys::Sns(topics) => return topics.verify(event, document),
            Keys::Paypal(webhooks) => webhooks.verify(event, document).map(|()| 0),
        }?;
        let Some(handshake) = self.handshake else {
            return Ok(Verdict::Genuine);
        };
        let sign = |text: &[u8]| match &self.keys {
            Keys::Hmac(keys) => keys.sign(verified, text),
            _ => None,
        };
        match handshake.signed(event, sign) {
            None => Ok(Verdict::Genuine),
            Some(answered) => answered.map(Verdict::Answer),
        }
    }

    /// Judges a request whose body comes in pieces; `event` has none of it. `None`: this scheme has to see it whole.
    ///
    /// Handshakes are no such requests.
    pub fn begin(&self, event: &EventView<'_>, now: Timestamp) -> Option<Result<Begun, Refused>> {
        match &self.keys {
            Keys::Hmac(keys) => keys.begin(event, now),
            Keys::StandardWebhooks(keys) => keys.begin(event, now),
            Keys::Basic(keys) => Some(keys.verify(event).map(|()| Begun::Genuine)),
            Keys::ApiKey(keys) => keys
                .knows_from_head()
                .then(|| keys.verify(event).map(|()| Begun::Genuine)),
            _ => None,
        }
    }

    /// `WWW-Authenticate` of a refusal.
    pub fn authenticate(&self) -> Option<&Arc<str>> {
        self.authenticate.as_ref()
    }
}
