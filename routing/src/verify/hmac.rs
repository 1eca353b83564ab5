//! HMAC of a text made of the request, with everything that providers vary.

use super::{
    Refused,
    content::{Base, Piece, Place, Signed, SignedTimestamp, is_form},
    encoding::{Encoding, SecretEncoding},
    header::{self, Candidates, LONGEST_TAG},
    tally::{Begun, Tally},
};
use crate::{event::EventView, secret::Secret};
use jiff::Timestamp;
use ring::{digest, hmac};
use serde::{Deserialize, Serialize};
use std::fmt;
use subtle::{Choice, ConstantTimeEq};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HmacScheme {
    #[serde(default)]
    pub algorithm: Algorithm,
    /// Wherever signatures may be; one that fits is enough.
    pub signatures: Vec<Place>,
    pub encoding: Encoding,
    /// In front of each signature; empty: none, but `sha256=` is taken off where a sender writes it.
    #[serde(default)]
    pub prefix: String,
    pub content: Vec<Piece>,
    #[serde(default)]
    pub timestamp: Option<SignedTimestamp>,
    /// What [`Piece::Id`] stands for.
    #[serde(default)]
    pub id: Option<Place>,
    #[serde(default)]
    pub secret: SecretEncoding,
    /// As Twilio does it: a body that isn't a form is signed by its SHA-256 in the query parameter `bodySHA256`, and the URL
    /// may be signed with its port or without.
    #[serde(default)]
    pub twilio: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    Sha1,
    #[default]
    Sha256,
    Sha512,
}

impl Algorithm {
    fn of_ring(self) -> hmac::Algorithm {
        match self {
            Algorithm::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::Sha256 => hmac::HMAC_SHA256,
            Algorithm::Sha512 => hmac::HMAC_SHA512,
        }
    }

    const fn name_in_front(self) -> &'static str {
        match self {
            Algorithm::Sha1 => "sha1=",
            Algorithm::Sha256 => "sha256=",
            Algorithm::Sha512 => "sha512=",
        }
    }
}

/// A key with HMAC's first block done. Prints nothing of itself.
#[derive(Clone)]
pub(super) struct Key(hmac::Key);

impl Key {
    pub(super) fn new(algorithm: Algorithm, bytes: &[u8]) -> Key {
        Key(hmac::Key::new(algorithm.of_ring(), bytes))
    }

    pub(super) fn context(&self) -> hmac::Context {
        hmac::Context::with_key(&self.0)
    }

