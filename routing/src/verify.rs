//! Is this request from who it says it is?
//!
//! A [`Verification`] is what the compiler made of the resource: a template is already expanded to its scheme. A
//! [`Verifier`] is the same with its keys prepared, so that judging a request costs one HMAC for each secret and
//! allocates nothing.
//!
//! - Any of the secrets verifies, so that a sender can rotate; so does any of several signatures.
//! - Comparisons take the same time wherever the first difference is.
//! - A header may hold any bytes: what can't be read refuses the request and never panics.
//! - A verifier without a usable secret refuses everything.

mod header;
#[cfg(test)]
mod tests;

use crate::{event::EventView, row::SecretIndex, secret::Secret};
use base64::{
    Engine,
    alphabet::{STANDARD, URL_SAFE},
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use header::{Candidates, text, unix_seconds};
use hmac::{Hmac, KeyInit, Mac};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use std::fmt;
use subtle::{Choice, ConstantTimeEq};
use zeroize::Zeroizing;

/// What Standard Webhooks and Stripe recommend, and what `timestamp` has unless it says otherwise.
pub const DEFAULT_TOLERANCE_MS: u64 = 5 * 60 * 1000;

/// Signatures of one request that are looked at; a sender that rotates sends two or three.
const MAX_SIGNATURES: usize = 32;

/// What a row keeps.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verification {
    pub scheme: Scheme,
    /// Any of them verifies.
    pub secrets: Vec<SecretIndex>,
}

/// How a sender signs. More schemes join here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Scheme {
    Hmac(HmacScheme),
    /// <https://www.standardwebhooks.com>: `webhook-id`, `webhook-timestamp`, `webhook-signature: v1,<base64> …`, secrets in base64.
    StandardWebhooks {
        tolerance_ms: u64,
    },
    /// `Stripe-Signature: t=<unix seconds>,v1=<hex>,…` over `<t>.<body>`.
    Stripe {
        tolerance_ms: u64,
    },
}

/// HMAC-SHA256 of a text made of the request, in a header.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacScheme {
    /// Lower case.
    pub header: String,
    pub encoding: Encoding,
    /// In front of each signature; empty: none, but `sha256=` is taken off where a sender writes it.
    pub prefix: String,
    pub content: Vec<Piece>,
    pub timestamp: Option<SignedTimestamp>,
    /// The header that [`Piece::Id`] stands for; lower case.
    pub id_header: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    Hex,
    Base64,
}

/// A piece of what is signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Piece {
    Literal(String),
    /// The timestamp header as sent.
    Timestamp,
    /// The header with the event's id as sent.
    Id,
    /// The body as sent.
    Body,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignedTimestamp {
    /// Lower case; holds Unix seconds.
    pub header: String,
    /// Most distance from now, into the past and into the future.
    pub tolerance_ms: u64,
}

impl Scheme {
    /// The scheme of a provider by the name of its template; `None`: no such template, or one of a later version.
    pub fn template(name: &str) -> Option<Scheme> {
        match name {
            "github" => Some(Scheme::Hmac(HmacScheme {
                header: "x-hub-signature-256".to_owned(),
                encoding: Encoding::Hex,
                prefix: "sha256=".to_owned(),
                content: vec![Piece::Body],
                timestamp: None,
                id_header: None,
            })),
            "stripe" => Some(Scheme::Stripe {
                tolerance_ms: DEFAULT_TOLERANCE_MS,
            }),
            _ => None,
        }
    }

    /// Whether a secret can be a key of this scheme; the error says what it must be, and nothing of what it is.
    pub fn check_secret(&self, secret: &Secret) -> Result<(), &'static str> {
        match self {
            _ if secret.expose().is_empty() => Err("is empty; anybody could sign with it"),
            Scheme::StandardWebhooks { .. } if standard_webhooks_key(secret).is_none() => Err(
                "isn't a Standard Webhooks secret; it must be `whsec_` followed by base64, as the sender shows it",
            ),
            _ => Ok(()),
        }
    }
}