    /// Whether any of the candidates is the tag of what `feed` feeds; all are looked at.
    pub(super) fn fits(
        &self,
        candidates: &Candidates,
        feed: impl FnOnce(&mut hmac::Context),
    ) -> Choice {
        let mut context = self.context();
        feed(&mut context);
        let tag = context.sign();
        let one = |found: Choice, candidate: &[u8]| found | tag.as_ref().ct_eq(candidate);
        candidates.iter().fold(Choice::from(0), one)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

#[derive(Debug, Clone)]
pub(super) struct Keys {
    scheme: HmacScheme,
    keys: Vec<Key>,
}

impl Keys {
    pub(super) fn new(scheme: &HmacScheme, secrets: &[&Secret]) -> Keys {
        let key = |secret: &&Secret| {
            let bytes = scheme.secret.key(secret)?;
            Some(Key::new(scheme.algorithm, &bytes))
        };
        Keys {
            scheme: scheme.clone(),
            keys: secrets.iter().filter_map(key).collect(),
        }
    }

    /// The place of the key that verified.
    pub(super) fn verify(&self, event: &EventView<'_>, now: Timestamp) -> Result<usize, Refused> {
        let scheme = &self.scheme;
        let (candidates, mut signed) = scheme.read(event, now)?;
        if scheme.twilio && has_signed_hash(event)? {
            signed.without_form();
        }
        let base = Base::of(event.public_url);
        self.judge(&candidates, &signed, base)
            .or_else(|| match scheme.twilio {
                true => self.judge(&candidates, &signed, base.other_port()?),
                false => None,
            })
            .ok_or(Refused::SignatureMismatch)
    }

    /// `None`: more than one place of what is signed, or a value that is read, is in the body.
    pub(super) fn begin(
        &self,
        event: &EventView<'_>,
        now: Timestamp,
    ) -> Option<Result<Begun, Refused>> {
        let scheme = &self.scheme;
        let (before, behind) = scheme.around_the_body()?;
        let begin = || {
            let (candidates, signed) = scheme.read(event, now)?;
            let part = |pieces| {
                let mut bytes = Vec::new();
                let base = Base::of(event.public_url);
                signed.each(pieces, base, |part| bytes.extend_from_slice(part));
                bytes
            };
            let tally = Tally::new(&self.keys, candidates, &part(before), part(behind));
            Ok(Begun::Tally(Box::new(tally)))
        };
        Some(begin())
    }

    /// Every key against every candidate, without stopping at the first that fits.
    fn judge(
        &self,
        candidates: &Candidates,
        signed: &Signed<'_, '_>,
        base: Base<'_>,
    ) -> Option<usize> {
        let mut verified = None;
        for (place, key) in self.keys.iter().enumerate() {
            let fits = key.fits(candidates, |context| {
                signed.each(&self.scheme.content, base, |part| context.update(part));
            });
            if bool::from(fits) {
                verified = verified.or(Some(place));
            }
        }
        verified
    }

    /// In hexadecimal, by the key at this place.
    pub(super) fn sign(&self, key: usize, text: &[u8]) -> Option<String> {
        let key = self.keys.get(key)?;
        Some(hex::encode(hmac::sign(&key.0, text).as_ref()))
    }
}

impl HmacScheme {
    /// The signatures, and what else of the request is signed beside its body; a time that is too far from now is refused.
    fn read<'e, 'v>(
        &self,
        event: &'e EventView<'v>,
        now: Timestamp,
    ) -> Result<(Candidates, Signed<'e, 'v>), Refused> {
        let candidates = self.candidates(event)?;
        let (timestamp, id) = (self.timestamp.as_ref(), self.id.as_ref());
        let signed = Signed::read(&self.content, timestamp, id, event, now)?;
        match candidates.is_empty() {
            true => Err(Refused::SignatureMalformed),
            false => Ok((candidates, signed)),
        }
    }

    /// What is signed before the body and behind it, if nothing else is in the body.
    fn around_the_body(&self) -> Option<(&[Piece], &[Piece])> {
        let places = self
            .signatures
            .iter()
            .chain(self.timestamp.as_ref().map(|timestamp| &timestamp.at))
            .chain(&self.id);
        let in_the_body = places
            .into_iter()
            .any(|place| matches!(place, Place::Field(_)));
        let at = self
            .content
            .iter()
            .position(|piece| *piece == Piece::Body)?;
        let (before, behind) = (&self.content[..at], &self.content[at + 1..]);
        let again = self.content.contains(&Piece::Form) || behind.contains(&Piece::Body);
        (!in_the_body && !again && !self.twilio).then_some((before, behind))
    }

    /// What could be decoded; the error: there is nothing to decode.
    fn candidates(&self, event: &EventView<'_>) -> Result<Candidates, Refused> {
        let length = self.algorithm.of_ring().digest_algorithm().output_len();
        let mut candidates = Candidates::new(length);
        let mut there = false;
        for place in &self.signatures {
            match place {
                Place::Header(name) => {
                    for value in event.headers.get_all(name) {
                        there = true;
                        let value = header::text(value);
                        self.add(value, &mut candidates);
                        // Neither encoding has a comma or a space, so either can only stand between two signatures.
                        if value.contains([',', ' ']) {
                            value
                                .split([',', ' '])
                                .for_each(|one| self.add(one, &mut candidates));
                        }
                    }
                }
                Place::Pair { header, key } => {
                    for value in event.headers.get_all(header) {
                        there = true;
                        for (_, one) in
                            header::pairs(header::text(value)).filter(|(name, _)| name == key)
                        {
                            self.add(one, &mut candidates);
                        }
                    }
                }
                Place::Field(_) | Place::Query(_) => {
                    if let Some(value) = place.read(event) {
                        there = true;
                        self.add(&value, &mut candidates);
                    }
                }
            }
        }
        match there {
            true => Ok(candidates),
            false => Err(Refused::SignatureMissing),
        }
    }

    fn add(&self, signature: &str, candidates: &mut Candidates) {
        let signature = signature.trim();
        let encoded = match self.prefix.as_str() {
            "" => signature
                .strip_prefix(self.algorithm.name_in_front())
                .unwrap_or(signature),
            prefix => match signature.strip_prefix(prefix) {
                Some(encoded) => encoded,
                None => return,
            },
        };
        // The longest tag and what base64 may write beyond it.
        let mut buffer = [0; LONGEST_TAG + 2];
        let Some(decoded) = self.encoding.decode(encoded, &mut buffer) else {
            return;
        };
        candidates.add(|place| {
            place.get_mut(..decoded.len())?.copy_from_slice(decoded);
            Some(decoded.len())
        });
    }
}

/// A body that isn't a form isn't a part of what Twilio signs; its hash in the signed URL is. Whether there is one: it is
/// that of the body then.
fn has_signed_hash(event: &EventView<'_>) -> Result<bool, Refused> {
    let hash = Place::Query("bodySHA256".to_owned());
    let Some(written) = hash.read(event) else {
        return match event.body.is_empty() || is_form(event) {
            true => Ok(false),
            false => Err(Refused::SignatureMissing),
        };
    };
    let mut buffer = [0; 32];
    let digest = digest::digest(&digest::SHA256, event.body);
    match Encoding::Hex.decode(&written, &mut buffer) {
        Some(expected) if bool::from(digest.as_ref().ct_eq(expected)) => Ok(true),
        Some(_) => Err(Refused::SignatureMismatch),
        None => Err(Refused::SignatureMalformed),
    }
}