/// Reads a `signedContent` template: text with `{body}`, `{timestamp}` and `{id}`. The error says what to write.
pub fn parse_content(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    while let Some((literal, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or_else(|| {
            format!("`{template}` has a brace that isn't closed; write `{{timestamp}}.{{body}}`")
        })?;
        if !literal.is_empty() {
            pieces.push(Piece::Literal(literal.to_owned()));
        }
        pieces.push(match name {
            "body" => Piece::Body,
            "timestamp" => Piece::Timestamp,
            "id" => Piece::Id,
            _ => {
                return Err(format!(
                    "`{{{name}}}` is not known here; there are `{{body}}`, `{{timestamp}}` and `{{id}}`"
                ));
            }
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Literal(rest.to_owned()));
    }
    match pieces.contains(&Piece::Body) {
        true => Ok(pieces),
        false => Err(
            "the body must be part of what is signed; write `{body}` or `{timestamp}.{body}`"
                .to_owned(),
        ),
    }
}

/// Why a request was refused; `as_str` is the metric's `reason`, `message` what the sender reads (it helps nobody forge).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    SignatureMissing,
    SignatureMalformed,
    SignatureMismatch,
    TimestampMissing,
    TimestampOutsideTolerance,
}

impl Refused {
    pub const ALL: [Refused; 5] = [
        Refused::SignatureMissing,
        Refused::SignatureMalformed,
        Refused::SignatureMismatch,
        Refused::TimestampMissing,
        Refused::TimestampOutsideTolerance,
    ];

    pub const fn as_str(self) -> &'static str {
        match self {
            Refused::SignatureMissing => "signature_missing",
            Refused::SignatureMalformed => "signature_malformed",
            Refused::SignatureMismatch => "signature_mismatch",
            Refused::TimestampMissing => "timestamp_missing",
            Refused::TimestampOutsideTolerance => "timestamp_outside_tolerance",
        }
    }

    pub const fn message(self) -> &'static str {
        match self {
            Refused::SignatureMissing => {
                "The request carries no signature in the header that this source expects"
            }
            Refused::SignatureMalformed => {
                "The signature can't be read: its encoding or its form isn't what this source expects"
            }
            Refused::SignatureMismatch => {
                "The signature doesn't match the body and any secret of this source"
            }
            Refused::TimestampMissing => "The signed timestamp is missing or isn't Unix seconds",
            Refused::TimestampOutsideTolerance => {
                "The signed timestamp is too far from now: check the sender's clock"
            }
        }
    }
}

/// A key with HMAC's first block done. Prints nothing of itself.
#[derive(Clone)]
struct Key(Hmac<Sha256>);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

impl Key {
    fn new(bytes: &[u8]) -> Option<Key> {
        // An empty key is one that everybody has.
        let key = (!bytes.is_empty()).then(|| Hmac::new_from_slice(bytes).ok());
        key.flatten().map(Key)
    }

    fn tag<'p>(&self, parts: impl IntoIterator<Item = &'p [u8]>) -> Tag {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }
}

/// An HMAC-SHA256.
type Tag = [u8; 32];

/// A verification with its secrets, ready to judge.
#[derive(Debug, Clone)]
pub struct Verifier {
    scheme: Scheme,
    keys: Vec<Key>,
}

impl Verifier {
    /// `secrets` is what the indices of the verification point into. One that points nowhere or can't be a key never
    /// verifies; the compiler has said so already.
    pub fn new(verification: &Verification, secrets: &[Secret]) -> Verifier {
        let key = |index: &SecretIndex| {
            let secret = secrets.get(usize::from(index.0))?;
            match verification.scheme {
                Scheme::StandardWebhooks { .. } => Key::new(&standard_webhooks_key(secret)?),
                Scheme::Hmac(_) | Scheme::Stripe { .. } => Key::new(secret.expose()),
            }
        };
        Verifier {
            scheme: verification.scheme.clone(),
            keys: verification.secrets.iter().filter_map(key).collect(),
        }
    }

    pub fn verify(&self, event: &EventView<'_>, now: Timestamp) -> Result<(), Refused> {
        match &self.scheme {
            Scheme::Hmac(scheme) => self.verify_hmac(scheme, event, now),
            Scheme::StandardWebhooks { tolerance_ms } => {
                self.verify_standard_webhooks(*tolerance_ms, event, now)
            }
            Scheme::Stripe { tolerance_ms } => self.verify_stripe(*tolerance_ms, event, now),
        }
    }

    fn verify_hmac(
        &self,
        scheme: &HmacScheme,
        event: &EventView<'_>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let timestamp = match &scheme.timestamp {
            None => &[][..],
            Some(signed) => {
                let value = event
                    .headers
                    .get(&signed.header)
                    .ok_or(Refused::TimestampMissing)?;
                check_timestamp(text(value), signed.tolerance_ms, now)?;
                value.as_bytes()
            }
        };
        let id = match &scheme.id_header {
            None => &[][..],
            // The id is a part of what is signed: without it there is no signature to check.
            Some(name) => event
                .headers
                .get(name)
                .ok_or(Refused::SignatureMissing)?
                .as_bytes(),
        };
        let mut candidates = Candidates::default();
        for value in event.headers.get_all(&scheme.header) {
            let value = text(value);
            candidates.add(scheme.decode(value));
            // Neither encoding has a comma or a space, so either can only stand between two signatures.
            if value.contains([',', ' ']) {
                value
                    .split([',', ' '])
                    .for_each(|one| candidates.add(scheme.decode(one)));
            }
        }
        if !event.headers.contains_key(&scheme.header) {
            return Err(Refused::SignatureMissing);
        }
        let parts = scheme.content.iter().map(|piece| match piece {
            Piece::Literal(text) => text.as_bytes(),
            Piece::Timestamp => timestamp,
            Piece::Id => id,
            Piece::Body => event.body,
        });
        self.judge(&candidates, parts)
    }

    fn verify_standard_webhooks(
        &self,
        tolerance_ms: u64,
        event: &EventView<'_>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let signatures = event
            .headers
            .get("webhook-signature")
            .ok_or(Refused::SignatureMissing)?;
        // The id is a part of what is signed: without it there is no signature to check.
        let id = event
            .headers
            .get("webhook-id")
            .ok_or(Refused::SignatureMissing)?;
        let timestamp = event
            .headers
            .get("webhook-timestamp")
            .ok_or(Refused::TimestampMissing)?;
        check_timestamp(text(timestamp), tolerance_ms, now)?;
        let mut candidates = Candidates::default();
        for signature in text(signatures).split(' ') {
            if let Some(encoded) = signature.strip_prefix("v1,") {
                candidates.add(decode_base64(encoded));
            }
        }
        let parts = [id.as_bytes(), b".", timestamp.as_bytes(), b".", event.body];
        self.judge(&candidates, parts)
    }

    fn verify_stripe(
        &self,
        tolerance_ms: u64,
        event: &EventView<'_>,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let header = event
            .headers
            .get("stripe-signature")
            .ok_or(Refused::SignatureMissing)?;
        let pairs = || {
            let items = text(header).split(',');
            items.filter_map(|item| item.trim().split_once('='))
        };
        let timestamp = pairs()
            .find(|(name, _)| *name == "t")
            .map(|(_, value)| value);
        let timestamp = timestamp.ok_or(Refused::TimestampMissing)?;
        check_timestamp(timestamp, tolerance_ms, now)?;
        let mut candidates = Candidates::default();
        for (_, encoded) in pairs().filter(|(name, _)| *name == "v1") {
            candidates.add(decode_hex(encoded));
        }
        self.judge(&candidates, [timestamp.as_bytes(), b".", event.body])
    }

    /// Every key against every candidate, without stopping at the first that fits.
    fn judge<'p>(
        &self,
        candidates: &Candidates,
        parts: impl IntoIterator<Item = &'p [u8]> + Clone,
    ) -> Result<(), Refused> {
        if candidates.is_empty() {
            return Err(Refused::SignatureMalformed);
        }
        let mut verified = Choice::from(0);
        for key in &self.keys {
            let tag = key.tag(parts.clone());
            for candidate in candidates.iter() {
                verified |= tag.ct_eq(candidate);
            }
        }
        match bool::from(verified) {
            true => Ok(()),
            false => Err(Refused::SignatureMismatch),
        }
    }
}

impl HmacScheme {
    fn decode(&self, signature: &str) -> Option<Tag> {
        let signature = signature.trim();
        let encoded = match self.prefix.as_str() {
            "" => signature.strip_prefix("sha256=").unwrap_or(signature),
            prefix => signature.strip_prefix(prefix)?,
        };
        match self.encoding {
            Encoding::Hex => decode_hex(encoded),
            Encoding::Base64 => decode_base64(encoded),
        }
    }
}

fn check_timestamp(text: &str, tolerance_ms: u64, now: Timestamp) -> Result<(), Refused> {
    let seconds = unix_seconds(text).ok_or(Refused::TimestampMissing)?;
    let distance = now.as_second().abs_diff(seconds);
    match distance.saturating_mul(1_000) <= tolerance_ms {
        true => Ok(()),
        false => Err(Refused::TimestampOutsideTolerance),
    }
}

fn decode_hex(encoded: &str) -> Option<Tag> {
    let mut tag = Tag::default();
    hex::decode_to_slice(encoded, &mut tag).ok().map(|()| tag)
}

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);

/// Either alphabet, with padding or without.
fn decode_base64(encoded: &str) -> Option<Tag> {
    // 44 characters are 32 bytes; whatever is longer can't be a tag, and isn't decoded at all.
    if encoded.len() > 44 {
        return None;
    }
    let mut bytes = [0; 36];
    let decoded = BASE64
        .decode_slice(encoded, &mut bytes)
        .or_else(|_| BASE64_URL.decode_slice(encoded, &mut bytes));
    let bytes = bytes.get(..decoded.ok()?)?;
    bytes.try_into().ok()
}

/// The key of `whsec_<base64>`; the prefix may be missing. Space around it is a slip of whoever made the Secret.
fn standard_webhooks_key(secret: &Secret) -> Option<Zeroizing<Vec<u8>>> {
    let encoded = secret.expose().trim_ascii();
    let encoded = encoded.strip_prefix(b"whsec_").unwrap_or(encoded);
    let key = BASE64
        .decode(encoded)
        .or_else(|_| BASE64_URL.decode(encoded));
    let key = Zeroizing::new(key.ok()?);
    (!key.is_empty()).then_some(key)
}
